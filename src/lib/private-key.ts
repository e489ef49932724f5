import { createPrivateKey, type JsonWebKey, type KeyObject } from 'node:crypto'

/** Algorithms of JWS (RFC 7518 §3.1, RFC 8037) that a key on a curve can sign by. */
const CURVES: Readonly<Record<string, string>> = {
  prime256v1: 'ES256',
  secp384r1: 'ES384',
  secp521r1: 'ES512',
}

/** RFC 7518 §3.3 wants no shorter one. */
const MIN_RSA_BITS = 2048

/** Reads a private key written as PEM (PKCS #8, PKCS #1 or SEC 1, not encrypted) or as a JWK; undefined for anything else. */
export function readPrivateKey(text: string): KeyObject | undefined {
  try {
    if (!text.trimStart().startsWith('{')) return createPrivateKey(text)
    return createPrivateKey({ key: JSON.parse(text) as JsonWebKey, format: 'jwk' })
  } catch {
    return undefined
  }
}

/** The JWS algorithms that a private key can sign by, the usual one first; none for a key that is no good. */
export function signingAlgorithms(key: KeyObject): readonly string[] {
  const { asymmetricKeyType: type, asymmetricKeyDetails: details } = key
  if (type === 'rsa') {
    if ((details?.modulusLength ?? 0) < MIN_RSA_BITS) return []
    return ['RS256', 'RS384', 'RS512', 'PS256', 'PS384', 'PS512']
  }
  if (type === 'ed25519') return ['EdDSA']
  const algorithm = type === 'ec' ? CURVES[details?.namedCurve ?? ''] : undefined
  return algorithm === undefined ? [] : [algorithm]
}
