/** What a heap needs of its items: where they stand in each heap, -1 for not at all. */
export interface Heaped {
  readonly slots: number[]
}

/**
 * A binary heap that knows where each item stands, so that an item moves or leaves in O(log n).
 * `slot` tells heaps apart that share their items.
 */
export class Heap<Item extends Heaped> {
  readonly #items: Item[] = []
  readonly #slot: number
  readonly #before: (a: Item, b: Item) => boolean

  constructor(slot: number, before: (a: Item, b: Item) => boolean) {
    this.#slot = slot
    this.#before = before
  }

  get size(): number {
    return this.#items.length
  }

  get top(): Item | undefined {
    return this.#items[0]
  }

  has(item: Item): boolean {
    return item.slots[this.#slot] !== -1
  }

  /** Adds an item, or moves it to where its changed rank belongs. */
  put(item: Item): void {
    let index = item.slots[this.#slot] as number
    if (index === -1) {
      index = this.#items.length
      this.#items.push(item)
    }
    this.#up(index, item) || this.#down(item.slots[this.#slot] as number, item)
  }

  delete(item: Item): void {
    const index = item.slots[this.#slot] as number
    if (index === -1) return
    item.slots[this.#slot] = -1
    const last = this.#items.pop() as Item
    if (last === item) return
    this.#up(index, last) || this.#down(index, last)
  }

  clear(): void {
    for (const item of this.#items) item.slots[this.#slot] = -1
    this.#items.length = 0
  }

  /**
   * The first item in order that matches. A match's children come after it, so only mismatches are looked
   * behind: the cost is their number, not the heap's.
   */
  best(matches: (item: Item) => boolean): Item | undefined {
    const items = this.#items
    let best: Item | undefined
    const open = [0]
    for (let index = open.pop(); index !== undefined; index = open.pop()) {
      const item = items[index]
      if (item === undefined || (best && !this.#before(item, best))) continue
      if (matches(item)) best = item
      else open.push(2 * index + 2, 2 * index + 1)
    }
    return best
  }

  #up(from: number, item: Item): boolean {
    let index = from
    while (index > 0) {
      const parent = (index - 1) >> 1
      const above = this.#items[parent] as Item
      if (!this.#before(item, above)) break
      this.#set(index, above)
      index = parent
    }
    this.#set(index, item)
    return index !== from
  }

  #down(from: number, item: Item): void {
    const { length } = this.#items
    let index = from
    for (;;) {
      let child = 2 * index + 1
      if (child >= length) break
      const right = this.#items[child + 1]
      if (right !== undefined && this.#before(right, this.#items[child] as Item)) child += 1
      const below = this.#items[child] as Item
      if (!this.#before(below, item)) break
      this.#set(index, below)
      index = child
    }
    this.#set(index, item)
  }

  #set(index: number, item: Item): void {
    this.#items[index] = item
    item.slots[this.#slot] = index
  }
}
