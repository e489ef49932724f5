import type { LimitsConfig } from '../config/schema.ts'
import type { Answer } from '../store/shared.ts'
import { Alarm } from './alarm.ts'
import { Limits } from './limits.ts'
import type { LimitsBoard, LimitsOwner } from './limits-board.ts'
import { Outage } from './outage.ts'
import { MOST_GOOD_MS, Places, termsOf, UntoldUses } from './places.ts'

const NEVER = Number.POSITIVE_INFINITY
/** Below this many, places are asked for one by one, as requests need them. */
const LEAST_AHEAD = 4
/** An idle slot is kept so long for the next request, unless others wait for it. */
const IDLE_MS = 100
/** After a call that failed though the store answers. */
const AGAIN_MS = 100

/**
 * Limits that all instances keep together. Places in the windows, uses and slots are granted by the store, and
 * nothing leaves without one: so they hold over all instances, whatever their clocks say. What is told and asked
 * goes in one message at a time, so requests that come while one is under way share the next.
 */
export class SharedLimits extends Limits {
  readonly #board: LimitsBoard
  readonly #alarm: Alarm
  #config: LimitsConfig
  #owner: LimitsOwner | undefined
  #changed: () => void = () => {}
  /** All that are not dispatched yet, reserved ones too. */
  readonly #places = new Places()
  #wanted = 0
  #busy = false
  #mustTell = false
  #retryAt = 0
  #slots = 0
  #idleSince = NEVER
  #share = NEVER
  #spent = false
  #goodFor = MOST_GOOD_MS
  #ahead = 1
  readonly #made = new UntoldUses()
  #returned: [number, number][] = []
  #heard: Answer | undefined
  #outage: Outage | undefined
  #period = { start: 0, uses: 0, before: 0 }

  constructor(config: LimitsConfig, board: LimitsBoard) {
    super(config)
    this.#board = board
    this.#config = config
    this.#alarm = new Alarm(board.clock, () => this.#tick())
    this.#measure()
  }

  /** Says whose limits these are; `changed` is called when readiness may have changed. */
  attach(owner: LimitsOwner, changed: () => void): void {
    this.#owner = owner
    this.#changed = changed
    if (!this.#board.up()) this.lose()
  }

  /** The credential has left: what it holds goes back. */
  detach(): void {
    this.#wanted = 0
    this.#giveBack(this.#places.total - this.reserved)
    this.#tell()
  }

  /** Nothing is asked or told any more. */
  close(): void {
    this.#alarm.stop()
    this.#owner = undefined
  }

  override get load(): number {
    return this.inFlight + this.#wanted
  }
  override get usedUp(): boolean {
    return super.usedUp || (this.#spent && this.#places.total === 0)
  }
  /** The store counts: nothing has to be written here. */
  override get mustWrite(): boolean {
    return false
  }
  override write(): undefined {
    return undefined
  }

  override configure(config: LimitsConfig): void {
    super.configure(config)
    this.#config = config
    this.#measure()
    this.#outage = this.#outage && this.#makeOutage()
  }

  override freeAt(now: number): number {
    const own = super.freeAt(now)
    if (own > now || !this.#isLimited) return own
    if (this.atHand(now)) return 0
    if (this.#outage) return this.#outage.freeAt(now, this.reserved, this.inFlight)
    if (this.#retryAt > now) return this.#retryAt
    return this.#wanted < this.#room(now) ? 0 : NEVER
  }

  override atHand(now: number): boolean {
    if (!this.#isLimited) return true
    this.#sweep(now)
    const placed = !this.#isCounted || this.#places.total > this.reserved
    const slotted = this.#config.concurrency === undefined || this.#slots > this.inFlight
    if (placed && slotted) return true
    return (this.#outage?.freeAt(now, this.reserved, this.inFlight) ?? NEVER) <= now
  }

  override ask(count: number): void {
    if (this.#outage) return
    const wanted = Math.min(count, Math.max(1, this.#room(this.#board.clock.monotonic())))
    this.#want(wanted)
    this.#tell()
  }

  override reserve(): void {
    super.reserve()
    this.#idleSince = NEVER
    if (this.#isCounted && !this.#outage) this.#lookAhead()
  }

  override dispatch(now: number, counts: boolean): void {
    super.dispatch(now, counts)
    if (this.#isCounted) this.#usePlace(now, counts)
  }

  override end(dispatched: boolean): void {
    super.end(dispatched)
    if (this.#config.concurrency === undefined) return
    const now = this.#board.clock.monotonic()
    if (this.#slots > this.#share) this.#tell()
    else if (this.#slots > this.inFlight) {
      this.#idleSince = Math.min(this.#idleSince, now)
      this.#alarm.by(this.#idleSince + IDLE_MS)
    }
  }

  override renew(): void {
    super.renew()
    this.#spent = false
    this.#retryAt = 0
    // Places of the old token are no uses of the new one.
    if (this.#config.uses !== undefined) this.#places.keep(this.reserved)
  }

  /** Others wait for slots: no more than so many are kept. */
  share(count: number): void {
    this.#share = count
    if (this.#slots > Math.max(count, this.inFlight)) this.#tell()
  }

  /** Slots came free elsewhere. */
  freed(): void {
    if (this.#retryAt === 0 || this.#config.concurrency === undefined) return
    this.#retryAt = 0
    this.#changed()
  }

  /** The store does not answer any more: this instance's part of the limits is what is left. */
  lose(): void {
    this.#want(-this.#wanted)
    if (this.#isLimited) this.#outage ??= this.#makeOutage()
  }

  /** The store answers again. Where it has lost all, it is told of everything that still counts. */
  regain(emptied: boolean): void {
    const now = this.#board.clock.monotonic()
    this.#outage = undefined
    this.#retryAt = 0
    this.#share = NEVER
    this.#slots = this.#config.concurrency === undefined ? 0 : this.inFlight
    if (emptied) {
      this.#returned = []
      this.#places.keep(0)
      const longest = this.windows.toSorted((a, b) => b.rate.windowMs - a.rate.windowMs)[0]
      longest?.used(now)
      const made = (longest?.log() ?? []).map(([at, count]) => ({ at, count, ofToken: false }))
      if (this.#config.uses !== undefined && this.uses > 0) {
        made.push({ at: -NEVER, count: this.uses, ofToken: true })
      }
      this.#made.replace(made)
    }
    if (!this.#isLimited) return
    this.#mustTell = !this.#made.isEmpty || this.#slots > 0 || this.#returned.length > 0
    this.#tell()
  }

  override describe(now: number): ReturnType<Limits['describe']> {
    const heard = this.#heard
    return super.describe(now).map((each, index) => {
      const left = heard?.left[index]
      if (left === undefined || index >= this.#config.rate.length) return each
      return { ...each, used: Math.max(each.used, each.max - left) }
    })
  }

  get #isCounted(): boolean {
    return this.#config.rate.length > 0 || this.#config.uses !== undefined
  }
  get #isLimited(): boolean {
    return this.#isCounted || this.#config.concurrency !== undefined
  }

  #measure(): void {
    const { goodFor, ahead } = termsOf(this.#config)
    this.#goodFor = goodFor
    this.#ahead = ahead
  }

  /** How many more requests its own uses leave room for: no instance may have more. */
  #room(now: number): number {
    const { concurrency = NEVER, uses = NEVER } = this.#config
    let room = Math.min(concurrency - this.inFlight, uses - this.uses - this.reserved)
    for (const window of this.windows) {
      room = Math.min(room, window.rate.count - window.used(now) - this.reserved)
    }
    return room
  }

  #want(count: number): void {
    this.#wanted += count
    this.#board.asked += count
  }

  /** Where much is used, places are taken before they are needed: as many as the last while has used. */
  #lookAhead(): void {
    const now = this.#board.clock.monotonic()
    const period = this.#period
    if (now - period.start > this.#goodFor) {
      const fresh = now - period.start < 2 * this.#goodFor
      this.#period = { start: now, uses: 1, before: fresh ? period.uses : 0 }
    } else period.uses += 1
    if (this.#ahead < LEAST_AHEAD || this.#busy || this.#retryAt > now) return
    const target = Math.min(this.#ahead, Math.max(this.#period.before, this.#period.uses))
    const free = this.#places.total - this.reserved
    if (free * 2 >= target) return
    const count = Math.min(target - free, this.#room(now))
    if (count <= 0) return
    this.#want(count)
    this.#tell()
  }

  #usePlace(now: number, counts: boolean): void {
    const used = this.#places.use(now)
    // A place that is over still counts for a while, and what is told now takes its turn.
    if (used !== 'good') this.#note(now, 1, used === 'none' && counts)
  }

  /** Notes uses that no good place covers. */
  #note(at: number, count: number, ofToken: boolean): void {
    this.#outage?.count(count)
    const least = Math.min(...this.#config.rate.map(({ windowMs }) => windowMs))
    this.#made.note(at, count, ofToken, Math.max(1, least / 256))
    this.#mustTell = true
    this.#tell()
  }

  /** Gives back what is over and unused; what is over and spoken for is counted anew. */
  #sweep(now: number): void {
    if (this.#places.endsAt >= now) return
    this.#giveBack(Math.min(this.#places.over(now), this.#places.total - this.reserved))
    // Their window has hardly begun: those who still hold them, say because they connect, get them prolonged.
    const until = now + this.#goodFor
    const count = this.#outage ? 0 : this.#places.prolong(now, until)
    if (count > 0) {
      this.#made.note(until, count, false, 0)
      this.#mustTell = true
    }
    if (this.#mustTell) this.#tell()
  }

  #giveBack(count: number): void {
    if (count <= 0) return
    this.#returned.push(...this.#places.drop(count))
    this.#mustTell = true
  }

  #tick(): void {
    const now = this.#board.clock.monotonic()
    this.#sweep(now)
    if (this.#idleSince + IDLE_MS <= now) this.#tell()
    this.#rearm()
  }

  #rearm(): void {
    const now = this.#board.clock.monotonic()
    // While the store is away, what is over stays until it is used.
    this.#alarm.by(Math.max(this.#places.endsAt + 1, this.#outage ? now + AGAIN_MS : now))
    if (this.#idleSince < NEVER) this.#alarm.by(this.#idleSince + IDLE_MS)
  }

  /** Slots to hold from now on: idle ones go when others wait, or when no request came for a while. */
  #slotsToHold(now: number): number {
    const inFlight = this.inFlight
    const idle = Math.max(0, this.#slots - inFlight)
    if (this.#slots > this.#share) return Math.max(inFlight, Math.min(this.#slots, this.#share))
    if (this.#idleSince + IDLE_MS <= now && this.#wanted === 0) return this.#slots - idle
    return this.#slots
  }

  /** Sends what there is to say, unless a message is under way: then it goes with the next. */
  #tell(): void {
    const owner = this.#owner
    if (this.#busy || this.#outage || !owner) return
    const now = this.#board.clock.monotonic()
    const slots = this.#slotsToHold(now)
    const wanted = this.#retryAt > now ? 0 : this.#wanted
    if (wanted === 0 && !this.#mustTell && slots === this.#slots) return
    this.#busy = true
    this.#mustTell = false
    this.#slots = slots
    if (slots <= this.inFlight) this.#idleSince = NEVER
    const { rate, concurrency = 0, uses = 0 } = this.#config
    const made = this.#made.take()
    const returned = this.#returned.splice(0)
    void this.#board
      .ask(owner.id, {
        want: wanted,
        rates: rate,
        goodForMs: this.#goodFor,
        concurrency,
        slots,
        idle: Math.max(0, slots - this.inFlight),
        uses,
        generation: owner.generation,
        made: made.map(({ at, count, ofToken }) => [Math.min(now - at, 1e15), count, ofToken]),
        returned,
      })
      .then(
        (answer) => this.#take(answer, wanted, now),
        () => {
          this.#made.restore(made)
          this.#fail(wanted)
        },
      )
  }

  #take(answer: Answer, wanted: number, sentAt: number): void {
    const now = this.#board.clock.monotonic()
    this.#busy = false
    this.#heard = answer
    this.#want(-Math.min(wanted, this.#wanted))
    if (this.#config.concurrency !== undefined) this.#slots = answer.slots
    this.#share = answer.contended ? answer.share : NEVER
    this.#spent = answer.usesLeft === 0
    if (answer.granted > 0 && this.#isCounted) {
      this.#keep(answer, sentAt, now)
    }
    this.#retryAt = answer.granted < wanted ? now + answer.retryMs : 0
    // Those who have come meanwhile ask again when there is hope.
    if (this.#retryAt > now) this.#want(-this.#wanted)
    if (wanted > 0) this.#changed()
    if (this.#slots > this.inFlight && this.#idleSince === NEVER) this.#idleSince = now
    this.#rearm()
    this.#tell()
  }

  #keep({ granted: count, stamp }: Answer, sentAt: number, now: number): void {
    const until = sentAt + this.#goodFor
    if (until > now) {
      this.#places.add(count, until, stamp)
      return
    }
    // The way is longer than they are good for: they are counted anew, and the next are good for longer.
    this.#places.add(count, now + this.#goodFor, 0)
    this.#made.note(now + this.#goodFor, count, false, 0)
    this.#mustTell = true
    this.#goodFor = Math.min(MOST_GOOD_MS, 2 * this.#goodFor)
  }

  #fail(wanted: number): void {
    this.#busy = false
    this.#want(-Math.min(wanted, this.#wanted))
    if (this.#outage || !this.#board.up()) return
    this.#mustTell ||= !this.#made.isEmpty
    this.#retryAt = this.#board.clock.monotonic() + AGAIN_MS
    this.#changed()
  }

  #makeOutage(): Outage {
    return new Outage({
      config: this.#config,
      windows: this.windows,
      now: this.#board.clock.monotonic(),
      instances: this.#board.instances(),
      slots: this.#slots,
      heard: this.#heard,
    })
  }
}
