import type { TraceQuery } from './backend.ts'
import { onlyParameters, type Query, readChoice, readInteger, readText, readTime } from './query.ts'

const KINDS = ['exchange', 'websocket', 'tunnel', 'denied', 'lease', 'refresh'] as const
const NAMES = 'pool credential status verdict client kind since limit'.split(' ')

/** Reads the filter of a trace list; says which parameter is wrong. */
export function readTraceQuery(query: Query): TraceQuery {
  onlyParameters(query, NAMES)
  return {
    pool: readText(query, 'pool'),
    credential: readText(query, 'credential'),
    status: readInteger(query, 'status', 100, 999),
    verdict: readText(query, 'verdict'),
    client: readText(query, 'client'),
    kind: readChoice(query, 'kind', KINDS),
    since: readTime(query, 'since'),
    limit: readInteger(query, 'limit', 1, 1_000_000),
  }
}
