import { createHash } from 'node:crypto'
import type { LimitsConfig } from '../config/schema.ts'
import type { Clock } from '../lib/clock.ts'
import type { SharedListener, SharedPool, SharedStore, Sight } from '../store/shared.ts'
import type { Store } from '../store/store.ts'
import type { Credential } from './credential.ts'
import type { Desk } from './desk.ts'
import type { Journal, PoolLog } from './journal.ts'
import type { Lane } from './lane.ts'
import { Leadership } from './leadership.ts'
import type { LeaseRequest } from './lease.ts'
import type { Limits } from './limits.ts'
import type { LimitsBoard } from './limits-board.ts'
import { tokenOf } from './roster.ts'
import { SharedLimits } from './shared-limits.ts'
import type { Stock } from './stock.ts'

/** Sessions that the store was asked about. */
const MAX_SESSIONS = 10_000
/** Marks the rest of an egress: no credential is called so. */
const LANE = '\0'

interface PeersOptions {
  readonly pool: string
  readonly store: SharedStore
  readonly clock: Clock
  readonly random: () => number
  readonly journal: Journal
  readonly log: PoolLog | undefined
  readonly timeoutMs: () => number
  readonly stock: Stock
  readonly desk: () => Desk
}

/** Joins the other instances, where the store has others. */
export function joinPeers(
  { name, store, clock, log }: { name: string; store: Store; clock: Clock; log?: PoolLog },
  parts: Omit<PeersOptions, 'pool' | 'store' | 'clock' | 'log'>,
): Peers | undefined {
  return store.shared && new Peers({ ...parts, pool: name, store: store.shared, clock, log })
}

/** The other instances on the same store, as this pool sees them. */
export class Peers implements SharedListener {
  readonly leadership: Leadership
  readonly board: LimitsBoard
  readonly #options: PeersOptions
  readonly #shared: SharedPool
  readonly #sessions = new Set<string>()
  /** What is to be looked at next; `all` is every credential. */
  #pending: Set<string> | 'all' = new Set()
  #looking: Promise<void> | undefined
  #closed = false

  constructor(options: PeersOptions) {
    const { pool, clock, journal, timeoutMs, store, stock } = options
    this.#options = options
    const shared = store.join(pool, this)
    this.#shared = shared
    this.leadership = new Leadership({
      clock,
      shared,
      journal,
      timeoutMs,
      catchUp: (credential) => this.catchUp(credential),
    })
    this.board = {
      clock,
      up: () => shared.trouble === undefined,
      instances: () => shared.instances,
      ask: (id, ask) => shared.ask(id, ask),
      asked: 0,
    }
    journal.share((credential) => this.catchUp(credential))
    stock.onBound = (session, id) => this.#bound(session, id)
    stock.trouble = () => this.trouble
  }

  /** Why the others cannot be heard; undefined while they can. */
  get trouble(): string | undefined {
    return this.#shared.trouble
  }

  limits(config: LimitsConfig): Limits {
    return new SharedLimits(config, this.board)
  }

  /** A credential has joined the pool. */
  attach(credential: Credential): void {
    const { limits } = credential
    if (!(limits instanceof SharedLimits)) return
    limits.attach(credential, () => {
      if (!this.#closed && !credential.gone) this.#options.desk().answered(credential)
    })
  }

  /** A credential has left the pool. */
  detach(credential: Credential): void {
    if (credential.limits instanceof SharedLimits) credential.limits.detach()
  }

  /** Whether the store must be asked first to which credential a request is bound. */
  mustAsk({ session }: LeaseRequest): boolean {
    return session !== undefined && this.trouble === undefined && !this.#sessions.has(session)
  }

  /** Learns to which credential a session is bound elsewhere. */
  async acquaint({ session }: LeaseRequest): Promise<void> {
    if (session === undefined) return
    const id = await this.#shared.session(digest(session)).catch(() => undefined)
    if (this.#sessions.size >= MAX_SESSIONS) this.#sessions.clear()
    this.#sessions.add(session)
    const { stock } = this.#options
    if (id !== undefined && stock.byId.has(id)) stock.bind(session, id)
  }

  #bound(session: string, id: string): void {
    void this.#shared.bindSession(digest(session), id).catch(() => {})
  }

  /** Upstream wants a credential, or a whole egress, left alone. */
  rest(of: Credential | Lane, ms: number): void {
    const key = 'members' in of ? LANE + of.name : of.id
    void this.#shared.rest(key, ms).catch(() => {})
  }

  /** Takes over what the store holds of one credential. */
  async catchUp(credential: Credential): Promise<void> {
    const { id } = credential
    const found = await this.#shared.look([id]).catch(() => undefined)
    const sight = found?.get(id)
    if (sight) this.#follow([[credential, sight]], false)
  }

  changed(keys: ReadonlySet<string> | undefined): void {
    if (keys === undefined) this.#pending = 'all'
    else if (this.#pending !== 'all') for (const key of keys) this.#pending.add(key)
    this.#looking ??= this.#look().finally(() => {
      this.#looking = undefined
    })
  }

  freed(id: string): void {
    const limits = this.#options.stock.byId.get(id)?.limits
    if (limits instanceof SharedLimits) limits.freed()
  }

  wanted(id: string, share: number): void {
    const limits = this.#options.stock.byId.get(id)?.limits
    if (limits instanceof SharedLimits) limits.share(share)
  }

  unclaimed(id: string): void {
    this.leadership.heard(id)
  }

  reached(up: boolean, emptied: boolean): void {
    if (this.#closed) return
    const { clock, stock, pool, log } = this.#options
    const all = [...stock.byId.values()]
    if (up) {
      this.leadership.regain()
      log?.warn({ pool, emptied }, 'the shared store answers')
    } else {
      const reason = this.trouble
      log?.error({ pool, reason }, 'the shared store is away: tokens serve on, renewals wait')
    }
    for (const credential of all) {
      if (up) credential.retryAt(clock.monotonic())
      if (!(credential.limits instanceof SharedLimits)) continue
      if (up) credential.limits.regain(emptied)
      else credential.limits.lose()
    }
    this.#tell(all, up ? 'the shared store answers' : 'the shared store is away')
  }

  async close(): Promise<void> {
    this.#closed = true
    for (const { limits } of this.#options.stock.byId.values()) {
      if (limits instanceof SharedLimits) limits.close()
    }
    await this.#looking
    await this.#shared.leave()
  }

  async #look(): Promise<void> {
    // What comes in the same burst is looked at together.
    await Promise.resolve()
    while (!this.#closed && (this.#pending === 'all' || this.#pending.size > 0)) {
      const everything = this.#pending === 'all'
      const known = this.#options.stock.byId
      const keys =
        this.#pending === 'all'
          ? [...known.keys()]
          : [...this.#pending].filter((key) => known.has(key) || key.startsWith(LANE))
      this.#pending = new Set()
      const found = await this.#shared.look(keys).catch(() => undefined)
      // The store went away: all is looked at when it comes back.
      if (!found || this.#closed) continue
      const sights: [Credential, Sight][] = []
      for (const [key, sight] of found) {
        const credential = this.#options.stock.byId.get(key)
        if (credential) sights.push([credential, sight])
        else if (sight.restMs > 0) this.#restLane(key.slice(LANE.length), sight.restMs)
      }
      this.#follow(sights, everything)
    }
  }

  #restLane(egress: string, ms: number): void {
    const { clock, stock } = this.#options
    const members = [...stock.lane(egress).members]
    for (const credential of members) credential.cool(clock.monotonic() + ms)
    this.#tell(members, `upstream limited egress ${egress}`)
  }

  #follow(sights: readonly [Credential, Sight][], everything: boolean): void {
    const { clock, journal, random } = this.#options
    const followed: Credential[] = []
    for (const [credential, { record, removed, restMs }] of sights) {
      if (credential.gone) continue
      if (restMs > 0) credential.cool(clock.monotonic() + restMs)
      if (restMs > 0) followed.push(credential)
      // Its own write is about to land, and what it meets there is told again.
      if (journal.isBusy(credential)) continue
      if (removed) {
        if (!credential.token) continue
        credential.forget()
      } else if (!record || record.generation < credential.generation) {
        // A store that was emptied, or a replica that lacked the last writes, gets back what is newer here.
        if (credential.token && (record || everything)) void journal.write(credential)
        continue
      } else if (record.fingerprint !== credential.fingerprint) {
        credential.continueFrom(record.generation)
        continue
      } else {
        const token = tokenOf(record)
        if (credential.isNewer(record, token) && this.leadership.leads(credential)) {
          // Somebody has logged in meanwhile: what this instance brings is of an older family.
          credential.attempt += 1
        }
        credential.follow(record, token, random())
      }
      this.leadership.heard(credential.id)
      followed.push(credential)
    }
    if (followed.length > 0) this.#tell(followed, 'another instance has told of it')
  }

  /** Something about these has changed elsewhere. */
  #tell(credentials: readonly Credential[], reason: string): void {
    const desk = this.#options.desk()
    desk.changedAll(credentials, reason, this.#options.clock.monotonic())
    desk.rearm()
  }
}

/** Sessions are named by clients: their names stay here. */
function digest(session: string): string {
  return createHash('sha256').update(session).digest('base64url')
}
