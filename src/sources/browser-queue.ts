/** A browser takes some 300 MB: so many run at a time, whatever the number of egresses. */
const MAX_BROWSERS = 4

interface Waiting {
  readonly egress: string
  readonly start: () => void
}

/** Lets one browser run at a time for each egress, first come first served. */
export class BrowserQueue {
  readonly #busy = new Set<string>()
  readonly #waiting = new Set<Waiting>()

  /** Runs the job when its turn comes; rejects with the signal's reason when that is too late. */
  async run<T>(egress: string, signal: AbortSignal, job: () => Promise<T>): Promise<T> {
    await this.#enter(egress, signal)
    try {
      return await job()
    } finally {
      this.#busy.delete(egress)
      for (const waiting of this.#waiting) {
        if (this.#isFree(waiting.egress)) waiting.start()
      }
    }
  }

  async #enter(egress: string, signal: AbortSignal): Promise<void> {
    signal.throwIfAborted()
    if (this.#isFree(egress)) {
      this.#busy.add(egress)
      return
    }
    await new Promise<void>((resolve, reject) => {
      const leave = () => {
        this.#waiting.delete(waiting)
        reject(signal.reason)
      }
      const waiting: Waiting = {
        egress,
        start: () => {
          this.#waiting.delete(waiting)
          signal.removeEventListener('abort', leave)
          this.#busy.add(egress)
          resolve()
        },
      }
      this.#waiting.add(waiting)
      signal.addEventListener('abort', leave, { once: true })
    })
  }

  #isFree(egress: string): boolean {
    return !this.#busy.has(egress) && this.#busy.size < MAX_BROWSERS
  }
}
