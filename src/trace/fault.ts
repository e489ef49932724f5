import type { AttemptRecord } from '../events.ts'

const FAULTS: Readonly<Record<string, AttemptRecord['fault']>> = {
  expired: 'token',
  limited: 'token',
  denied: 'token',
  upstream: 'upstream',
  EGRESS_DOWN: 'egress',
  UPSTREAM_UNREACHABLE: 'upstream',
  UPSTREAM_TLS: 'upstream',
  UPSTREAM_RESET: 'upstream',
  UPSTREAM_TIMEOUT: 'upstream',
}

/** Whose fault it is that an attempt did not go well; undefined when it did. What further attempts have shown stands before what one alone says. */
export function faultOf(attempt: AttemptRecord): AttemptRecord['fault'] {
  if (attempt.fault) return attempt.fault
  if (attempt.verdict === 'ok') return (attempt.status ?? 0) >= 400 ? 'request' : undefined
  return FAULTS[attempt.verdict]
}
