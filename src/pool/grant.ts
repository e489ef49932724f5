import type { Secret } from '../lib/secret.ts'
import type { DpopKey } from '../token/dpop.ts'
import type { Credential } from './credential.ts'
import type { Lease, PassedOver } from './lease.ts'

/** The pool's side of a lease. */
export class Grant implements Lease {
  readonly pool: string
  readonly credential: string
  readonly key: string
  readonly generation: number
  readonly token: Secret
  readonly expiresAt: number | undefined
  readonly dpopKey: DpopKey | undefined
  readonly egress: string
  readonly headers: readonly string[]
  readonly owner: Credential
  /** Whether it shows if a quarantined credential works again. */
  readonly canary: boolean
  passedOver: PassedOver | undefined
  stage: 'reserved' | 'dispatched' | 'settled' = 'reserved'
  readonly #claims: Readonly<Record<string, unknown>> | undefined
  readonly #leave: (grant: Grant) => void

  constructor(pool: string, owner: Credential, leave: (grant: Grant) => void) {
    if (!owner.token) throw new Error('a credential without token was chosen')
    this.pool = pool
    this.credential = owner.id
    this.key = owner.settings.key
    this.generation = owner.generation
    this.token = owner.token.token
    this.expiresAt = owner.token.expiresAt
    this.dpopKey = owner.token.dpopKey
    this.egress = owner.settings.lane.name
    this.headers = owner.settings.headers
    this.owner = owner
    this.canary = owner.canary
    this.#claims = owner.token.claims
    this.#leave = leave
  }

  claim(name: string): string {
    const value = this.#claims?.[name]
    if (Array.isArray(value)) return value.join(' ')
    return typeof value === 'string' || typeof value === 'number' || typeof value === 'boolean'
      ? String(value)
      : ''
  }

  dispatched(): void {
    if (this.stage === 'settled') throw new Error('a settled lease was dispatched')
    // A retry on a fresh connection says so again: nothing had left before.
    if (this.stage === 'reserved') this.#leave(this)
  }
}

/** A lease as the pool made it. */
export function ownGrant(lease: Lease): Grant {
  if (lease instanceof Grant) return lease
  throw new TypeError('a lease of this pool is needed')
}
