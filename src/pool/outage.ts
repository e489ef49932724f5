import type { LimitsConfig } from '../config/schema.ts'
import type { Answer } from '../store/shared.ts'
import type { Window } from './limits.ts'

const NEVER = Number.POSITIVE_INFINITY
/** Windows up to here are waited out: then what the others did before no longer counts. */
const WAITED_OUT_MS = 5000
/** Requests that were under way when the store went are taken to be over after this. */
const SLOTS_MS = 60_000

/**
 * One instance's part of the limits while the store does not answer. Each takes an equal part of what was left
 * when it last heard, and once a window has passed an equal part of the whole: the sum stays within the limit.
 */
export class Outage {
  readonly #config: LimitsConfig
  readonly #windows: readonly Window[]
  readonly #since: number
  readonly #instances: number
  readonly #slots: number
  readonly #heard: Answer | undefined
  #made = 0

  constructor(facts: {
    config: LimitsConfig
    windows: readonly Window[]
    now: number
    instances: number
    /** Slots that this instance held. */
    slots: number
    heard: Answer | undefined
  }) {
    this.#config = facts.config
    this.#windows = facts.windows
    this.#since = facts.now
    this.#instances = facts.instances
    this.#slots = facts.slots
    this.#heard = facts.heard
  }

  /** So many requests were sent. */
  count(requests: number): void {
    this.#made += requests
  }

  /** As `Limits.freeAt`, for what this instance may do by itself. */
  freeAt(now: number, reserved: number, inFlight: number): number {
    const { concurrency, uses } = this.#config
    if (concurrency !== undefined && inFlight >= this.#slotsAt(now, concurrency)) return NEVER
    if (uses !== undefined && this.#made + reserved >= this.#part(this.#heard?.usesLeft ?? 0)) {
      return NEVER
    }
    let free = 0
    for (const [index, window] of this.#windows.entries()) {
      const { count, windowMs } = window.rate
      const passed = this.#since + windowMs
      if (now < passed) {
        const left = windowMs <= WAITED_OUT_MS ? 0 : (this.#heard?.left[index] ?? 0)
        if (this.#made + reserved >= this.#part(left)) free = Math.max(free, passed)
      } else if (window.used(now) + reserved >= this.#part(count)) {
        free = Math.max(free, this.#part(count) > 0 ? window.nextFree : NEVER)
      }
    }
    return free
  }

  #slotsAt(now: number, concurrency: number): number {
    if (now >= this.#since + SLOTS_MS) return this.#part(concurrency)
    return this.#slots + this.#part(Math.max(0, this.#heard?.slotsLeft ?? 0))
  }

  #part(whole: number): number {
    return Math.floor(whole / this.#instances)
  }
}
