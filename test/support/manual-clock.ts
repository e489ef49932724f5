import type { Clock } from '../../src/lib/clock.ts'

/** A clock that moves only by hand; timers that come due run in order of their time. */
export class ManualClock implements Clock {
  #elapsed = 0
  #jumped = 0
  readonly #start: number
  readonly #timers = new Set<{ at: number; callback: () => void }>()

  constructor(start = Date.parse('2030-01-01T00:00:00Z')) {
    this.#start = start
  }

  now(): number {
    return this.#start + this.#elapsed + this.#jumped
  }

  monotonic(): number {
    return this.#elapsed
  }

  schedule(delayMs: number, callback: () => void): () => void {
    const timer = { at: this.#elapsed + Math.max(0, delayMs), callback }
    this.#timers.add(timer)
    return () => this.#timers.delete(timer)
  }

  /** How many timers are waiting: what is left after a close is a leak. */
  get pending(): number {
    return this.#timers.size
  }

  advance(ms: number): void {
    const end = this.#elapsed + ms
    for (;;) {
      const [next] = [...this.#timers].filter(({ at }) => at <= end).sort((a, b) => a.at - b.at)
      if (!next) break
      this.#timers.delete(next)
      this.#elapsed = Math.max(this.#elapsed, next.at)
      next.callback()
    }
    this.#elapsed = end
  }

  /** As `advance`, but what a timer set off ends before the next one rings. */
  async run(ms: number): Promise<void> {
    const end = this.#elapsed + ms
    for (;;) {
      await new Promise((resolve) => setImmediate(resolve))
      const next = Math.min(...[...this.#timers].map(({ at }) => at))
      if (next > end) break
      this.advance(Math.max(0, next - this.#elapsed))
    }
    this.#elapsed = Math.max(this.#elapsed, end)
  }

  /** Moves the clock on the wall alone, as a suspended machine or an operator does. */
  jump(ms: number): void {
    this.#jumped += ms
  }
}
