import type { Trace } from './model.ts'
import type { Tone } from './parts.tsx'

export interface TraceFilter {
  readonly search: string
  readonly pool: string
  /** A class of outcome: see `OUTCOMES`. */
  readonly outcome: string
}

/** Outcomes to filter by. */
export const OUTCOMES = [
  ['', 'any'],
  ['ok', 'ok'],
  ['trouble', 'not ok'],
  ['replayed', 'replayed'],
  ['waited', 'waited'],
  ['expired', 'expired'],
  ['limited', 'limited'],
  ['denied', 'denied'],
  ['refresh', 'refreshes'],
  ['tunnel', 'tunnels'],
] as const

/** The traces that match, in the order given. */
export function filterTraces(traces: readonly Trace[], filter: TraceFilter): readonly Trace[] {
  const words = filter.search.toLowerCase().split(/\s+/).filter(Boolean)
  const { pool, outcome } = filter
  if (words.length === 0 && pool === '' && outcome === '') return traces
  return traces.filter(
    (trace) =>
      (pool === '' || trace.pool === pool) &&
      (outcome === '' || hasOutcome(trace, outcome)) &&
      words.every((word) => textOf(trace).includes(word)),
  )
}

function hasOutcome(trace: Trace, outcome: string): boolean {
  if (outcome === 'ok') return !isTrouble(trace)
  if (outcome === 'trouble') return isTrouble(trace)
  if (outcome === 'replayed') return trace.replay?.done === true
  if (outcome === 'waited') return trace.waitMs > 0
  if (outcome === 'refresh' || outcome === 'tunnel') return trace.kind === outcome
  return trace.verdict === outcome || trace.attempts.some(({ verdict }) => verdict === outcome)
}

const isTrouble = ({ verdict, status, kind }: Trace) =>
  kind === 'tunnel' || kind === 'refresh'
    ? verdict !== 'tunnel' && verdict !== 'ok'
    : verdict !== 'ok' || (status !== null && status >= 400)

const texts = new WeakMap<Trace, string>()

/** What is searched: made once for each trace, and gone with it. */
function textOf(trace: Trace): string {
  let text = texts.get(trace)
  if (text === undefined) {
    const { id, method, url, pool, verdict, status, kind, client, attempts, error } = trace
    const tried = attempts.map(({ credential, egress }) => `${credential} ${egress}`).join(' ')
    const about = [
      id,
      method,
      url,
      pool,
      verdict,
      status,
      kind,
      client.name,
      client.address,
      error?.code,
    ]
    text = `${about.join(' ')} ${tried}`.toLowerCase()
    texts.set(trace, text)
  }
  return text
}

/** How a trace ended, in a word and a colour. */
export function badgeOf(trace: Trace): { text: string; tone: Tone } {
  const { kind, status, verdict } = trace
  if (kind === 'tunnel' || kind === 'refresh') {
    return { text: kind, tone: isTrouble(trace) ? 'bad' : 'mute' }
  }
  const text = String(status ?? verdict)
  if (status !== null && status < 400 && verdict === 'ok') return { text, tone: 'good' }
  if (verdict === 'limited' || verdict === 'expired' || verdict === 'denied')
    return { text, tone: 'warn' }
  if (verdict === 'aborted') return { text, tone: 'mute' }
  return { text, tone: status !== null && status < 500 && verdict === 'ok' ? 'warn' : 'bad' }
}
