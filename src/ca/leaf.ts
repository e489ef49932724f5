import { createHash, createPrivateKey, createPublicKey, generateKeyPairSync } from 'node:crypto'
import { isIP } from 'node:net'
import { createSecureContext, type SecureContext } from 'node:tls'
import { CupbearerError } from '../errors.ts'
import type { Clock } from '../lib/clock.ts'
import { Secret } from '../lib/secret.ts'
import { BACKDATE, type CertificateAuthority } from './authority.ts'
import { buildLeaf, keyIdentifier, publicKeyInfo } from './certificate.ts'
import type { Node } from './der.ts'

const LIFETIME = 30 * 24 * 3_600_000

interface Entry {
  readonly context: SecureContext
  readonly from: number
  readonly renewAt: number
}

/**
 * Server contexts for the mapped hosts, minted at first use: one key for all of them, one certificate per
 * exact name and per wildcard parent, the least recently used dropped beyond `max`.
 */
export class LeafCache {
  readonly #authority: CertificateAuthority
  readonly #clock: Clock
  readonly #max: number
  readonly #keyPem: string
  readonly #publicKey: Node
  readonly #keyIdentifier: Buffer
  readonly #keyHash: string
  /** In order of use: the first is the one to drop. */
  readonly #entries = new Map<string, Entry>()

  /** `key` is that of another cache, for processes that serve as one. */
  constructor(
    authority: CertificateAuthority,
    options: { max?: number; clock: Clock; key?: Secret },
  ) {
    this.#authority = authority
    this.#clock = options.clock
    this.#max = options.max ?? 1000
    const privateKey = options.key
      ? createPrivateKey(options.key.reveal())
      : generateKeyPairSync('ec', { namedCurve: 'P-256' }).privateKey
    const publicKey = createPublicKey(privateKey)
    this.#keyPem = privateKey.export({ type: 'pkcs8', format: 'pem' }) as string
    this.#publicKey = publicKeyInfo(publicKey)
    this.#keyIdentifier = keyIdentifier(publicKey)
    const spki = publicKey.export({ type: 'spki', format: 'der' })
    this.#keyHash = createHash('sha256').update(spki).digest('base64')
  }

  get size(): number {
    return this.#entries.size
  }

  /** The key that every leaf has, PKCS #8 in PEM. */
  get key(): Secret {
    return new Secret(this.#keyPem)
  }

  /** SHA-256 of the key that every leaf has (its SPKI), in base64: as browsers take it. */
  get keyHash(): string {
    return this.#keyHash
  }

  /** The context for a normalised host. Throws `CA_INVALID` for one that no target covers: nothing is minted. */
  contextFor(host: string): SecureContext {
    const name = this.#authority.certificateName(host)
    if (name === undefined) throw new CupbearerError('CA_INVALID', `no https target covers ${host}`)
    const now = this.#clock.now()
    let entry = this.#entries.get(name)
    if (entry) this.#entries.delete(name)
    if (!entry || now >= entry.renewAt || now < entry.from) entry = this.#mint(name, now)
    this.#entries.set(name, entry)
    if (this.#entries.size > this.#max) {
      const [oldest] = this.#entries.keys()
      this.#entries.delete(oldest as string)
    }
    return entry.context
  }

  #mint(name: string, now: number): Entry {
    const { issuer, notAfter: end, certificatePath } = this.#authority
    if (now >= end.getTime()) {
      throw new CupbearerError(
        'CA_INVALID',
        `${certificatePath} has expired: restart or reload to have it re-issued`,
      )
    }
    const from = now - BACKDATE
    const until = Math.min(from + LIFETIME, end.getTime())
    const certificate = buildLeaf(
      issuer,
      this.#publicKey,
      this.#keyIdentifier,
      { notBefore: new Date(from), notAfter: new Date(until) },
      isIP(name) === 0 ? { dns: name } : { address: name },
    )
    const context = createSecureContext({
      key: this.#keyPem,
      cert: toPem(certificate),
      minVersion: 'TLSv1.2',
    })
    // One that ends with the CA cannot be had longer: it serves to its end.
    const renewAt = until === end.getTime() ? until : until - (until - from) / 3
    return { context, from, renewAt }
  }
}

function toPem(der: Buffer): string {
  const lines = der.toString('base64').replace(/.{64}(?=.)/g, '$&\n')
  return `-----BEGIN CERTIFICATE-----\n${lines}\n-----END CERTIFICATE-----\n`
}
