import type { Clock } from '../lib/clock.ts'

/** A difference up to this is what `Date`'s whole seconds and the way there make of equal clocks. */
const TOLERANCE_MS = 2000
/** A clock further off than a day is no clock to go by. */
const MAX_SKEW_MS = 24 * 3600 * 1000
/** An answer that took longer tells the time too vaguely. */
const MAX_TRIP_MS = 5000
const SAMPLES = 5
const MAX_HOSTS = 100

/**
 * How far servers' clocks are ahead of ours, learned from the `Date` of their answers: the median of the
 * last few. Kept against the steady clock, so that a jump of our own wall clock does not spoil it.
 */
export class ClockSkew {
  readonly #clock: Clock
  readonly #hosts = new Map<string, number[]>()

  constructor(clock: Clock) {
    this.#clock = clock
  }

  /** Takes note of an answer that was asked for at `sent`, monotonic, and has come now. */
  note(host: string, headers: Headers, sent: number): void {
    // What a cache has kept tells the time at which it was made (RFC 9111 §5.1).
    if (Number(headers.get('age') ?? 0) > 0) return
    const received = this.#clock.monotonic()
    const date = Date.parse(headers.get('date') ?? '')
    if (!Number.isFinite(date) || received - sent > MAX_TRIP_MS) return
    // RFC 9110 §5.6.7: whole seconds, so half a second more on average.
    const offset = date + 500 - (sent + received) / 2
    if (Math.abs(offset - this.#ownOffset()) > MAX_SKEW_MS) return
    const samples = [...(this.#hosts.get(host) ?? []), offset].slice(-SAMPLES)
    this.#hosts.delete(host)
    this.#hosts.set(host, samples)
    if (this.#hosts.size > MAX_HOSTS) this.#hosts.delete(this.#hosts.keys().next().value as string)
  }

  /** How far the host's clock is ahead, in ms; 0 when it agrees with ours or is not known. */
  of(host: string | undefined): number {
    const samples = host === undefined ? undefined : this.#hosts.get(host)
    if (!samples) return 0
    const sorted = samples.toSorted((a, b) => a - b)
    const skew = Math.round((sorted[sorted.length >> 1] as number) - this.#ownOffset())
    return Math.abs(skew) > TOLERANCE_MS ? skew : 0
  }

  #ownOffset(): number {
    return this.#clock.now() - this.#clock.monotonic()
  }
}
