import type {
  AttemptRecord,
  ExchangeRecord,
  ExchangeRefresh,
  Protocol,
  RecordedMessages,
  Skipped,
} from '../events.ts'
import { maskUrl } from '../lib/mask.ts'
import { faultOf } from './fault.ts'

/** One try as it is shown. */
export interface TraceAttempt {
  credential: string | null
  generation: number | null
  egress: string
  /** What targets see of that egress, where a probe has learned it. */
  egressAddress: string | null
  address: string | null
  status: number | null
  verdict: string
  startMs: number | null
  sentMs: number | null
  dnsMs: number | null
  connectMs: number | null
  tlsMs: number | null
  firstByteMs: number | null
  totalMs: number
  reused: boolean
  protocol: Protocol | null
  /** Of a renewal: what was asked for. */
  call?: { method: string; url: string }
  fault: Exclude<AttemptRecord['fault'], undefined> | null
}

/** One request's story as it is shown: ISO time, masked URL, `null` for what is not known. */
export interface Trace {
  id: string
  time: string
  kind: ExchangeRecord['kind']
  client: { name: string | null; address: string }
  method: string
  url: string
  protocol: Protocol | null
  pool: string | null
  status: number | null
  durationMs: number
  waitMs: number
  verdict: string
  skipped: Skipped[]
  /** How many more were passed over. */
  skippedMore?: number
  attempts: TraceAttempt[]
  refresh?: ExchangeRefresh
  replay?: { done: boolean; why: string }
  bytes: { in: number; out: number }
  error?: { code: string; message: string }
  /** The client's `traceparent`. */
  parent?: string
  /** `[trace id, span id]` that upstream was told. */
  span?: readonly [string, string]
  messages?: RecordedMessages
}

/** A trace by itself: with its story in words, and the command that sends the request again. */
export interface ToldTrace extends Trace {
  story: string[]
  curl: string | null
}

/** A record as it is shown; `secretParameters` are masked in its URL beside those known to be secret. */
export function formatTrace(record: ExchangeRecord, secretParameters?: ReadonlySet<string>): Trace {
  return {
    id: record.id,
    time: new Date(record.time).toISOString(),
    kind: record.kind,
    client: { name: record.client.name ?? null, address: record.client.address },
    method: record.method,
    url: maskUrl(
      // Whatever stands before the host of a CONNECT is no path but a password.
      record.method === 'CONNECT'
        ? record.url.replace(/^(https:\/\/).*@/, '$1[redacted]@')
        : record.url,
      secretParameters,
    ),
    protocol: record.protocol ?? null,
    pool: record.pool ?? null,
    status: record.status ?? null,
    durationMs: rounded(record.durationMs),
    waitMs: rounded(record.waitMs),
    verdict: record.verdict,
    skipped: record.skipped,
    ...(record.skippedMore && { skippedMore: record.skippedMore }),
    attempts: record.attempts.map(formatAttempt),
    ...(record.refresh && { refresh: formatRefresh(record.refresh) }),
    ...(record.replay && { replay: record.replay }),
    bytes: { ...record.bytes },
    ...(record.error && { error: record.error }),
    ...(record.parent !== undefined && { parent: record.parent }),
    ...(record.span && { span: record.span }),
    ...(record.messages && { messages: record.messages }),
  }
}

function formatAttempt(attempt: AttemptRecord): TraceAttempt {
  return {
    credential: attempt.credential ?? null,
    generation: attempt.generation ?? null,
    egress: attempt.egress,
    egressAddress: attempt.egressAddress ?? null,
    address: attempt.address ?? null,
    status: attempt.status ?? null,
    verdict: attempt.verdict,
    startMs: roundedOrNull(attempt.startMs),
    sentMs: roundedOrNull(attempt.sentMs),
    dnsMs: roundedOrNull(attempt.dnsMs),
    connectMs: roundedOrNull(attempt.connectMs),
    tlsMs: roundedOrNull(attempt.tlsMs),
    firstByteMs: roundedOrNull(attempt.firstByteMs),
    totalMs: rounded(attempt.totalMs),
    reused: attempt.reused,
    protocol: attempt.protocol ?? null,
    ...(attempt.call && { call: attempt.call }),
    fault: faultOf(attempt) ?? null,
  }
}

function formatRefresh({ role, ms, result, ...more }: ExchangeRefresh): ExchangeRefresh {
  const { startMs, trace, calls } = more
  return {
    role,
    ms: rounded(ms),
    result,
    ...(startMs !== undefined && { startMs: rounded(startMs) }),
    ...(trace !== undefined && { trace }),
    ...(calls &&
      calls.length > 0 && {
        calls: calls.map((call) => ({
          ...call,
          startMs: rounded(call.startMs),
          ms: rounded(call.ms),
        })),
      }),
  }
}

/** Microseconds are the clock's honest precision. */
function rounded(ms: number): number {
  return Math.round(ms * 1000) / 1000
}

function roundedOrNull(ms: number | undefined): number | null {
  return ms === undefined ? null : rounded(ms)
}
