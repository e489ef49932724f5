import type { AttemptRecord, Events, ExchangeRecord } from '../events.ts'
import { faultOf } from './fault.ts'
import { maskUrl } from './mask.ts'

const DEFAULT_LIMIT = 100

type Nullable<T> = {
  [K in keyof T]: undefined extends T[K] ? Exclude<T[K], undefined> | null : T[K]
}

/** One request's story as it is shown: ISO time, masked URL, `null` for what is not known. */
export interface Trace {
  id: string
  time: string
  kind: ExchangeRecord['kind']
  client: { name: string | null; address: string }
  method: string
  url: string
  pool: string | null
  status: number | null
  durationMs: number
  waitMs: number
  verdict: string
  skipped: ExchangeRecord['skipped']
  attempts: Nullable<AttemptRecord>[]
  refresh?: { role: 'led' | 'joined'; ms: number; result: string }
  replay?: { done: boolean; why: string }
  bytes: { in: number; out: number }
  error?: { code: string; message: string }
}

/** Which traces to list; every field given must match. */
export interface TraceFilter {
  readonly pool?: string | undefined
  /** Tried by any attempt. */
  readonly credential?: string | undefined
  readonly status?: number | undefined
  readonly verdict?: string | undefined
  /** Arrived at this time or later, ms since the epoch. */
  readonly since?: number | undefined
  /** Default 100. */
  readonly limit?: number | undefined
}

/**
 * Keeps the last `capacity` requests. Each is copied into a slot that is there already, so that a record dies
 * young: kept as it is, every one would outlive two collections and be moved by both. Formatting and masking
 * are done only when somebody reads.
 */
export class TraceRecorder {
  readonly #events: Events
  readonly #capacity: number
  readonly #secretParameters: (() => ReadonlySet<string>) | undefined
  readonly #ring: ExchangeRecord[] = []
  /** Slot that is written next: the oldest record's, once the ring is full. */
  #next = 0
  readonly #listeners = new Set<(trace: Trace) => void>()

  /** `secretParameters` adds query parameters to mask, in lower case: those that a pool injects into. */
  constructor(
    events: Events,
    options: { capacity: number; secretParameters?: () => ReadonlySet<string> },
  ) {
    this.#events = events
    this.#capacity = options.capacity
    this.#secretParameters = options.secretParameters
    events.on('exchange', this.#record)
  }

  /** Matching traces, newest first. */
  list(filter: TraceFilter = {}): Trace[] {
    const limit = Math.min(filter.limit ?? DEFAULT_LIMIT, this.#ring.length)
    const traces: Trace[] = []
    for (const record of this.#newestFirst()) {
      if (traces.length >= limit) break
      if (matches(record, filter)) traces.push(this.#format(record))
    }
    return traces
  }

  /** The trace of one request, while it is kept. */
  get(id: string): Trace | undefined {
    for (const record of this.#newestFirst()) if (record.id === id) return this.#format(record)
    return undefined
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
    this.#listeners.clear()
  }

  readonly #record = (record: ExchangeRecord): void => {
    const slot = this.#ring[this.#next]
    if (slot) copyInto(slot, record)
    else this.#ring[this.#next] = copyOf(record)
    this.#next = (this.#next + 1) % this.#capacity
    if (this.#listeners.size === 0) return
    const trace = this.#format(record)
    for (const listener of this.#listeners) listener(trace)
  };

  *#newestFirst(): Generator<ExchangeRecord> {
    const { length } = this.#ring
    for (let age = 1; age <= length; age++) {
      yield this.#ring[(this.#next - age + length) % length] as ExchangeRecord
    }
  }

  #format(record: ExchangeRecord): Trace {
    return {
      id: record.id,
      time: new Date(record.time).toISOString(),
      kind: record.kind,
      client: { name: record.client.name ?? null, address: record.client.address },
      method: record.method,
      url: maskUrl(record.url, this.#secretParameters?.()),
      pool: record.pool ?? null,
      status: record.status ?? null,
      durationMs: rounded(record.durationMs),
      waitMs: rounded(record.waitMs),
      verdict: record.verdict,
      skipped: record.skipped,
      attempts: record.attempts.map(formatAttempt),
      ...(record.refresh && { refresh: { ...record.refresh, ms: rounded(record.refresh.ms) } }),
      ...(record.replay && { replay: record.replay }),
      bytes: record.bytes,
      ...(record.error && { error: record.error }),
    }
  }
}

function matches(record: ExchangeRecord, filter: TraceFilter): boolean {
  return (
    (filter.pool === undefined || record.pool === filter.pool) &&
    (filter.status === undefined || record.status === filter.status) &&
    (filter.verdict === undefined || record.verdict === filter.verdict) &&
    (filter.since === undefined || record.time >= filter.since) &&
    (filter.credential === undefined ||
      record.attempts.some((attempt) => attempt.credential === filter.credential))
  )
}

function formatAttempt(attempt: AttemptRecord): Nullable<AttemptRecord> {
  return {
    credential: attempt.credential ?? null,
    generation: attempt.generation ?? null,
    egress: attempt.egress,
    address: attempt.address ?? null,
    status: attempt.status ?? null,
    verdict: attempt.verdict,
    connectMs: roundedOrNull(attempt.connectMs),
    tlsMs: roundedOrNull(attempt.tlsMs),
    firstByteMs: roundedOrNull(attempt.firstByteMs),
    totalMs: rounded(attempt.totalMs),
    reused: attempt.reused,
    fault: faultOf(attempt) ?? null,
  }
}

/** Microseconds are the clock's honest precision. */
function rounded(ms: number): number {
  return Math.round(ms * 1000) / 1000
}

function roundedOrNull(ms: number | undefined): number | null {
  return ms === undefined ? null : rounded(ms)
}

function copyOf(record: ExchangeRecord): ExchangeRecord {
  const attempts = record.attempts.map((each) => ({ ...each }))
  return { ...record, bytes: { ...record.bytes }, attempts }
}

function copyInto(slot: ExchangeRecord, record: ExchangeRecord): void {
  slot.id = record.id
  slot.time = record.time
  slot.kind = record.kind
  slot.client = record.client
  slot.method = record.method
  slot.url = record.url
  slot.pool = record.pool
  slot.status = record.status
  slot.durationMs = record.durationMs
  slot.waitMs = record.waitMs
  slot.verdict = record.verdict
  slot.skipped = record.skipped
  slot.refresh = record.refresh
  slot.replay = record.replay
  slot.bytes.in = record.bytes.in
  slot.bytes.out = record.bytes.out
  slot.error = record.error
  const [kept] = slot.attempts
  const [attempt] = record.attempts
  if (kept && attempt && record.attempts.length === 1) {
    slot.attempts.length = 1
    copyAttempt(kept, attempt)
  } else {
    slot.attempts = record.attempts.map((each) => ({ ...each }))
  }
}

function copyAttempt(kept: AttemptRecord, attempt: AttemptRecord): void {
  kept.credential = attempt.credential
  kept.generation = attempt.generation
  kept.egress = attempt.egress
  kept.address = attempt.address
  kept.status = attempt.status
  kept.verdict = attempt.verdict
  kept.connectMs = attempt.connectMs
  kept.tlsMs = attempt.tlsMs
  kept.firstByteMs = attempt.firstByteMs
  kept.totalMs = attempt.totalMs
  kept.reused = attempt.reused
  kept.fault = attempt.fault
}
