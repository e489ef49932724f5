import type { Secret } from '../../lib/secret.ts'
import type { Lease, PassedOver } from '../../pool/lease.ts'
import type { DpopKey } from '../../token/dpop.ts'
import type { Card, FromWorker } from './messages.ts'

/** The worker's way to the primary: at once, or when there is something else to say. */
export interface Outbox {
  send(message: FromWorker): void
  post(message: FromWorker): void
}

/** A token as the primary has told it, ready for use; and what became of it where it may be used freely. */
export interface Token {
  readonly card: Card
  readonly token: Secret
  readonly dpopKey: DpopKey | undefined
  inFlight: number
  /** Uses that the primary has not heard of yet: sent, and of those that were, gone well. */
  started: number
  ended: number
}

/** A lease in the hands of a worker. */
abstract class WorkerLease implements Lease {
  readonly pool: string
  readonly told: Token
  stage: 'reserved' | 'dispatched' | 'settled' = 'reserved'

  constructor(pool: string, told: Token) {
    this.pool = pool
    this.told = told
  }

  get credential(): string {
    return this.told.card.credential
  }
  get key(): string {
    return this.told.card.key
  }
  get generation(): number {
    return this.told.card.generation
  }
  get token(): Secret {
    return this.told.token
  }
  get expiresAt(): number | undefined {
    return this.told.card.expiresAt
  }
  get dpopKey(): DpopKey | undefined {
    return this.told.dpopKey
  }
  get egress(): string {
    return this.told.card.egress
  }
  get headers(): readonly string[] {
    return this.told.card.headers
  }

  claim(name: string): string {
    const { claims } = this.told.card
    return Object.hasOwn(claims, name) ? (claims[name] as string) : ''
  }

  dispatched(): void {
    if (this.stage === 'settled') throw new Error('a settled lease was dispatched')
    if (this.stage === 'dispatched') return
    this.stage = 'dispatched'
    this.leaves()
  }

  /** The request's bytes leave now, for the first time. */
  protected abstract leaves(): void
}

/** One that the primary has granted for this one request, and holds for it. */
export class GrantedLease extends WorkerLease {
  readonly number: number
  readonly passedOver: PassedOver | undefined
  readonly #outbox: Outbox

  constructor(
    number: number,
    pool: string,
    told: Token,
    passedOver: PassedOver | undefined,
    outbox: Outbox,
  ) {
    super(pool, told)
    this.number = number
    this.passedOver = passedOver
    this.#outbox = outbox
  }

  protected override leaves(): void {
    // Heard of late it counts late: no window ends before its time.
    this.#outbox.post(['sent', this.number])
  }
}

/** One that the worker has taken for itself: of a token that has no limits to keep, while it is free. */
export class FreeLease extends WorkerLease {
  /** Given when it has to be told of by itself: 0 before. */
  number = 0
  readonly #used: (token: Token) => void

  /** `used` is told when there is something to report of a token. */
  constructor(pool: string, told: Token, used: (token: Token) => void) {
    super(pool, told)
    this.#used = used
    told.inFlight += 1
  }

  protected override leaves(): void {
    this.told.started += 1
    this.#used(this.told)
  }
}
