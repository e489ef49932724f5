import type { LimitsConfig, PoolConfig, SourceConfig } from '../config/schema.ts'
import { CupbearerError, WireError } from '../errors.ts'
import type { Events } from '../events.ts'
import type { Clock } from '../lib/clock.ts'
import type {
  LoginDialogue,
  PinnedConnect,
  PinnedFetch,
  Source,
  SourceVars,
} from '../sources/source.ts'
import type { Store } from '../store/store.ts'
import type { Credential } from './credential.ts'
import { Desk } from './desk.ts'
import { ownGrant } from './grant.ts'
import { Journal, type PoolLog } from './journal.ts'
import { KeyRing } from './key-ring.ts'
import { Learning } from './learning.ts'
import type { Lease, LeaseRequest, Outcome, PoolStatus, Recovery, Waiter } from './lease.ts'
import { Limits } from './limits.ts'
import { assertRenewed, Logins } from './login.ts'
import { joinPeers, type Peers } from './peers.ts'
import { Refresher, type RefreshResult } from './refresher.ts'
import { callRoll } from './roster.ts'
import { describePool } from './status.ts'
import { Stock } from './stock.ts'
import { Turns } from './turns.ts'

/** What a pool is made of; sources, store and egress come from outside. */
export interface PoolOptions {
  readonly name: string
  readonly config: PoolConfig
  readonly clock: Clock
  readonly store: Store
  readonly events: Events
  readonly createSource: (config: SourceConfig, options: { vars: SourceVars | undefined }) => Source
  /** Tells a changed source from an unchanged one. */
  readonly fingerprint: (config: SourceConfig, vars: SourceVars | undefined) => string
  /** The host that a source asks for tokens, where it has one. */
  readonly hostOf?: (config: SourceConfig) => string | undefined
  /** Turns at those hosts, shared with other pools. */
  readonly turns?: Turns
  /** `key` is `pool/id`. */
  readonly fetchFor: (egress: string, key: string) => PinnedFetch
  /** For sources that need more than `fetch`. */
  readonly connectFor?: (egress: string) => PinnedConnect
  /** Tells of egresses that nothing may leave by, whatever their connections say. */
  readonly held?: (egress: string) => boolean
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
  /** What its credentials learn from traffic. */
  readonly learning: Learning
  readonly #options: PoolOptions
  readonly #clock: Clock
  readonly #random: () => number
  readonly #stock: Stock
  readonly #desk: Desk
  readonly #journal: Journal
  readonly #refresher: Refresher
  readonly #logins: Logins
  readonly #keyRing: KeyRing
  /** Where several instances share the store. */
  readonly #peers: Peers | undefined
  readonly #watches = new Map<Credential, () => void>()
  #config: PoolConfig
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
    this.#random = options.random ?? Math.random
    this.#stock = new Stock(name, options.config, options.held ?? (() => false))
    this.#journal = new Journal(name, store, clock, log)
    this.#peers = joinPeers(options, {
      random: this.#random,
      journal: this.#journal,
      timeoutMs: () => this.#config.refresh.timeout,
      stock: this.#stock,
      desk: () => this.#desk,
    })
    this.#desk = new Desk({
      pool: name,
      config: () => this.#config,
      clock,
      random: this.#random,
      events,
      stock: this.#stock,
      journal: this.#journal,
      plan: (credential, now) => this.#refresher.schedule(credential, now),
      peers: () => this.#peers,
    })
    this.#refresher = new Refresher({
      pool: name,
      clock,
      store,
      journal: this.#journal,
      events,
      leadership: this.#peers?.leadership,
      log,
      random: this.#random,
      keys: () => this.#keyRing.keys,
      turns: options.turns ?? new Turns(Number.POSITIVE_INFINITY),
      settings: () => ({ ...this.#config.refresh, quarantine: this.#config.quarantine }),
      ended: (credential, result) => this.#refreshed(credential, result),
    })
    this.#keyRing = new KeyRing({
      pool: name,
      clock,
      random: this.#random,
      log,
      credentials: () => this.#stock.byId.values(),
      plan: (credential, now) => this.#refresher.schedule(credential, now),
    })
    this.learning = new Learning({
      pool: name,
      clock,
      credentials: () => this.#stock.byId,
      take: (credential, token) => this.#refresher.take(credential, token),
      log,
    })
    this.#logins = new Logins({
      pool: name,
      clock,
      requestTimeoutMs: () => this.#config.refresh.timeout,
    })
  }

  /** A lease now, or undefined when the request must wait. Throws `WireError` for a hopeless one. */
  lease(request: LeaseRequest): Lease | undefined {
    if (this.#closed) throw this.#shuttingDown()
    if (this.#peers?.mustAsk(request)) return undefined
    return this.#desk.lease(request)
  }

  /**
   * A lease as soon as there is one, in order of arrival, within `queue.wait`. Rejects with `WireError`
   * (`POOL_EXHAUSTED`, `QUEUE_FULL`, …), or with the signal's reason.
   */
  async wait(request: LeaseRequest, waiter: Waiter): Promise<Lease> {
    if (this.#peers?.mustAsk(request)) await this.#peers.acquaint(request)
    return this.lease(request) ?? this.#desk.wait(request, waiter.signal)
  }

  /** Ends a lease with what was learned; a second time is ignored. */
  settle(lease: Lease, outcome: Outcome): void {
    this.#desk.settle(ownGrant(lease), outcome)
  }

  /** Heals an `expired` answer: renews the token, once for all who ask. Goes on when the caller leaves. */
  async recover(lease: Lease): Promise<Recovery> {
    const { owner: credential, generation } = ownGrant(lease)
    const none = { quarantined: false, reason: undefined, refresh: undefined }
    if (generation < credential.generation) return { ...none, result: 'stale' }
    if (this.#closed) {
      return { ...none, result: 'failed', reason: 'the proxy is shutting down' }
    }
    const now = this.#clock.monotonic()
    if (!credential.gone && !credential.revoked && !credential.quarantined) {
      const { minInterval } = this.#config.refresh
      const early = now - credential.forcedAt < minInterval
      if (this.#refresher.isRunning(credential) || (credential.renewable && !early)) {
        return this.#force(credential, now)
      }
      // It was on its way when the renewal failed, and tells nothing new.
      if (credential.refused) return { ...none, result: 'failed', reason: credential.lastError }
      const reason = early
        ? 'upstream refused a token that was just renewed'
        : 'upstream refused the token, and its source gives no other'
      this.#desk.quarantine(credential, reason, now)
    }
    return { ...none, result: 'failed', quarantined: true, reason: credential.lastError }
  }

  /** Rests the credentials of an egress that upstream limits as a whole. */
  coolEgress(egress: string, ms: number, reason: string): void {
    this.#desk.cool(this.#stock.lane(egress), ms, reason)
  }

  /** Whether `held` holds for an egress has changed. */
  egressChanged(egress: string): void {
    this.#desk.held(this.#stock.lane(egress))
  }

  /** Where the pool and its credentials stand; holds no secret. */
  status(): PoolStatus {
    this.#desk.advance(this.#clock.monotonic())
    this.#desk.rearm()
    return describePool({
      name: this.name,
      config: this.#config,
      clock: this.#clock,
      credentials: this.#stock.byId.values(),
      meter: this.#desk.meter,
      refreshes: this.#refresher,
      waiting: this.#desk.waiting,
      trouble: this.#peers?.trouble ?? this.#journal.trouble,
    })
  }

  /** Whether there is such a credential. */
  has(id: string): boolean {
    return this.#stock.byId.has(id)
  }

  /** Renews a token at the operator's wish; rejects when that fails. */
  async refresh(id: string): Promise<void> {
    const credential = this.#known(id)
    if (credential.revoked) {
      throw new CupbearerError('SOURCE_REVOKED', `${this.name}/${id} is revoked: release it first`)
    }
    assertRenewed(this.name, id, await this.#refresher.run(credential, 'operator').promise)
  }

  /**
   * Gets a token afresh, whatever kept the credential away: with a person's help where that is the way. The
   * token is durable when this resolves; a login that fails changes nothing. The signal gives it up.
   */
  async login(id: string, dialogue: LoginDialogue, signal: AbortSignal): Promise<void> {
    const credential = this.#known(id)
    if (this.#closed) throw this.#shuttingDown()
    if (credential.source.login) {
      const token = await this.#logins.run(credential, dialogue, signal)
      if (credential.gone) throw new CupbearerError('SOURCE_FAILED', `${this.name}/${id} has left`)
      return assertRenewed(this.name, id, await this.#refresher.take(credential, token))
    }
    if (credential.revoked || credential.quarantined) await this.release(id)
    assertRenewed(this.name, id, await this.#refresher.run(credential, 'operator').promise)
  }

  /** Takes a credential out of the pool for a back-off, at the operator's wish. */
  quarantine(id: string): void {
    const credential = this.#known(id)
    if (credential.revoked) return
    this.#desk.quarantine(credential, 'by the operator', this.#clock.monotonic())
    this.#desk.rearm()
  }

  /** Puts a quarantined or revoked credential back. */
  async release(id: string): Promise<void> {
    const credential = this.#known(id)
    credential.release()
    this.#peers?.leadership.allow(credential)
    this.#desk.changed(credential, 'released by the operator', this.#clock.monotonic())
    this.#desk.rearm()
    await this.#journal.write(credential)
  }

  /** Drops token and history of a credential and starts it afresh. */
  async forget(id: string): Promise<void> {
    const credential = this.#known(id)
    credential.forget()
    await this.#journal.remove(credential)
    this.#desk.changed(credential, 'forgotten by the operator', this.#clock.monotonic())
    this.#desk.rearm()
  }

  /** Takes over a configuration; credentials with an unchanged source keep token, counts and state. */
  async apply(config: PoolConfig): Promise<void> {
    await this.#refresher.leftovers()
    const ids = new Set(config.credentials.map(({ id }) => id))
    for (const credential of this.#stock.byId.values()) {
      if (!ids.has(credential.id)) this.#journal.writeUsage(credential, false)
    }
    const fingerprints = new Map(
      config.credentials.map(({ id, source, vars }) => [
        id,
        this.#options.fingerprint(source, vars),
      ]),
    )
    const stored = await this.#load(fingerprints)
    const swapKeys = await this.#keyRing.prepare(config)
    if (this.#closed) return
    this.#config = config
    const making = {
      ...this.#options,
      pool: this.name,
      config,
      fingerprints,
      hostOf: this.#options.hostOf ?? (() => undefined),
      random: this.#random,
      laneFor: (egress: string) => this.#stock.lane(egress),
      limitsFor: (limits: LimitsConfig) => this.#peers?.limits(limits) ?? new Limits(limits),
    }
    const present = this.#stock.byId
    const { roll, moved } = callRoll(making, present, stored)
    const now = this.#clock.monotonic()
    const leaving = [...present.values()].filter((each) => roll.get(each.id) !== each)
    for (const credential of leaving) this.#dismiss(credential, roll.has(credential.id))
    this.#stock.take(roll, config)
    for (const credential of roll.values()) {
      if (present.get(credential.id) === credential) continue
      this.#peers?.attach(credential)
      this.#watch(credential)
    }
    // A pin that a reload has changed stays so after a restart.
    for (const credential of moved) if (credential.token) void this.#journal.write(credential)
    swapKeys()
    this.#desk.changedAll([...leaving, ...roll.values()], 'configured', now)
    this.#desk.rearm()
  }

  /** What the store knows of those that are new or changed: to unseal the rest would hold up the traffic. */
  #load(fingerprints: ReadonlyMap<string, string>): ReturnType<Store['load']> {
    const present = this.#stock.byId
    const wanted = [...fingerprints].filter(([id, each]) => present.get(id)?.fingerprint !== each)
    return this.#options.store.load(this.name, new Set(wanted.map(([id]) => id)))
  }

  /** Stops; a refresh that runs may end first, so that a rotated token is stored. */
  async close(): Promise<void> {
    if (this.#closed) return
    this.#closed = true
    this.#desk.close(this.#shuttingDown())
    for (const stop of this.#watches.values()) stop()
    this.#watches.clear()
    this.#logins.close()
    await this.learning.close()
    this.#keyRing.close()
    await this.#refresher.close()
    for (const credential of this.#stock.byId.values()) this.#journal.writeUsage(credential, false)
    await this.#journal.close()
    await this.#peers?.close()
  }

  /** Renews a token that upstream refused before its end; nobody gets it until that has worked. */
  async #force(credential: Credential, started: number): Promise<Recovery> {
    const { generation } = credential
    credential.refuse(this.#config.refresh.minInterval)
    this.#desk.changed(credential, 'upstream refused the token', started)
    this.#desk.rearm()
    const { promise, role } = this.#refresher.run(credential, 'expired')
    const { kind, reason, trace, calls } = await promise
    const now = this.#clock.monotonic()
    credential.forcedAt = now
    const refresh = { role, ms: now - started, trace, calls }
    if (kind === 'ok' || (kind === 'dropped' && credential.generation > generation)) {
      return { result: 'renewed', quarantined: false, reason: undefined, refresh }
    }
    const quarantined = ['quarantined', 'revoked'].includes(credential.state(now))
    return { result: 'failed', quarantined, reason, refresh }
  }

  #refreshed(credential: Credential, { kind, reason }: RefreshResult): void {
    const now = this.#clock.monotonic()
    const { lane } = credential.settings
    if (kind === 'ok' && credential.token) this.#keyRing.keys?.noticed(credential.token)
    if (kind === 'egress' && lane.restsUntil(now) <= now) this.#desk.rest(lane, now)
    else if (kind === 'ok' && lane.failures > 0) this.#desk.open(lane, now)
    this.#desk.changed(credential, reason ?? 'token was renewed', now)
    this.#desk.rearm()
  }

  /** A credential leaves; a replaced one's running refresh is of no use to the new one. */
  #dismiss(credential: Credential, replaced: boolean): void {
    credential.gone = true
    this.#peers?.detach(credential)
    this.#logins.end(credential)
    if (replaced) credential.attempt += 1
    this.#watches.get(credential)?.()
    this.#watches.delete(credential)
  }

  #watch(credential: Credential): void {
    const stop = credential.source.watch?.(() => this.#refresher.renew(credential))
    if (!stop) return
    this.#watches.set(credential, stop)
    // It may have changed while nobody watched.
    if (credential.token) this.#refresher.renew(credential)
  }

  #known(id: string): Credential {
    const credential = this.#stock.byId.get(id)
    if (credential) return credential
    const message = `pool ${this.name} has no credential ${JSON.stringify(id)}`
    throw new CupbearerError('SOURCE_FAILED', message)
  }

  #shuttingDown(): WireError {
    return new WireError('SHUTTING_DOWN', 'the proxy is shutting down')
  }
}
