import type { Credential } from './credential.ts'
import type { Grant } from './grant.ts'

/**
 * One egress as this pool sees it. While it is down its credentials rest; then one request at a time may
 * try it, and only what comes of that opens it again.
 */
export class Lane {
  readonly name: string
  /** The pool's credentials that are pinned to it. */
  readonly members = new Set<Credential>()
  /** Whether its visible address is not what it must be, or not known yet: nothing may leave by it. */
  readonly #held: () => boolean
  /** The request that tries the egress while it rests. */
  trial: Grant | undefined
  #until = 0
  #failures = 0

  constructor(name: string, held: () => boolean) {
    this.name = name
    this.#held = held
  }

  /** Whether it is held to be down. */
  get rests(): boolean {
    return this.#failures > 0 || this.#held()
  }
  /** Held to be down whatever its connections say: no request may try it. */
  get held(): boolean {
    return this.#held()
  }
  /** How often in a row it was down; 0 while it is up. */
  get failures(): number {
    return this.#failures
  }
  /** End of the rest, monotonic; 0 while it is up. */
  get until(): number {
    return this.rests ? this.#until : 0
  }

  /** When a request may go this way beside others; never while one is trying. */
  blockedUntil(now: number): number {
    if (!this.rests) return 0
    if (this.trial || this.held) return Number.POSITIVE_INFINITY
    return this.#until > now ? this.#until : 0
  }

  /** When a renewal may go this way: not while it rests, and never while it is held. */
  restsUntil(now: number): number {
    if (this.held) return Number.POSITIVE_INFINITY
    return this.until > now ? this.until : 0
  }

  rest(until: number): void {
    this.#failures += 1
    this.#until = until
  }

  open(): void {
    this.#failures = 0
  }
}
