import type { Clock } from '../lib/clock.ts'

type Fetch = (url: string | URL, init?: RequestInit) => Promise<Response>

/** A difference up to this is what `Date`'s whole seconds and the way there make of equal clocks. */
const TOLERANCE_MS = 2000
/** A clock further off than a day is no clock to go by. */
const MAX_SKEW_MS = 24 * 3600 * 1000
/** An answer that took longer tells the time too vaguely. */
const MAX_TRIP_MS = 5000
const SAMPLES = 5

/**
 * How far an issuer's clock is ahead of ours, learned from the `Date` of its answers: the median of the last
 * few. Kept against the steady clock, so that a jump of our own wall clock does not spoil it.
 */
export class ClockSkew {
  readonly #clock: Clock
  #offsets: readonly number[] = []

  constructor(clock: Clock) {
    this.#clock = clock
  }

  /** How far the issuer is ahead, in ms; 0 while its clock agrees with ours or is not known. */
  get ms(): number {
    const { length } = this.#offsets
    if (length === 0) return 0
    const median = this.#offsets.toSorted((a, b) => a - b)[length >> 1] as number
    const skew = Math.round(median - this.#ownOffset())
    return Math.abs(skew) > TOLERANCE_MS ? skew : 0
  }

  /** The same `fetch`, whose answers are taken note of. */
  metered(fetch: Fetch): Fetch {
    return async (url, init) => {
      const sent = this.#clock.monotonic()
      const response = await fetch(url, init)
      this.#note(response.headers, sent)
      return response
    }
  }

  #note(headers: Headers, sent: number): void {
    // What a cache has kept tells the time at which it was made (RFC 9111 §5.1).
    if (Number(headers.get('age') ?? 0) > 0) return
    const received = this.#clock.monotonic()
    const date = Date.parse(headers.get('date') ?? '')
    if (!Number.isFinite(date) || received - sent > MAX_TRIP_MS) return
    // RFC 9110 §5.6.7: whole seconds, so half a second more on average.
    const offset = date + 500 - (sent + received) / 2
    if (Math.abs(offset - this.#ownOffset()) > MAX_SKEW_MS) return
    this.#offsets = [...this.#offsets, offset].slice(-SAMPLES)
  }

  #ownOffset(): number {
    return this.#clock.now() - this.#clock.monotonic()
  }
}
