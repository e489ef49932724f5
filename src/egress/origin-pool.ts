import type { UpstreamError } from '../errors.ts'
import { broken, shuttingDown, toUpstreamError } from './failure.ts'
import type {
  ConnectionObserver,
  Dispatcher,
  ResponseHandler,
  Sending,
  UpstreamConnection,
  UpstreamRequest,
} from './upstream.ts'

/** undici had no bound; this one is for the file descriptors. What comes beyond it waits in order. */
const MAX_CONNECTIONS = 1024

export interface OriginPoolOptions {
  /** Whether a target may choose HTTP/2 at all. */
  readonly http2: boolean
  /** Makes a connection; `http2` offers that too. Rejects with `UpstreamError`. */
  readonly open: (http2: boolean, observer: ConnectionObserver) => Promise<UpstreamConnection>
  /** ms, steady. */
  readonly now: () => number
}

/** A request that no connection can take yet. */
class Waiter implements Sending {
  readonly request: UpstreamRequest
  readonly handler: ResponseHandler
  readonly #queue: Set<Waiter>
  #sending: Sending | undefined

  constructor(request: UpstreamRequest, handler: ResponseHandler, queue: Set<Waiter>) {
    this.request = request
    this.handler = handler
    this.#queue = queue
    queue.add(this)
  }

  serve(connection: UpstreamConnection): void {
    this.#queue.delete(this)
    this.#sending = connection.send(this.request, this.handler)
  }

  fail(error: UpstreamError): void {
    if (this.#queue.delete(this)) this.handler.failed(error)
  }

  abort(error?: Error): void {
    if (this.#sending) this.#sending.abort(error)
    else this.fail(toUpstreamError(error ?? new Error('aborted'), false))
  }

  resume(): void {
    this.#sending?.resume()
  }
}

/**
 * The connections of one key to one origin: HTTP/1.1 ones, of which the most recently used serves first, or HTTP/2
 * sessions, as the target chooses. Until it has chosen for the first time, one connection is made and not many.
 */
export class OriginPool implements Dispatcher, ConnectionObserver {
  readonly #options: OriginPoolOptions
  /** Each with the moment since when it is idle. */
  readonly #all = new Map<UpstreamConnection, number>()
  readonly #idle: UpstreamConnection[] = []
  readonly #sessions: UpstreamConnection[] = []
  readonly #waiting = new Set<Waiter>()
  /** Requests that only HTTP/1.1 will do for. */
  readonly #upgrades = new Set<Waiter>()
  #opening = 0
  #openingForUpgrades = 0
  /** Whether the target may choose HTTP/2. */
  #http2: boolean
  /** What the target chose last; while it has chosen nothing, whether it is worth waiting for. */
  #spoken: UpstreamConnection['protocol'] | undefined
  #asked = false
  #state: 'open' | 'draining' | 'destroyed' = 'open'
  #emptied: (() => void) | undefined
  usedAt = 0

  constructor(options: OriginPoolOptions) {
    this.#options = options
    this.#http2 = options.http2
  }

  /** Whether nothing of it is left that lives. */
  get empty(): boolean {
    return this.#all.size + this.#opening + this.#openingForUpgrades === 0
  }

  dispatch(request: UpstreamRequest, handler: ResponseHandler): Sending {
    const upgrade = request.upgrade !== undefined
    const now = this.#options.now()
    this.usedAt = now
    if (this.#state !== 'open') {
      handler.failed(shuttingDown())
      return NOTHING
    }
    const connection = (upgrade ? undefined : this.#session()) ?? this.#pick(now)
    if (!connection) {
      const separate = upgrade && this.#http2
      const waiter = new Waiter(request, handler, separate ? this.#upgrades : this.#waiting)
      this.#openMore()
      return waiter
    }
    const sending = connection.send(request, handler)
    // A request that could not be sent has left it as it was.
    if (connection.room > 0) this.free(connection)
    return sending
  }

  /** Time-outs, and what has been idle too long. */
  check(now: number): void {
    for (const [connection, since] of this.#all) {
      connection.check(now)
      if (connection.running > 0) continue
      const idle = now - since
      // A peer that does not let itself be closed in order is not waited for.
      if (idle >= 2 * connection.idleLimit) connection.destroy()
      else if (idle >= connection.idleLimit && connection.room > 0) connection.drain()
    }
  }

  /** Serves what has come, takes nothing new. Resolves when all connections have closed. */
  drain(): Promise<void> {
    if (this.#state === 'open') this.#state = 'draining'
    if (this.#waiting.size + this.#upgrades.size === 0) {
      for (const connection of [...this.#all.keys()]) connection.drain()
    } else for (const connection of [...this.#idle]) connection.drain()
    if (this.empty) return Promise.resolve()
    return new Promise((resolve) => {
      const others = this.#emptied
      this.#emptied = () => {
        others?.()
        resolve()
      }
    })
  }

  destroy(): void {
    this.#state = 'destroyed'
    for (const waiter of [...this.#waiting, ...this.#upgrades]) waiter.fail(shuttingDown())
    for (const connection of [...this.#all.keys()]) connection.destroy()
  }

  // What the connections tell.

  free(connection: UpstreamConnection): void {
    while (connection.room > 0) {
      const waiter = this.#next(connection)
      if (!waiter) break
      waiter.serve(connection)
    }
    if (this.#state !== 'open' && this.#waiting.size + this.#upgrades.size === 0) {
      connection.drain()
      return
    }
    if (connection.running === 0) this.#all.set(connection, this.#options.now())
    if (connection.protocol === 'http/1.1' && connection.room > 0) this.#idle.push(connection)
  }

  retired(connection: UpstreamConnection): void {
    const list = connection.protocol === 'h2' ? this.#sessions : this.#idle
    const at = list.indexOf(connection)
    if (at !== -1) list.splice(at, 1)
  }

  closed(connection: UpstreamConnection): void {
    this.#all.delete(connection)
    this.#openMore()
    this.#tellEmptied()
  }

  http1Required(): void {
    this.#http2 = false
    for (const session of [...this.#sessions]) session.drain()
    this.#openMore()
  }

  #session(): UpstreamConnection | undefined {
    for (const session of this.#sessions) if (session.room > 0) return session
    return undefined
  }

  #pick(now: number): UpstreamConnection | undefined {
    for (let connection = this.#idle.pop(); connection; connection = this.#idle.pop()) {
      const since = this.#all.get(connection)
      if (since !== undefined && now - since < connection.idleLimit && connection.room > 0) {
        return connection
      }
      connection.drain()
    }
    return undefined
  }

  #next({ protocol }: UpstreamConnection): Waiter | undefined {
    if (protocol !== 'h2') for (const waiter of this.#upgrades) return waiter
    for (const waiter of this.#waiting) return waiter
    return undefined
  }

  /** As many connections as there are requests without one; but one, while that may turn out to be enough. */
  #openMore(): void {
    if (this.#state === 'destroyed') return
    const one = this.#http2 && (this.#spoken === 'h2' || !this.#asked)
    const wanted = one ? Math.min(1, this.#waiting.size) : this.#waiting.size
    while (this.#opening < wanted && this.#mayOpen) this.#open(false)
    while (this.#openingForUpgrades < this.#upgrades.size && this.#mayOpen) this.#open(true)
  }

  get #mayOpen(): boolean {
    return this.#all.size + this.#opening + this.#openingForUpgrades < MAX_CONNECTIONS
  }

  #open(forUpgrade: boolean): void {
    if (forUpgrade) this.#openingForUpgrades += 1
    else this.#opening += 1
    const done = () => {
      if (forUpgrade) this.#openingForUpgrades -= 1
      else {
        this.#opening -= 1
        this.#asked = true
      }
    }
    this.#options.open(this.#http2 && !forUpgrade, this).then(
      (connection) => {
        done()
        if (!forUpgrade) this.#spoken = connection.protocol
        this.#opened(connection, forUpgrade)
      },
      (error) => {
        done()
        this.#refused(toUpstreamError(error, false), forUpgrade)
      },
    )
  }

  #opened(connection: UpstreamConnection, forUpgrade: boolean): void {
    this.#all.set(connection, this.#options.now())
    if (this.#state === 'destroyed') {
      connection.destroy()
      return
    }
    if (connection.room === 0) {
      connection.destroy()
      this.#refused(broken('upstream closed the connection', undefined, false), forUpgrade)
      return
    }
    if (connection.protocol === 'h2') this.#sessions.push(connection)
    this.free(connection)
    this.#openMore()
  }

  /** The connection was opened for the request that has waited longest. */
  #refused(error: UpstreamError, forUpgrade: boolean): void {
    for (const waiter of forUpgrade ? this.#upgrades : this.#waiting) {
      waiter.fail(error)
      break
    }
    this.#openMore()
    this.#tellEmptied()
  }

  #tellEmptied(): void {
    if (!this.empty) return
    const emptied = this.#emptied
    this.#emptied = undefined
    emptied?.()
  }
}

/** What there is of a request that was refused at once. */
const NOTHING: Sending = { abort: () => {}, resume: () => {} }
