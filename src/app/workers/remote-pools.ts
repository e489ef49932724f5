import type { PoolConfig } from '../../config/schema.ts'
import { WireError } from '../../errors.ts'
import { Secret } from '../../lib/secret.ts'
import type {
  Lease,
  LeaseRequest,
  Outcome,
  PassedOver,
  Recovery,
  TokenPool,
  Waiter,
} from '../../pool/lease.ts'
import { DpopKey } from '../../token/dpop.ts'
import { type Card, isPlain, packWant, type ToWorker, unpackError } from './messages.ts'
import type { RemoteLearning } from './remote-learning.ts'
import { FreeLease, GrantedLease, type Outbox, type Token } from './worker-lease.ts'

/** A lease that was asked for. */
interface Waiting {
  readonly pool: RemotePool
  readonly waiter: Waiter
  readonly resolve: (lease: Lease) => void
  readonly reject: (error: unknown) => void
  /** Set once it has to wait. */
  stopListening: (() => void) | undefined
}

/** Keys keep the nonces of servers, so one is made once; a worker meets few. */
const MAX_KEYS = 1000
/** How long the primary may know nothing of a use that it does not limit. */
const REPORT_MS = 20

const NONE: readonly Token[] = []

/** The pools as a worker sees them: every question goes to the primary, whose pools decide. */
export class RemotePools {
  readonly #outbox: Outbox
  readonly #tokens = new Map<number, Token>()
  readonly #keys = new Map<string, DpopKey>()
  readonly #waiting = new Map<number, Waiting>()
  readonly #recovering = new Map<number, (recovery: Recovery) => void>()
  /** Tokens with uses that the primary has not heard of. */
  readonly #used = new Set<Token>()
  /** By pool: the tokens that may be used without asking, in the configuration's order. */
  readonly #free = new Map<string, readonly Token[]>()
  #cancelReport: (() => void) | undefined
  #count = 0

  constructor(outbox: Outbox) {
    this.#outbox = outbox
  }

  pool(name: string, learning: RemoteLearning, config: Pick<PoolConfig, 'select'>): RemotePool {
    return new RemotePool(name, learning, config.select === 'fill-first', this)
  }

  /** The tokens of a pool that may be used without asking. */
  free(pool: string): readonly Token[] {
    return this.#free.get(pool) ?? NONE
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
      case 'free':
        this.#free.set(
          message[1],
          message[2].flatMap((number) => this.#tokens.get(number) ?? []),
        )
        return true
      case 'queued':
        this.#queued(message[1])
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

  wait(pool: RemotePool, request: LeaseRequest, waiter: Waiter): Promise<Lease> {
    this.#count += 1
    const number = this.#count
    return new Promise((resolve, reject) => {
      this.#waiting.set(number, { pool, waiter, resolve, reject, stopListening: undefined })
      this.#outbox.send(['lease', number, pool.name, packWant(request)])
    })
  }

  settle(lease: Lease, outcome: Outcome): void {
    const own = ownLease(lease)
    if (own.stage === 'settled') return
    const sent = own.stage === 'dispatched'
    own.stage = 'settled'
    if (own instanceof FreeLease) this.#settleFree(own, sent, outcome)
    else if (outcome.kind === 'ok' && own.told.card.calm) {
      this.#outbox.post(['settle', own.number, outcome.kind])
    } else this.#outbox.send(['settle', own.number, outcome.kind, ...retryAfter(outcome)])
  }

  recover(lease: Lease): Promise<Recovery> {
    const { number } = ownLease(lease)
    return new Promise((resolve) => {
      this.#recovering.set(number, resolve)
      this.#outbox.send(['recover', number])
    })
  }

  #settleFree(lease: FreeLease, sent: boolean, outcome: Outcome): void {
    const { told } = lease
    told.inFlight -= 1
    if (sent && outcome.kind === 'ok') {
      told.ended += 1
      this.used(told)
      return
    }
    if (!sent && outcome.kind === 'unknown') return
    if (outcome.kind !== 'unknown' && outcome.kind !== 'denied') {
      // It is not what it was; whether it may be used on, the primary says.
      const free = this.free(lease.pool)
      this.#free.set(
        lease.pool,
        free.filter((each) => each !== told),
      )
    }
    this.#used.add(told)
    this.report()
    this.#count += 1
    lease.number = this.#count
    const { number } = told.card
    const { kind } = outcome
    this.#outbox.send(['outcome', lease.number, number, sent, kind, ...retryAfter(outcome)])
  }

  /** There is something to report of a token that is used freely. */
  readonly used = (token: Token): void => {
    this.#used.add(token)
    if (this.#cancelReport) return
    const timer = setTimeout(() => this.report(), REPORT_MS)
    this.#cancelReport = () => clearTimeout(timer)
  }

  /** Tells what the primary has not heard of yet. */
  report(): void {
    this.#cancelReport?.()
    this.#cancelReport = undefined
    for (const token of this.#used) {
      const { card, started, ended } = token
      if (started + ended > 0) this.#outbox.send(['used', card.number, started, ended])
      token.started = 0
      token.ended = 0
    }
    this.#used.clear()
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
      inFlight: 0,
      started: 0,
      ended: 0,
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

  /** It takes a while: from here on it matters whether somebody still waits. */
  #queued(number: number): void {
    const waiting = this.#waiting.get(number)
    if (!waiting) return
    const { signal } = waiting.waiter
    const leave = () => {
      this.#end(number)
      this.#outbox.send(['give-up', number])
      waiting.reject(signal.reason)
    }
    if (signal.aborted) {
      leave()
      return
    }
    signal.addEventListener('abort', leave, { once: true })
    waiting.stopListening = () => signal.removeEventListener('abort', leave)
  }

  #granted(number: number, card: number, passedOver: PassedOver | undefined): void {
    const waiting = this.#end(number)
    const told = this.#tokens.get(card)
    if (waiting && told) {
      waiting.resolve(new GrantedLease(number, waiting.pool.name, told, passedOver, this.#outbox))
      return
    }
    // The client left while the lease was on its way.
    this.#outbox.send(['settle', number, 'unknown'])
    waiting?.reject(new WireError('INTERNAL', 'a lease came without its token'))
  }

  #end(number: number): Waiting | undefined {
    const waiting = this.#waiting.get(number)
    this.#waiting.delete(number)
    waiting?.stopListening?.()
    return waiting
  }
}

/** One pool of the primary's. */
export class RemotePool implements TokenPool {
  readonly name: string
  readonly learning: RemoteLearning
  readonly #inOrder: boolean
  readonly #pools: RemotePools
  #turn = 0

  /** `inOrder` takes the first token that is free, as `fill-first` does; else the one that is used least. */
  constructor(name: string, learning: RemoteLearning, inOrder: boolean, pools: RemotePools) {
    this.name = name
    this.learning = learning
    this.#inOrder = inOrder
    this.#pools = pools
  }

  /** At once only for a request that wants nothing in particular, of a token without limits. */
  lease(request: LeaseRequest): Lease | undefined {
    const free = this.#pools.free(this.name)
    if (free.length === 0 || !isPlain(request)) return undefined
    const token = this.#inOrder ? free[0] : this.#leastUsed(free)
    if (!token || (token.card.expiresAt ?? Number.POSITIVE_INFINITY) <= Date.now()) return undefined
    return new FreeLease(this.name, token, this.#pools.used)
  }

  wait(request: LeaseRequest, waiter: Waiter): Promise<Lease> {
    return this.#pools.wait(this, request, waiter)
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

  /** Among equals, one after the other. */
  #leastUsed(free: readonly Token[]): Token | undefined {
    let best: Token | undefined
    let at = 0
    for (let i = 1; i <= free.length; i++) {
      const index = (this.#turn + i) % free.length
      const token = free[index] as Token
      if (best && token.inFlight >= best.inFlight) continue
      best = token
      at = index
      if (token.inFlight === 0) break
    }
    this.#turn = at
    return best
  }
}

function ownLease(lease: Lease): GrantedLease | FreeLease {
  if (lease instanceof GrantedLease || lease instanceof FreeLease) return lease
  throw new TypeError('a lease of this worker is needed')
}

function retryAfter(outcome: Outcome): [] | [number] {
  return outcome.kind === 'limited' && outcome.retryAfterMs !== undefined
    ? [outcome.retryAfterMs]
    : []
}
