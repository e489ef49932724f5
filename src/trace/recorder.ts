import type { EventMap, Events, ExchangeRecord } from '../events.ts'
import { curlFor } from './curl.ts'
import { type Har, harOf } from './har.ts'
import { refreshRecord } from './refresh-record.ts'
import { Ring } from './ring.ts'
import { storyOf } from './story.ts'
import { formatTrace, type ToldTrace, type Trace } from './trace.ts'

export type { ToldTrace, Trace } from './trace.ts'

const DEFAULT_LIMIT = 100
const DEFAULT_TEXT = 16 * 2 ** 20

/** Which traces to list; every field given must match. */
export interface TraceFilter {
  readonly pool?: string | undefined
  /** Tried by any attempt. */
  readonly credential?: string | undefined
  readonly status?: number | undefined
  readonly verdict?: string | undefined
  /** Name or address. */
  readonly client?: string | undefined
  readonly kind?: string | undefined
  /** Arrived at this time or later, ms since the epoch. */
  readonly since?: number | undefined
  /** Default 100. */
  readonly limit?: number | undefined
}

export interface RecorderOptions {
  readonly capacity: number
  /** Most characters that recorded messages may hold altogether; 16 MiB by default. */
  readonly maxText?: number
  /** Query parameters to mask, in lower case: those that a pool injects into. */
  readonly secretParameters?: () => ReadonlySet<string>
  /** What targets see of an egress. */
  readonly egressAddress?: (egress: string) => string | undefined
  /** How a client reaches the proxy, for commands to copy. */
  readonly proxy?: () => { readonly url: string; readonly ca: string }
}

/** Keeps the last requests and renewals. Formatting and masking are done only when somebody reads. */
export class TraceRecorder {
  readonly #events: Events
  readonly #options: RecorderOptions
  readonly #ring: Ring
  readonly #listeners = new Set<(trace: Trace) => void>()

  constructor(events: Events, options: RecorderOptions) {
    this.#events = events
    this.#options = options
    this.#ring = new Ring(options.capacity, options.maxText ?? DEFAULT_TEXT)
    events.on('exchange', this.#record)
    events.on('refresh', this.#recordRefresh)
  }

  /** Matching traces, newest first. */
  list(filter: TraceFilter = {}): Trace[] {
    const limit = Math.min(filter.limit ?? DEFAULT_LIMIT, this.#ring.size)
    const traces: Trace[] = []
    for (const place of this.#ring.newestFirst()) {
      if (traces.length >= limit) break
      if (this.#matches(place, filter)) traces.push(this.#format(place))
    }
    return traces
  }

  /** The trace of one request, while it is kept. */
  get(id: string): ToldTrace | undefined {
    for (const place of this.#ring.newestFirst()) {
      if (this.#ring.glance(place).id !== id) continue
      const trace = this.#format(place)
      const proxy = this.#options.proxy?.()
      const curl = proxy ? (curlFor(trace, proxy) ?? null) : null
      return { ...trace, story: storyOf(trace), curl }
    }
    return undefined
  }

  /** Matching traces as an HTTP archive, oldest first. */
  har(filter: TraceFilter = {}): Har {
    return harOf(this.list({ ...filter, limit: filter.limit ?? this.#ring.size }).reverse())
  }

  /** Calls back with each request that ends; returns the end of the subscription. */
  subscribe(listener: (trace: Trace) => void): () => void {
    this.#listeners.add(listener)
    return () => {
      this.#listeners.delete(listener)
    }
  }

  close(): void {
    this.#events.off('exchange', this.#record)
    this.#events.off('refresh', this.#recordRefresh)
    this.#listeners.clear()
  }

  readonly #record = (record: ExchangeRecord): void => {
    const place = this.#ring.add(record)
    const { egressAddress } = this.#options
    if (egressAddress) {
      // As it is now: it may drift later.
      for (const attempt of this.#ring.glance(place).attempts) {
        attempt.egressAddress = egressAddress(attempt.egress)
      }
    }
    if (this.#listeners.size === 0) return
    const trace = this.#format(place)
    for (const listener of this.#listeners) listener(trace)
  }

  readonly #recordRefresh = (outcome: EventMap['refresh'][0]): void => {
    if (outcome.id !== undefined) this.#record(refreshRecord(outcome, outcome.id))
  }

  #format(place: number): Trace {
    return formatTrace(this.#ring.read(place), this.#options.secretParameters?.())
  }

  #matches(place: number, filter: TraceFilter): boolean {
    const { pool, status, verdict, kind, client, attempts } = this.#ring.glance(place)
    return (
      (filter.pool === undefined || pool === filter.pool) &&
      (filter.status === undefined || status === filter.status) &&
      (filter.verdict === undefined || verdict === filter.verdict) &&
      (filter.kind === undefined || kind === filter.kind) &&
      (filter.since === undefined || this.#ring.timeOf(place) >= filter.since) &&
      (filter.client === undefined ||
        client.name === filter.client ||
        client.address === filter.client) &&
      (filter.credential === undefined ||
        attempts.some((attempt) => attempt.credential === filter.credential))
    )
  }
}
