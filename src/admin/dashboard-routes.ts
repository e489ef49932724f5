import type { FastifyInstance } from 'fastify'
import type { Clock } from '../lib/clock.ts'
import type { CredentialStatus, PoolStatus } from '../pool/lease.ts'
import type { AdminBackend } from './backend.ts'
import { type CredentialQuery, readCredentialQuery, type STATES } from './credential-query.ts'
import { formatCredential } from './format.ts'
import { AdminError } from './problem.ts'
import { type Query, readTime } from './query.ts'

/** Ten thousand credentials take some 40 ms to describe; whoever pages through them looks at one description. */
const DESCRIBED_MS = 2000

type States = Record<(typeof STATES)[number], number>

/** What the dashboard and `status --watch` read beside the API proper: pages of credentials, egresses, the last hour. */
export function addDashboardRoutes(
  server: FastifyInstance,
  backend: AdminBackend,
  clock: Clock,
): void {
  const described = new Descriptions(backend, clock)

  server.get<{ Params: { name: string } }>('/api/pools/:name/credentials', (request) => {
    const query = readCredentialQuery(request.query as Query)
    const all = described.of(request.params.name)
    if (!all) throw new AdminError('NOT_FOUND', 'no such pool')
    const found = all.filter((credential) => matches(credential, query))
    if (query.sort !== 'configured') found.sort(ORDERS[query.sort])
    const page = found.slice(query.offset, query.offset + query.limit)
    return {
      total: found.length,
      offset: query.offset,
      credentials: page.map((each) => formatCredential(each, backend.egressAddress(each.egress))),
    }
  })
  server.get<{ Params: { name: string; id: string } }>(
    '/api/pools/:name/credentials/:id',
    (request) => {
      const { name, id } = request.params
      const status = described.of(name)?.find((credential) => credential.id === id)
      if (!status) throw new AdminError('NOT_FOUND', 'no such credential')
      return formatCredential(status, backend.egressAddress(status.egress))
    },
  )
  server.get('/api/egresses', () => {
    const counts = countByEgress(backend.pools(), described)
    return {
      egresses: backend.egresses().map(({ name, up }) => formatEgress(backend, name, up, counts)),
    }
  })
  server.get('/api/history', (request) => {
    const since = readTime(request.query as Query, 'since')
    const { end, ...view } = backend.history.read(since)
    return { ...view, end: new Date(end).toISOString() }
  })
  server.get('/api/activity', () => ({
    activity: backend.activity.latest().map(({ seq, event, data }) => ({ seq, event, ...data })),
  }))
}

function matches(credential: CredentialStatus, query: CredentialQuery): boolean {
  return (
    (query.state === undefined || credential.state === query.state) &&
    (query.egress === undefined || credential.egress === query.egress) &&
    (query.search === undefined || textOf(credential).includes(query.search))
  )
}

const textOf = ({ id, subject, egress, lastError }: CredentialStatus) =>
  `${id}\n${subject ?? ''}\n${egress}\n${lastError ?? ''}`.toLowerCase()

const TROUBLE = { revoked: 0, quarantined: 1, cooling: 2, pending: 3, active: 4 } as const

/** Ways to order credentials; ties keep the configuration's order. */
const ORDERS = {
  trouble: (a: CredentialStatus, b: CredentialStatus) => TROUBLE[a.state] - TROUBLE[b.state],
  expiry: (a: CredentialStatus, b: CredentialStatus) =>
    (a.expiresAt ?? Number.MAX_VALUE) - (b.expiresAt ?? Number.MAX_VALUE),
  uses: (a: CredentialStatus, b: CredentialStatus) => b.uses - a.uses,
  id: (a: CredentialStatus, b: CredentialStatus) => (a.id < b.id ? -1 : 1),
} satisfies Record<Exclude<CredentialQuery['sort'], 'configured'>, unknown>

type EgressCounts = Map<string, Map<string, States>>

/** Egress → pool → how many credentials are in which state. */
function countByEgress(pools: readonly PoolStatus[], described: Descriptions): EgressCounts {
  const counts: EgressCounts = new Map()
  for (const { name } of pools) {
    for (const { egress, state } of described.of(name) ?? []) {
      const byPool = counts.get(egress) ?? new Map<string, States>()
      counts.set(egress, byPool)
      const states = byPool.get(name) ?? {
        active: 0,
        cooling: 0,
        quarantined: 0,
        pending: 0,
        revoked: 0,
      }
      byPool.set(name, states)
      states[state] += 1
    }
  }
  return counts
}

function formatEgress(backend: AdminBackend, name: string, up: boolean, counts: EgressCounts) {
  const drift = backend.activity.drift(name)
  const news = backend.activity.reason(name)
  return {
    name,
    up,
    address: backend.egressAddress(name) ?? null,
    drift: drift ? { ...drift, time: new Date(drift.time).toISOString() } : null,
    reason: news?.reason ?? null,
    since: news ? new Date(news.time).toISOString() : null,
    pools: [...(counts.get(name) ?? [])].map(([pool, states]) => ({ pool, ...states })),
  }
}

/** Each pool's credentials as they were described within the last two seconds; an action forgets them. */
class Descriptions {
  readonly #backend: AdminBackend
  readonly #clock: Clock
  #kept = new Map<string, readonly CredentialStatus[]>()
  #until = 0

  constructor(backend: AdminBackend, clock: Clock) {
    this.#backend = backend
    this.#clock = clock
    const forget = () => {
      this.#until = 0
    }
    // What was just done to a credential must be seen by whoever did it.
    backend.activity.subscribe(forget)
  }

  of(pool: string): readonly CredentialStatus[] | undefined {
    const now = this.#clock.monotonic()
    if (now >= this.#until) {
      this.#kept = new Map()
      this.#until = now + DESCRIBED_MS
    }
    const kept = this.#kept.get(pool)
    if (kept) return kept
    const credentials = this.#backend.pools().find(({ name }) => name === pool)?.credentials
    if (credentials) this.#kept.set(pool, credentials)
    return credentials
  }
}
