import { createHmac, webcrypto } from 'node:crypto'
import { decodeProtectedHeader } from 'jose/decode/protected_header'
import { compactDecrypt } from 'jose/jwe/compact/decrypt'
import { CompactEncrypt } from 'jose/jwe/compact/encrypt'
import { CupbearerError } from '../errors.ts'

/** The row that a sealed value belongs to; opened as any other row's it is refused. */
export interface Owner {
  readonly pool: string
  readonly id: string
}

/**
 * Seals text as a compact JWE, `dir` + `A256GCM` (RFC 7516 §7.1, RFC 7518 §4.5 and §5.3), with the owner and
 * the key's id in the protected header. Opening throws `STORE_KEY_WRONG` for a value of another key and
 * `STORE_CORRUPT` for one that was changed or moved.
 */
export class Sealer {
  readonly #key: webcrypto.CryptoKey
  readonly #keyId: string

  private constructor(key: webcrypto.CryptoKey, keyId: string) {
    this.#key = key
    this.#keyId = keyId
  }

  /** Makes a sealer of 32 key bytes. */
  static async create(key: Buffer): Promise<Sealer> {
    // A keyed digest, cut short: it names the key and tells nothing about it.
    const keyId = createHmac('sha256', key).update('cupbearer key id').digest('base64url')
    const usages: webcrypto.KeyUsage[] = ['encrypt', 'decrypt']
    return new Sealer(
      await webcrypto.subtle.importKey('raw', key, 'AES-GCM', false, usages),
      keyId.slice(0, 12),
    )
  }

  async seal(owner: Owner, text: string): Promise<string> {
    return new CompactEncrypt(Buffer.from(text))
      .setProtectedHeader({
        alg: 'dir',
        enc: 'A256GCM',
        kid: this.#keyId,
        pool: owner.pool,
        id: owner.id,
      })
      .encrypt(this.#key)
  }

  async open(owner: Owner, sealed: string): Promise<string> {
    const name = owner.pool === '' ? 'the store' : `${owner.pool}/${owner.id}`
    // Causes are left out: what failed here is fully told by the code.
    const damaged = new CupbearerError('STORE_CORRUPT', `the sealed value of ${name} is damaged`)
    let keyId: unknown
    try {
      keyId = decodeProtectedHeader(sealed).kid
    } catch {
      throw damaged
    }
    if (keyId !== this.#keyId) {
      throw new CupbearerError('STORE_KEY_WRONG', `${name} is sealed with another key`)
    }
    const opened = await compactDecrypt(sealed, this.#key, {
      keyManagementAlgorithms: ['dir'],
      contentEncryptionAlgorithms: ['A256GCM'],
    }).catch(() => {
      throw damaged
    })
    const { pool, id } = opened.protectedHeader
    if (pool !== owner.pool || id !== owner.id) {
      throw new CupbearerError('STORE_CORRUPT', `the sealed value of ${name} is of another owner`)
    }
    return Buffer.from(opened.plaintext).toString()
  }
}
