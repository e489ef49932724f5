import type { Secret } from '../lib/secret.ts'

/** What a source hands over: one access token and what is known of it. Times are ms since the epoch. */
export interface TokenSet {
  readonly token: Secret
  readonly refreshToken?: Secret | undefined
  readonly issuedAt: number
  /** Undefined for a token whose end is not known. */
  readonly expiresAt?: number | undefined
  readonly subject?: string | undefined
  /** Undefined where the token does not tell. */
  readonly scopes?: readonly string[] | undefined
  /** Decoded claims of a JWT, for `{claim:NAME}`; never verified unless the pool asks for it. */
  readonly claims?: Readonly<Record<string, unknown>> | undefined
}
