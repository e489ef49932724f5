import type { PoolConfig } from '../config/schema.ts'
import type { Clock } from '../lib/clock.ts'
import type { Credential } from './credential.ts'
import type { CredentialStatus, PoolStatus } from './lease.ts'

const SECONDS = 60

/** Counts requests: in all, and over the last minute in a ring of seconds. */
export class Meter {
  readonly #ring = new Uint32Array(SECONDS)
  #second = 0
  #total = 0

  get total(): number {
    return this.#total
  }

  count(now: number): void {
    this.#turn(now)
    const index = this.#second % SECONDS
    this.#ring[index] = (this.#ring[index] as number) + 1
    this.#total += 1
  }

  lastMinute(now: number): number {
    this.#turn(now)
    return this.#ring.reduce((sum, count) => sum + count, 0)
  }

  /** Empties the seconds that have passed since. */
  #turn(now: number): void {
    const second = Math.floor(now / 1000)
    if (second === this.#second) return
    if (second - this.#second >= SECONDS) this.#ring.fill(0)
    else for (let at = this.#second + 1; at <= second; at++) this.#ring[at % SECONDS] = 0
    this.#second = second
  }
}

/** Where a pool and its credentials stand. These are described when they are asked for: most ask for sums only. */
export function describePool(facts: {
  name: string
  config: PoolConfig
  clock: Clock
  credentials: Iterable<Credential>
  meter: Meter
  refreshes: { tries: number; successes: number }
  waiting: number
  /** Why the other instances cannot be heard, or what is not stored. */
  trouble: string | undefined
}): PoolStatus {
  const { clock, meter, refreshes, trouble } = facts
  const now = clock.monotonic()
  const all = [...facts.credentials]
  let credentials: readonly CredentialStatus[] | undefined
  const tokens = { active: 0, cooling: 0, quarantined: 0, pending: 0, revoked: 0 }
  let ttl = 0
  let ending = 0
  for (const credential of all) {
    const state = credential.state(now)
    const expiresAt = credential.expectedEnd
    tokens[state] += 1
    if (expiresAt === undefined || (state !== 'active' && state !== 'cooling')) continue
    ttl += Math.max(0, expiresAt - clock.now())
    ending += 1
  }
  const { active } = tokens
  return {
    name: facts.name,
    targets: facts.config.targets,
    status: active === 0 ? 'exhausted' : active < all.length || trouble ? 'degraded' : 'healthy',
    trouble,
    tokens,
    avgTtlRemainingSeconds: ending > 0 ? ttl / ending / 1000 : undefined,
    refreshSuccessRate: refreshes.tries > 0 ? refreshes.successes / refreshes.tries : undefined,
    requestsPerTokenPerMinute: meter.lastMinute(now) / Math.max(1, active),
    authOverhead: meter.total > 0 ? refreshes.tries / meter.total : 0,
    waiting: facts.waiting,
    get credentials() {
      credentials ??= all.map((credential) => describe(credential, now))
      return credentials
    },
  }
}

function describe(credential: Credential, now: number): CredentialStatus {
  const { token, limits, settings } = credential
  const { refreshAt, until } = credential.times(now)
  return {
    id: credential.id,
    state: credential.state(now),
    egress: settings.lane.name,
    generation: credential.generation,
    subject: token?.subject,
    scopes: token?.scopes,
    issuedAt: token?.issuedAt,
    expiresAt: credential.expectedEnd,
    lifetime: credential.lifetime,
    refreshAt,
    uses: limits.uses,
    inFlight: limits.inFlight,
    limits: limits.describe(now),
    cooldownUntil: until,
    lastError: credential.lastError,
  }
}
