import type { Attempt } from '../egress/attempt.ts'
import type { ExchangeRecord } from '../events.ts'
import type { Lease } from '../pool/lease.ts'

let count = 0
const prefix = Math.floor(Math.random() * 36 ** 5)
  .toString(36)
  .padStart(5, '0')

/** Shared: nothing writes into it. */
const NONE: ExchangeRecord['skipped'] = []

/** An empty record with the next trace id: unique in this process, and most likely among its runs. */
export function newRecord(time: number, method: string, url: string): ExchangeRecord {
  count += 1
  return {
    id: prefix + count.toString(36).padStart(6, '0'),
    time,
    kind: 'exchange',
    client: { name: undefined, address: '' },
    method,
    url,
    pool: undefined,
    status: undefined,
    durationMs: 0,
    waitMs: 0,
    verdict: 'ok',
    skipped: NONE,
    attempts: [],
    refresh: undefined,
    replay: undefined,
    bytes: { in: 0, out: 0 },
    error: undefined,
  }
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
    connectMs: reused ? undefined : timings?.connectMs,
    tlsMs: reused ? undefined : timings?.tlsMs,
    firstByteMs: firstByteAt === undefined ? undefined : firstByteAt - startedAt,
    totalMs: performance.now() - startedAt,
    reused,
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
