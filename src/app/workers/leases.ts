import { toWireError, WireError } from '../../errors.ts'
import type { Lease, Outcome, PoolStatus, Recovery, TokenPool } from '../../pool/lease.ts'
import {
  type Card,
  type FromWorker,
  type PackedWant,
  packError,
  type ToWorker,
  unpackWant,
} from './messages.ts'

/** A pool as the primary has it, and what a worker has to know of it. */
export interface PrimaryPool {
  readonly pool: TokenPool & { status(): PoolStatus }
  /** The claims that its templates name. */
  readonly claims: readonly string[]
  /** Whether the end of a request makes no room for another. */
  readonly calm: boolean
}

interface Held {
  readonly pool: TokenPool
  readonly lease: Lease
}

/** A token that the worker uses without asking, and its uses that are under way. */
interface Free extends PrimaryPool {
  readonly facts: Lease
  readonly under: Lease[]
}

interface Known {
  readonly number: number
  readonly lease: Lease
}

/** Tokens that a worker knows by number; each costs it about as much as the token is long. */
const MAX_CARDS = 4096
/** Refused leases that a worker may still want healed: it asks in the same breath. */
const MAX_REFUSED = 1000

const GONE: Outcome = { kind: 'unknown' }
const OK: Outcome = { kind: 'ok' }

/**
 * The leases that one worker holds, and the requests of it that wait for one. The pools decide: they cannot tell
 * a worker's request from one of their own process, so limits, order and single flight hold for all together.
 */
export class WorkerLeases {
  readonly #find: (pool: string) => PrimaryPool | undefined
  readonly #send: (message: ToWorker) => void
  readonly #spoilt: (pool: string) => void
  readonly #held = new Map<number, Held>()
  readonly #waits = new Map<number, AbortController>()
  readonly #refused = new Map<number, Held>()
  /** By credential, in order of the first use. */
  readonly #cards = new Map<string, Known>()
  /** By card, in order of time; those that are no longer free stay a while. */
  readonly #free = new Map<number, Free>()
  #cardCount = 0
  #closed = false

  /** `spoilt` is called when a token that was free did not do well: the worker waits to hear which are. */
  constructor(
    find: (pool: string) => PrimaryPool | undefined,
    send: (message: ToWorker) => void,
    spoilt: (pool: string) => void,
  ) {
    this.#find = find
    this.#send = send
    this.#spoilt = spoilt
  }

  /** The oldest go that are no longer free; the worker may have used the latest, and tells a little later. */
  #forgetFree(cards: readonly number[]): void {
    for (const [card, { under }] of this.#free) {
      if (this.#free.size <= MAX_CARDS) return
      if (under.length === 0 && !cards.includes(card)) this.#free.delete(card)
    }
  }

  /** Deals with a message, if it is about leases. */
  receive(message: FromWorker): boolean {
    switch (message[0]) {
      case 'lease':
        this.#ask(message[1], message[2], message[3])
        return true
      case 'give-up':
        this.#waits.get(message[1])?.abort(GONE)
        return true
      case 'sent':
        this.#held.get(message[1])?.lease.dispatched()
        return true
      case 'settle':
        this.#settle(message[1], message[2], message[3])
        return true
      case 'used':
        this.#used(message[1], message[2], message[3])
        return true
      case 'outcome':
        this.#outcome(message[1], message[2], message[3], message[4], message[5])
        return true
      case 'recover':
        void this.#recover(message[1])
        return true
      case 'cool':
        this.#find(message[1])?.pool.coolEgress(message[2], message[3], message[4])
        return true
      default:
        return false
    }
  }

  /** Says which tokens of a pool the worker may use without asking: those that these ended leases were for. */
  setFree(found: PrimaryPool, leases: readonly Lease[]): void {
    const cards = leases.map((facts) => {
      const card = this.#card(facts, found)
      if (!this.#free.has(card)) this.#free.set(card, { ...found, facts, under: [] })
      return card
    })
    this.#forgetFree(cards)
    this.#send(['free', found.pool.name, cards])
  }

  /**
   * The worker has gone: nobody will tell what became of its requests. What was leased counts as sent, since it
   * may have been.
   */
  close(): void {
    this.#closed = true
    for (const wait of this.#waits.values()) wait.abort(GONE)
    this.#waits.clear()
    for (const { pool, lease } of this.#held.values()) {
      lease.dispatched()
      pool.settle(lease, GONE)
    }
    this.#held.clear()
    for (const { pool, under } of this.#free.values()) {
      for (const lease of under) pool.settle(lease, GONE)
    }
    this.#free.clear()
    this.#refused.clear()
  }

  #ask(number: number, name: string, packed: PackedWant | null): void {
    const found = this.#find(name)
    if (!found) {
      this.#refuse(number, new WireError('SHUTTING_DOWN', `pool ${name} is no longer configured`))
      return
    }
    const { pool } = found
    const want = unpackWant(packed)
    try {
      const lease = pool.lease(want)
      if (lease) {
        this.#grant(number, found, lease)
        return
      }
    } catch (error) {
      this.#refuse(number, error)
      return
    }
    const wait = new AbortController()
    this.#waits.set(number, wait)
    this.#send(['queued', number])
    pool.wait(want, wait).then(
      (lease) => {
        this.#waits.delete(number)
        if (wait.signal.aborted) pool.settle(lease, GONE)
        else this.#grant(number, found, lease)
      },
      (error) => {
        this.#waits.delete(number)
        if (!wait.signal.aborted) this.#refuse(number, error)
      },
    )
  }

  #refuse(number: number, error: unknown): void {
    this.#send(['refused', number, packError(toWireError(error))])
  }

  #grant(number: number, found: PrimaryPool, lease: Lease): void {
    this.#held.set(number, { pool: found.pool, lease })
    const card = this.#card(lease, found)
    const { passedOver } = lease
    this.#send(passedOver ? ['grant', number, card, passedOver] : ['grant', number, card])
  }

  /** The number by which the worker knows this token, told first where it does not. */
  #card(lease: Lease, { claims, calm }: PrimaryPool): number {
    const { key } = lease
    const known = this.#cards.get(key)
    if (known && isSame(known.lease, lease)) return known.number
    if (known) this.#send(['drop', known.number])
    this.#cardCount += 1
    const number = this.#cardCount
    this.#send(['card', describe(number, lease, claims, calm)])
    this.#cards.delete(key)
    this.#cards.set(key, { number, lease })
    if (this.#cards.size > MAX_CARDS) {
      const [oldest, { number: old }] = this.#cards.entries().next().value as [string, Known]
      this.#cards.delete(oldest)
      this.#send(['drop', old])
    }
    return number
  }

  #settle(number: number, kind: Outcome['kind'], retryAfterMs: number | undefined): void {
    const held = this.#held.get(number)
    if (!held) return
    this.#held.delete(number)
    if (kind === 'expired') this.#keepRefused(number, held)
    held.pool.settle(
      held.lease,
      kind === 'limited' ? { kind, retryAfterMs: retryAfterMs ?? undefined } : { kind },
    )
  }

  #keepRefused(number: number, held: Held): void {
    this.#refused.set(number, held)
    if (this.#refused.size > MAX_REFUSED) {
      this.#refused.delete(this.#refused.keys().next().value as number)
    }
  }

  /** Each use is a lease like any other, taken after the fact: there is no limit that it could break. */
  #used(card: number, started: number, ended: number): void {
    const free = this.#free.get(card)
    if (!free) return
    for (let i = 0; i < started; i++) {
      const lease = leaseOf(free)
      if (!lease) continue
      lease.dispatched()
      free.under.push(lease)
    }
    for (let i = 0; i < ended; i++) {
      const lease = free.under.pop()
      // Of an older token than the lease it says nothing.
      if (lease) free.pool.settle(lease, isSame(lease, free.facts) ? OK : GONE)
    }
  }

  #outcome(
    number: number,
    card: number,
    sent: boolean,
    kind: Outcome['kind'],
    retryAfterMs: number | undefined,
  ): void {
    const free = this.#free.get(card)
    if (!free) return
    const { pool, facts, under } = free
    const lease = (sent && under.pop()) || leaseOf(free)
    if (lease) {
      this.#held.set(number, { pool, lease })
      // Once it has been renewed, it is no news that the old token was refused.
      const tells = isSame(lease, facts) || kind === 'limited' || kind === 'egress-down'
      this.#settle(number, tells ? kind : 'unknown', retryAfterMs)
    }
    // The pool knows by its generation whether that token is the latest.
    if (kind === 'expired') this.#keepRefused(number, { pool, lease: facts })
    this.#spoilt(pool.name)
  }

  async #recover(number: number): Promise<void> {
    const held = this.#refused.get(number)
    this.#refused.delete(number)
    let recovery: Recovery
    try {
      if (!held) throw new Error('no such lease')
      recovery = await held.pool.recover(held.lease)
    } catch {
      const reason = 'the token could not be renewed'
      recovery = { result: 'failed', quarantined: false, reason, refresh: undefined }
    }
    if (!this.#closed) this.#send(['recovered', number, recovery])
  }
}

/** A use of that credential; undefined where the pool would not lease it any more. */
function leaseOf({ pool, facts }: Free): Lease | undefined {
  try {
    return pool.lease({ credential: facts.credential, remote: true })
  } catch {
    return undefined
  }
}

/** Whether two leases of one credential carry the same. */
function isSame(one: Lease, other: Lease): boolean {
  return (
    one.generation === other.generation &&
    one.token === other.token &&
    one.dpopKey === other.dpopKey &&
    one.egress === other.egress &&
    one.headers === other.headers
  )
}

function describe(number: number, lease: Lease, names: readonly string[], calm: boolean): Card {
  const { credential, key, generation, token, expiresAt, dpopKey, egress, headers } = lease
  return {
    number,
    credential,
    key,
    generation,
    token: token.reveal(),
    expiresAt,
    dpopKey: dpopKey?.secret.reveal(),
    egress,
    headers,
    calm,
    claims: Object.fromEntries(names.map((name) => [name, lease.claim(name)])),
  }
}
