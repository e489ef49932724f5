import type { LimitsConfig } from '../config/schema.ts'
import type { Rate } from '../lib/units.ts'
import type { UsageRecord } from '../store/store.ts'

const NEVER = Number.POSITIVE_INFINITY
/** Most entries of one window's log; a window of more uses merges those that lie close together. */
const ENTRIES = 256
/** Windows from here on survive a restart. */
const DURABLE_MS = 60_000
/** Time of uses that were written ahead of being made: on load they count from the load. */
const AHEAD = Number.MAX_SAFE_INTEGER

/** `[monotonic time, how many]`, oldest first. */
type Log = [number, number][]

/** The uses within one sliding window. */
export class Window {
  readonly rate: Rate
  /** The window and a guard, so that what left a little late does not meet what left a little early. */
  readonly #span: number
  /** Uses within this time share an entry, which ages with its newest: never too few are counted. */
  readonly #quantum: number
  #times: number[] = []
  #counts: number[] = []
  #head = 0
  #total = 0
  #lastStart = 0

  constructor(rate: Rate, log: Log) {
    this.rate = rate
    this.#span = rate.windowMs + Math.min(10, rate.windowMs / 100)
    this.#quantum = rate.count > ENTRIES ? rate.windowMs / ENTRIES : 0
    for (const [time, count] of log) this.add(time, count)
  }

  used(now: number): number {
    while (this.#head < this.#times.length && this.#ends(this.#head) <= now) {
      this.#total -= this.#counts[this.#head] as number
      this.#head += 1
    }
    if (this.#head > 32 && this.#head * 2 > this.#times.length) {
      this.#times = this.#times.slice(this.#head)
      this.#counts = this.#counts.slice(this.#head)
      this.#head = 0
    }
    return this.#total
  }

  /** When the oldest entry leaves the window. */
  get nextFree(): number {
    return this.#head < this.#times.length ? this.#ends(this.#head) : NEVER
  }

  add(now: number, count: number): void {
    const last = this.#times.length - 1
    if (last >= this.#head && now - this.#lastStart < this.#quantum) {
      this.#times[last] = now
      this.#counts[last] = (this.#counts[last] as number) + count
    } else {
      this.#times.push(now)
      this.#counts.push(count)
      this.#lastStart = now
    }
    this.#total += count
  }

  log(): Log {
    return this.#times
      .slice(this.#head)
      .map((time, index) => [time, this.#counts[this.#head + index] as number])
  }

  #ends(index: number): number {
    return (this.#times[index] as number) + this.#span
  }
}

/**
 * The limits of one credential. A lease holds a place everywhere from `reserve` on; `dispatch` turns the
 * place into a use, `giveBack` frees it. Uses and places together never exceed a limit, and a use only ages
 * out after its window: so no sliding window ever holds too many.
 */
export class Limits {
  #windows: Window[] = []
  #concurrency = NEVER
  #maxUses = NEVER
  /** How many uses each write runs ahead; undefined when nothing has to survive. */
  #batch: number | undefined
  #headroom = 0
  #reserved = 0
  #inFlight = 0
  #uses = 0

  constructor(config: LimitsConfig) {
    this.#build(config, [])
  }

  get inFlight(): number {
    return this.#inFlight
  }

  get uses(): number {
    return this.#uses
  }

  /** How busy it is, for the choice. */
  get load(): number {
    return this.#inFlight
  }

  /** For those who keep limits together with others. */
  protected get windows(): readonly Window[] {
    return this.#windows
  }
  protected get reserved(): number {
    return this.#reserved
  }

  /** Whether the token has had all its uses. */
  get usedUp(): boolean {
    return this.#uses >= this.#maxUses
  }

  /** Whether anything must be written before the next use. */
  get mustWrite(): boolean {
    return this.#batch !== undefined && this.#headroom <= 0
  }

  /** Takes over changed limits; what was used stays used. */
  configure(config: LimitsConfig): void {
    const logs = this.#windows.map((window) => ({
      windowMs: window.rate.windowMs,
      log: window.log(),
    }))
    this.#build(config, logs)
  }

  /** Takes up what the store knows; `wallToMonotonic` places a wall time on the steady clock. */
  restore(usage: UsageRecord, sameToken: boolean, now: number, wallNow: number): void {
    const logs = Object.entries(usage.windows).map(([key, entries]) => ({
      windowMs: Number(key.split('/')[1]),
      log: entries.map(([time, count]): [number, number] => [
        now - (wallNow - Math.min(time, wallNow)),
        count,
      ]),
    }))
    this.#windows = this.#windows.map(({ rate }) => new Window(rate, logFor(rate.windowMs, logs)))
    if (sameToken) this.#uses = usage.uses
  }

  /** 0 when a request may go now, else the time when it may; never for what waits for a request to end. */
  freeAt(now: number): number {
    if (this.#inFlight >= this.#concurrency) return NEVER
    if (this.#uses + this.#reserved >= this.#maxUses) return NEVER
    let free = 0
    for (const window of this.#windows) {
      if (window.used(now) + this.#reserved < window.rate.count) continue
      free = Math.max(free, window.nextFree)
    }
    return free
  }

  /** Whether a request that may go now can go without asking anyone. */
  atHand(_now: number): boolean {
    return true
  }

  /** So many requests wait for what is not at hand. */
  ask(_count: number): void {}

  reserve(): void {
    this.#reserved += 1
    this.#inFlight += 1
  }

  /** A place becomes a use; `counts` tells whether it is a use of the current token. */
  dispatch(now: number, counts: boolean): void {
    this.#reserved -= 1
    for (const window of this.#windows) window.add(now, 1)
    if (counts) this.#uses += 1
    this.#headroom -= 1
  }

  /** The lease has ended; an undispatched one frees its place in the windows. */
  end(dispatched: boolean): void {
    this.#inFlight -= 1
    if (!dispatched) this.#reserved -= 1
  }

  /** A new token starts its uses afresh. */
  renew(): void {
    this.#uses = 0
    this.#headroom = 0
  }

  /**
   * What to write: all uses so far and, `ahead`, a batch of uses yet to come, so that not every request has
   * to write. After a crash those count as used. Undefined when nothing has to survive.
   */
  write(generation: number, ahead: boolean, now: number, wallNow: number): UsageRecord | undefined {
    if (this.#batch === undefined) return undefined
    const extra = ahead ? this.#batch - 1 : 0
    const windows: UsageRecord['windows'] = {}
    for (const window of this.#windows) {
      const { count, windowMs } = window.rate
      if (windowMs < DURABLE_MS) continue
      window.used(now)
      const log = window
        .log()
        .map(([time, uses]): [number, number] => [Math.ceil(wallNow - (now - time)), uses])
      if (extra > 0) log.push([AHEAD, extra])
      windows[`${count}/${windowMs}`] = log
    }
    return { windows, uses: this.#uses + extra, generation }
  }

  /** The last write has reached the store. */
  written(ahead: boolean): void {
    this.#headroom = ahead ? (this.#batch ?? 1) - 1 : 0
  }

  describe(now: number): { limit: string; used: number; max: number }[] {
    const rates = this.#windows.map((window) => ({
      limit: formatRate(window.rate),
      used: window.used(now) + this.#reserved,
      max: window.rate.count,
    }))
    if (this.#concurrency !== NEVER) {
      rates.push({ limit: 'concurrency', used: this.#inFlight, max: this.#concurrency })
    }
    if (this.#maxUses !== NEVER) rates.push({ limit: 'uses', used: this.#uses, max: this.#maxUses })
    return rates
  }

  #build(config: LimitsConfig, logs: { windowMs: number; log: Log }[]): void {
    this.#windows = config.rate.map((rate) => new Window(rate, logFor(rate.windowMs, logs)))
    this.#concurrency = config.concurrency ?? NEVER
    this.#maxUses = config.uses ?? NEVER
    const durable = config.rate
      .filter((rate) => rate.windowMs >= DURABLE_MS)
      .map(({ count }) => count)
    if (config.uses !== undefined) durable.push(config.uses)
    this.#batch =
      durable.length > 0 ? Math.max(1, Math.floor(Math.min(...durable) / 100)) : undefined
    this.#headroom = 0
  }
}

/** The log that tells most about a window: the shortest that covers it, else the longest. */
function logFor(windowMs: number, logs: { windowMs: number; log: Log }[]): Log {
  const sorted = logs.toSorted((a, b) => a.windowMs - b.windowMs)
  return (sorted.find((entry) => entry.windowMs >= windowMs) ?? sorted.at(-1))?.log ?? []
}

/** The limits of a credential: its own, key by key, else the pool's. */
export function mergeLimits(pool: LimitsConfig, own: LimitsConfig | undefined): LimitsConfig {
  if (!own) return pool
  return {
    rate: own.rate.length > 0 ? own.rate : pool.rate,
    concurrency: own.concurrency ?? pool.concurrency,
    uses: own.uses ?? pool.uses,
  }
}

const UNITS: readonly (readonly [string, number])[] = [
  ['d', 864e5],
  ['h', 36e5],
  ['m', 6e4],
  ['s', 1e3],
  ['ms', 1],
]

function formatRate({ count, windowMs }: Rate): string {
  const [unit, ms] = UNITS.find(([, each]) => windowMs % each === 0) ?? ['ms', 1]
  return `${count}/${windowMs === ms ? '' : windowMs / ms}${unit}`
}
