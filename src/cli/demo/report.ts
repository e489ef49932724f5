import type { ApiCount } from './servers.ts'
import type { Issue } from './token-book.ts'

/** What the clients, the API and the token endpoint counted, each for itself; and the proxy's own ratio. */
export interface Facts {
  readonly seconds: number
  readonly clients: {
    readonly sent: number
    readonly ok: number
    readonly unauthorized: number
    readonly other: number
  }
  readonly api: ApiCount
  readonly endpoint: { readonly calls: number; readonly issued: number; readonly reused: number }
  readonly issues: readonly Issue[]
  readonly revocation: {
    readonly refused: number
    readonly healed: number
    readonly renewals: number
    readonly clients: number
    readonly clientsOk: number
  }
  readonly accounts: readonly {
    readonly id: string
    readonly egress: string
    readonly address: string
    readonly seenFrom: readonly string[]
  }[]
  readonly authOverhead: number
}

/** One promise of the product, held against the facts. */
export interface Check {
  readonly name: string
  readonly ok: boolean
  readonly text: string
}

/** Refreshes per request that the product stays below. */
const MAX_OVERHEAD = 0.05

/** Holds every promise against what was counted; nothing here rests on the proxy's word alone. */
export function judge(facts: Facts): Check[] {
  const { clients, api, endpoint, issues, revocation, accounts, authOverhead } = facts
  const on = (occasion: Issue['occasion']) => issues.filter((issue) => issue.occasion === occasion)
  const ahead = on('ahead')
  const leads = ahead.map(({ leftMs }) => leftMs / 1000)
  const everyAccountAhead = accounts.every(({ id }) => ahead.some(({ account }) => account === id))
  const strayed = accounts.filter(
    ({ address, seenFrom }) => seenFrom.length !== 1 || seenFrom[0] !== address,
  )
  // One renewal may have been under way while the two were read.
  const counted = endpoint.calls / api.requests
  const agrees = Math.abs(counted - authOverhead) <= 1.5 / api.requests

  return [
    {
      name: 'answered',
      ok: clients.sent > 0 && clients.ok === clients.sent && api.ok === clients.sent,
      text: `${clients.ok} of ${clients.sent} requests answered 200 (the API counts ${api.ok})`,
    },
    {
      name: 'no 401 seen',
      ok: clients.unauthorized === 0,
      text: `${clients.unauthorized} × 401 at the clients`,
    },
    {
      name: 'injected',
      ok: api.refused.unknown === 0,
      text: `${api.requests - api.refused.unknown} of ${api.requests} requests reached the API with one of its tokens; curl sent none`,
    },
    {
      name: 'renewed ahead',
      ok: everyAccountAhead && on('late').length === 0 && api.refused.expired === 0,
      text:
        `${ahead.length} tokens renewed ahead of their end` +
        (leads.length > 0 ? `, ${Math.min(...leads).toFixed(1)} s before it at the latest` : '') +
        `; ${api.refused.expired} expired ones reached the API`,
    },
    {
      name: '401 replayed',
      ok:
        revocation.refused > 0 &&
        revocation.healed >= 1 &&
        api.healed === api.refused.revoked &&
        revocation.renewals === 1 &&
        revocation.clientsOk === revocation.clients,
      text:
        `a token revoked by force: ${api.refused.revoked} × 401 at the API, ${revocation.renewals} renewal, ` +
        `${api.healed} replayed to a 200, ${revocation.clientsOk} of ${revocation.clients} clients content`,
    },
    {
      name: 'pins kept',
      ok: accounts.length > 0 && strayed.length === 0,
      text: `each token seen only from its own egress: ${accounts
        .map(({ id, seenFrom }) => `${id} ${seenFrom.join(' and ') || 'nowhere'}`)
        .join(', ')}`,
    },
    {
      name: 'rotation kept',
      ok: endpoint.reused === 0 && endpoint.issued === endpoint.calls,
      text: `${endpoint.issued} tokens issued in ${endpoint.calls} calls, ${endpoint.reused} refresh tokens used twice`,
    },
    {
      name: 'overhead low',
      ok: authOverhead < MAX_OVERHEAD && agrees,
      text:
        `auth overhead ${percent(authOverhead)} by the admin API, ${percent(counted)} by the servers; ` +
        `below ${percent(MAX_OVERHEAD)} is the aim`,
    },
  ]
}

/** The same for programs. */
export function summarize(facts: Facts, checks: readonly Check[]) {
  const ahead = facts.issues.filter(({ occasion }) => occasion === 'ahead')
  return {
    ok: checks.every((check) => check.ok),
    seconds: Math.round(facts.seconds * 10) / 10,
    requests: facts.clients,
    api: facts.api,
    tokens: {
      ...facts.endpoint,
      renewedAhead: ahead.length,
      shortestLeadSeconds: Math.min(...ahead.map(({ leftMs }) => leftMs / 1000)),
    },
    revocation: facts.revocation,
    accounts: facts.accounts,
    authOverhead: facts.authOverhead,
    checks: checks.map(({ name, ok }) => ({ name, ok })),
  }
}

function percent(ratio: number): string {
  return `${(ratio * 100).toFixed(1)} %`
}
