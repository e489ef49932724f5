import type { PoolConfig, SourceConfig } from '../config/schema.ts'
import { CupbearerError, WireError } from '../errors.ts'
import type { Events } from '../events.ts'
import type { Clock } from '../lib/clock.ts'
import type { PinnedFetch, Source } from '../sources/source.ts'
import type { Store } from '../store/store.ts'
import { Alarm, backOff } from './alarm.ts'
import type { Credential } from './credential.ts'
import { Grant } from './grant.ts'
import { Journal, type PoolLog } from './journal.ts'
import type { Lane } from './lane.ts'
import type { Lease, LeaseRequest, Outcome, PoolStatus, Recovery } from './lease.ts'
import { Queue } from './queue.ts'
import { Refresher, type RefreshResult } from './refresher.ts'
import { callRoll } from './roster.ts'
import type { Want } from './select.ts'
import { describePool, Meter } from './status.ts'
import { Stock } from './stock.ts'

const LIMITED_MS = 1000
const MAX_LIMITED_MS = 60_000
const LANE_REST_MS = 1000
const MAX_LANE_REST_MS = 15_000
/** How often the wall clock is held against the steady one. */
const CLOCK_CHECK_MS = 30_000
const CLOCK_JUMP_MS = 1000

/** What a pool is made of; sources, store and egress come from outside. */
export interface PoolOptions {
  readonly name: string
  readonly config: PoolConfig
  readonly clock: Clock
  readonly store: Store
  readonly events: Events
  readonly createSource: (config: SourceConfig) => Source
  /** Tells a changed source from an unchanged one. */
  readonly fingerprint: (config: SourceConfig) => string
  /** `key` is `pool/id`. */
  readonly fetchFor: (egress: string, key: string) => PinnedFetch
  /** 0 to 1, for jitter. */
  readonly random?: () => number
  readonly log?: PoolLog
}

/**
 * The credentials of one target: gives leases, learns from how they end, keeps tokens fresh.
 * `lease` is synchronous; whoever gets nothing waits in order.
 */
export class Pool {
  readonly name: string
  readonly #options: PoolOptions
  readonly #clock: Clock
  readonly #random: () => number
  readonly #stock: Stock
  readonly #queue = new Queue()
  readonly #meter = new Meter()
  readonly #journal: Journal
  readonly #refresher: Refresher
  readonly #alarm: Alarm
  readonly #watches = new Map<Credential, () => void>()
  #config: PoolConfig
  #clockOffset: number
  #nextClockCheck = 0
  #closed = false

  /** Takes up what the store knows; tokens that are missing are got in the background. */
  static async open(options: PoolOptions): Promise<Pool> {
    const pool = new Pool(options)
    await pool.apply(options.config)
    return pool
  }

  private constructor(options: PoolOptions) {
    const { name, clock, store, events, log } = options
    this.name = name
    this.#options = options
    this.#config = options.config
    this.#clock = clock
    this.#clockOffset = clock.now() - clock.monotonic()
    this.#random = options.random ?? Math.random
    this.#stock = new Stock(name, options.config)
    this.#journal = new Journal(name, store, clock, log)
    this.#alarm = new Alarm(clock, () => this.#tick())
    this.#refresher = new Refresher({
      pool: name,
      clock,
      store,
      journal: this.#journal,
      events,
      log,
      random: this.#random,
      settings: () => ({
        timeout: this.#config.refresh.timeout,
        quarantine: this.#config.quarantine,
      }),
      ended: (credential, result) => this.#refreshed(credential, result),
    })
  }

  /** A lease now, or undefined when the request must wait. Throws `WireError` for a hopeless one. */
  lease(request: LeaseRequest): Lease | undefined {
    if (this.#closed) throw this.#shuttingDown()
    const now = this.#clock.monotonic()
    this.#advance(now)
    const lease = this.#answer(this.#stock.resolve(request, now), now)
    this.#rearm()
    return lease
  }

  /**
   * A lease as soon as there is one, in order of arrival, within `queue.wait`. Rejects with `WireError`
   * (`POOL_EXHAUSTED`, `QUEUE_FULL`, …), or with the signal's reason.
   */
  async wait(request: LeaseRequest, signal: AbortSignal): Promise<Lease> {
    signal.throwIfAborted()
    const lease = this.lease(request)
    if (lease) return lease
    const now = this.#clock.monotonic()
    const want = this.#stock.resolve(request, now)
    const { max, wait } = this.#config.queue
    if (this.#queue.size >= max) {
      throw new WireError('QUEUE_FULL', `${this.#queue.size} requests wait for pool ${this.name}`, {
        retryAfterMs: this.#stock.retryAfter(want, now),
      })
    }
    if (wait <= 0) throw this.#stock.exhausted(want, now)
    const granted = this.#queue.join(want, now + wait, signal)
    this.#rearm()
    return granted
  }

  /** Ends a lease with what was learned; a second time is ignored. */
  settle(lease: Lease, outcome: Outcome): void {
    const grant = ownGrant(lease)
    if (grant.stage === 'settled') return
    const sent = grant.stage === 'dispatched'
    grant.stage = 'settled'
    const credential = grant.owner
    const now = this.#clock.monotonic()
    credential.limits.end(sent)
    this.#learnOfLane(grant, outcome, sent, now)
    const change = this.#learn(grant, outcome, now)
    if (change) this.#changed(credential, change, now)
    else this.#replace(credential, now)
    this.#rearm()
  }

  /** Heals an `expired` answer: renews the token, once for all who ask. Goes on when the caller leaves. */
  async recover(lease: Lease): Promise<Recovery> {
    const { owner: credential, generation } = ownGrant(lease)
    const none = { quarantined: false, reason: undefined, refresh: undefined }
    if (generation < credential.generation) return { ...none, result: 'stale' }
    const now = this.#clock.monotonic()
    if (!credential.gone && !credential.revoked && !credential.quarantined) {
      const early = now - credential.forcedAt < this.#config.refresh.minInterval
      if (this.#refresher.isRunning(credential) || (credential.source.renewable && !early)) {
        return this.#force(credential, now)
      }
      const reason = early
        ? 'upstream refused a token that was just renewed'
        : 'upstream refused the token, and its source gives no other'
      this.#quarantine(credential, reason, now)
    }
    return { ...none, result: 'failed', quarantined: true, reason: credential.lastError }
  }

  /** Rests the credentials of an egress that upstream limits as a whole. */
  coolEgress(egress: string, ms: number, reason: string): void {
    const now = this.#clock.monotonic()
    const until = now + Math.min(ms, this.#config.quarantine.max)
    for (const credential of this.#stock.lane(egress).members) {
      credential.cool(until)
      this.#changed(credential, reason, now)
    }
    this.#rearm()
  }

  status(): PoolStatus {
    this.#advance(this.#clock.monotonic())
    this.#rearm()
    return describePool({
      name: this.name,
      config: this.#config,
      clock: this.#clock,
      credentials: this.#stock.all(),
      meter: this.#meter,
      refreshes: this.#refresher,
      waiting: this.#queue.size,
    })
  }

  /** Whether there is such a credential. */
  has(id: string): boolean {
    return this.#stock.get(id) !== undefined
  }

  /** Renews a token at the operator's wish; rejects when that fails. */
  async refresh(id: string): Promise<void> {
    const credential = this.#known(id)
    if (credential.revoked) {
      throw new CupbearerError('SOURCE_REVOKED', `${this.name}/${id} is revoked: release it first`)
    }
    const result = await this.#refresher.run(credential, 'operator').promise
    if (result.kind === 'ok') return
    throw new CupbearerError(
      result.kind === 'revoked' ? 'SOURCE_REVOKED' : 'SOURCE_FAILED',
      `${this.name}/${id}: ${result.reason}`,
    )
  }

  /** Takes a credential out of the pool for a back-off, at the operator's wish. */
  quarantine(id: string): void {
    const credential = this.#known(id)
    if (credential.revoked) return
    this.#quarantine(credential, 'by the operator', this.#clock.monotonic())
    this.#rearm()
  }

  /** Puts a quarantined or revoked credential back. */
  async release(id: string): Promise<void> {
    const credential = this.#known(id)
    credential.release()
    this.#changed(credential, 'released by the operator', this.#clock.monotonic())
    this.#rearm()
    await this.#journal.write(credential)
  }

  /** Drops token and history of a credential and starts it afresh. */
  async forget(id: string): Promise<void> {
    const credential = this.#known(id)
    credential.forget()
    await this.#journal.remove(credential)
    this.#changed(credential, 'forgotten by the operator', this.#clock.monotonic())
    this.#rearm()
  }

  /** Takes over a configuration; credentials with an unchanged source keep token, counts and state. */
  async apply(config: PoolConfig): Promise<void> {
    await this.#refresher.leftovers()
    const ids = new Set(config.credentials.map(({ id }) => id))
    for (const credential of this.#stock.all()) {
      if (!ids.has(credential.id)) this.#journal.writeUsage(credential, false)
    }
    const stored = await this.#options.store.load(this.name)
    if (this.#closed) return
    this.#config = config
    const making = {
      ...this.#options,
      pool: this.name,
      config,
      random: this.#random,
      laneFor: (egress: string) => this.#stock.lane(egress),
    }
    const present = this.#stock.byId
    const roll = callRoll(making, present, stored)
    const now = this.#clock.monotonic()
    const leaving = [...present.values()].filter((each) => roll.get(each.id) !== each)
    for (const credential of leaving) this.#dismiss(credential, roll.has(credential.id), now)
    this.#stock.take(roll, config)
    for (const credential of roll.values()) {
      if (present.get(credential.id) !== credential) this.#watch(credential)
      this.#changed(credential, 'configured', now)
    }
    for (const credential of leaving) this.#rebind(credential, now)
    this.#queue.review((want) => this.#answer(want, now))
    this.#rearm()
  }

  /** Stops; a refresh that runs may end first, so that a rotated token is stored. */
  async close(): Promise<void> {
    if (this.#closed) return
    this.#closed = true
    this.#alarm.stop()
    this.#queue.failAll(this.#shuttingDown())
    for (const stop of this.#watches.values()) stop()
    this.#watches.clear()
    await this.#refresher.close()
    for (const credential of this.#stock.all()) this.#journal.writeUsage(credential, false)
    await this.#journal.close()
  }

  /** A lease for what is wanted, undefined to wait; throws when waiting is of no use. */
  #answer(want: Want, now: number): Grant | undefined {
    for (;;) {
      const credential = this.#stock.pick(want)
      if (!credential) return this.#stock.isHopeful(want, now) ? this.#try(want, now) : undefined
      if (!credential.isOver(this.#clock.now())) return this.#grant(credential, want, now)
      // The wall clock went ahead of the steady one.
      credential.alignClock()
      this.#changed(credential, 'token has ended', this.#clock.monotonic())
    }
  }
}
