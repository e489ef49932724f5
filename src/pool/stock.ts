import type { PoolConfig } from '../config/schema.ts'
import { WireError } from '../errors.ts'
import type { Credential } from './credential.ts'
import { rendezvous } from './hash.ts'
import { Heap } from './heap.ts'
import { Lane } from './lane.ts'
import type { LeaseRequest } from './lease.ts'
import { holds, missing, needsAnything } from './needs.ts'
import { passedOver } from './passed-over.ts'
import { isPlain, Sessions, STRATEGIES, suits, type Want } from './select.ts'

const NEVER = Number.POSITIVE_INFINITY
/** Told to clients where waiting helps but nobody knows for how long. */
const SOON_MS = 1000
/** The same for an egress that a probe must find right first. */
const HELD_MS = 5000

/**
 * The credentials of a pool, sorted by readiness: a heap of those that can serve now, in the order of the
 * strategy, and an agenda of the times at which readiness changes by itself.
 */
export class Stock {
  readonly #pool: string
  readonly #held: (egress: string) => boolean
  readonly #lanes = new Map<string, Lane>()
  readonly #agenda = new Heap<Credential>(1, (a, b) => a.wakeAt < b.wakeAt)
  readonly #sessions = new Sessions()
  /** Told when a session is bound to a credential. */
  onBound: ((session: string, id: string) => void) | undefined
  #byId: ReadonlyMap<string, Credential> = new Map()
  #ready: Heap<Credential>
  #config: PoolConfig

  /** Why no token may be coming, whatever the credentials say. */
  trouble: (() => string | undefined) | undefined

  /** `held` tells of egresses that nothing may leave by. */
  constructor(pool: string, config: PoolConfig, held: (egress: string) => boolean) {
    this.#pool = pool
    this.#held = held
    this.#config = config
    this.#ready = new Heap(0, STRATEGIES[config.select])
  }

  get byId(): ReadonlyMap<string, Credential> {
    return this.#byId
  }

  /** When readiness changes next by itself. */
  get nextWake(): number {
    return this.#agenda.top?.wakeAt ?? NEVER
  }

  lane(egress: string): Lane {
    let lane = this.#lanes.get(egress)
    if (!lane) {
      lane = new Lane(egress, () => this.#held(egress))
      this.#lanes.set(egress, lane)
    }
    return lane
  }

  /** Takes over another set of credentials; all of them must be placed then. */
  take(credentials: ReadonlyMap<string, Credential>, config: PoolConfig): void {
    this.#byId = credentials
    this.#config = config
    this.#ready.clear()
    this.#ready = new Heap(0, STRATEGIES[config.select])
    for (const lane of this.#lanes.values()) lane.members.clear()
    for (const credential of credentials.values()) credential.settings.lane.members.add(credential)
    for (const lane of this.#lanes.values()) {
      if (lane.members.size === 0) this.#lanes.delete(lane.name)
    }
  }

  isReady(credential: Credential): boolean {
    return this.#ready.has(credential)
  }

  /** Sorts a credential anew, after anything about it has changed. */
  place(credential: Credential, now: number): void {
    const readyAt = credential.gone ? NEVER : credential.readyAt(now)
    const ready = readyAt <= now
    if (ready) this.#ready.put(credential)
    else this.#ready.delete(credential)
    const endsAt = credential.endsAt > now && !credential.gone ? credential.endsAt : NEVER
    const wakeAt = ready ? endsAt : Math.min(readyAt, endsAt)
    if (wakeAt === NEVER) this.#agenda.delete(credential)
    else if (wakeAt !== credential.wakeAt || !this.#agenda.has(credential)) {
      credential.wakeAt = wakeAt
      this.#agenda.put(credential)
    }
  }

  /** The next credential whose time has come; place it again. */
  nextDue(now: number): Credential | undefined {
    const first = this.#agenda.top
    if (!first || first.wakeAt > now) return undefined
    this.#agenda.delete(first)
    return first
  }

  /** Takes a credential out until the next look at what is due. */
  takeOut(credential: Credential, now: number): void {
    this.#ready.delete(credential)
    credential.wakeAt = now
    this.#agenda.put(credential)
  }

  /** The best ready credential. */
  pick(want: Want): Credential | undefined {
    if (isPlain(want)) return this.#ready.top
    const { only } = want
    if (only) return this.#ready.has(only) && suits(want, only) ? only : undefined
    return this.#pickFor(want)
  }

  /** Those known to hold what is needed come before those that may; among them the egress asked for. */
  #pickFor(want: Want): Credential | undefined {
    const { request } = want
    const choosy = needsAnything(request)
    const ready = this.#ready
    const fits = (credential: Credential) => suits(want, credential)
    const sure = choosy
      ? (credential: Credential) => fits(credential) && holds(credential.token, request) === 'yes'
      : fits
    const { near } = request
    const beside =
      near === undefined
        ? undefined
        : ready.best((each) => each.settings.lane.name === near && sure(each))
    return beside ?? ready.best(sure) ?? (choosy ? ready.best(fits) : undefined)
  }

  /** Finds the credential that a request is bound to, by its hint or its session. */
  resolve(request: LeaseRequest, now: number): Want {
    if (request.credential !== undefined) {
      const only = this.#byId.get(request.credential)
      if (only) return { request, only }
      const message = `pool ${this.#pool} has no credential ${JSON.stringify(request.credential)}`
      throw new WireError('POOL_EXHAUSTED', message)
    }
    if (request.session === undefined) return { request, only: undefined }
    return { request, only: this.#bind(request, request.session, now) }
  }

  /** Whether a bound request may go on waiting for its credential. */
  keeps(want: Want, now: number): boolean {
    const { only, request } = want
    if (!only) return true
    if (request.credential !== undefined) return !only.gone
    return suits(want, only) && this.#holdsSession(only, now)
  }

  /** A session sticks to a credential, as another instance has told. */
  bind(session: string, id: string): void {
    this.#sessions.set(session, id)
  }

  /** A session sticks to the credential that served it first. */
  remember(want: Want, credential: Credential): void {
    const { session, credential: hint, exclude } = want.request
    // What a replay falls back on is for that replay only.
    if (session === undefined || hint !== undefined || want.only || exclude?.size) return
    if (this.onBound && this.#sessions.get(session) !== credential.id) {
      this.onBound(session, credential.id)
    }
    this.#sessions.set(session, credential.id)
  }

  /**
   * What becomes of a request for which nothing is ready: `wait`, or the credential that may try an egress
   * held to be down because nothing else is left. Throws `WireError` when neither helps.
   */
  outlook(want: Want, now: number): Credential | 'wait' {
    const { exclude } = want.request
    const before = STRATEGIES[this.#config.select]
    let held = false
    let returning = false
    let soon = false
    let restUntil = NEVER
    let trier: Credential | undefined
    for (const credential of want.only ? [want.only] : this.#byId.values()) {
      if (holds(credential.token, want.request) === 'no') continue
      held = true
      if (credential.revoked || credential.gone || exclude?.has(credential.id)) continue
      const { lane } = credential.settings
      if (credential.state(now) === 'quarantined' && !credential.canary) {
        returning ||= !exclude?.size
        soon ||= returning && credential.usableAt(now) - now <= this.#config.queue.wait
      } else if (!lane.rests) {
        if (!exclude?.size || this.#isSoonReady(credential, now)) return 'wait'
      } else {
        restUntil = Math.min(restUntil, lane.held ? now + HELD_MS : lane.until)
        const able =
          !lane.trial &&
          !lane.held &&
          credential.hasLiveToken(now) &&
          credential.readyAside(now) <= now
        if (able && (!trier || before(credential, trier))) trier = credential
      }
    }
    if (trier) return trier
    // A credential that comes back in time is better than a dead egress.
    if (soon) return 'wait'
    if (restUntil !== NEVER) {
      throw new WireError('EGRESS_DOWN', `no egress of pool ${this.#pool} can be reached`, {
        retryAfterMs: Math.max(0, restUntil - now),
        passedOver: passedOver(this, want, now),
      })
    }
    if (returning) return 'wait'
    if (!held && needsAnything(want.request) && this.#byId.size > 0) {
      const tokens = Array.from(want.only ? [want.only] : this.#byId.values(), ({ token }) => token)
      const lack = missing(tokens, want.request)
      throw new WireError('NO_TOKEN_WITH_SCOPE', `no token of pool ${this.#pool} has ${lack}`, {
        passedOver: passedOver(this, want, now),
      })
    }
    throw this.exhausted(want, now)
  }

  exhausted(want: Want, now: number): WireError {
    const why = this.trouble?.() === undefined ? '' : `: ${this.trouble()}`
    return new WireError('POOL_EXHAUSTED', `pool ${this.#pool} has no usable token${why}`, {
      retryAfterMs: this.retryAfter(want, now),
      passedOver: passedOver(this, want, now),
    })
  }

  /** When a token will be usable, from now; undefined when none ever will. */
  retryAfter(want: Want, now: number): number | undefined {
    let earliest = NEVER
    let hope = false
    for (const credential of want.only ? [want.only] : this.#byId.values()) {
      if (credential.revoked || !suits(want, credential)) continue
      hope = true
      earliest = Math.min(earliest, credential.usableAt(now))
    }
    if (!hope) return undefined
    return earliest === NEVER ? SOON_MS : Math.max(0, earliest - now)
  }

  #bind(request: LeaseRequest, session: string, now: number): Credential | undefined {
    const id = this.#sessions.get(session)
    const bound = id === undefined ? undefined : this.#byId.get(id)
    if (bound && this.keeps({ request, only: bound }, now)) return bound
    const candidates = [...this.#byId.values()].filter((only) => this.keeps({ request, only }, now))
    const active = candidates.filter((credential) => credential.state(now) === 'active')
    const chosen = rendezvous(
      session,
      active.length > 0 ? active : candidates,
      (credential) => credential.hash,
    )
    if (chosen) this.remember({ request, only: undefined }, chosen)
    return chosen
  }

  /** A session waits for a credential that is busy, renewing or limited for a while; else it moves. */
  #holdsSession(credential: Credential, now: number): boolean {
    if (credential.gone || credential.settings.lane.rests) return false
    switch (credential.state(now)) {
      case 'active':
      case 'pending':
        return true
      case 'cooling':
        return credential.usableAt(now) - now <= this.#config.queue.wait
      default:
        return credential.canary
    }
  }

  /** Whether a replay should wait for it: not for one that is out of reach. */
  #isSoonReady(credential: Credential, now: number): boolean {
    const state = credential.state(now)
    if (state === 'pending' || credential.canary) return true
    if (state !== 'active') return false
    const readyAt = credential.readyAt(now)
    return readyAt === NEVER || readyAt - now <= this.#config.queue.wait
  }
}
