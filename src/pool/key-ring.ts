import type { PoolConfig } from '../config/schema.ts'
import type { Clock } from '../lib/clock.ts'
import type { Credential } from './credential.ts'
import type { PoolLog } from './journal.ts'
import type { SigningKeys } from './signing-keys.ts'

interface KeyRingOptions {
  readonly pool: string
  readonly clock: Clock
  readonly random: () => number
  readonly log: PoolLog | undefined
  readonly credentials: () => Iterable<Credential>
  /** Plans the credential's next refresh anew. */
  readonly plan: (credential: Credential, now: number) => void
}

/** A pool's signing keys, set up anew when what they depend on changes; a pool that names none loads nothing. */
export class KeyRing {
  readonly #options: KeyRingOptions
  #keys: SigningKeys | undefined
  #fingerprint: string | undefined

  constructor(options: KeyRingOptions) {
    this.#options = options
  }

  /** Undefined where none are watched. */
  get keys(): SigningKeys | undefined {
    return this.#keys
  }

  /** Makes ready for a configuration; the swap itself comes with the rest of it. */
  async prepare(config: PoolConfig): Promise<() => void> {
    const { issuer, jwks, verify } = config
    const wanted = issuer !== undefined || jwks !== undefined
    const fingerprint = wanted ? JSON.stringify([issuer, jwks, verify]) : undefined
    const module = wanted ? await import('./signing-keys.ts') : undefined
    return () => {
      if (fingerprint === this.#fingerprint) return
      this.close()
      this.#fingerprint = fingerprint
      this.#keys =
        module && new module.SigningKeys({ ...this.#options, config, renew: this.#renew })
    }
  }

  close(): void {
    this.#keys?.close()
    this.#keys = undefined
  }

  readonly #renew = (credentials: readonly Credential[], withinMs: number): void => {
    const { clock, random, plan } = this.#options
    const now = clock.monotonic()
    for (const credential of credentials) {
      credential.renewBy(now + withinMs * random())
      plan(credential, now)
    }
  }
}
