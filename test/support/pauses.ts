const TICK_MS = 20

/**
 * How long this process could not run while it was watched, because others had the machine: what a test measures in
 * real time may be late by as much. Its own work does not count.
 */
export class Pauses implements Disposable {
  readonly #timer = setInterval(() => this.#look(), TICK_MS)
  #last = performance.now()
  #used = usedMs()
  #lost = 0
  #longest = 0

  /** All of them together, in ms. */
  get lost(): number {
    this.#look()
    return this.#lost
  }

  /** The longest one, in ms. */
  get longest(): number {
    this.#look()
    return this.#longest
  }

  #look(): void {
    const now = performance.now()
    const used = usedMs()
    const pause = Math.max(0, now - this.#last - TICK_MS - (used - this.#used))
    this.#last = now
    this.#used = used
    this.#lost += pause
    this.#longest = Math.max(this.#longest, pause)
  }

  [Symbol.dispose](): void {
    clearInterval(this.#timer)
  }
}

function usedMs(): number {
  const { user, system } = process.cpuUsage()
  return (user + system) / 1000
}
