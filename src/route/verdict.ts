import { brotliDecompressSync, gunzipSync, inflateSync } from 'node:zlib'
import type { MatcherConfig } from '../config/schema.ts'
import { headerValue, headerValues } from '../lib/headers.ts'

/** What an upstream answer says about the token. */
export type Verdict = 'ok' | 'expired' | 'limited' | 'denied' | 'upstream'

/** Body matchers look at no more than this; a longer body matches none. */
export const PEEK_BYTES = 64 * 1024

interface Matcher {
  readonly verdict: Verdict
  readonly statuses: ReadonlySet<number> | undefined
  readonly headers: readonly (readonly [name: string, pattern: RegExp])[]
  readonly json: readonly (readonly [
    pointer: readonly string[],
    test: (value: unknown) => boolean,
  ])[]
}

/** A pool's `expired`, `limited` and `denied`, compiled; the first that matches, in this order, decides. */
export class Judge {
  readonly #matchers: readonly Matcher[]
  /** Statuses that any matcher without a header or body asks for: all else is decided at a glance. */
  readonly #interesting: ReadonlySet<number> | undefined

  constructor(pool: {
    readonly expired: readonly MatcherConfig[]
    readonly limited: readonly MatcherConfig[]
    readonly denied: readonly MatcherConfig[]
  }) {
    this.#matchers = [
      ...pool.expired.map((config) => compile('expired', config)),
      ...pool.limited.map((config) => compile('limited', config)),
      ...pool.denied.map((config) => compile('denied', config)),
    ]
    this.#interesting = this.#matchers.every(({ statuses }) => statuses)
      ? new Set(this.#matchers.flatMap(({ statuses }) => [...(statuses as ReadonlySet<number>)]))
      : undefined
  }

  /** The verdict by status and headers, or `'peek'` when the body has to be looked at. */
  judge(status: number, headers: readonly string[]): Verdict | 'peek' {
    if (this.#interesting && !this.#interesting.has(status)) return plain(status)
    for (const matcher of this.#matchers) {
      if (!matchesHead(matcher, status, headers)) continue
      if (matcher.json.length === 0) return matcher.verdict
      if (/[/+]json\b/i.test(headerValue(headers, 'content-type') ?? '')) return 'peek'
    }
    return plain(status)
  }

  /** The verdict with the body at hand; undefined stands for one longer than PEEK_BYTES. */
  judgeBody(status: number, headers: readonly string[], body: Buffer | undefined): Verdict {
    const document = body && parseBody(body, headerValue(headers, 'content-encoding'))
    for (const matcher of this.#matchers) {
      if (!matchesHead(matcher, status, headers)) continue
      if (matcher.json.length === 0) return matcher.verdict
      if (
        document &&
        matcher.json.every(([pointer, test]) => test(resolve(document.value, pointer)))
      ) {
        return matcher.verdict
      }
    }
    return plain(status)
  }
}

function plain(status: number): Verdict {
  return status >= 500 ? 'upstream' : 'ok'
}

function compile(verdict: Verdict, config: MatcherConfig): Matcher {
  const statuses = config.status === undefined ? undefined : new Set([config.status].flat())
  return {
    verdict,
    statuses,
    headers: Object.entries(config.header ?? {}).map(([name, pattern]) => [
      name.toLowerCase(),
      new RegExp(pattern, 'i'),
    ]),
    json: Object.entries(config.json ?? {}).map(([pointer, expected]) => [
      pointer === ''
        ? []
        : pointer
            .slice(1)
            .split('/')
            .map((part) => part.replaceAll('~1', '/').replaceAll('~0', '~')),
      compileValue(expected),
    ]),
  }
}

/** A string `/…/` is a regular expression, anything else must be equal. */
function compileValue(expected: string | number | boolean | null): (value: unknown) => boolean {
  const pattern = typeof expected === 'string' ? /^\/(.*)\/(i?)$/s.exec(expected) : null
  if (!pattern) return (value) => value === expected
  const regex = new RegExp(pattern[1] as string, pattern[2])
  return (value) =>
    (typeof value === 'string' || typeof value === 'number') && regex.test(String(value))
}

function matchesHead(matcher: Matcher, status: number, headers: readonly string[]): boolean {
  if (matcher.statuses && !matcher.statuses.has(status)) return false
  return matcher.headers.every(([name, pattern]) =>
    headerValues(headers, name).some((value) => pattern.test(value)),
  )
}

/** A JSON body of at most PEEK_BYTES, unpacked too; undefined for any other. */
export function parseBody(
  body: Buffer,
  encoding: string | undefined,
): { value: unknown } | undefined {
  try {
    const options = { maxOutputLength: PEEK_BYTES }
    const coding = encoding?.trim().toLowerCase()
    const bytes =
      coding === undefined || coding === '' || coding === 'identity'
        ? body
        : coding === 'gzip' || coding === 'x-gzip'
          ? gunzipSync(body, options)
          : coding === 'br'
            ? brotliDecompressSync(body, options)
            : coding === 'deflate'
              ? inflateSync(body, options)
              : undefined
    return bytes && { value: JSON.parse(bytes.toString('utf8')) }
  } catch {
    return undefined
  }
}

/** RFC 6901; undefined where nothing stands. */
function resolve(value: unknown, pointer: readonly string[]): unknown {
  let current = value
  for (const part of pointer) {
    if (typeof current !== 'object' || current === null || !Object.hasOwn(current, part))
      return undefined
    current = (current as Record<string, unknown>)[part]
  }
  return current
}

/** Scopes that `insufficient_scope` asks for (RFC 6750 §3.1); empty when it doesn't say. */
export function scopesAsked(headers: readonly string[]): string[] {
  for (const value of headerValues(headers, 'www-authenticate')) {
    const match = /\bscope="([^"]*)"/i.exec(value)
    if (match) return (match[1] as string).split(/\s+/).filter(Boolean)
  }
  return []
}
