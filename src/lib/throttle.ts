import type { Clock } from './clock.ts'

const FAILURES_ALLOWED = 10
const WINDOW_MS = 60_000
const FIRST_BLOCK_MS = 1_000
const LONGEST_BLOCK_MS = 60_000

interface Entry {
  /** Times of the latest failures, oldest first; never more than are needed to judge. */
  failures: number[]
  blockedUntil: number
  /** Length of the block in force or last served; 0 before the first and after a success. */
  blockMs: number
}

/**
 * Slows the guessing of credentials, per address: the tenth failure within a minute blocks it for a second, and
 * each further one for twice as long, up to a minute, until it has gone a minute without one.
 * While it is blocked right credentials are refused too, so that a block tells nothing about a guess.
 */
export class AuthThrottle {
  readonly #clock: Clock
  readonly #maxEntries: number
  /** In order of the latest failure: the first entry is the one to give up when the table is full. */
  readonly #entries = new Map<string, Entry>()

  constructor(clock: Clock, options: { maxEntries: number }) {
    this.#clock = clock
    this.#maxEntries = options.maxEntries
  }

  /** How long the address must wait before its credentials are looked at, in ms; undefined when it may try. */
  check(address: string): number | undefined {
    const entry = this.#entries.get(key(address))
    if (!entry) return undefined
    const left = entry.blockedUntil - this.#clock.monotonic()
    return left > 0 ? left : undefined
  }

  /** Counts wrong credentials; a request without any is no guess and is not counted. */
  failed(address: string): void {
    const now = this.#clock.monotonic()
    const name = key(address)
    const known = this.#entries.get(name)
    const entry =
      known && !forgotten(known, now) ? known : { failures: [], blockedUntil: 0, blockMs: 0 }
    entry.failures.push(now)
    if (entry.failures.length > FAILURES_ALLOWED) entry.failures.shift()
    const oldest = entry.failures[0] as number
    const many = entry.failures.length === FAILURES_ALLOWED && now - oldest < WINDOW_MS
    if (many || entry.blockMs > 0) {
      entry.blockMs =
        entry.blockMs === 0 ? FIRST_BLOCK_MS : Math.min(entry.blockMs * 2, LONGEST_BLOCK_MS)
      entry.blockedUntil = now + entry.blockMs
    }
    this.#entries.delete(name)
    this.#entries.set(name, entry)
    if (this.#entries.size > this.#maxEntries) this.#makeRoom(now)
  }

  /**
   * Starts the doubling anew. The minute's failures stay counted: whoever holds one valid credential must not
   * be able to buy guesses at another with it.
   */
  succeeded(address: string): void {
    const name = key(address)
    const entry = this.#entries.get(name)
    if (!entry) return
    if (forgotten(entry, this.#clock.monotonic())) this.#entries.delete(name)
    else entry.blockMs = 0
  }

  /** Whether anything is remembered of an address. */
  knows(address: string): boolean {
    return this.#entries.has(key(address))
  }

  get size(): number {
    return this.#entries.size
  }

  #makeRoom(now: number): void {
    for (const [name, entry] of this.#entries) {
      if (this.#entries.size <= this.#maxEntries && !forgotten(entry, now)) return
      this.#entries.delete(name)
    }
  }
}

function forgotten(entry: Entry, now: number): boolean {
  const latest = entry.failures.at(-1) ?? 0
  return now - Math.max(latest, entry.blockedUntil) >= WINDOW_MS
}

/**
 * A dual-stack listener sees IPv4 peers as `::ffff:a.b.c.d` (RFC 4291 §2.5.5.2); they are the same address. Of IPv6
 * a host has 2^64 addresses to guess from: they count as one (RFC 7421).
 */
function key(address: string): string {
  if (!address.includes(':')) return address
  if (address.startsWith('::ffff:') && address.includes('.')) return address.slice(7)
  const [head = '', tail = ''] = address.split('::')
  const left = head.split(':').filter(Boolean)
  const right = tail.split(':').filter(Boolean)
  const zeros = Array(Math.max(0, 8 - left.length - right.length)).fill('0')
  return `${[...left, ...zeros, ...right].slice(0, 4).join(':')}::/64`
}
