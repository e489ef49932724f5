import { createHash } from 'node:crypto'
import type { Clock } from '../lib/clock.ts'
import type { Secret } from '../lib/secret.ts'
import type { TokenSet } from '../token/token.ts'

const MAX_KEPT = 32
const KEPT_MS = 10 * 60_000

/** Tokens whose answer was seen, but not yet a request that they are good for: a few, and for a while. */
export class KeptTokens {
  readonly #clock: Clock
  readonly #kept = new Map<string, { readonly token: TokenSet; readonly until: number }>()

  constructor(clock: Clock) {
    this.#clock = clock
  }

  add(token: TokenSet): void {
    const now = this.#clock.monotonic()
    for (const [key, { until }] of this.#kept) if (until <= now) this.#kept.delete(key)
    this.#kept.set(digest(token.token), { token, until: now + KEPT_MS })
    if (this.#kept.size > MAX_KEPT) this.#kept.delete(this.#kept.keys().next().value as string)
  }

  /** All that is known of an access token. */
  find(token: Secret): TokenSet | undefined {
    return this.#kept.get(digest(token))?.token
  }
}

function digest(secret: Secret): string {
  return createHash('sha256').update(secret.reveal()).digest('base64')
}
