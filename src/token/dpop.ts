import {
  createHash,
  createPrivateKey,
  generateKeyPairSync,
  type JsonWebKey,
  type KeyObject,
  randomUUID,
} from 'node:crypto'
import { Secret } from '../lib/secret.ts'
import { encodePart, signEncoded } from './sign.ts'

/** What one proof is for. */
export interface ProofRequest {
  readonly method: string
  /** `scheme://host[:port]`, without the scheme's own port. */
  readonly origin: string
  /** Origin form; the query is left out of the proof (RFC 9449 §4.2). */
  readonly path: string
  readonly token: Secret
  /** Wall time, ms since the epoch. */
  readonly now: number
}

/** A server has one nonce in use; a credential talks to few servers. */
const MAX_ORIGINS = 32
const MAX_NONCE_LENGTH = 1024

/**
 * The key that a credential's tokens are bound to (RFC 9449), with the latest nonce of each server that it
 * proves itself to. The key outlives the process, the nonces don't.
 */
export class DpopKey {
  readonly #key: KeyObject
  readonly #jwk: JsonWebKey
  /** The protected header, encoded: the same in each proof. */
  readonly #header: string
  readonly #nonces = new Map<string, string>()

  private constructor(key: KeyObject) {
    this.#key = key
    this.#jwk = key.export({ format: 'jwk' })
    const { kty, crv, x, y } = this.#jwk
    this.#header = encodePart({ typ: 'dpop+jwt', alg: 'ES256', jwk: { kty, crv, x, y } })
  }

  /** Makes a new key on the curve P-256, for ES256. */
  static generate(): DpopKey {
    return new DpopKey(generateKeyPairSync('ec', { namedCurve: 'P-256' }).privateKey)
  }

  /** Reads what `secret` gave. */
  static read(secret: Secret): DpopKey {
    const key = JSON.parse(secret.reveal()) as JsonWebKey
    return new DpopKey(createPrivateKey({ key, format: 'jwk' }))
  }

  /** The private key as a JWK, to be kept sealed. */
  get secret(): Secret {
    return new Secret(JSON.stringify(this.#jwk))
  }

  /** A proof for one request with a bound token (RFC 9449 §4.2 and §7), with the server's nonce if it gave one. */
  prove({ method, origin, path, token, now }: ProofRequest): string {
    const nonce = this.#nonces.get(origin)
    const claims = {
      jti: randomUUID(),
      htm: method,
      htu: origin + path.replace(/[?#].*$/s, ''),
      iat: Math.floor(now / 1000),
      ath: createHash('sha256').update(token.reveal()).digest('base64url'),
      ...(nonce !== undefined && { nonce }),
    }
    return signEncoded('ES256', this.#header, claims, this.#key)
  }

  /** Takes note of the nonce of an answer (§8.2: any answer may bring a new one). */
  learn(origin: string, nonce: string | undefined): void {
    if (!nonce || nonce.length > MAX_NONCE_LENGTH || this.#nonces.get(origin) === nonce) return
    this.#nonces.delete(origin)
    if (this.#nonces.size >= MAX_ORIGINS) {
      this.#nonces.delete(this.#nonces.keys().next().value as string)
    }
    this.#nonces.set(origin, nonce)
  }
}
