import { WireError } from '../../errors.ts'
import { Secret } from '../../lib/secret.ts'
import type {
  Lease,
  LeaseRequest,
  Outcome,
  PassedOver,
  Recovery,
  TokenPool,
} from '../../pool/lease.ts'
import { DpopKey } from '../../token/dpop.ts'
import { type Card, type FromWorker, packWant, type ToWorker, unpackError } from './messages.ts'
import type { RemoteLearning } from './remote-learning.ts'

/** The worker's way to the primary: at once, or when there is something else to say. */
export interface Outbox {
  send(message: FromWorker): void
  post(message: FromWorker): void
}

/** A token as the primary has told it, ready for use. */
interface Token {
  readonly card: Card
  readonly token: Secret
  readonly dpopKey: DpopKey | undefined
}

interface Waiting {
  readonly pool: RemotePool
  readonly resolve: (lease: RemoteLease) => void
  readonly reject: (error: unknown) => void
  readonly stopListening: () => void
}

/** Keys keep the nonces of servers, so one is made once; a worker meets few. */
const MAX_KEYS = 1000

/** A lease that the primary holds for a request of this worker. */
class RemoteLease implements Lease {
  readonly number: number
  readonly pool: string
  readonly passedOver: PassedOver | undefined
  stage: 'reserved' | 'dispatched' | 'settled' = 'reserved'
  readonly #told: Token
  readonly #outbox: Outbox

  constructor(
    number: number,
    pool: string,
    told: Token,
    passedOver: PassedOver | undefined,
    outbox: Outbox,
  ) {
    this.number = number
    this.pool = pool
    this.#told = told
    this.passedOver = passedOver
    this.#outbox = outbox
  }

  get credential(): string {
    return this.#told.card.credential
  }
  get key(): string {
    return this.#told.card.key
  }
  get generation(): number {
    return this.#told.card.generation
  }
  get token(): Secret {
    return this.#told.token
  }
  get expiresAt(): number | undefined {
    return this.#told.card.expiresAt
  }
  get dpopKey(): DpopKey | undefined {
    return this.#told.dpopKey
  }
  get egress(): string {
    return this.#told.card.egress
  }
  get headers(): readonly string[] {
    return this.#told.card.headers
  }

  claim(name: string): string {
    const { claims } = this.#told.card
    return Object.hasOwn(claims, name) ? (claims[name] as string) : ''
  }

  dispatched(): void {
    if (this.stage === 'settled') throw new Error('a settled lease was dispatched')
    if (this.stage === 'dispatched') return
    this.stage = 'dispatched'
    // Heard of late it counts late: no window ends before its time.
    this.#outbox.post(['sent', this.number])
  }
}

/** The pools as a worker sees them: every question goes to the primary, whose pools decide. */
export class RemotePools {
  readonly #outbox: Outbox
  readonly #tokens = new Map<number, Token>()
  readonly #keys = new Map<string, DpopKey>()
  readonly #waiting = new Map<number, Waiting>()
  readonly #recovering = new Map<number, (recovery: Recovery) => void>()
  #count = 0

  constructor(outbox: Outbox) {
    this.#outbox = outbox
  }

  pool(name: string, learning: RemoteLearning): RemotePool {
    return new RemotePool(name, learning, this)
  }

  /** Deals with a message, if it is about leases. */
  receive(message: ToWorker): boolean {
    switch (message[0]) {
      case 'card':
        this.#learn(message[1])
        return true
      case 'drop':
        this.#tokens.delete(message[1])
        return true
      case 'grant':
        this.#granted(message[1], message[2], message[3])
        return true
      case 'refused':
        this.#end(message[1])?.reject(unpackError(message[2]))
        return true
      case 'recovered':
        this.#recovering.get(message[1])?.(message[2])
        this.#recovering.delete(message[1])
        return true
      default:
        return false
    }
  }

  wait(pool: RemotePool, request: LeaseRequest, signal: AbortSignal): Promise<Lease> {
    signal.throwIfAborted()
    this.#count += 1
    const number = this.#count
    return new Promise((resolve, reject) => {
      const leave = () => {
        this.#end(number)
        this.#outbox.send(['give-up', number])
        reject(signal.reason)
      }
      signal.addEventListener('abort', leave, { once: true })
      const stopListening = () => signal.removeEventListener('abort', leave)
      this.#waiting.set(number, { pool, resolve, reject, stopListening })
      this.#outbox.send(['lease', number, pool.name, packWant(request)])
    })
  }

  settle(lease: Lease, outcome: Outcome): void {
    const own = ownLease(lease)
    if (own.stage === 'settled') return
    own.stage = 'settled'
    const { kind } = outcome
    if (kind === 'limited' && outcome.retryAfterMs !== undefined) {
      this.#outbox.send(['settle', own.number, kind, outcome.retryAfterMs])
    } else this.#outbox.send(['settle', own.number, kind])
  }

  recover(lease: Lease): Promise<Recovery> {
    const { number } = ownLease(lease)
    return new Promise((resolve) => {
      this.#recovering.set(number, resolve)
      this.#outbox.send(['recover', number])
    })
  }

  coolEgress(pool: string, egress: string, ms: number, reason: string): void {
    this.#outbox.send(['cool', pool, egress, ms, reason])
  }

  #learn(card: Card): void {
    const { number, token, dpopKey } = card
    this.#tokens.set(number, {
      card,
      token: new Secret(token),
      dpopKey: dpopKey === undefined ? undefined : this.#key(dpopKey),
    })
  }

  #key(text: string): DpopKey {
    const known = this.#keys.get(text)
    if (known) return known
    const key = DpopKey.read(new Secret(text))
    this.#keys.set(text, key)
    if (this.#keys.size > MAX_KEYS) this.#keys.delete(this.#keys.keys().next().value as string)
    return key
  }

  #granted(number: number, card: number, passedOver: PassedOver | undefined): void {
    const waiting = this.#end(number)
    const told = this.#tokens.get(card)
    if (waiting && told) {
      waiting.resolve(new RemoteLease(number, waiting.pool.name, told, passedOver, this.#outbox))
      return
    }
    // The client left while the lease was on its way.
    this.#outbox.send(['settle', number, 'unknown'])
    waiting?.reject(new WireError('INTERNAL', 'a lease came without its token'))
  }

  #end(number: number): Waiting | undefined {
    const waiting = this.#waiting.get(number)
    this.#waiting.delete(number)
    waiting?.stopListening()
    return waiting
  }
}

/** One pool of the primary's. */
export class RemotePool implements TokenPool {
  readonly name: string
  readonly learning: RemoteLearning
  readonly #pools: RemotePools

  constructor(name: string, learning: RemoteLearning, pools: RemotePools) {
    this.name = name
    this.learning = learning
    this.#pools = pools
  }

  /** Never at once: to know, the primary must be asked. */
  lease(_request: LeaseRequest): Lease | undefined {
    return undefined
  }

  async wait(request: LeaseRequest, signal: AbortSignal): Promise<Lease> {
    return this.#pools.wait(this, request, signal)
  }

  settle(lease: Lease, outcome: Outcome): void {
    this.#pools.settle(lease, outcome)
  }

  recover(lease: Lease): Promise<Recovery> {
    return this.#pools.recover(lease)
  }

  coolEgress(egress: string, ms: number, reason: string): void {
    this.#pools.coolEgress(this.name, egress, ms, reason)
  }
}

function ownLease(lease: Lease): RemoteLease {
  if (lease instanceof RemoteLease) return lease
  throw new TypeError('a lease of this worker is needed')
}
