import type { PoolConfig, SourceConfig } from '../../src/config/schema.ts'
import { type EventMap, Events } from '../../src/events.ts'
import { type Clock, systemClock } from '../../src/lib/clock.ts'
import { Secret } from '../../src/lib/secret.ts'
import type { Lease, LeaseRequest, Outcome } from '../../src/pool/lease.ts'
import { Pool } from '../../src/pool/pool.ts'
import type { Source, SourceContext } from '../../src/sources/source.ts'
import { openStore } from '../../src/store/open.ts'
import type { Store } from '../../src/store/store.ts'
import type { TokenSet } from '../../src/token/token.ts'

export const STORE_KEY = new Secret(Buffer.alloc(32, 7).toString('base64'))

/** The machine's clock, wrong by so much on the wall, and begun at another time. */
export function skewedClock(skewMs: number): Clock {
  return {
    now: () => systemClock.now() + skewMs,
    monotonic: () => systemClock.monotonic() + Math.abs(skewMs) * 3,
    schedule: (ms, callback) => systemClock.schedule(ms, callback),
  }
}

/** A token endpoint that all instances ask: refresh tokens work once. */
export class RotatingEndpoint {
  asked = 0
  /** How many times a refresh token came that had been used. */
  reused = 0
  running = 0
  atOnce = 0
  lifetimeMs: number | undefined = 3_600_000
  /** Waits, or throws. */
  script: (context: SourceContext) => Promise<void> = async () => {}
  readonly #used = new Set<string>()

  source(config: SourceConfig, clock: Clock): Source {
    return {
      renewable: config.type !== 'static',
      obtain: (previous, context) => this.#obtain(config, clock, previous, context),
    }
  }

  async #obtain(
    config: SourceConfig,
    clock: Clock,
    previous: TokenSet | undefined,
    context: SourceContext,
  ): Promise<TokenSet> {
    if (config.type === 'static') return { token: config.token, issuedAt: clock.now() }
    const presented = previous?.refreshToken?.reveal() ?? 'first'
    const number = ++this.asked
    this.running += 1
    this.atOnce = Math.max(this.atOnce, this.running)
    try {
      if (this.#used.has(presented)) this.reused += 1
      this.#used.add(presented)
      await this.script(context)
    } finally {
      this.running -= 1
    }
    const issuedAt = clock.now()
    return {
      token: new Secret(`token-${number}`),
      refreshToken: new Secret(`refresh-${number}`),
      issuedAt,
      expiresAt: this.lifetimeMs === undefined ? undefined : issuedAt + this.lifetimeMs,
    }
  }
}

/** One of several instances of a pool on one shared store. */
export class SharedInstance implements AsyncDisposable {
  readonly pool: Pool
  readonly store: Store
  readonly clock: Clock
  readonly changes: EventMap['credential'][0][]
  readonly logged: string[]

  private constructor(
    parts: Pick<SharedInstance, 'pool' | 'store' | 'clock' | 'changes' | 'logged'>,
  ) {
    this.pool = parts.pool
    this.store = parts.store
    this.clock = parts.clock
    this.changes = parts.changes
    this.logged = parts.logged
  }

  static async open(
    url: string,
    config: PoolConfig,
    endpoint: RotatingEndpoint,
    skewMs = 0,
  ): Promise<SharedInstance> {
    const clock = skewedClock(skewMs)
    const store = await openStore(url, { key: STORE_KEY, clock })
    const events = new Events()
    const changes: EventMap['credential'][0][] = []
    events.on('credential', (change) => changes.push(change))
    const logged: string[] = []
    const pool = await Pool.open({
      name: 'api',
      config,
      clock,
      store,
      events,
      createSource: (source) => endpoint.source(source, clock),
      fingerprint: (source) => source.type,
      fetchFor: () => () => Promise.reject(new Error('no source of these tests fetches')),
      log: {
        warn: (_fields, message) => logged.push(message),
        error: (_fields, message) => logged.push(message),
      },
    })
    return new SharedInstance({ pool, store, clock, changes, logged })
  }

  get(request: LeaseRequest = {}, signal = new AbortController().signal): Promise<Lease> {
    return this.pool.wait(request, { signal })
  }

  /** A whole request. */
  async send(outcome: Outcome = { kind: 'ok' }, request: LeaseRequest = {}): Promise<Lease> {
    const lease = await this.get(request)
    lease.dispatched()
    this.pool.settle(lease, outcome)
    return lease
  }

  /** Renews; a wait for what another instance brings may have to end first. */
  async renew(id = 'a'): Promise<void> {
    const { generation } = this.credential(id)
    while (this.credential(id).generation === generation) await this.pool.refresh(id)
  }

  credential(id = 'a') {
    const found = this.pool.status().credentials.find((each) => each.id === id)
    if (!found) throw new Error(`no credential ${id}`)
    return found
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.pool.close()
    await this.store.close()
  }
}
