import type { TraceQuery } from './backend.ts'
import { AdminError } from './problem.ts'

const NAMES = ['pool', 'credential', 'status', 'verdict', 'since', 'limit']

/** Reads the filter of a trace list; says which parameter is wrong. */
export function readTraceQuery(query: Record<string, unknown>): TraceQuery {
  for (const name of Object.keys(query)) {
    if (!NAMES.includes(name)) throw invalid(`${NAMES.join(', ')} are the parameters`)
  }
  return {
    pool: text(query, 'pool'),
    credential: text(query, 'credential'),
    status: integer(query, 'status', 100, 999),
    verdict: text(query, 'verdict'),
    since: time(query, 'since'),
    limit: integer(query, 'limit', 1, 1_000_000),
  }
}

function text(query: Record<string, unknown>, name: string): string | undefined {
  const value = query[name]
  if (value === undefined || value === '') return undefined
  if (typeof value !== 'string') throw invalid(`${name} may stand once`)
  return value
}

function integer(
  query: Record<string, unknown>,
  name: string,
  min: number,
  max: number,
): number | undefined {
  const value = text(query, name)
  if (value === undefined) return undefined
  const number = /^\d{1,7}$/.test(value) ? Number(value) : Number.NaN
  if (!(number >= min && number <= max)) throw invalid(`${name}: expected ${min} to ${max}`)
  return number
}

function time(query: Record<string, unknown>, name: string): number | undefined {
  const value = text(query, name)
  if (value === undefined) return undefined
  const ms = /^\d{4}-\d\d-\d\d/.test(value) ? Date.parse(value) : Number.NaN
  if (Number.isNaN(ms)) throw invalid(`${name}: expected an ISO 8601 time`)
  return ms
}

function invalid(message: string): AdminError {
  return new AdminError('BAD_REQUEST', message)
}
