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
  /** The request that tries the egress while it rests. */
  trial: Grant | undefined
  #until = 0
  #failures = 0

  constructor(name: string) {
    this.name = name
  }

  /** Whether it is held to be down. */
  get rests(): boolean {
    return this.#failures > 0
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
    if (this.trial) return Number.POSITIVE_INFINITY
    return this.#until > now ? this.#until : 0
  }

  rest(until: number): void {
    this.#failures += 1
    this.#until = until
  }

  open(): void {
    this.#failures = 0
  }
}
