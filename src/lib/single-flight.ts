/**
 * Runs one job at a time per key: callers that arrive while it runs join it.
 * The entry is cleared only if it is still the current one, so a late end never removes a newer flight.
 */
export class SingleFlight<Key, Value> {
  readonly #flights = new Map<Key, Promise<Value>>()

  run(key: Key, job: () => Promise<Value>): { promise: Promise<Value>; role: 'led' | 'joined' } {
    const current = this.#flights.get(key)
    if (current) return { promise: current, role: 'joined' }
    const promise = job().finally(() => {
      if (this.#flights.get(key) === promise) this.#flights.delete(key)
    })
    this.#flights.set(key, promise)
    return { promise, role: 'led' }
  }

  get size(): number {
    return this.#flights.size
  }
}
