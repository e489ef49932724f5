import type { Secret } from '../lib/secret.ts'
import type { DpopKey } from './dpop.ts'

/** What a source hands over: one access token and what is known of it. Times are ms since the epoch. */
export interface TokenSet {
  readonly token: Secret
  readonly refreshToken?: Secret | undefined
  /** The key that both are bound to (RFC 9449); undefined for bearer tokens. */
  readonly dpopKey?: DpopKey | undefined
  /** How it is renewed, where that was learned beside it rather than configured: see `sources/capture.ts`. */
  readonly renewal?: Secret | undefined
  readonly issuedAt: number
  /** Undefined for a token whose end is not known. */
  readonly expiresAt?: number | undefined
  /** How the end is known: by the token's own `exp`, or by what was told beside it. */
  readonly lifetime?: 'jwt' | 'expires_in' | undefined
  /** Set where the token is not valid yet when it comes (RFC 7519 §4.1.5). */
  readonly notBefore?: number | undefined
  readonly subject?: string | undefined
  /** Undefined where the token does not tell. */
  readonly scopes?: readonly string[] | undefined
  /** Decoded claims of a JWT, for `{claim:NAME}`; never verified unless the pool asks for it. */
  readonly claims?: Readonly<Record<string, unknown>> | undefined
  /** `kid` of a JWT: the key that signed it. */
  readonly keyId?: string | undefined
}
