import type { ServerResponse } from 'node:http'
import type { EventMap } from '../events.ts'
import type { Clock } from '../lib/clock.ts'
import type { AdminBackend } from './backend.ts'
import { formatSummary } from './format.ts'
import { SECURITY_HEADERS } from './guard.ts'
import { AdminError } from './problem.ts'

const MAX_CLIENTS = 64
/** A client that has this much unread is dropped; it reconnects and reads the state afresh. */
const MAX_UNREAD_BYTES = 1024 * 1024
const POOL_INTERVAL_MS = 1_000
const HEARTBEAT_INTERVAL_MS = 15_000

/**
 * Server-sent events (HTML §9.2): `trace` for each request, `credential` for each change or renewal, `pool` when its
 * figures have changed, looked at each second. Nothing is observed or formatted while nobody listens.
 */
export class LiveStream {
  readonly #backend: AdminBackend
  readonly #clock: Clock
  readonly #clients = new Set<ServerResponse>()
  /** What each pool's figures were when they were last sent. */
  readonly #sent = new Map<string, string>()
  #releases: (() => void)[] = []
  #cancelTick: (() => void) | undefined
  #heartbeatAt = 0

  constructor(backend: AdminBackend, clock: Clock) {
    this.#backend = backend
    this.#clock = clock
  }

  /** Throws `TOO_MANY_STREAMS` when there is no room for another client. */
  admit(): void {
    if (this.#clients.size >= MAX_CLIENTS) {
      throw new AdminError('TOO_MANY_STREAMS', 'too many event streams are open')
    }
  }

  /** Answers with the stream, which begins with the figures of every pool. */
  add(response: ServerResponse): void {
    response.writeHead(200, { ...SECURITY_HEADERS, 'content-type': 'text/event-stream' })
    response.on('close', () => this.#remove(response))
    response.on('error', () => this.#remove(response))
    response.write('retry: 2000\n\n')
    if (this.#clients.size === 0) this.#open()
    this.#clients.add(response)
    for (const [, text] of this.#sent) this.#write(response, frame('pool', text))
  }

  close(): void {
    for (const client of this.#clients) client.end()
    this.#clients.clear()
    this.#release()
  }

  #open(): void {
    const { traces, events } = this.#backend
    events.on('credential', this.#onCredential)
    events.on('refresh', this.#onRefresh)
    this.#releases = [
      traces.subscribe((trace) => this.#broadcast('trace', JSON.stringify(trace))),
      () => events.off('credential', this.#onCredential),
      () => events.off('refresh', this.#onRefresh),
    ]
    this.#heartbeatAt = this.#clock.monotonic() + HEARTBEAT_INTERVAL_MS
    this.#sendPools()
    this.#scheduleTick()
  }

  #release(): void {
    for (const release of this.#releases) release()
    this.#releases = []
    this.#cancelTick?.()
    this.#cancelTick = undefined
    this.#sent.clear()
  }

  #remove(client: ServerResponse): void {
    if (this.#clients.delete(client) && this.#clients.size === 0) this.#release()
  }

  #scheduleTick(): void {
    this.#cancelTick = this.#clock.schedule(POOL_INTERVAL_MS, () => {
      this.#sendPools()
      if (this.#clock.monotonic() >= this.#heartbeatAt) {
        this.#heartbeatAt = this.#clock.monotonic() + HEARTBEAT_INTERVAL_MS
        // A comment: it keeps idle connections open and finds those that are gone.
        for (const client of this.#clients) this.#write(client, ': heartbeat\n\n')
      }
      if (this.#clients.size > 0) this.#scheduleTick()
    })
  }

  #sendPools(): void {
    const gone = new Set(this.#sent.keys())
    for (const pool of this.#backend.pools()) {
      gone.delete(pool.name)
      const text = JSON.stringify(formatSummary(pool))
      if (this.#sent.get(pool.name) === text) continue
      this.#sent.set(pool.name, text)
      this.#broadcast('pool', text)
    }
    for (const name of gone) {
      this.#sent.delete(name)
      this.#broadcast('pool', JSON.stringify({ name, removed: true }))
    }
  }

  readonly #onCredential = (change: EventMap['credential'][0]): void => {
    const { time, pool, credential, from, to, reason } = change
    this.#broadcastCredential(time, { pool, credential, from, to, reason })
  }

  readonly #onRefresh = (outcome: EventMap['refresh'][0]): void => {
    const { time, pool, credential, cause, result, generation, ms, reason } = outcome
    const refresh = { cause, result, generation, ms, reason: reason ?? null }
    this.#broadcastCredential(time, { pool, credential, refresh })
  }

  #broadcastCredential(time: number, data: Record<string, unknown>): void {
    this.#broadcast('credential', JSON.stringify({ time: new Date(time).toISOString(), ...data }))
  }

  #broadcast(event: 'trace' | 'pool' | 'credential', data: string): void {
    const text = frame(event, data)
    for (const client of this.#clients) this.#write(client, text)
  }

  #write(client: ServerResponse, text: string): void {
    client.write(text)
    if (client.writableLength > MAX_UNREAD_BYTES) client.destroy()
  }
}

/** JSON holds no raw line break, so one data line is enough. */
function frame(event: string, data: string): string {
  return `event: ${event}\ndata: ${data}\n\n`
}
