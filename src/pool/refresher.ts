import { SourceError } from '../errors.ts'
import type { EventMap, Events, RenewalCall } from '../events.ts'
import type { Clock } from '../lib/clock.ts'
import { SingleFlight } from '../lib/single-flight.ts'
import type { Store } from '../store/store.ts'
import { adjustForSkew } from '../token/jwt.ts'
import type { TokenSet } from '../token/token.ts'
import { backOff } from './alarm.ts'
import { CallLog } from './call-log.ts'
import type { Credential } from './credential.ts'
import type { Journal, PoolLog } from './journal.ts'
import { type Leadership, Unsettled } from './leadership.ts'
import { Schedule } from './schedule.ts'
import type { SigningKeys } from './signing-keys.ts'
import { adoptStored } from './stored.ts'
import { tellRenewal } from './tell-renewal.ts'
import type { Turns } from './turns.ts'

export type RefreshCause = EventMap['refresh'][0]['cause']

/** What came of a refresh; `dropped` when the credential had moved on meanwhile. */
export interface RefreshResult {
  readonly kind: 'ok' | 'transient' | 'egress' | 'revoked' | 'dropped'
  readonly reason: string | undefined
  /** Its record: trace id, and what was asked. */
  readonly trace?: string | undefined
  readonly calls?: readonly RenewalCall[]
}

const RETRY_MS = 1000
/** As many as the store makes durable at once. */
const GIVEN_PARALLEL = 256
/** A dead egress is tried again soon: it is not the credential's fault. */
const MAX_EGRESS_RETRY_MS = 15_000
/** How long closing waits for refreshes that run, so that a rotated token is not lost. */
const CLOSE_MS = 5000

interface RefresherOptions {
  readonly pool: string
  readonly clock: Clock
  readonly store: Store
  readonly journal: Journal
  readonly events: Events
  /** Where several instances share the store: which one of them renews. */
  readonly leadership: Leadership | undefined
  readonly log: PoolLog | undefined
  readonly random: () => number
  /** The issuer's signing keys, where the pool watches them. */
  readonly keys: () => SigningKeys | undefined
  /** Turns at token endpoints, shared with the other pools. */
  readonly turns: Turns
  readonly settings: () => {
    timeout: number
    parallel: number
    quarantine: { base: number; max: number }
  }
  /** A try has ended; the credential's state may have changed. */
  readonly ended: (credential: Credential, result: RefreshResult) => void
}

/** Gets tokens: in the background when they are due, or at once; one flight per credential. */
export class Refresher {
  readonly #options: RefresherOptions
  readonly #schedule: Schedule
  /** Of tokens that stand in the configuration: they only have to be stored. */
  readonly #given: Schedule
  readonly #flights = new SingleFlight<Credential, RefreshResult>()
  readonly #running = new Map<Credential, Promise<RefreshResult>>()
  readonly #aborts = new Set<AbortController>()
  /** Credentials whose source has changed while a try ran. */
  readonly #again = new Set<Credential>()
  #tries = 0
  #successes = 0
  #closed = false

  constructor(options: RefresherOptions) {
    this.#options = options
    const scheduled = {
      clock: options.clock,
      turns: options.turns,
      start: (credential: Credential) => this.run(credential, causeFor(credential), true).promise,
    }
    this.#schedule = new Schedule({ ...scheduled, parallel: () => options.settings().parallel })
    this.#given = new Schedule({ ...scheduled, parallel: () => GIVEN_PARALLEL })
  }

  get tries(): number {
    return this.#tries
  }
  get successes(): number {
    return this.#successes
  }

  isRunning(credential: Credential): boolean {
    return this.#running.has(credential)
  }

  /** Plans the credential's next refresh anew from what is known of it. */
  schedule(credential: Credential, now: number): void {
    const due = this.isRunning(credential) ? Number.POSITIVE_INFINITY : credential.nextRefresh(now)
    this.#scheduleOf(credential).plan(credential, due)
  }

  #scheduleOf(credential: Credential): Schedule {
    return credential.source.renewable ? this.#schedule : this.#given
  }

  /** Gets a token now, or joins the try that runs. One that has no turn at its endpoint yet waits for it. */
  run(
    credential: Credential,
    cause: RefreshCause,
    hasTurn = false,
  ): { promise: Promise<RefreshResult>; role: 'led' | 'joined' } {
    const flight = this.#flights.run(credential, async () => {
      try {
        return await this.#try(credential, cause, hasTurn)
      } finally {
        this.#running.delete(credential)
      }
    })
    if (flight.role === 'led') {
      this.#scheduleOf(credential).drop(credential)
      const settled = flight.promise.then((result) => {
        this.#options.ended(credential, result)
        if (this.#again.delete(credential)) this.renew(credential)
        return result
      })
      this.#running.set(credential, settled)
      return { promise: settled, role: 'led' }
    }
    return { promise: this.#running.get(credential) ?? flight.promise, role: 'joined' }
  }

  /** The source has something new. */
  renew(credential: Credential): void {
    if (this.#closed || credential.gone || credential.revoked) return
    if (this.isRunning(credential)) this.#again.add(credential)
    else void this.run(credential, 'scheduled').promise
  }

  /** Waits for the tries of credentials that have left: what they bring is stored. */
  async leftovers(): Promise<void> {
    const gone = [...this.#running].filter(([credential]) => credential.gone)
    await Promise.all(gone.map(([, promise]) => promise))
  }

  /** Starts nothing more and lets what runs end, within bounds. */
  async close(): Promise<void> {
    this.#closed = true
    this.#schedule.close()
    this.#given.close()
    if (this.#running.size === 0) return
    const cancel = this.#options.clock.schedule(CLOSE_MS, () => {
      for (const abort of this.#aborts) {
        abort.abort(new SourceError('transient', 'the proxy is shutting down'))
      }
    })
    await Promise.all(this.#running.values())
    cancel()
  }

  async #try(
    credential: Credential,
    cause: RefreshCause,
    hasTurn: boolean,
  ): Promise<RefreshResult> {
    const { clock } = this.#options
    const attempt = ++credential.attempt
    const started = clock.monotonic()
    // What stands in the configuration is taken up, not got: that is no refresh.
    const counts = credential.source.renewable ? 1 : 0
    this.#tries += counts
    const log = new CallLog(() => clock.monotonic())
    const { leadership } = this.#options
    let led = true
    const renew = async (intend?: () => Promise<void>) => {
      await this.#options.keys()?.ready()
      const token = await this.#obtain(credential, attempt, hasTurn, log, intend)
      return this.#keep(credential, attempt, token)
    }
    let result: RefreshResult
    try {
      result = leadership
        ? await leadership.once(credential, cause, renew, () => {
            led = false
            this.#tries -= counts
          })
        : await renew()
    } catch (error) {
      result = await this.#fail(credential, attempt, error)
    }
    if (!led) return result
    if (result.kind === 'ok') this.#successes += counts
    const outcome = result.kind === 'ok' || result.kind === 'revoked' ? result.kind : 'failed'
    const trace = tellRenewal(
      this.#options,
      credential,
      cause,
      outcome,
      started,
      result.reason,
      log.calls,
    )
    return { ...result, trace, calls: log.calls }
  }

  /** Asks the source, within the time-out; a source that ignores the signal is not waited for. */
  async #obtain(
    credential: Credential,
    attempt: number,
    hasTurn: boolean,
    log: CallLog,
    intend: (() => Promise<void>) | undefined,
  ): Promise<TokenSet> {
    const { clock, pool, settings, turns } = this.#options
    const { host, lane, headers, connect } = credential.settings
    let taken: string | undefined
    const { timeout } = settings()
    const abort = new AbortController()
    const { signal } = abort
    const cancel = clock.schedule(timeout, () =>
      abort.abort(new SourceError('transient', `no token within ${timeout} ms`)),
    )
    this.#aborts.add(abort)
    const aborted = new Promise<never>((_, reject) => {
      signal.addEventListener('abort', () => reject(signal.reason), { once: true })
    })
    // The time may be up while it still waits for its turn.
    aborted.catch(() => {})
    const context = {
      fetch: credential.skew.metered(log.noted(credential.settings.fetch)),
      clock,
      signal,
      name: `${pool}/${credential.id}`,
      connect,
      egress: lane.name,
      headers,
      deadline: clock.monotonic() + timeout,
      serving: credential.hasLiveToken(clock.monotonic()),
    }
    try {
      if (host !== undefined && !hasTurn) {
        await turns.take(host, signal)
        taken = host
      }
      await intend?.()
      const obtained = (async () => credential.source.obtain(credential.token, context))()
      // A late token may hold a rotated refresh token: it is kept, unless a newer try has begun.
      obtained.then(
        (token) => {
          if (signal.aborted && !this.#closed) void this.#keepLate(credential, attempt, token)
        },
        () => {},
      )
      return await Promise.race([obtained, aborted])
    } finally {
      cancel()
      if (taken !== undefined) turns.give(taken)
      this.#aborts.delete(abort)
    }
  }

  async #keepLate(credential: Credential, attempt: number, token: TokenSet): Promise<void> {
    if (credential.attempt !== attempt) return
    const result = await this.#keep(credential, attempt, token)
    if (result.kind === 'ok') this.#options.ended(credential, result)
  }

  /** Takes up what a login has brought: it stands for itself, and ends whatever kept the credential away. */
  async take(credential: Credential, token: TokenSet): Promise<RefreshResult> {
    const started = this.#options.clock.monotonic()
    const result = await this.#keep(credential, ++credential.attempt, token, true)
    this.#options.ended(credential, result)
    const outcome = result.kind === 'ok' ? 'ok' : 'failed'
    tellRenewal(this.#options, credential, 'operator', outcome, started, result.reason, [])
    return result
  }

  /** Makes a token durable, then usable. */
  async #keep(
    credential: Credential,
    attempt: number,
    token: TokenSet,
    afresh = false,
  ): Promise<RefreshResult> {
    const { clock, journal, random, settings } = this.#options
    const failures = credential.refreshFailures
    // RFC 6749 §6: the server need not issue a new refresh token; then the old one goes on.
    const kept = afresh ? undefined : credential.token?.refreshToken
    const refreshToken = token.refreshToken ?? kept
    const placed = adjustForSkew(token, credential.skew.ms, clock.now())
    const renewal = token.renewal ?? (afresh ? undefined : credential.token?.renewal)
    const whole: TokenSet = { ...placed, refreshToken, renewal }
    const objection = await this.#options.keys()?.objection(credential, whole)
    if (objection !== undefined) return this.#refuse(credential, attempt, whole, objection)
    let generation = 0
    await journal.write(
      credential,
      () => {
        if (credential.attempt !== attempt) return undefined
        // A token that was refused for good is not renewed: this one stands against whatever was thought of it.
        if (afresh || credential.revoked) credential.release()
        generation = credential.generation + 1
        return credential.record({ token: whole, generation })
      },
      () => {
        if (credential.attempt === attempt) credential.adopt(whole, generation, random())
      },
    )
    if (credential.attempt !== attempt) return { kind: 'dropped', reason: 'it was superseded' }
    if (!credential.isOver(clock.now())) return { kind: 'ok', reason: undefined }
    const reason = 'the source gave a token that has expired already'
    const { max } = settings().quarantine
    const delay = backOff(RETRY_MS, max, failures, random())
    credential.failRefresh('transient', failures + 1, clock.monotonic() + delay, reason)
    return { kind: 'transient', reason }
  }

  /**
   * A token that failed the check is not used; what there was stays while it lives. But the refresh token that
   * came with it may be the only one that still works.
   */
  async #refuse(
    credential: Credential,
    attempt: number,
    token: TokenSet,
    reason: string,
  ): Promise<RefreshResult> {
    const { clock, journal } = this.#options
    const { refreshToken } = token
    const changed = refreshToken && credential.token?.refreshToken !== refreshToken
    if (changed && credential.attempt === attempt) {
      const old = credential.token
      const kept = old ? { ...old, refreshToken } : { ...token, expiresAt: clock.now() }
      const generation = credential.generation + (old ? 0 : 1)
      await journal.write(
        credential,
        () =>
          credential.attempt === attempt
            ? credential.record({ token: kept, generation })
            : undefined,
        () => {
          if (credential.attempt !== attempt) return
          if (old) credential.amend(refreshToken)
          else credential.adopt(kept, generation, 0)
        },
      )
    }
    return this.#fail(credential, attempt, new SourceError('transient', reason))
  }

  async #fail(credential: Credential, attempt: number, error: unknown): Promise<RefreshResult> {
    const { clock, journal, random, log, pool, settings } = this.#options
    const known = error instanceof SourceError
    const reason = known ? error.message : 'the source failed unexpectedly'
    const kind = known ? error.kind : 'transient'
    if (credential.attempt !== attempt) return { kind: 'dropped', reason }
    if (error instanceof Unsettled) {
      const retryAt = clock.monotonic() + RETRY_MS
      if (credential.quarantined) credential.postponeCanary(retryAt)
      else credential.failRefresh('egress', credential.refreshFailures, retryAt, reason)
      return { kind, reason }
    }
    if (kind === 'revoked') {
      const { store } = this.#options
      const from = { store, pool, now: () => clock.now(), jitter: random() }
      if (await adoptStored(from, credential, attempt)) return { kind: 'ok', reason: undefined }
      if (credential.attempt !== attempt) return { kind: 'dropped', reason }
      credential.revoke(reason)
      await journal.write(credential)
      return { kind, reason }
    }
    log?.warn({ pool, credential: credential.id, reason }, 'token could not be renewed')
    const now = clock.monotonic()
    const { base, max } = settings().quarantine
    const failures = credential.refreshFailures
    const cap = kind === 'egress' ? MAX_EGRESS_RETRY_MS : max
    const asked = Math.min(known ? (error.retryAfterMs ?? 0) : 0, max)
    const delay = Math.max(asked, backOff(RETRY_MS, cap, failures, random()))
    if (!credential.quarantined) credential.failRefresh(kind, failures + 1, now + delay, reason)
    else if (kind === 'egress') credential.postponeCanary(now + delay)
    else {
      credential.quarantine(now, (count) => backOff(base, max, count, random()), reason)
      await journal.write(credential)
    }
    return { kind, reason }
  }
}

function causeFor(credential: Credential): RefreshCause {
  if (credential.quarantined) return 'canary'
  return credential.token ? 'scheduled' : 'startup'
}
