import { decodeProtectedHeader } from 'jose/decode/protected_header'
import { decodeJwt } from 'jose/jwt/decode'
import { SourceError } from '../errors.ts'
import { Secret } from '../lib/secret.ts'
import type { TokenSet } from './token.ts'

/** What is known of a token from elsewhere than the token itself. Times are ms since the epoch. */
export interface TokenFacts {
  readonly receivedAt: number
  /** Seconds, as RFC 6749 §5.1 `expires_in` has it. */
  readonly expiresIn?: number | undefined
  readonly expiresAt?: number | undefined
  /** Space-separated; counts where the token has no scope of its own. */
  readonly scope?: string | undefined
  readonly refreshToken?: Secret | undefined
  /** How far the issuer's clock is ahead of ours; 0 by default. */
  readonly clockSkewMs?: number | undefined
}

/** A longer token is used as it is, but not looked into. */
const MAX_DECODED_LENGTH = 64 * 1024

/** Year 5138: a larger NumericDate is no date in seconds (some issuers write milliseconds). */
const MAX_NUMERIC_DATE = 1e11

/** The last instant that a Date can hold. */
const MAX_TIME_MS = 8.64e15

/** An `iat` older than ten years says nothing about a lifetime. */
const MAX_AGE_MS = 10 * 365 * 24 * 3600 * 1000

/** No header field can carry these (RFC 9110 §5.5), nor what stands outside latin1. */
const UNSENDABLE = /[^\t\x20-\x7e\xa0-\xff]/

/**
 * Reads a token as it was handed over: trims it and, for a JWT, decodes its claims locally, unverified.
 * The end is the token's own `exp`, else `expiresIn`, else `expiresAt`, else unknown.
 * Throws `SourceError` (transient) for an empty token or one with control characters.
 */
export function readToken(raw: string, known: TokenFacts): TokenSet {
  const text = raw.trim()
  if (text === '') throw new SourceError('transient', 'the token is empty')
  // A tab is a control character too: legal within a field value, never within a token.
  if (UNSENDABLE.test(text) || text.includes('\t')) {
    throw new SourceError('transient', 'the token holds characters that no header field can carry')
  }
  const claims = decodeClaims(text)
  const { receivedAt } = known
  const told =
    after(receivedAt, known.expiresIn) ??
    (known.expiresAt !== undefined && isTime(known.expiresAt) ? known.expiresAt : undefined)
  return {
    token: new Secret(text),
    refreshToken: known.refreshToken,
    ...placeTimes(claims, told, receivedAt, known.clockSkewMs ?? 0),
    subject: typeof claims?.sub === 'string' ? claims.sub : undefined,
    scopes: readScopes(claims?.scope) ?? readScopes(claims?.scp) ?? readScopes(known.scope),
    claims,
    keyId: claims && decodeKeyId(text),
  }
}

/** The same token with its own times placed on our clock, which the issuer's is `skewMs` ahead of. */
export function adjustForSkew(token: TokenSet, skewMs: number, receivedAt: number): TokenSet {
  const { claims, lifetime, expiresAt } = token
  if (skewMs === 0 || !claims) return token
  const told = lifetime === 'jwt' ? undefined : expiresAt
  return { ...token, ...placeTimes(claims, told, receivedAt, skewMs) }
}

type Times = Pick<TokenSet, 'issuedAt' | 'expiresAt' | 'notBefore' | 'lifetime'>

/** `told` is the end that was told beside the token. */
function placeTimes(
  claims: Readonly<Record<string, unknown>> | undefined,
  told: number | undefined,
  receivedAt: number,
  skewMs: number,
): Times {
  const exp = instant(claims?.exp, skewMs)
  const iat = instant(claims?.iat, skewMs)
  const nbf = instant(claims?.nbf, skewMs)
  const expiresAt = exp ?? told
  // By the clock that stamped both, a token whose `nbf` is not after its `iat` was valid when it was made.
  const isHeldBack =
    nbf !== undefined &&
    nbf > Math.max(receivedAt, iat ?? Number.NEGATIVE_INFINITY) &&
    nbf < (expiresAt ?? Number.POSITIVE_INFINITY)
  return {
    issuedAt: issueTime(iat, expiresAt, receivedAt),
    expiresAt,
    notBefore: isHeldBack ? nbf : undefined,
    lifetime: exp !== undefined ? 'jwt' : told !== undefined ? 'expires_in' : undefined,
  }
}

/** Claims of a compact JWS (RFC 7519 §7.2); undefined for opaque tokens, JWEs and all that is garbled. */
function decodeClaims(text: string): Record<string, unknown> | undefined {
  // Whether it looks like one is told without an exception: those of thousands of opaque tokens add up at start.
  if (text.length > MAX_DECODED_LENGTH || text.split('.').length !== 3) return undefined
  try {
    return decodeJwt(text)
  } catch {
    return undefined
  }
}

/** A longer one is no name of a key. */
const MAX_KEY_ID_LENGTH = 1024

function decodeKeyId(text: string): string | undefined {
  if (!text.includes('.')) return undefined
  try {
    const { kid } = decodeProtectedHeader(text)
    return typeof kid === 'string' && kid.length <= MAX_KEY_ID_LENGTH ? kid : undefined
  } catch {
    return undefined
  }
}

/** A NumericDate (RFC 7519 §2) as ms; numeric strings are taken too, since some issuers write them. */
function instant(claim: unknown, skewMs: number): number | undefined {
  const seconds =
    typeof claim === 'string' && /^\d{1,11}(?:\.\d{1,9})?$/.test(claim) ? Number(claim) : claim
  if (typeof seconds !== 'number' || !(seconds > 0 && seconds <= MAX_NUMERIC_DATE)) return undefined
  const time = Math.round(seconds * 1000) - skewMs
  return isTime(time) ? time : undefined
}

/** Zero counts as unknown: some servers mean 'never' by it, and a token without lifetime is of no use. */
function after(receivedAt: number, seconds: number | undefined): number | undefined {
  if (seconds === undefined || !(seconds > 0)) return undefined
  const time = receivedAt + Math.round(seconds * 1000)
  return isTime(time) ? time : undefined
}

/** `iat`, unless it lies in the future, in another age or behind the token's end. */
function issueTime(
  iat: number | undefined,
  expiresAt: number | undefined,
  receivedAt: number,
): number {
  if (iat === undefined || iat > receivedAt || iat < receivedAt - MAX_AGE_MS) return receivedAt
  return expiresAt !== undefined && iat >= expiresAt ? receivedAt : iat
}

/** RFC 8693 §4.2: `scope` is a string with spaces; others send `scp` as string or list. */
function readScopes(value: unknown): string[] | undefined {
  const parts =
    typeof value === 'string'
      ? value.split(' ')
      : Array.isArray(value)
        ? value.filter((part): part is string => typeof part === 'string')
        : undefined
  if (parts === undefined) return undefined
  return [...new Set(parts.filter((part) => part !== ''))]
}

function isTime(time: number): boolean {
  return Number.isFinite(time) && Math.abs(time) <= MAX_TIME_MS
}
