import type { Clock } from '../lib/clock.ts'

/** One timer for many due times: it rings at the earliest that was asked for, perhaps early, never later. */
export class Alarm {
  readonly #clock: Clock
  readonly #ring: () => void
  #at = Number.POSITIVE_INFINITY
  #cancel: (() => void) | undefined
  #stopped = false

  constructor(clock: Clock, ring: () => void) {
    this.#clock = clock
    this.#ring = ring
  }

  /** Asks to ring by `at` (monotonic). A later time than the one set changes nothing, so this is cheap. */
  by(at: number): void {
    if (at >= this.#at || this.#stopped) return
    this.#cancel?.()
    this.#at = at
    // Rounded up: Node cuts fractions, and a timer that rings early would only ring again.
    const delay = Math.max(0, Math.ceil(at - this.#clock.monotonic()))
    this.#cancel = this.#clock.schedule(delay, () => {
      this.#at = Number.POSITIVE_INFINITY
      this.#cancel = undefined
      this.#ring()
    })
  }

  stop(): void {
    this.#stopped = true
    this.#cancel?.()
    this.#cancel = undefined
  }
}

/** `base · 2^failures`, at most `max`, made up to a quarter shorter so that many do not come back at once. */
export function backOff(base: number, max: number, failures: number, jitter: number): number {
  return Math.min(max, base * 2 ** Math.min(failures, 40)) * (1 - jitter * 0.25)
}
