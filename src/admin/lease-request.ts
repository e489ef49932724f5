import {
  type LeaseAsk,
  type LeaseReport,
  REPORTABLE,
  type Reportable,
} from '../exchange/remote-leases.ts'
import type { JsonObject } from './body.ts'
import { AdminError } from './problem.ts'

const DEFAULT_TTL_SECONDS = 60
const MAX_TTL_SECONDS = 300
const MAX_WAIT_SECONDS = 3600
const MAX_TEXT = 256
const MAX_PATH = 8192
const MAX_ITEMS = 64

const ASK = [
  'session',
  'credential',
  'scopes',
  'method',
  'path',
  'waitSeconds',
  'ttlSeconds',
] as const
const REPORT = ['status', 'retryAfterSeconds', 'headers', 'body', 'verdict'] as const

/** Reads what a lease is asked for; what the body leaves open is taken from the client's user parameters. */
export function readAsk(body: JsonObject, hints: LeaseAsk['hints']): LeaseAsk {
  const fields = pick(body, ASK)
  const method = text(fields.method, 'method', /^[!#$%&'*+.^_`|~\w-]+$/)
  const path = text(fields.path, 'path', /^\/[^\s\x00-\x1f]*$/, MAX_PATH)
  if (method !== undefined && path === undefined) throw invalid('method goes with path')
  const ttl = number(fields.ttlSeconds, 'ttlSeconds', 1, MAX_TTL_SECONDS)
  const wait = number(fields.waitSeconds, 'waitSeconds', 0, MAX_WAIT_SECONDS)
  return {
    hints: {
      session: text(fields.session, 'session') ?? hints.session,
      credential: text(fields.credential, 'credential') ?? hints.credential,
      scopes: scopes(fields.scopes) ?? hints.scopes,
    },
    request: path === undefined ? undefined : { method: method ?? 'GET', path },
    waitMs: wait === undefined ? undefined : wait * 1000,
    ttlMs: (ttl ?? DEFAULT_TTL_SECONDS) * 1000,
  }
}

/** Reads what became of a worker's request. */
export function readReport(body: JsonObject): LeaseReport {
  const fields = pick(body, REPORT)
  const status = number(fields.status, 'status', 100, 999)
  const verdict = fields.verdict as Reportable | undefined
  if (verdict !== undefined && !REPORTABLE.includes(verdict)) {
    throw invalid(`verdict: expected one of ${REPORTABLE.join(', ')}`)
  }
  if (status === undefined && verdict === undefined) throw invalid('expected status or verdict')
  if (status !== undefined && !Number.isInteger(status)) {
    throw invalid('status: expected a whole number')
  }
  const retryAfter = number(fields.retryAfterSeconds, 'retryAfterSeconds', 0, 1e9)
  const headers = readHeaders(fields.headers)
  if (retryAfter !== undefined) headers.unshift('retry-after', String(retryAfter))
  const content = fields.body
  if (content === undefined) return { status, verdict, headers, body: undefined }
  // Matchers of bodies look at JSON only; who tells no type has parsed it.
  headers.push('content-type', 'application/json')
  const written = typeof content === 'string' ? content : JSON.stringify(content)
  return { status, verdict, headers, body: Buffer.from(written) }
}

function readHeaders(value: unknown): string[] {
  if (value === undefined) return []
  const entries = isObject(value) ? Object.entries(value) : undefined
  if (!entries || entries.length > MAX_ITEMS) {
    throw invalid(`headers: expected an object of at most ${MAX_ITEMS} names and values`)
  }
  return entries.flatMap(([name, content]) => {
    if (typeof content !== 'string') throw invalid('headers: expected names and values as text')
    return [name, content]
  })
}

/** Refuses names that nobody knows: a misspelt one would silently mean something else. */
function pick<Name extends string>(
  body: JsonObject,
  names: readonly Name[],
): Partial<Record<Name, unknown>> {
  for (const name of Object.keys(body ?? {})) {
    if (!(names as readonly string[]).includes(name)) {
      throw invalid(`${names.join(', ')} are the fields`)
    }
  }
  return (body ?? {}) as Partial<Record<Name, unknown>>
}

function text(
  value: unknown,
  name: string,
  pattern = /^[^\x00-\x1f\x7f]+$/,
  longest = MAX_TEXT,
): string | undefined {
  if (value === undefined) return undefined
  if (typeof value === 'string' && value.length <= longest && pattern.test(value)) return value
  throw invalid(`${name}: expected ${name === 'path' ? 'a path' : 'a short text'}`)
}

function number(value: unknown, name: string, min: number, max: number): number | undefined {
  if (value === undefined) return undefined
  if (typeof value === 'number' && value >= min && value <= max) return value
  throw invalid(`${name}: expected ${min} to ${max}`)
}

/** A list, or one text with spaces between as OAuth writes it (RFC 6749 §3.3). */
function scopes(value: unknown): string[] | undefined {
  if (value === undefined) return undefined
  const list = typeof value === 'string' ? value.split(' ').filter(Boolean) : value
  const isList = Array.isArray(list) && list.length <= MAX_ITEMS
  if (!isList || !list.every((each) => typeof each === 'string' && /^\S{1,256}$/.test(each))) {
    throw invalid(`scopes: expected a list of at most ${MAX_ITEMS} scopes`)
  }
  return list
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

function invalid(message: string): AdminError {
  return new AdminError('BAD_REQUEST', message)
}
