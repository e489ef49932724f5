import type { EventMap, Events, ExchangeRecord } from '../events.ts'
import type { Clock } from '../lib/clock.ts'
import type { PoolStatus } from '../pool/lease.ts'

const STEP_MS = 10_000
/** An hour. */
const STEPS = 360
/** The steps that have ended, and the one that is being counted. */
const SLOTS = STEPS + 1

/** What requests came to, as charts tell them apart. */
const COUNTED = ['ok', 'expired', 'limited', 'denied', 'failed'] as const

type Counted = (typeof COUNTED)[number]

/** One pool's last hour: index 0 is the oldest step. */
export type PoolHistory = Readonly<Record<Counted | 'refreshes', number[]>> & {
  /** Average TTL remaining at the end of the step; null where no token's end is known. */
  readonly ttlSeconds: (number | null)[]
  readonly active: number[]
}

export interface HistoryView {
  readonly stepSeconds: number
  /** When the last step ended, ms since the epoch. */
  readonly end: number
  /** How many steps there are. */
  readonly steps: number
  readonly pools: Readonly<Record<string, PoolHistory>>
}

/** Counts each pool's requests and refreshes in steps of 10 s and keeps an hour of them, in memory of fixed size. */
export class History {
  readonly #events: Events
  readonly #pools: () => readonly PoolStatus[]
  readonly #clock: Clock
  readonly #kept = new Map<string, Track>()
  /** Number of the step that is being counted: wall time ÷ its length. */
  #step: number
  readonly #first: number
  #cancel: (() => void) | undefined

  constructor(events: Events, pools: () => readonly PoolStatus[], clock: Clock) {
    this.#events = events
    this.#pools = pools
    this.#clock = clock
    this.#step = this.#first = Math.floor(clock.now() / STEP_MS)
    events.on('exchange', this.#onExchange)
    events.on('refresh', this.#onRefresh)
    this.#await()
  }

  /** The steps that have ended; `since` leaves out those that ended at this time or before. */
  read(since = 0): HistoryView {
    const end = this.#step * STEP_MS
    const known = Math.min(STEPS, this.#step - this.#first)
    const steps = Math.max(0, Math.min(known, Math.ceil((end - since) / STEP_MS)))
    const pools: Record<string, PoolHistory> = {}
    for (const [name, track] of this.#kept) pools[name] = track.read(this.#step, steps)
    return { stepSeconds: STEP_MS / 1000, end, steps, pools }
  }

  close(): void {
    this.#events.off('exchange', this.#onExchange)
    this.#events.off('refresh', this.#onRefresh)
    this.#cancel?.()
  }

  readonly #onExchange = ({ pool, kind, verdict }: ExchangeRecord): void => {
    if (pool === undefined || !REQUESTS.has(kind)) return
    this.#track(pool).count(this.#step, verdict in CODES ? CODES[verdict as Counted] : CODES.failed)
  }

  readonly #onRefresh = ({ pool }: EventMap['refresh'][0]): void => {
    this.#track(pool).count(this.#step, REFRESHES)
  }

  #track(pool: string): Track {
    let track = this.#kept.get(pool)
    if (!track) {
      track = new Track()
      this.#kept.set(pool, track)
    }
    return track
  }

  #await(): void {
    const left = (this.#step + 1) * STEP_MS - this.#clock.now()
    this.#cancel = this.#clock.schedule(Math.min(Math.max(left, 0), STEP_MS), () => {
      this.#turn()
      this.#await()
    })
  }

  /** Ends the step, and those that passed while the machine slept. A clock that was set back changes nothing. */
  #turn(): void {
    const now = Math.floor(this.#clock.now() / STEP_MS)
    if (now <= this.#step) return
    const gone = new Set(this.#kept.keys())
    for (const { name, avgTtlRemainingSeconds, tokens } of this.#pools()) {
      gone.delete(name)
      this.#track(name).end(this.#step, avgTtlRemainingSeconds, tokens.active)
    }
    for (const name of gone) this.#kept.delete(name)
    for (const track of this.#kept.values()) track.clear(this.#step + 1, now)
    this.#step = now
  }
}

/** A lease is a request that somebody else sends. */
const REQUESTS = new Set(['exchange', 'websocket', 'lease'])
const CODES = { ok: 0, expired: 1, limited: 2, denied: 3, failed: 4 } as const
const REFRESHES = 5
const COUNTS = 6

/** One pool's ring of steps. */
class Track {
  readonly #counts = new Uint32Array(SLOTS * COUNTS)
  readonly #ttl = new Float32Array(SLOTS).fill(Number.NaN)
  readonly #active = new Uint32Array(SLOTS)

  count(step: number, code: number): void {
    const index = (step % SLOTS) * COUNTS + code
    this.#counts[index] = (this.#counts[index] as number) + 1
  }

  end(step: number, ttl: number | undefined, active: number): void {
    this.#ttl[step % SLOTS] = ttl ?? Number.NaN
    this.#active[step % SLOTS] = active
  }

  /** Makes room for these steps, both included. */
  clear(from: number, to: number): void {
    for (let step = Math.max(from, to - SLOTS + 1); step <= to; step++) {
      const slot = step % SLOTS
      this.#counts.fill(0, slot * COUNTS, (slot + 1) * COUNTS)
      this.#ttl[slot] = Number.NaN
      this.#active[slot] = 0
    }
  }

  /** The steps before this one. */
  read(step: number, steps: number): PoolHistory {
    const slots = Array.from({ length: steps }, (_, index) => (step - steps + index) % SLOTS)
    const counted = (code: number) =>
      slots.map((slot) => this.#counts[slot * COUNTS + code] as number)
    const [ok, expired, limited, denied, failed] = COUNTED.map((name) => counted(CODES[name]))
    return {
      ok,
      expired,
      limited,
      denied,
      failed,
      refreshes: counted(REFRESHES),
      ...this.#gauges(slots),
    } as PoolHistory
  }

  #gauges(slots: readonly number[]) {
    return {
      ttlSeconds: slots.map((slot) => {
        const ttl = this.#ttl[slot] as number
        return Number.isNaN(ttl) ? null : Math.round(ttl)
      }),
      active: slots.map((slot) => this.#active[slot] as number),
    }
  }
}
