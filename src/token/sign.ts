import { constants, type KeyObject, sign } from 'node:crypto'

/**
 * Signs a JWT (RFC 7515 §3.1) by one of `signingAlgorithms`. It is synchronous: a proof of possession is
 * made for each request, between choosing the token and sending it.
 */
export function signJwt(
  header: { readonly alg: string; readonly [name: string]: unknown },
  claims: Readonly<Record<string, unknown>>,
  key: KeyObject,
): string {
  return signEncoded(header.alg, encodePart(header), claims, key)
}

/** As `signJwt`, with a header that was encoded before. */
export function signEncoded(
  algorithm: string,
  header: string,
  claims: Readonly<Record<string, unknown>>,
  key: KeyObject,
): string {
  const input = `${header}.${encodePart(claims)}`
  return `${input}.${signatureOf(algorithm, Buffer.from(input), key).toString('base64url')}`
}

/** One part of a compact JWS. */
export function encodePart(part: object): string {
  return Buffer.from(JSON.stringify(part)).toString('base64url')
}

function signatureOf(algorithm: string, input: Buffer, key: KeyObject): Buffer {
  if (algorithm === 'EdDSA') return sign(null, input, key)
  const digest = `sha${algorithm.slice(2)}`
  // RFC 7518 §3.4: R and S side by side, not DER; §3.5: the salt is as long as the digest.
  if (algorithm.startsWith('ES')) return sign(digest, input, { key, dsaEncoding: 'ieee-p1363' })
  if (algorithm.startsWith('RS')) return sign(digest, input, key)
  return sign(digest, input, {
    key,
    padding: constants.RSA_PKCS1_PSS_PADDING,
    saltLength: constants.RSA_PSS_SALTLEN_DIGEST,
  })
}
