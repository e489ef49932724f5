import { Cell } from './cell.ts'

/** Nobody reads faster than that; drawing more often would only move what is read. */
const TELL_MS = 150

/** The latest of many, in order of arrival: traces, events. Its version changes a few times a second at most. */
export class Log<T> {
  /** Changes when there is something to draw. */
  readonly version = new Cell(0)
  readonly #capacity: number
  readonly #keyOf: (item: T) => string | number
  #items: T[] = []
  #keys = new Set<string | number>()
  #received = 0
  #timer: ReturnType<typeof setTimeout> | undefined

  constructor(capacity: number, keyOf: (item: T) => string | number) {
    this.#capacity = capacity
    this.#keyOf = keyOf
  }

  /** Oldest first. */
  get items(): readonly T[] {
    return this.#items
  }

  /** How many were added in all. */
  get received(): number {
    return this.#received
  }

  add(item: T): void {
    const key = this.#keyOf(item)
    if (this.#keys.has(key)) return
    this.#keys.add(key)
    this.#items.push(item)
    this.#received += 1
    // Cut seldom: shifting at each arrival would move them all each time.
    if (this.#items.length >= this.#capacity * 1.5) this.#cut()
    this.#tellSoon()
  }

  /** Takes in a list, oldest first, which may hold what is here already; `order` puts all of it right. */
  merge(items: readonly T[], order: (a: T, b: T) => number): void {
    const fresh = items.filter((item) => !this.#keys.has(this.#keyOf(item)))
    if (fresh.length === 0) return
    for (const item of fresh) this.#keys.add(this.#keyOf(item))
    this.#items = [...this.#items, ...fresh].sort(order)
    this.#cut()
    this.#tellSoon()
  }

  clear(): void {
    this.#items = []
    this.#keys.clear()
    this.#tellSoon()
  }

  #cut(): void {
    const surplus = this.#items.length - this.#capacity
    if (surplus <= 0) return
    for (const item of this.#items.splice(0, surplus)) this.#keys.delete(this.#keyOf(item))
  }

  #tellSoon(): void {
    this.#timer ??= setTimeout(() => {
      this.#timer = undefined
      this.version.set(this.version.value + 1)
    }, TELL_MS)
  }
}
