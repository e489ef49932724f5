import type { PoolConfig } from '../config/schema.ts'
import { WireError } from '../errors.ts'
import type { Events } from '../events.ts'
import type { Clock } from '../lib/clock.ts'
import { Alarm, backOff } from './alarm.ts'
import type { Credential } from './credential.ts'
import { Grant } from './grant.ts'
import type { Journal } from './journal.ts'
import type { Lane } from './lane.ts'
import type { LeaseRequest, Outcome } from './lease.ts'
import { passedOver } from './passed-over.ts'
import type { Peers } from './peers.ts'
import { Queue } from './queue.ts'
import type { Want } from './select.ts'
import { Meter } from './status.ts'
import type { Stock } from './stock.ts'

const LIMITED_MS = 1000
const MAX_LIMITED_MS = 60_000
const ROUND_TRIP_MS = 250
const LANE_REST_MS = 1000
const MAX_LANE_REST_MS = 15_000
/** How often the wall clock is held against the steady one, and what counts as a jump. */
const CLOCK_CHECK_MS = 30_000
const CLOCK_JUMP_MS = 1000

interface DeskOptions {
  readonly pool: string
  readonly config: () => PoolConfig
  readonly clock: Clock
  readonly random: () => number
  readonly events: Events
  readonly stock: Stock
  readonly journal: Journal
  /** Plans the credential's next refresh. */
  readonly plan: (credential: Credential, now: number) => void
  /** Where several instances share the store. */
  readonly peers: () => Peers | undefined
}

/**
 * Where leases are handed out and taken back. One rule holds after each call: no credential is ready while
 * a request waits that it suits. So a lease on the fast path overtakes nobody.
 */
export class Desk {
  readonly meter = new Meter()
  readonly #options: DeskOptions
  readonly #clock: Clock
  readonly #stock: Stock
  readonly #journal: Journal
  readonly #queue = new Queue()
  readonly #alarm: Alarm
  #turn = 0
  #clockOffset: number
  #nextClockCheck: number

  constructor(options: DeskOptions) {
    this.#options = options
    this.#clock = options.clock
    this.#stock = options.stock
    this.#journal = options.journal
    this.#alarm = new Alarm(options.clock, () => this.#tick())
    this.#clockOffset = this.#clock.now() - this.#clock.monotonic()
    this.#nextClockCheck = this.#clock.monotonic() + CLOCK_CHECK_MS
  }

  get waiting(): number {
    return this.#queue.size
  }

  lease(request: LeaseRequest): Grant | undefined {
    const now = this.#clock.monotonic()
    this.advance(now)
    const want = this.#stock.resolve(request, now)
    const grant = this.#answer(want, now, 1)
    if (grant && request.exclude?.size) {
      grant.passedOver = passedOver(this.#stock, want, now, grant.owner)
    }
    this.rearm()
    return grant
  }

  async wait(request: LeaseRequest, signal: AbortSignal): Promise<Grant> {
    signal.throwIfAborted()
    const now = this.#clock.monotonic()
    const want = this.#stock.resolve(request, now)
    const { max, wait: longest } = this.#options.config().queue
    // What the other instances are being asked for is as good as at hand.
    const least = (this.#options.peers()?.board.asked ?? 0) > 0 ? ROUND_TRIP_MS : 0
    const wait = Math.min(longest, Math.max(least, request.waitMs ?? longest))
    if (this.#queue.size >= max) {
      const message = `${this.#queue.size} requests wait for pool ${this.#options.pool} already`
      throw new WireError('QUEUE_FULL', message, {
        retryAfterMs: this.#stock.retryAfter(want, now),
        passedOver: passedOver(this.#stock, want, now),
      })
    }
    if (wait <= 0) throw this.#stock.exhausted(want, now)
    const granted = this.#queue.join(want, now + wait, signal)
    this.rearm()
    const waitedFor = passedOver(this.#stock, want, now)
    const grant = await granted
    grant.passedOver = waitedFor
    return grant
  }

  settle(grant: Grant, outcome: Outcome): void {
    if (grant.stage === 'settled') return
    const sent = grant.stage === 'dispatched'
    grant.stage = 'settled'
    const now = this.#clock.monotonic()
    grant.owner.limits.end(sent)
    this.#learnOfLane(grant, outcome, sent, now)
    const change = this.#learn(grant, outcome, now)
    if (change) this.changed(grant.owner, change, now)
    else this.#replace(grant.owner, now)
    this.rearm()
  }

  /** Takes note of whatever changed about a credential: tells observers, plans, sorts, serves. */
  changed(credential: Credential, reason: string, now: number): void {
    this.changedAll([credential], reason, now)
  }

  /** As `changed`, for many at once: those who wait think again only when all is sorted. */
  changedAll(credentials: Iterable<Credential>, reason: string, now: number): void {
    for (const credential of credentials) this.#stock.place(credential, now)
    for (const credential of credentials) this.#note(credential, reason, now)
    if (this.#queue.size > 0) this.review(credentials, now)
  }

  #note(credential: Credential, reason: string, now: number): void {
    const { plan, pool, events } = this.#options
    plan(credential, now)
    if (credential.gone) return
    if (credential.endedForGood(now)) {
      const why = credential.limits.usedUp ? 'has had all its uses' : 'has expired'
      credential.revoke(`its token ${why}, and its source gives no other`)
      void this.#journal.write(credential)
    }
    const from = credential.announced
    const to = credential.state(now)
    this.#replace(credential, now)
    if (from !== to) {
      credential.announced = to
      const time = this.#clock.now()
      const why = to === 'revoked' ? (credential.lastError ?? reason) : reason
      events.emit('credential', { time, pool, credential: credential.id, from, to, reason: why })
    }
  }

  /** Lets those who wait think again: credentials may have left them, or hope may be gone. */
  review(credentials: Iterable<Credential>, now: number): void {
    for (const credential of credentials) {
      this.#queue.rebind(credential, (want) =>
        this.#stock.keeps(want, now) ? want : this.#stock.resolve(want.request, now),
      )
    }
    this.#queue.review((want) => this.#answer(want, now))
  }

  quarantine(credential: Credential, reason: string, now: number): void {
    const { base, max } = this.#options.config().quarantine
    credential.quarantine(
      now,
      (failures) => backOff(base, max, failures, this.#options.random()),
      reason,
    )
    this.changed(credential, reason, now)
    void this.#journal.write(credential)
  }

  /** The egress is down: its credentials rest. */
  rest(lane: Lane, now: number): void {
    lane.trial = undefined
    const { random } = this.#options
    lane.rest(now + backOff(LANE_REST_MS, MAX_LANE_REST_MS, lane.failures, random()))
    this.changedAll(lane.members, `egress ${lane.name} is down`, now)
  }

  /** The egress works. */
  open(lane: Lane, now: number): void {
    lane.trial = undefined
    lane.open()
    this.changedAll(lane.members, `egress ${lane.name} is up`, now)
  }

  /** A probe has found the egress right, or must find it right first. */
  held(lane: Lane): void {
    const now = this.#clock.monotonic()
    if (lane.held) this.changedAll(lane.members, `egress ${lane.name} is down`, now)
    else this.open(lane, now)
    this.rearm()
  }

  cool(lane: Lane, ms: number, reason: string): void {
    const now = this.#clock.monotonic()
    const until = now + Math.min(ms, this.#options.config().quarantine.max)
    this.#options.peers()?.rest(lane, until - now)
    for (const credential of lane.members) credential.cool(until)
    this.changedAll(lane.members, reason, now)
    this.rearm()
  }

  /** Does what is due by now. */
  advance(now: number): void {
    for (let due = this.#stock.nextDue(now); due; due = this.#stock.nextDue(now)) {
      due.openHalf(now)
      if (due.isRipe(now)) this.#replace(due, now)
      else this.changed(due, due.hasLiveToken(now) ? 'rest is over' : 'token has ended', now)
    }
  }

  rearm(): void {
    this.#alarm.by(Math.min(this.#stock.nextWake, this.#queue.nextDeadline, this.#nextClockCheck))
  }

  close(error: WireError): void {
    this.#alarm.stop()
    this.#queue.failAll(error)
  }

  #tick(): void {
    const now = this.#clock.monotonic()
    if (now >= this.#nextClockCheck) this.#checkClock(now)
    this.advance(now)
    this.#queue.expire(now, (want) => this.#stock.exhausted(want, now))
    this.rearm()
  }

  /** After a jump of the wall clock (a suspended machine) tokens end at other times than was reckoned. */
  #checkClock(now: number): void {
    this.#nextClockCheck = now + CLOCK_CHECK_MS
    const offset = this.#clock.now() - now
    if (Math.abs(offset - this.#clockOffset) < CLOCK_JUMP_MS) return
    this.#clockOffset = offset
    const credentials = [...this.#stock.byId.values()]
    for (const credential of credentials) credential.clockJumped()
    this.changedAll(credentials, 'the clock has jumped', now)
  }

  /** A lease for what is wanted, undefined to wait; throws when waiting is of no use. */
  #answer(want: Want, at: number, joining = 0): Grant | undefined {
    let now = at
    for (;;) {
      const credential = this.#stock.pick(want)
      if (!credential) {
        const outlook = this.#stock.outlook(want, now)
        return outlook === 'wait' ? undefined : this.#take(outlook, want, now, joining)
      }
      if (this.#isAlive(credential)) return this.#take(credential, want, now, joining)
      now = this.#clock.monotonic()
    }
  }

  /** A lease, or undefined where the other instances must be asked first: whoever asks waits. */
  #take(credential: Credential, want: Want, now: number, joining: number): Grant | undefined {
    const { limits } = credential
    if (limits.atHand(now)) return this.#grant(credential, want, now)
    const asked = this.#options.peers()?.board.asked ?? 0
    const count = this.#queue.size + joining - asked
    if (count > 0) {
      credential.lastGrant = ++this.#turn
      limits.ask(count)
      this.#stock.place(credential, now)
    }
    return undefined
  }

  /** The other instances have answered: those who wait are served, or ask another credential. */
  answered(credential: Credential): void {
    const now = this.#clock.monotonic()
    if (credential.limits.usedUp && credential.hasLiveToken(now)) {
      credential.useUp()
      this.changed(credential, 'token has had all its uses', now)
    } else {
      this.#replace(credential, now)
      if (this.#queue.size > 0) this.review([], now)
    }
    this.rearm()
  }

  /** The last check before a grant: a token that is over by the clock on the wall is never leased. */
  #isAlive(credential: Credential): boolean {
    if (credential.revoked) {
      // That is still being written; observers hear of it when it is.
      this.#stock.takeOut(credential, this.#clock.monotonic())
      return false
    }
    if (!credential.isOver(this.#clock.now())) return true
    // The wall clock went ahead of the steady one. Observers hear of it with what is due next.
    credential.clockJumped()
    this.#stock.takeOut(credential, this.#clock.monotonic())
    return false
  }

  #grant(credential: Credential, want: Want, now: number): Grant {
    credential.limits.reserve()
    credential.lastGrant = ++this.#turn
    const grant = new Grant(this.#options.pool, credential, this.#dispatched)
    this.#stock.remember(want, credential)
    const { lane } = credential.settings
    if (!lane.rests || want.request.remote) this.#stock.place(credential, now)
    else {
      lane.trial = grant
      for (const member of lane.members) this.#stock.place(member, now)
    }
    return grant
  }

  readonly #dispatched = (grant: Grant): void => {
    grant.stage = 'dispatched'
    const { owner: credential } = grant
    const now = this.#clock.monotonic()
    const current = grant.generation === credential.generation
    const mustWrite = credential.limits.mustWrite
    credential.limits.dispatch(now, current)
    this.meter.count(now)
    if (credential.gone) return
    if (mustWrite) this.#journal.writeUsage(credential, true)
    if (current && credential.limits.usedUp) {
      credential.useUp()
      this.changed(credential, 'token has had all its uses', now)
    } else if (!this.#stock.isReady(credential)) this.#stock.place(credential, now)
    this.rearm()
  }

  /** Sorts a credential anew and serves who waits for it. */
  #replace(credential: Credential, now: number): void {
    this.#stock.place(credential, now)
    if (this.#queue.size === 0) return
    this.#queue.serve(credential, (want) => {
      if (!this.#stock.isReady(credential) || !this.#isAlive(credential)) return undefined
      return this.#take(credential, want, now, 0)
    })
  }

  /** What an outcome tells about the way. */
  #learnOfLane(grant: Grant, outcome: Outcome, sent: boolean, now: number): void {
    const lane = this.#stock.lane(grant.egress)
    const tried = lane.trial === grant
    if (outcome.kind === 'egress-down') {
      // Requests that were under way when it went down say nothing new.
      if (!lane.rests || tried) this.rest(lane, now)
    } else if (tried && !sent && outcome.kind === 'unknown') {
      lane.trial = undefined
      this.changedAll(lane.members, 'trial of the egress was given up', now)
    } else if (lane.failures > 0 && (tried || outcome.kind === 'ok')) this.open(lane, now)
  }

  /** What an outcome tells about the token; returns why something changed. */
  #learn(grant: Grant, outcome: Outcome, now: number): string | undefined {
    const { owner: credential } = grant
    const { config, random } = this.#options
    const current = grant.generation === credential.generation
    if (outcome.kind === 'ok' && current) {
      const change = credential.succeed(grant.canary)
      if (change) void this.#journal.write(credential)
      return change
    }
    if (outcome.kind === 'limited') {
      const { max } = config().quarantine
      const asked = outcome.retryAfterMs
      const streak = credential.limitedAgain(now)
      const ms = asked ?? backOff(LIMITED_MS, MAX_LIMITED_MS, streak, random())
      credential.cool(now + Math.min(ms, max))
      this.#options.peers()?.rest(credential, Math.min(ms, max))
      return 'upstream limited it'
    }
    if (outcome.kind === 'expired' && current && grant.canary && credential.canary) {
      this.quarantine(credential, 'upstream refused the canary request', now)
    }
    return undefined
  }
}
