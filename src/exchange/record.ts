import type { Attempt } from '../egress/attempt.ts'
import type { ExchangeRecord } from '../events.ts'
import { nextTraceId } from '../lib/trace-id.ts'
import type { Lease, PassedOver } from '../pool/lease.ts'

/** Shared: nothing writes into it. */
const NONE: ExchangeRecord['skipped'] = []

/** An empty record with the next trace id. */
export function newRecord(time: number, method: string, url: string): ExchangeRecord {
  return {
    id: nextTraceId(),
    time,
    kind: 'exchange',
    client: { name: undefined, address: '' },
    method,
    url,
    protocol: undefined,
    pool: undefined,
    status: undefined,
    durationMs: 0,
    waitMs: 0,
    verdict: 'ok',
    skipped: NONE,
    skippedMore: undefined,
    attempts: [],
    refresh: undefined,
    replay: undefined,
    bytes: { in: 0, out: 0 },
    error: undefined,
    parent: undefined,
    span: undefined,
    messages: undefined,
    arrivedAt: performance.now(),
  }
}

/** Notes who could not be had when a token was asked for; what was noted last says most. */
export function recordSkipped(record: ExchangeRecord, passedOver: PassedOver | undefined): void {
  if (!passedOver) return
  record.skipped = passedOver.skipped
  record.skippedMore = passedOver.more || undefined
}

export function recordAttempt(
  record: ExchangeRecord,
  attempt: Attempt,
  lease: Lease | undefined,
  egress: string,
  verdict: string,
): void {
  const { timings, reused, startedAt, firstByteAt } = attempt
  record.attempts.push({
    credential: lease?.credential,
    generation: lease?.generation,
    egress,
    address: timings?.address,
    status: attempt.status || undefined,
    verdict,
    startMs: startedAt - (record.arrivedAt ?? startedAt),
    sentMs: attempt.sentAt === undefined ? undefined : attempt.sentAt - startedAt,
    dnsMs: reused ? undefined : timings?.dnsMs,
    connectMs: reused ? undefined : timings?.connectMs,
    tlsMs: reused ? undefined : timings?.tlsMs,
    firstByteMs: firstByteAt === undefined ? undefined : firstByteAt - startedAt,
    totalMs: performance.now() - startedAt,
    reused,
    protocol: attempt.protocol,
    call: undefined,
    fault: undefined,
  })
}

/** The answer has been passed on, or broke off. */
export function recordEnd(
  record: ExchangeRecord,
  attempt: Attempt,
  request: { readonly closed: boolean },
): void {
  record.bytes.out = attempt.bytesIn
  const last = record.attempts.at(-1)
  if (last) last.totalMs = performance.now() - attempt.startedAt
  const { failure } = attempt
  if (failure) {
    record.verdict = request.closed ? 'aborted' : failure.code
    record.error = { code: failure.code, message: failure.message }
  }
}
