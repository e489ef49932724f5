import type { TLSSocket } from 'node:tls'
import type { UpstreamConfig } from '../config/schema.ts'
import type { Authority } from '../lib/authority.ts'
import type { Clock } from '../lib/clock.ts'
import { type Connector, timingsOf } from './connector.ts'
import { Http1Connection } from './http1.ts'
import { OriginPool } from './origin-pool.ts'
import { SessionCache } from './tls.ts'
import type {
  ConnectionObserver,
  Dispatcher,
  ResponseHandler,
  Sending,
  UpstreamConnection,
  UpstreamRequest,
} from './upstream.ts'

/** How long what is known of an origin is kept after its last request, once no connection is left. */
const FORGET_MS = 120_000
/** Bounds of how often time-outs are looked at; a short time-out is looked at more often. */
const CHECK_MS = { min: 10, max: 1000 } as const
const CHECKS_PER_TIMEOUT = 8
const BOTH = ['h2', 'http/1.1']

/** Whether unpinned traffic to a target may dial this address. */
export type UnpinnedGuard = (target: Authority, address: string) => boolean

export interface ConnectionsOptions {
  readonly connector: Connector
  readonly upstream: Pick<UpstreamConfig, 'headersTimeout' | 'bodyTimeout' | 'http2'>
  readonly clock: Clock
  /** Judges what requests without a credential (key '') dial. */
  readonly guard?: UnpinnedGuard | undefined
}

/**
 * The connections of one egress. Those of one key never serve another, and neither do its TLS sessions; both come
 * with their first use, and what nobody has asked for in two minutes is forgotten.
 */
export class Connections {
  readonly #options: ConnectionsOptions
  readonly #keys = new Map<string, KeyConnections>()
  /** They serve what they have begun and take nothing new. */
  readonly #draining = new Set<KeyConnections>()
  readonly #interval: number
  #cancelCheck: (() => void) | undefined

  constructor(options: ConnectionsOptions) {
    this.#options = options
    const { headersTimeout, bodyTimeout } = options.upstream
    const shortest = Math.min(headersTimeout, bodyTimeout) / CHECKS_PER_TIMEOUT
    this.#interval = Math.max(CHECK_MS.min, Math.min(CHECK_MS.max, shortest))
  }

  /** Takes requests for one key. */
  get(key: string): Dispatcher {
    let connections = this.#keys.get(key)
    if (!connections) {
      connections = new KeyConnections(key, this.#options)
      this.#keys.set(key, connections)
      this.#cancelCheck ??= this.#options.clock.schedule(this.#interval, () => this.#check())
    }
    connections.usedAt = this.#options.clock.monotonic()
    return connections
  }

  /** Lets what has begun end by itself. Resolves when all of it has. */
  async drain(): Promise<void> {
    const keys = [...this.#keys.values()]
    this.#keys.clear()
    for (const key of keys) this.#draining.add(key)
    const drained = keys.map(async (key) => {
      await key.drain()
      this.#draining.delete(key)
    })
    await Promise.all(drained)
  }

  /** Closes every connection now, also those in use. The connector is to be closed first. */
  destroy(): void {
    this.#cancelCheck?.()
    this.#cancelCheck = undefined
    for (const key of [...this.#keys.values(), ...this.#draining]) key.destroy()
    this.#keys.clear()
  }

  #check(): void {
    const now = this.#options.clock.monotonic()
    for (const [name, key] of this.#keys) if (!key.check(now)) this.#keys.delete(name)
    for (const key of this.#draining) key.check(now)
    const busy = this.#keys.size + this.#draining.size > 0
    this.#cancelCheck = busy
      ? this.#options.clock.schedule(this.#interval, () => this.#check())
      : undefined
  }
}

/** The connections of one key on one egress. */
class KeyConnections implements Dispatcher {
  readonly #key: string
  readonly #options: ConnectionsOptions
  readonly #sessions = new SessionCache()
  readonly #origins = new Map<string, OriginPool>()
  usedAt = 0

  constructor(key: string, options: ConnectionsOptions) {
    this.#key = key
    this.#options = options
  }

  dispatch(request: UpstreamRequest, handler: ResponseHandler): Sending {
    let pool = this.#origins.get(request.origin)
    if (!pool) {
      pool = this.#pool(request.origin)
      this.#origins.set(request.origin, pool)
    }
    return pool.dispatch(request, handler)
  }

  /** Time-outs, and what is to be forgotten; false when nothing of it is left. */
  check(now: number): boolean {
    for (const [origin, pool] of this.#origins) {
      pool.check(now)
      if (pool.empty && now - pool.usedAt >= FORGET_MS) this.#origins.delete(origin)
    }
    return this.#origins.size > 0 || now - this.usedAt < FORGET_MS
  }

  async drain(): Promise<void> {
    await Promise.all([...this.#origins.values()].map((pool) => pool.drain()))
  }

  destroy(): void {
    for (const pool of this.#origins.values()) pool.destroy()
  }

  #pool(origin: string): OriginPool {
    const { clock, upstream } = this.#options
    const { protocol, hostname, port } = new URL(origin)
    const secure = protocol === 'https:'
    const host = hostname.replace(/^\[(.*)\]$/, '$1')
    const target = { host, port: Number(port) || (secure ? 443 : 80) }
    return new OriginPool({
      http2: secure && upstream.http2,
      now: () => clock.monotonic(),
      open: (http2, observer) => this.#open(target, secure, http2, observer),
    })
  }

  async #open(
    target: Authority,
    secure: boolean,
    http2: boolean,
    observer: ConnectionObserver,
  ): Promise<UpstreamConnection> {
    const { connector, guard, upstream } = this.#options
    // Loaded with the first connection that may need it, and before there is one.
    const later = http2 ? await import('./http2.ts') : undefined
    const socket = await connector.connect(target, {
      secure,
      sessions: this.#sessions,
      early: 'refuse',
      protocols: http2 ? BOTH : undefined,
      guard: this.#key === '' && guard ? (address) => guard(target, address) : undefined,
    })
    const { headersTimeout, bodyTimeout } = upstream
    const options = { timings: timingsOf(socket), headersTimeout, bodyTimeout, observer }
    if (later && (socket as TLSSocket).alpnProtocol === 'h2') {
      return new later.Http2Connection(socket, options)
    }
    return new Http1Connection(socket, options)
  }
}
