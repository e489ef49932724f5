import type { LimitsConfig } from '../config/schema.ts'

/** A place is good for this part of its window, within bounds: for so long it counts though nobody uses it. */
const GOOD_PART = 25
const LEAST_GOOD_MS = 10
export const MOST_GOOD_MS = 1000
/** Most places taken ahead of need. */
const MAX_AHEAD = 1000

/** For how long places are good, ms, and how many may be taken before they are needed. */
export function termsOf({ rate, uses }: LimitsConfig): { goodFor: number; ahead: number } {
  const part = Math.min(...rate.map(({ windowMs }) => windowMs / GOOD_PART), MOST_GOOD_MS)
  const goodFor = Math.max(LEAST_GOOD_MS, Math.floor(part))
  // As many as the limit lets through in that time, or a hundredth of a limit that is wide.
  const ahead = rate.map(({ count, windowMs }) => count * Math.max(goodFor / windowMs, 1 / 100))
  if (uses !== undefined) ahead.push(uses / 100)
  return { goodFor, ahead: Math.floor(Math.min(...ahead, MAX_AHEAD)) }
}

/** Places that were granted together. */
interface Batch {
  count: number
  until: number
  /** Names them when they are given back; 0 for those that cannot be. */
  stamp: number
}

/** Places that were granted and are not used yet, oldest first. One is as good as another. */
export class Places {
  #batches: Batch[] = []
  #total = 0

  get total(): number {
    return this.#total
  }

  /** When the oldest are over; never when there are none. */
  get endsAt(): number {
    return this.#batches[0]?.until ?? Number.POSITIVE_INFINITY
  }

  add(count: number, until: number, stamp: number): void {
    this.#batches.push({ count, until, stamp })
    this.#total += count
  }

  /** Takes one: a good one where there is, else one that is over, and counts only for a while yet. */
  use(now: number): 'good' | 'over' | 'none' {
    const batch = this.#batches.find(({ until }) => until >= now) ?? this.#batches[0]
    if (!batch) return 'none'
    this.#remove(batch, 1)
    return batch.until >= now ? 'good' : 'over'
  }

  /** How many are over. */
  over(now: number): number {
    let count = 0
    for (const batch of this.#batches) if (batch.until < now) count += batch.count
    return count
  }

  /** Takes so many of the oldest out; gives those that can be given back. */
  drop(count: number): [stamp: number, count: number][] {
    const dropped: [number, number][] = []
    for (let left = count; left > 0; ) {
      const batch = this.#batches[0]
      if (!batch) break
      const some = Math.min(left, batch.count)
      if (batch.stamp > 0) dropped.push([batch.stamp, some])
      this.#remove(batch, some)
      left -= some
    }
    return dropped
  }

  /** Makes those that are over good for longer, and gives their number: they must be counted anew. */
  prolong(now: number, until: number): number {
    let count = 0
    for (const batch of this.#batches) {
      if (batch.until >= now) continue
      batch.until = until
      batch.stamp = 0
      count += batch.count
    }
    return count
  }

  /** Forgets all but so many, and that they could be given back. */
  keep(count: number): void {
    const kept = Math.min(count, this.#total)
    const until = this.#batches[0]?.until ?? 0
    this.#batches = kept > 0 ? [{ count: kept, until, stamp: 0 }] : []
    this.#total = kept
  }

  #remove(batch: Batch, count: number): void {
    batch.count -= count
    this.#total -= count
    if (batch.count === 0) this.#batches.splice(this.#batches.indexOf(batch), 1)
  }
}

/** Most entries of a log of uses. */
const MAX_ENTRIES = 1024

/** Uses that no place covered. */
interface Use {
  at: number
  count: number
  /** Whether they are uses of the current token. */
  ofToken: boolean
}

/** Uses that the store has yet to be told of, oldest first. */
export class UntoldUses {
  #uses: Use[] = []

  get isEmpty(): boolean {
    return this.#uses.length === 0
  }

  /** Neighbours within `width` ms share an entry, as late as the latest: never too few are counted. */
  note(at: number, count: number, ofToken: boolean, width: number): void {
    const last = this.#uses.at(-1)
    if (last && last.ofToken === ofToken && at >= last.at && at - last.at < width) {
      last.at = at
      last.count += count
    } else this.#uses.push({ at, count, ofToken })
    if (this.#uses.length <= MAX_ENTRIES) return
    const [oldest, next] = this.#uses.splice(0, 2) as [Use, Use]
    next.count += oldest.count
    next.ofToken ||= oldest.ofToken
    this.#uses.unshift(next)
  }

  /** Takes all out, to be told. */
  take(): Use[] {
    return this.#uses.splice(0)
  }

  /** Puts back what could not be told. */
  restore(uses: readonly Use[]): void {
    this.#uses.unshift(...uses)
  }

  /** Only these are to be told. */
  replace(uses: Use[]): void {
    this.#uses = uses
  }
}
