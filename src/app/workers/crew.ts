import { type AddressInfo, createServer, type Server, type Socket } from 'node:net'
import { copyAuthority } from '../../ca/authority.ts'
import type { PoolConfig } from '../../config/schema.ts'
import { CupbearerError } from '../../errors.ts'
import type { EventMap } from '../../events.ts'
import { KeptTokens } from '../../exchange/kept-tokens.ts'
import { writeLine } from '../../lib/log.ts'
import { Secret } from '../../lib/secret.ts'
import type { TokenSet } from '../../token/token.ts'
import type { Serving, ServingOptions, Terms } from '../serving.ts'
import { factsOf, freeLeases } from './free.ts'
import type { PrimaryPool } from './leases.ts'
import { Member } from './member.ts'
import type { FromWorker, LearningState, ToWorker } from './messages.ts'
import { unpack } from './messages.ts'
import { learningState } from './remote-learning.ts'
import { packSetup } from './setup.ts'

/** A worker that has ended is replaced after this, then after ever longer while they end at once. */
const RESTART_MS = 100
const MAX_RESTART_MS = 10_000
/** One that has lived that long did not end at once. */
const STEADY_MS = 30_000
/** A worker that does not answer holds up nobody who looks for longer. */
const CATCH_UP_MS = 250
/** A worker that has not taken up a configuration by then is replaced. */
const APPLY_MS = 10_000

/**
 * The workers of one proxy. This process, the primary, accepts connections and hands each to the worker that has
 * fewest; it holds the pools, and answers for them. It serves no request itself.
 */
export class Crew implements Serving {
  readonly #options: ServingOptions
  readonly #count: number
  readonly #maxConnections: number
  readonly #listener: Server
  readonly #members = new Set<Member>()
  /** Connections that came while nobody served. */
  readonly #queue = new Set<Socket>()
  readonly #restarts = new Set<() => void>()
  readonly #learning = new Map<string, string>()
  readonly #facts = new WeakMap<PoolConfig, Omit<PrimaryPool, 'pool'>>()
  readonly #kept: KeptTokens
  /** Pools of which something has changed in this turn. */
  readonly #changing = new Set<string>()
  #terms: Terms
  #generation = 1
  /** Workers in a row that ended at once. */
  #failures = 0
  #stopping = false

  constructor(options: ServingOptions) {
    this.#options = options
    const { config } = options.terms
    this.#count = config.workers
    this.#maxConnections = config.server.maxConnections
    this.#terms = options.terms
    this.#kept = new KeptTokens(options.clock)
    this.#listener = createServer(
      { pauseOnConnect: true, allowHalfOpen: true, noDelay: true },
      (socket) => this.#accept(socket),
    )
    const { events } = options
    events.on('egress', this.#tellEgress)
    events.on('credential', this.#lookAtLearning)
    events.on('refresh', this.#lookAtLearning)
    events.on('credential', this.#changed)
    events.on('refresh', this.#changed)
  }

  get connections(): number {
    let sum = this.#queue.size
    for (const member of this.#members) sum += member.connections
    return sum
  }

  open(address: { host: string; port: number }): Promise<AddressInfo> {
    return new Promise((resolve, reject) => {
      this.#listener.once('error', (cause: NodeJS.ErrnoException) => {
        const message = `cannot listen on ${address.host}:${address.port}: ${cause.code}`
        reject(new CupbearerError('LISTEN_FAILED', message, { cause }))
      })
      this.#listener.listen(address.port, address.host, () => {
        // What fails later, for want of file descriptors say, concerns one connection.
        this.#listener.removeAllListeners('error').on('error', () => {})
        resolve(this.#listener.address() as AddressInfo)
      })
    })
  }

  async ready(): Promise<void> {
    const members = Array.from({ length: this.#count }, () => this.#start())
    try {
      await Promise.all(members.map((member) => member.ready))
    } catch (cause) {
      const message = 'a worker process ended before it could serve: the log says why'
      throw new CupbearerError('WORKER_FAILED', message, { cause })
    }
  }

  async apply(terms: Terms): Promise<void> {
    const former = Object.keys(this.#terms.config.pools)
    this.#terms = terms
    this.#generation += 1
    // Limits that are new hold from here on.
    for (const name of new Set([...former, ...Object.keys(terms.config.pools)])) {
      this.#tellFree(name, this.#members)
    }
    const generation = this.#generation
    const setup = this.#setup()
    await Promise.all(
      [...this.#members].map(async (member) => {
        const cancel = this.#options.clock.schedule(APPLY_MS, () => member.kill())
        await member.apply(generation, setup)
        cancel()
      }),
    )
  }

  ailments(): string[] {
    const serving = [...this.#members].filter((member) => member.serves).length
    return serving === this.#count ? [] : [`${serving} of ${this.#count} workers are serving`]
  }

  heldChanged(): void {
    this.#tell(['held', this.#objections()])
  }

  learningChanged(pool: string): void {
    const state = this.#learningOf(pool)
    const text = state && JSON.stringify(state)
    if (!state || !text || this.#learning.get(pool) === text) return
    this.#learning.set(pool, text)
    this.#tell(['learning', pool, state])
  }

  /** Failed or right credentials at the admin API count for the workers too. */
  tellThrottle(news: readonly ['failed' | 'succeeded', string]): void {
    this.#tell(news)
  }

  async caughtUp(): Promise<void> {
    const serving = [...this.#members].filter((member) => member.serves)
    let cancel = () => {}
    const late = new Promise<void>((resolve) => {
      cancel = this.#options.clock.schedule(CATCH_UP_MS, resolve)
    })
    await Promise.race([Promise.all(serving.map((member) => member.sync())), late])
    cancel()
  }

  async drain(): Promise<void> {
    this.#stop()
    await Promise.all([...this.#members].map((member) => member.drain()))
  }

  cut(): void {
    this.#stop()
    for (const socket of this.#queue) socket.destroy()
    this.#queue.clear()
    for (const member of this.#members) member.kill()
  }

  async close(): Promise<void> {
    this.cut()
    await Promise.all([...this.#members].map((member) => member.ended))
    const { events } = this.#options
    events.off('egress', this.#tellEgress)
    events.off('credential', this.#lookAtLearning)
    events.off('refresh', this.#lookAtLearning)
    events.off('credential', this.#changed)
    events.off('refresh', this.#changed)
  }

  #stop(): void {
    if (this.#stopping) return
    this.#stopping = true
    this.#listener.close()
    for (const cancel of this.#restarts) cancel()
    this.#restarts.clear()
  }

  #accept(socket: Socket): void {
    socket.on('error', () => {})
    if (this.connections >= this.#maxConnections) return void socket.destroy()
    const member = this.#idlest()
    if (member) return void member.take(socket)
    this.#queue.add(socket)
    socket.once('close', () => this.#queue.delete(socket))
  }

  #idlest(): Member | undefined {
    let best: Member | undefined
    for (const member of this.#members) {
      if (!member.serves) continue
      const less = !best || member.connections < best.connections
      const equal = best?.connections === member.connections && member.taken < best.taken
      if (less || equal) best = member
    }
    return best
  }

  #start(): Member {
    const member = new Member({
      pool: (name) => this.#pool(name),
      spoilt: (name) => this.#lookAtFree(name),
      heard: (message, from) => this.#hear(message, from),
    })
    this.#members.add(member)
    member.send(['start', this.#setup()])
    void this.#attend(member)
    return member
  }

  /** A worker's life as the primary sees it. */
  async #attend(member: Member): Promise<void> {
    const { log } = this.#options
    const { pid } = member
    member.ready.then(
      () => {
        log.debug({ worker: pid }, 'worker is serving')
        for (const name of Object.keys(this.#terms.config.pools)) this.#tellFree(name, [member])
        const waiting = [...this.#queue]
        this.#queue.clear()
        for (const socket of waiting) if (!socket.destroyed) this.#accept(socket)
      },
      () => {},
    )
    const { code, signal } = await member.ended
    this.#members.delete(member)
    if (this.#stopping) return
    const steady = performance.now() - member.startedAt > STEADY_MS
    this.#failures = steady ? 1 : this.#failures + 1
    const wait = Math.min(RESTART_MS * 2 ** (this.#failures - 1), MAX_RESTART_MS)
    log.error({ worker: pid, code, signal, restartInMs: wait }, 'a worker has ended')
    const cancel = this.#options.clock.schedule(wait, () => {
      this.#restarts.delete(cancel)
      this.#start()
    })
    this.#restarts.add(cancel)
  }

  #hear(message: FromWorker, from: Member): void {
    const { events, egresses, log, pools, throttle } = this.#options
    switch (message[0]) {
      case 'shape':
        from.records.learn(message[1], message[2])
        break
      case 'record':
        events.emit('exchange', from.records.decode(message[1]))
        break
      case 'dropped':
        log.warn({ worker: from.pid, count: message[1] }, 'records of requests were dropped')
        break
      case 'egress':
        egresses.report(message[1], message[2], message[3])
        break
      case 'log':
        writeLine(log, message[1], { worker: from.pid })
        break
      case 'broken':
        log.error({ worker: from.pid, reason: message[1] }, 'a worker cannot go on')
        break
      case 'failed':
      case 'succeeded':
        throttle.hear(message)
        for (const member of this.#members) if (member !== from) member.send(message)
        break
      case 'offer': {
        const presented = message[3] === null ? undefined : new Secret(message[3])
        const token = unpack<TokenSet>(message[2])
        // Its answer may have passed through another worker, and told more than the token does.
        const known = presented ? undefined : this.#kept.find(token.token)
        void pools
          .get(message[1])
          ?.learning.offer(token.renewal ? token : (known ?? token), presented)
        break
      }
      case 'keep':
        this.#kept.add(unpack<TokenSet>(message[1]))
        break
      case 'refuse':
        pools.get(message[1])?.learning.refuse(message[2])
        break
    }
  }

  #tell(message: ToWorker): void {
    for (const member of this.#members) member.send(message)
  }

  readonly #tellEgress = ({ egress, up, reason }: EventMap['egress'][0]): void => {
    this.#tell(['egress', egress, up, reason])
  }

  readonly #lookAtLearning = ({ pool }: { pool: string }): void => {
    // Observers hear of it in the midst of the change.
    if (this.#learning.has(pool)) setImmediate(() => this.learningChanged(pool))
  }

  #pool(name: string): PrimaryPool | undefined {
    const pool = this.#options.pools.get(name)
    const config = this.#terms.config.pools[name]
    if (!pool || !config) return undefined
    let facts = this.#facts.get(config)
    if (!facts) {
      facts = factsOf(config)
      this.#facts.set(config, facts)
    }
    return { pool, ...facts }
  }

  readonly #changed = ({ pool }: { pool: string }): void => this.#lookAtFree(pool)

  /** Which tokens of a pool are free may have changed. */
  #lookAtFree(name: string): void {
    if (this.#changing.size === 0) {
      setImmediate(() => {
        const names = [...this.#changing]
        this.#changing.clear()
        for (const each of names) this.#tellFree(each, this.#members)
      })
    }
    this.#changing.add(name)
  }

  #tellFree(name: string, members: Iterable<Member>): void {
    const found = this.#pool(name)
    const leases = found ? freeLeases(found.pool, this.#terms.config.pools[name]) : []
    for (const member of members) {
      if (found) member.setFree(found, leases)
      else member.send(['free', name, []])
    }
  }

  #setup(): string {
    const { config, authority, leaves } = this.#terms
    const learning: Record<string, LearningState> = {}
    for (const name of Object.keys(config.pools)) {
      const state = this.#learningOf(name)
      if (!state) continue
      learning[name] = state
      this.#learning.set(name, JSON.stringify(state))
    }
    return packSetup({
      generation: this.#generation,
      config,
      ca: copyAuthority(authority),
      leafKey: leaves.key,
      own: this.#options.own.all,
      held: this.#objections(),
      learning,
    })
  }

  #learningOf(pool: string): LearningState | undefined {
    const learning = this.#options.pools.get(pool)?.learning
    return learning && learningState(learning)
  }

  #objections(): Record<string, string> {
    const { egresses } = this.#options
    return Object.fromEntries(
      egresses.names().flatMap((name) => {
        const objection = egresses.objection(name)
        return objection === undefined ? [] : [[name, objection]]
      }),
    )
  }
}
