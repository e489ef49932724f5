/** The line of one host: who has a turn, and who waits for one. */
interface Line {
  running: number
  /** Those for whom a request waits, first come first served. */
  readonly urgent: Set<() => void>
  /** Schedules that have something due there; each is told once. */
  readonly idle: Set<() => void>
}

/**
 * Turns at token endpoints: so many renewals at a time go to one host, whatever the pool. Whoever has requests
 * waiting comes before what is merely due.
 */
export class Turns {
  readonly #lines = new Map<string, Line>()
  #limit: number

  constructor(limit: number) {
    this.#limit = limit
  }

  /** Takes over another limit; turns that are taken stay so. */
  configure(limit: number): void {
    this.#limit = limit
    for (const host of [...this.#lines.keys()]) this.#hand(host)
  }

  /** Takes a turn if there is one that nobody urgent waits for. */
  tryTake(host: string): boolean {
    const line = this.#line(host)
    if (line.running >= this.#limit || line.urgent.size > 0) return false
    line.running += 1
    return true
  }

  /** Takes a turn as soon as there is one; rejects with the signal's reason. */
  async take(host: string, signal: AbortSignal): Promise<void> {
    if (this.tryTake(host)) return
    signal.throwIfAborted()
    const { urgent } = this.#line(host)
    await new Promise<void>((resolve, reject) => {
      const leave = () => {
        urgent.delete(enter)
        this.#forget(host)
        reject(signal.reason)
      }
      const enter = () => {
        signal.removeEventListener('abort', leave)
        resolve()
      }
      urgent.add(enter)
      signal.addEventListener('abort', leave, { once: true })
    })
  }

  /** Calls back once when `tryTake` is worth another try; the same callback twice counts once. */
  whenFree(host: string, callback: () => void): void {
    this.#line(host).idle.add(callback)
  }

  /** Gives a turn back. */
  give(host: string): void {
    this.#line(host).running -= 1
    this.#hand(host)
  }

  #hand(host: string): void {
    const line = this.#line(host)
    while (line.running < this.#limit) {
      const [enter] = line.urgent
      if (enter) {
        line.urgent.delete(enter)
        line.running += 1
        enter()
        continue
      }
      const [callback] = line.idle
      if (!callback) break
      // Whoever takes a turn and wants more stands in line again, behind the other pools.
      line.idle.delete(callback)
      callback()
    }
    this.#forget(host)
  }

  #line(host: string): Line {
    let line = this.#lines.get(host)
    if (!line) {
      line = { running: 0, urgent: new Set(), idle: new Set() }
      this.#lines.set(host, line)
    }
    return line
  }

  #forget(host: string): void {
    const line = this.#lines.get(host)
    if (line?.running === 0 && line.urgent.size === 0 && line.idle.size === 0)
      this.#lines.delete(host)
  }
}
