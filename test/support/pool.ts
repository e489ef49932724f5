import { configSchema, type PoolConfig, type SourceConfig } from '../../src/config/schema.ts'
import { type EventMap, Events } from '../../src/events.ts'
import { Secret } from '../../src/lib/secret.ts'
import type { Lease, LeaseRequest, Outcome } from '../../src/pool/lease.ts'
import { Pool, type PoolOptions } from '../../src/pool/pool.ts'
import type { PinnedFetch, Source, SourceContext } from '../../src/sources/source.ts'
import { MemoryStore } from '../../src/store/memory.ts'
import type { Store } from '../../src/store/store.ts'
import type { TokenSet } from '../../src/token/token.ts'
import { ManualClock } from './manual-clock.ts'

/** A source under the test's hand: counts what is asked of it and answers by script. */
export class ScriptedSource implements Source {
  readonly renewable: boolean
  readonly name: string
  readonly clock: ManualClock
  obtained = 0
  running = 0
  lifetimeMs: number | undefined = 3_600_000
  scopes: string[] | undefined
  last: TokenSet | undefined
  changed: (() => void) | undefined
  watch?: NonNullable<Source['watch']>
  /** Throws, waits, or gives facts that replace the usual ones. */
  script: (
    context: SourceContext,
    previous: TokenSet | undefined,
  ) => Promise<Partial<TokenSet> | undefined> = async () => undefined

  constructor(name: string, renewable: boolean, clock: ManualClock) {
    this.name = name
    this.renewable = renewable
    this.clock = clock
  }

  async obtain(previous: TokenSet | undefined, context: SourceContext): Promise<TokenSet> {
    this.obtained += 1
    const count = this.obtained
    this.running += 1
    try {
      const facts = await this.script(context, previous)
      const issuedAt = this.clock.now()
      this.last = {
        token: new Secret(`${this.name}-${count}`),
        refreshToken: this.renewable ? new Secret(`refresh-${this.name}-${count}`) : undefined,
        issuedAt,
        expiresAt: this.lifetimeMs === undefined ? undefined : issuedAt + this.lifetimeMs,
        scopes: this.scopes,
        ...facts,
      }
      return this.last
    } finally {
      this.running -= 1
    }
  }

  /** From now on a pool watches it; `changed` says that there is something new. */
  beWatched(): void {
    this.watch = (changed) => {
      this.changed = changed
      return () => {
        this.changed = undefined
      }
    }
  }
}

/** A promise that the test ends. */
export function gate<Value = void>(): {
  promise: Promise<Value>
  open: (value: Value) => void
  fail: (error: unknown) => void
} {
  let open: (value: Value) => void = () => {}
  let fail: (error: unknown) => void = () => {}
  const promise = new Promise<Value>((resolve, reject) => {
    open = resolve
    fail = reject
  })
  return { promise, open, fail }
}

/** A credential's configuration: renewable unless it is `static`. */
export function credential(id: string, rest: Record<string, unknown> = {}): object {
  const oauth2 = {
    type: 'oauth2',
    grant: 'client_credentials',
    tokenUrl: 'https://auth.example/token',
    clientId: id,
    clientSecret: 'secret',
  }
  return { id, source: oauth2, ...rest }
}

/** One whose source gives one token and no other. */
export function fixed(id: string, rest: Record<string, unknown> = {}): object {
  return { id, source: { type: 'static', token: id }, ...rest }
}

/** A pool's configuration as the schema makes it. */
export function poolConfig(credentials: object[], rest: Record<string, unknown> = {}): PoolConfig {
  const pool = { targets: ['api.example'], credentials, ...rest }
  return configSchema.parse({ pools: { api: pool } }).pools.api as PoolConfig
}

/** A pool on a clock moved by hand, over scripted sources. */
export class TestPool implements AsyncDisposable {
  readonly clock: ManualClock
  readonly store: Store
  readonly events = new Events()
  readonly changes: EventMap['credential'][0][] = []
  readonly refreshes: EventMap['refresh'][0][] = []
  readonly sources = new Map<string, ScriptedSource>()
  readonly logged: string[] = []
  /** The jitter; none by default. */
  random = () => 0
  readonly #crashed: boolean
  #pool: Pool | undefined

  private constructor(options: { clock?: ManualClock; store?: Store; crashes?: boolean }) {
    this.clock = options.clock ?? new ManualClock()
    this.store = options.store ?? new MemoryStore()
    this.#crashed = options.crashes ?? false
    this.events.on('credential', (change) => this.changes.push(change))
    this.events.on('refresh', (outcome) => this.refreshes.push(outcome))
  }

  /** `cold` leaves the first tokens to be got when the clock moves; `crashes` never closes. */
  static async open(
    config: PoolConfig,
    options: {
      clock?: ManualClock
      store?: Store
      cold?: boolean
      crashes?: boolean
      prepare?: (source: ScriptedSource) => void
      fetch?: PinnedFetch
    } & Partial<Pick<PoolOptions, 'turns' | 'hostOf' | 'held'>> = {},
  ): Promise<TestPool> {
    const test = new TestPool(options)
    test.#pool = await Pool.open({
      name: 'api',
      config,
      clock: test.clock,
      store: test.store,
      events: test.events,
      createSource: (source) => {
        const name = nameOf(source)
        const scripted = new ScriptedSource(name, source.type !== 'static', test.clock)
        options.prepare?.(scripted)
        test.sources.set(name, scripted)
        return scripted
      },
      fingerprint: (source) => `${source.type}:${nameOf(source)}`,
      fetchFor: () =>
        options.fetch ?? (() => Promise.reject(new Error('no source of these tests fetches'))),
      ...(options.turns && { turns: options.turns }),
      ...(options.hostOf && { hostOf: options.hostOf }),
      ...(options.held && { held: options.held }),
      random: () => test.random(),
      log: {
        warn: (_fields, message) => test.logged.push(message),
        error: (_fields, message) => test.logged.push(message),
      },
    })
    if (!options.cold) await test.clock.run(0)
    return test
  }

  get pool(): Pool {
    return this.#pool as Pool
  }

  source(id: string): ScriptedSource {
    const source = this.sources.get(id)
    if (!source) throw new Error(`no source ${id}`)
    return source
  }

  lease(request: LeaseRequest = {}): Lease {
    const lease = this.pool.lease(request)
    if (!lease) throw new Error('the request would have to wait')
    return lease
  }

  /** A whole request. */
  send(outcome: Outcome = { kind: 'ok' }, request: LeaseRequest = {}): Lease {
    const lease = this.lease(request)
    lease.dispatched()
    this.pool.settle(lease, outcome)
    return lease
  }

  wait(request: LeaseRequest = {}, signal = new AbortController().signal): Promise<Lease> {
    return this.pool.wait(request, { signal })
  }

  state(id = 'a'): string | undefined {
    return this.credential(id).state
  }

  credential(id = 'a') {
    const found = this.pool.status().credentials.find((each) => each.id === id)
    if (!found) throw new Error(`no credential ${id}`)
    return found
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (!this.#crashed) await this.pool.close()
  }
}

function nameOf(source: SourceConfig): string {
  if (source.type === 'static') return source.token.reveal()
  return source.type === 'oauth2' ? source.clientId : source.type
}
