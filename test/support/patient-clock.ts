import { type Clock, systemClock } from '../../src/lib/clock.ts'

const LOOK_MS = 20
/** A longer time without a look is a time in which this process did not run. */
const PAUSE_MS = 200

/**
 * The system's clock, but for times in which a busy machine did not let this process run: those do not pass, so that
 * a short limit of a test's is never met by the healthy. Not for tokens that end soon by somebody else's clock.
 */
export class PatientClock implements Clock {
  #skipped = 0
  #last = performance.now()

  constructor() {
    setInterval(() => this.monotonic(), LOOK_MS).unref()
  }

  now(): number {
    this.monotonic()
    return systemClock.now() - this.#skipped
  }

  monotonic(): number {
    const now = performance.now()
    const gap = now - this.#last
    this.#last = now
    if (gap > PAUSE_MS) this.#skipped += gap - LOOK_MS
    return now - this.#skipped
  }

  schedule(delayMs: number, callback: () => void): () => void {
    const end = this.monotonic() + delayMs
    const look = () => {
      const left = end - this.monotonic()
      if (left <= 1) callback()
      else cancel = systemClock.schedule(left, look)
    }
    let cancel = systemClock.schedule(delayMs, look)
    return () => cancel()
  }
}
