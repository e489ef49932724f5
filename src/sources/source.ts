import type { Clock } from '../lib/clock.ts'
import type { TokenSet } from '../token/token.ts'

/** `fetch` that leaves by the credential's pinned egress; rejects with `SourceError('egress')` when that is down. */
export type PinnedFetch = (url: string | URL, init?: RequestInit) => Promise<Response>

export interface SourceContext {
  readonly fetch: PinnedFetch
  readonly clock: Clock
  /** Ends the try; sources pass it to whatever they wait for. */
  readonly signal: AbortSignal
}

/**
 * One way of getting tokens. A source keeps no token: what it gave last comes back as `previous`, read from
 * the store, so that a restart changes nothing.
 */
export interface Source {
  /** Whether asking again can give another token; false for a static one. */
  readonly renewable: boolean
  /**
   * Gets a token. Throws `SourceError`; never leaks an endpoint's raw text into the message.
   * `previous.refreshToken` is what must be used, when there is one.
   */
  obtain(previous: TokenSet | undefined, context: SourceContext): Promise<TokenSet>
  /** Calls back when a new token can be had (a watched file); returns the end of the watch. */
  watch?(changed: () => void): () => void
}
