import type { JWTVerifyGetKey, JWTVerifyOptions } from 'jose'
import * as errors from 'jose/errors'
import { jwtVerify } from 'jose/jwt/verify'
import type { TokenSet } from './token.ts'

/** What a token must say of itself besides its signature. */
export interface Expectations {
  readonly issuer: string | undefined
  readonly audience: readonly string[] | undefined
}

/** As with the measured skew: less is not told from equal clocks. */
const TOLERANCE_S = 2

/**
 * Checks a token's signature, `exp`, `iss` and `aud`; `now` is the issuer's time in ms. Undefined when all is
 * well, else the reason in words, never the token's own. `nbf` is no failure: such a token is kept until then.
 */
export async function verifyToken(
  token: TokenSet,
  keys: JWTVerifyGetKey,
  { issuer, audience }: Expectations,
  now: number,
): Promise<string | undefined> {
  const nbf = Number(token.claims?.nbf ?? 0) * 1000
  const options: JWTVerifyOptions = {
    // RFC 7519 §4.1.4 is judged at the first moment at which the token can be used.
    currentDate: new Date(Math.max(now, nbf <= 8.64e15 ? nbf || 0 : 0)),
    clockTolerance: TOLERANCE_S,
    ...(issuer !== undefined && { issuer: bothSpellings(issuer) }),
    ...(audience && { audience: [...audience] }),
  }
  try {
    await verifyByAny(token.token.reveal(), keys, options)
    return undefined
  } catch (error) {
    return reasonOf(error)
  }
}

/** Without a `kid` several keys may fit (RFC 7515 §4.1.4): each is tried. */
async function verifyByAny(
  text: string,
  keys: JWTVerifyGetKey,
  options: JWTVerifyOptions,
): Promise<void> {
  try {
    await jwtVerify(text, keys, options)
  } catch (error) {
    if (!(error instanceof errors.JWKSMultipleMatchingKeys)) throw error
    let last: unknown = error
    for await (const key of error) {
      try {
        await jwtVerify(text, key, options)
        return
      } catch (failure) {
        last = failure
        if (!(failure instanceof errors.JWSSignatureVerificationFailed)) throw failure
      }
    }
    throw last
  }
}

function bothSpellings(issuer: string): string[] {
  const bare = issuer.replace(/\/$/, '')
  return [bare, `${bare}/`]
}

const CLAIMS: Readonly<Record<string, string>> = {
  iss: 'it is of another issuer',
  aud: 'it is meant for another audience',
}

function reasonOf(error: unknown): string {
  if (error instanceof errors.JWTExpired) return 'it has expired already'
  if (error instanceof errors.JWTClaimValidationFailed) {
    return CLAIMS[error.claim] ?? `its claim ${error.claim} is not right`
  }
  if (error instanceof errors.JWKSNoMatchingKey) return 'no key of the issuer fits it'
  if (error instanceof errors.JWSSignatureVerificationFailed) return 'its signature is wrong'
  if (error instanceof errors.JOSENotSupported) return 'its algorithm is not accepted'
  return 'it is not a signed JWT'
}
