import type { ServerResponse } from 'node:http'
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

interface Client {
  readonly response: ServerResponse
  /** Traces that it takes in a second; a page that nobody can read faster asks for a bound. */
  readonly tracesPerSecond: number
  /** Sent since the last tick, and left out. */
  sent: number
  omitted: number
}

/**
 * Server-sent events (HTML §9.2): `trace` for each request, `credential` for each change or renewal, `egress` and
 * `config` likewise, `pool` when its figures have changed, looked at each second, `omitted` for the traces that a
 * client's own bound left out. Nothing is observed or formatted while nobody listens.
 */
export class LiveStream {
  readonly #backend: AdminBackend
  readonly #clock: Clock
  readonly #clients = new Set<Client>()
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
  add(response: ServerResponse, tracesPerSecond = Number.POSITIVE_INFINITY): void {
    const client: Client = { response, tracesPerSecond, sent: 0, omitted: 0 }
    response.writeHead(200, { ...SECURITY_HEADERS, 'content-type': 'text/event-stream' })
    response.on('close', () => this.#remove(client))
    response.on('error', () => this.#remove(client))
    response.write('retry: 2000\n\n')
    if (this.#clients.size === 0) this.#open()
    this.#clients.add(client)
    for (const [, text] of this.#sent) this.#write(client, frame('pool', text))
  }

  close(): void {
    for (const { response } of this.#clients) response.end()
    this.#clients.clear()
    this.#release()
  }

  #open(): void {
    const { traces, activity } = this.#backend
    this.#releases = [
      traces.subscribe((trace) => this.#sendTrace(trace)),
      activity.subscribe(({ seq, event, data }) =>
        this.#broadcast(event, JSON.stringify(data), seq),
      ),
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

  #remove(client: Client): void {
    if (this.#clients.delete(client) && this.#clients.size === 0) this.#release()
  }

  #scheduleTick(): void {
    this.#cancelTick = this.#clock.schedule(POOL_INTERVAL_MS, () => {
      this.#sendPools()
      for (const client of this.#clients) this.#renewBound(client)
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

  #sendTrace(trace: unknown): void {
    let text: string | undefined
    for (const client of this.#clients) {
      if (client.sent >= client.tracesPerSecond) {
        client.omitted += 1
        continue
      }
      client.sent += 1
      text ??= frame('trace', JSON.stringify(trace))
      this.#write(client, text)
    }
  }

  #renewBound(client: Client): void {
    const { omitted } = client
    client.sent = client.omitted = 0
    if (omitted > 0) this.#write(client, frame('omitted', JSON.stringify({ traces: omitted })))
  }

  #broadcast(event: string, data: string, id?: number): void {
    const text = frame(event, data, id)
    for (const client of this.#clients) this.#write(client, text)
  }

  #write({ response }: Client, text: string): void {
    response.write(text)
    if (response.writableLength > MAX_UNREAD_BYTES) response.destroy()
  }
}

/** JSON holds no raw line break, so one data line is enough. */
function frame(event: string, data: string, id?: number): string {
  return `${id === undefined ? '' : `id: ${id}\n`}event: ${event}\ndata: ${data}\n\n`
}
