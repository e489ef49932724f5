import type { AttemptRecord, EventMap, ExchangeRecord } from '../events.ts'

/** The record of a renewal; each request to an authorization server stands as an attempt of it. */
export function refreshRecord(outcome: EventMap['refresh'][0], id: string): ExchangeRecord {
  const { time, pool, credential, cause, result, ms, reason } = outcome
  const calls = outcome.calls ?? []
  const [first] = calls
  const failed = result !== 'ok'
  const base = attemptOf(outcome)
  return {
    id,
    // The event tells of the end.
    time: time - ms,
    kind: 'refresh',
    client: { name: undefined, address: '' },
    method: first?.method ?? 'REFRESH',
    url: first?.url ?? `refresh:${pool}/${credential}`,
    protocol: undefined,
    pool,
    status: calls.at(-1)?.status,
    durationMs: ms,
    waitMs: 0,
    verdict: result,
    skipped: [],
    skippedMore: undefined,
    attempts:
      calls.length === 0
        ? [base]
        : calls.map((call, index) => ({
            ...base,
            status: call.status,
            // A login takes several requests; what became of it shows at the last one.
            verdict: index === calls.length - 1 ? base.verdict : 'ok',
            startMs: call.startMs,
            firstByteMs: call.status === undefined ? undefined : call.ms,
            totalMs: call.ms,
            call: { method: call.method, url: call.url },
          })),
    refresh: { role: 'led', ms, result: `${result} (${cause})` },
    replay: undefined,
    bytes: { in: 0, out: 0 },
    error:
      failed && reason !== undefined
        ? { code: result === 'revoked' ? 'SOURCE_REVOKED' : 'SOURCE_FAILED', message: reason }
        : undefined,
    parent: undefined,
    span: undefined,
    messages: undefined,
  }
}

function attemptOf(outcome: EventMap['refresh'][0]): AttemptRecord {
  return {
    credential: outcome.credential,
    generation: outcome.generation,
    egress: outcome.egress ?? '',
    address: undefined,
    status: undefined,
    verdict: outcome.result,
    startMs: 0,
    sentMs: undefined,
    dnsMs: undefined,
    connectMs: undefined,
    tlsMs: undefined,
    firstByteMs: undefined,
    totalMs: outcome.ms,
    reused: false,
    protocol: undefined,
    call: undefined,
  }
}
