import type { Attempt, Trace } from './model.ts'

export type Phase =
  | 'wait'
  | 'dns'
  | 'connect'
  | 'tls'
  | 'request'
  | 'answer'
  | 'body'
  | 'refresh'
  | 'other'

export const PHASES: Readonly<Record<Phase, string>> = {
  wait: 'waiting for a token',
  dns: 'DNS',
  connect: 'connect',
  tls: 'TLS',
  request: 'sending',
  answer: 'first byte',
  body: 'body',
  refresh: 'refresh',
  other: 'in all',
}

export interface Span {
  readonly phase: Phase
  readonly start: number
  readonly ms: number
}

/** One line of the waterfall. */
export interface Lane {
  readonly name: string
  readonly note: string
  readonly start: number
  readonly ms: number
  readonly spans: readonly Span[]
  readonly attempt?: Attempt
}

/** A trace as lines over time, all in ms since its arrival. */
export function timelineOf(trace: Trace): { lanes: readonly Lane[]; total: number } {
  const lanes: Lane[] = []
  let end = 0
  const add = (lane: Lane) => {
    lanes.push(lane)
    end = Math.max(end, lane.start + lane.ms)
  }
  if (trace.waitMs > 0) add(plainLane('wait', 'Wait', 'for a token', 0, trace.waitMs))
  const { refresh } = trace
  let told = refresh === undefined
  for (const [index, attempt] of trace.attempts.entries()) {
    const start = attempt.startMs ?? end
    // A renewal comes after the attempt that showed the need for it, or, for a cold pool, before the first.
    if (refresh && !told && index > 0 && trace.attempts[index - 1]?.verdict === 'expired') {
      told = true
      add(refreshLane(refresh, end))
    }
    const { status, verdict } = attempt
    add({
      name: `Attempt ${index + 1}`,
      note: [attempt.credential ?? 'no token', status ?? verdict].join(' · '),
      start: attempt.startMs ?? Math.max(start, end),
      ms: attempt.totalMs,
      spans: spansOf(attempt, attempt.startMs ?? Math.max(start, end)),
      attempt,
    })
  }
  if (refresh && !told) add(refreshLane(refresh, end))
  const total = Math.max(trace.durationMs, end, 0.001)
  if (lanes.length === 0) lanes.push(plainLane('other', trace.kind, '', 0, trace.durationMs))
  return { lanes, total }
}

function refreshLane(refresh: NonNullable<Trace['refresh']>, end: number): Lane {
  const { role, ms, result, startMs } = refresh
  return plainLane('refresh', 'Refresh', `${role} · ${result}`, startMs ?? end, ms)
}

function plainLane(phase: Phase, name: string, note: string, start: number, ms: number): Lane {
  return { name, note, start, ms, spans: [{ phase, start, ms }] }
}

/** The phases of an attempt one after the other; `connectMs` includes DNS, `firstByteMs` all that came before. */
function spansOf(attempt: Attempt, start: number): Span[] {
  const spans: Span[] = []
  let at = 0
  const until = (phase: Phase, end: number | null | undefined) => {
    const bounded = Math.min(end ?? at, attempt.totalMs)
    if (bounded - at <= 0) return
    spans.push({ phase, start: start + at, ms: bounded - at })
    at = bounded
  }
  const { dnsMs, connectMs, tlsMs, sentMs, firstByteMs, totalMs } = attempt
  until('dns', dnsMs)
  until('connect', connectMs)
  if (tlsMs !== null) until('tls', at + tlsMs)
  until('request', sentMs)
  if (firstByteMs !== null) {
    until('answer', firstByteMs)
    until('body', totalMs)
  } else until('answer', totalMs)
  return spans
}
