import type { CredentialConfig, LimitsConfig, PoolConfig, SourceConfig } from '../config/schema.ts'
import type { Clock } from '../lib/clock.ts'
import type { PinnedConnect, PinnedFetch, Source, SourceVars } from '../sources/source.ts'
import type { CredentialRecord, UsageRecord } from '../store/store.ts'
import { DpopKey } from '../token/dpop.ts'
import { readToken } from '../token/jwt.ts'
import type { TokenSet } from '../token/token.ts'
import { Credential } from './credential.ts'
import type { Lane } from './lane.ts'
import { type Limits, mergeLimits } from './limits.ts'
import { pinnedEgress } from './pin.ts'
import type { CredentialSettings } from './settings.ts'

type Stored = Map<string, { record: CredentialRecord; usage: UsageRecord | undefined }>

interface Making {
  readonly pool: string
  readonly config: PoolConfig
  readonly clock: Clock
  readonly random: () => number
  readonly createSource: (config: SourceConfig, options: { vars: SourceVars | undefined }) => Source
  /** Of each credential's source, by id. */
  readonly fingerprints: ReadonlyMap<string, string>
  readonly hostOf: (config: SourceConfig) => string | undefined
  readonly fetchFor: (egress: string, key: string) => PinnedFetch
  readonly connectFor?: ((egress: string) => PinnedConnect) | undefined
  readonly laneFor: (egress: string) => Lane
  readonly limitsFor: (config: LimitsConfig) => Limits
}

/**
 * The credentials of a configuration, in its order. One that is there with the same source is kept as it
 * is, with new settings; any other is made from what the store holds. `moved` are those whose pin has changed.
 */
export function callRoll(
  making: Making,
  present: ReadonlyMap<string, Credential>,
  stored: Stored,
): { roll: Map<string, Credential>; moved: Credential[] } {
  const roll = new Map<string, Credential>()
  const moved: Credential[] = []
  const updates: (() => void)[] = []
  for (const [index, config] of making.config.credentials.entries()) {
    const fingerprint = making.fingerprints.get(config.id) as string
    const known = present.get(config.id)
    const kept = known?.fingerprint === fingerprint ? known : undefined
    const pinned = known?.settings.lane.name ?? stored.get(config.id)?.record.egress
    const settings = settingsFor(making, config, index, pinned)
    const limits = mergeLimits(making.config.limits, config.limits)
    if (kept) {
      updates.push(() => {
        kept.settings = settings
        kept.limits.configure(limits)
        kept.alignClock()
      })
    }
    const credential =
      kept ?? create(making, config, fingerprint, settings, making.limitsFor(limits), stored, known)
    roll.set(config.id, credential)
    if (pinned !== undefined && pinned !== settings.lane.name) moved.push(credential)
  }
  // Only now, when nothing can fail any more: a refused configuration leaves no trace.
  for (const update of updates) update()
  return { roll, moved }
}

function create(
  { clock, random, createSource }: Making,
  config: CredentialConfig,
  fingerprint: string,
  settings: CredentialSettings,
  limits: Limits,
  stored: Stored,
  former: Credential | undefined,
): Credential {
  const source = createSource(config.source, { vars: config.vars })
  const credential = new Credential({ id: config.id, fingerprint, source, limits, clock, settings })
  const now = clock.monotonic()
  const { record, usage: past } = stored.get(config.id) ?? {}
  const usage = former?.limits.write(former.generation, false, now, clock.now()) ?? past
  const same = record?.fingerprint === fingerprint
  if (record && same) credential.restore(record, tokenOf(record), random())
  // A changed source starts afresh, but its generations go on: the store refuses lower ones.
  credential.continueFrom(Math.max(record?.generation ?? 0, former?.generation ?? 0))
  if (usage) {
    const sameToken = same && usage.generation === record?.generation
    limits.restore(usage, sameToken, now, clock.now())
    if (sameToken && limits.usedUp) credential.useUp()
  }
  return credential
}

function settingsFor(
  { pool, config, hostOf, fetchFor, connectFor, laneFor }: Making,
  credential: CredentialConfig,
  index: number,
  pinned: string | undefined,
): CredentialSettings {
  const key = `${pool}/${credential.id}`
  const egress = pinnedEgress(key, credential.egress, pinned, config.egress)
  const profile = mergeHeaders(config.headers, credential.headers)
  return {
    key,
    host: hostOf(credential.source),
    sharing: sharingOf(credential.source),
    index,
    lane: laneFor(egress),
    headers: profile,
    policy: { ahead: config.refresh.ahead, floorMs: config.refresh.floor },
    fetch: withProfile(fetchFor(egress, key), profile),
    connect: connectFor?.(egress),
  }
}

/** How instances that share a store may use a source, its refresh tokens aside. */
function sharingOf(source: SourceConfig): CredentialSettings['sharing'] {
  if (source.type === 'static' || source.type === 'file') return 'free'
  if (source.type !== 'oauth2') return 'in-turn'
  if ('refreshToken' in source && source.refreshToken !== undefined) return 'once'
  return source.grant === 'client_credentials' || source.grant === 'jwt_bearer' ? 'free' : 'in-turn'
}

/** Of a profile these are meant for the targets: a login has its own, and a refresh must not carry the old ones. */
const CREDENTIAL_FIELDS = new Set(['authorization', 'cookie'])

/** A refresh looks like the traffic: it has the profile's headers, but where the source sets them itself. */
function withProfile(fetch: PinnedFetch, profile: readonly string[]): PinnedFetch {
  if (profile.length === 0) return fetch
  return (url, init) => {
    const headers = new Headers(init?.headers)
    for (let i = 0; i < profile.length; i += 2) {
      const name = profile[i] as string
      if (headers.has(name) || CREDENTIAL_FIELDS.has(name.toLowerCase())) continue
      headers.set(name, profile[i + 1] as string)
    }
    return fetch(url, { ...init, headers })
  }
}

/** Flat `[name, value, …]`; a credential's own header replaces the pool's of that name. */
function mergeHeaders(
  pool: Readonly<Record<string, string>> | undefined,
  own: Readonly<Record<string, string>> | undefined,
): string[] {
  const merged = new Map<string, [string, string]>()
  for (const headers of [pool, own]) {
    for (const [name, value] of Object.entries(headers ?? {})) {
      merged.set(name.toLowerCase(), [name, value])
    }
  }
  return [...merged.values()].flat()
}

/** The token of a record; claims are not stored, they are read from the token again. */
export function tokenOf(record: CredentialRecord): TokenSet | undefined {
  const { token, refreshToken, issuedAt, expiresAt, subject, scopes } = record
  if (!token) return undefined
  const dpopKey = record.dpopKey && DpopKey.read(record.dpopKey)
  const read = readToken(token.reveal(), { receivedAt: issuedAt ?? 0 })
  return {
    token,
    refreshToken,
    dpopKey,
    renewal: record.renewal,
    issuedAt: issuedAt ?? 0,
    expiresAt,
    lifetime: read.lifetime ?? (expiresAt === undefined ? undefined : 'expires_in'),
    notBefore: read.notBefore,
    subject,
    scopes,
    claims: read.claims,
    keyId: read.keyId,
  }
}
