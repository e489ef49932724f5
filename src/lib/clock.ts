/** Time as the product sees it; tests pass a clock that they move by hand. */
export interface Clock {
  /** Wall time, ms since the epoch: for token lifetimes and what is shown. */
  now(): number
  /** Steady time in ms from an arbitrary start: for limits and durations; never jumps. */
  monotonic(): number
  /** Calls `callback` once after `delayMs`; returns the cancellation. Never keeps the process alive. */
  schedule(delayMs: number, callback: () => void): () => void
}

/** Node's timers fire at once for a longer delay; a longer wait is cut and taken up again by the caller. */
export const MAX_TIMER_MS = 2 ** 31 - 1

export const systemClock: Clock = {
  now: () => Date.now(),
  monotonic: () => performance.now(),
  schedule(delayMs, callback) {
    const timer = setTimeout(callback, Math.min(Math.max(0, delayMs), MAX_TIMER_MS))
    timer.unref()
    return () => clearTimeout(timer)
  },
}
