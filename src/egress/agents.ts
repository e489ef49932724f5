import type { Socket } from 'node:net'
import type { buildConnector, Dispatcher } from 'undici'
import type Agent from 'undici/lib/dispatcher/agent.js'
import type { UpstreamConfig } from '../config/schema.ts'
import type { Clock } from '../lib/clock.ts'
import type { UnpinnedGuard } from './connections.ts'
import type { Connector } from './connector.ts'
import { toUpstreamError } from './failure.ts'
import { SessionCache } from './tls.ts'

/** Renewals are brief: thousands of agents at start would stand idle by the minute. */
const IDLE_MS = 2000
const MAX_RESPONSE_HEADER_BYTES = 64 * 1024

interface Entry {
  readonly agent: Agent
  usedAt: number
}

/**
 * The undici agents by which `fetch` leaves by one egress, one for each key, so that no connection of one
 * credential ever serves another. An agent comes with its first use and goes when nobody has asked for it for two
 * seconds.
 */
export class Agents {
  readonly #connector: Connector
  readonly #upstream: UpstreamConfig
  readonly #clock: Clock
  readonly #guard: UnpinnedGuard
  readonly #entries = new Map<string, Entry>()
  /** Agents that serve what they have begun and take nothing new. */
  readonly #closing = new Set<Promise<void>>()
  /** undici cannot cut short an agent that it is closing already, so its connections are known here. */
  readonly #sockets = new Set<Socket>()
  #cancelSweep: (() => void) | undefined

  constructor(
    connector: Connector,
    upstream: UpstreamConfig,
    clock: Clock,
    guard: UnpinnedGuard = () => true,
  ) {
    this.#guard = guard
    this.#connector = connector
    this.#upstream = upstream
    this.#clock = clock
  }

  get size(): number {
    return this.#entries.size
  }

  /** `create`: the class, which only a request by `fetch` needs. */
  get(key: string, create: typeof Agent): Dispatcher {
    let entry = this.#entries.get(key)
    if (!entry) {
      entry = { agent: this.#create(key, create), usedAt: 0 }
      this.#entries.set(key, entry)
      this.#cancelSweep ??= this.#clock.schedule(IDLE_MS, () => this.#sweep())
    }
    entry.usedAt = this.#clock.monotonic()
    return entry.agent
  }

  /** Lets what has begun end by itself. Resolves when all of it has. */
  async drain(): Promise<void> {
    this.#cancelSweep?.()
    this.#cancelSweep = undefined
    for (const { agent } of this.#entries.values()) this.#retire(agent)
    this.#entries.clear()
    await Promise.all(this.#closing)
  }

  /** Closes every connection now, also those in use. The connector is to be closed first. */
  async destroy(): Promise<void> {
    const drained = this.drain()
    for (const socket of this.#sockets) socket.destroy()
    await drained
  }

  #create(key: string, create: typeof Agent): Agent {
    const sessions = new SessionCache()
    return new create({
      connect: (options, callback) => this.#connect(options, callback, sessions, key),
      pipelining: 1,
      keepAliveTimeout: IDLE_MS,
      keepAliveMaxTimeout: IDLE_MS,
      headersTimeout: Math.ceil(this.#upstream.headersTimeout),
      bodyTimeout: Math.ceil(this.#upstream.bodyTimeout),
      maxHeaderSize: MAX_RESPONSE_HEADER_BYTES,
    })
  }

  #connect(
    { protocol, hostname, port }: buildConnector.Options,
    callback: buildConnector.Callback,
    sessions: SessionCache,
    key: string,
  ): void {
    const secure = protocol === 'https:'
    const target = { host: hostname, port: Number(port) || (secure ? 443 : 80) }
    const guard = key === '' ? (address: string) => this.#guard(target, address) : undefined
    this.#connector.connect(target, { secure, sessions, early: 'refuse', guard }).then(
      (socket) => {
        this.#sockets.add(socket)
        socket.once('close', () => this.#sockets.delete(socket))
        callback(null, socket)
      },
      // undici tries a request again by itself after some codes of its own: ours are none of them.
      (error) => callback(toUpstreamError(error, false), null),
    )
  }

  #sweep(): void {
    const now = this.#clock.monotonic()
    for (const [key, entry] of this.#entries) {
      if (entry.usedAt > now - IDLE_MS) continue
      this.#entries.delete(key)
      this.#retire(entry.agent)
    }
    this.#cancelSweep =
      this.#entries.size === 0 ? undefined : this.#clock.schedule(IDLE_MS, () => this.#sweep())
  }

  #retire(agent: Agent): void {
    const closing = agent.close().finally(() => this.#closing.delete(closing))
    this.#closing.add(closing)
  }
}
