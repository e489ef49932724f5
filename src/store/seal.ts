import {
  createDecipheriv,
  createHmac,
  createSecretKey,
  type KeyObject,
  webcrypto,
} from 'node:crypto'
import { CompactEncrypt } from 'jose/jwe/compact/encrypt'
import { CupbearerError } from '../errors.ts'

/** The row that a sealed value belongs to; opened for another row it is refused. */
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
  readonly #openingKey: KeyObject
  readonly #keyId: string

  private constructor(key: webcrypto.CryptoKey, openingKey: KeyObject, keyId: string) {
    this.#key = key
    this.#openingKey = openingKey
    this.#keyId = keyId
  }

  /** Makes a sealer of 32 key bytes. */
  static async create(key: Buffer): Promise<Sealer> {
    // A keyed digest, cut short: it names the key and tells nothing about it.
    const keyId = createHmac('sha256', key).update('cupbearer key id').digest('base64url')
    const usages: webcrypto.KeyUsage[] = ['encrypt', 'decrypt']
    return new Sealer(
      await webcrypto.subtle.importKey('raw', key, 'AES-GCM', false, usages),
      createSecretKey(key),
      keyId.slice(0, 12),
    )
  }

  /** Tells texts apart without telling what they are. */
  tag(text: string): string {
    return createHmac('sha256', this.#openingKey)
      .update(`tag:${text}`)
      .digest('base64url')
      .slice(0, 16)
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

  /**
   * Opens a value by Node's own cipher: WebCrypto takes five times as long for each, and a
   * start with thousands of rows waits for it.
   */
  async open(owner: Owner, sealed: string): Promise<string> {
    const name = owner.pool === '' ? 'the store' : `${owner.pool}/${owner.id}`
    // Causes are left out: what failed here is fully told by the code.
    const damaged = () =>
      new CupbearerError('STORE_CORRUPT', `the sealed value of ${name} is damaged`)
    const parts = sealed.split('.')
    const header = readHeader(parts[0])
    if (!header) throw damaged()
    if (header.kid !== this.#keyId) {
      throw new CupbearerError('STORE_KEY_WRONG', `${name} is sealed with another key`)
    }
    const text = decrypt(this.#openingKey, header, parts)
    if (text === undefined) throw damaged()
    if (header.pool !== owner.pool || header.id !== owner.id) {
      throw new CupbearerError('STORE_CORRUPT', `the sealed value of ${name} is of another owner`)
    }
    return text
  }
}

function readHeader(part: string | undefined): Record<string, unknown> | undefined {
  try {
    const header: unknown = JSON.parse(Buffer.from(part ?? '', 'base64url').toString())
    return typeof header === 'object' && header !== null
      ? (header as Record<string, unknown>)
      : undefined
  } catch {
    return undefined
  }
}

/** RFC 7516 §5.2 for `dir` and `A256GCM`; undefined for anything that was not sealed just so with this key. */
function decrypt(
  key: KeyObject,
  { alg, enc }: Record<string, unknown>,
  parts: readonly string[],
): string | undefined {
  if (parts.length !== 5 || alg !== 'dir' || enc !== 'A256GCM') return undefined
  const [header, encryptedKey, ...rest] = parts as [string, string, ...string[]]
  const [iv, ciphertext, tag] = rest.map((part) => Buffer.from(part, 'base64url'))
  if (encryptedKey !== '' || iv?.length !== 12 || tag?.length !== 16) return undefined
  try {
    const decipher = createDecipheriv('aes-256-gcm', key, iv, { authTagLength: 16 })
    decipher.setAAD(Buffer.from(header, 'latin1')).setAuthTag(tag)
    const start = decipher.update(ciphertext as Buffer, undefined, 'utf8')
    return start + decipher.final('utf8')
  } catch {
    return undefined
  }
}
