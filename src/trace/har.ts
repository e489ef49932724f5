import { STATUS_CODES } from 'node:http'
import type { RecordedBody } from '../events.ts'
import { headerValue } from '../lib/headers.ts'
import type { Trace, TraceAttempt } from './trace.ts'

/** HTTP Archive 1.2 (http://www.softwareishard.com/blog/har-12-spec/). */

export interface HarPair {
  name: string
  value: string
}

export interface HarTimings {
  blocked: number
  dns: number
  connect: number
  send: number
  wait: number
  receive: number
  ssl: number
}

export interface HarEntry {
  startedDateTime: string
  time: number
  request: {
    method: string
    url: string
    httpVersion: string
    cookies: HarPair[]
    headers: HarPair[]
    queryString: HarPair[]
    postData?: { mimeType: string; params: []; text: string; comment?: string }
    headersSize: number
    bodySize: number
  }
  response: {
    status: number
    statusText: string
    httpVersion: string
    cookies: HarPair[]
    headers: HarPair[]
    content: { size: number; mimeType: string; text?: string; comment?: string }
    redirectURL: string
    headersSize: number
    bodySize: number
  }
  cache: Record<string, never>
  timings: HarTimings
  serverIPAddress?: string
  comment?: string
  /** The trace itself, but for what stands in the entry's own fields. */
  _cupbearer: Omit<Trace, 'messages' | 'url' | 'method'>
}

export interface Har {
  log: {
    version: '1.2'
    creator: { name: string; version: string }
    entries: HarEntry[]
  }
}

export const CREATOR = { name: 'Cupbearer', version: '1' }

/** An archive of these traces; those of no HTTP request are left out. */
export function harOf(traces: readonly Trace[]): Har {
  return { log: { version: '1.2', creator: CREATOR, entries: traces.flatMap(entriesOf) } }
}

/** The entries of one trace: one for a request, one for each call of a renewal, none for what was no request. */
export function entriesOf(trace: Trace): HarEntry[] {
  if (trace.kind === 'lease') return []
  if (trace.kind === 'refresh') {
    return trace.attempts.flatMap((attempt) =>
      attempt.call ? [entry(trace, attempt.call, attempt, attempt.startMs ?? 0)] : [],
    )
  }
  const { method, url } = trace
  // What a client asked that was refused need not be a URL.
  if (!/^https?:\/\/[^/]/.test(url) || !URL.canParse(url)) return []
  return [entry(trace, { method, url }, trace.attempts.at(-1), 0)]
}

function entry(
  trace: Trace,
  asked: { method: string; url: string },
  attempt: TraceAttempt | undefined,
  startMs: number,
): HarEntry {
  const { messages, method: _method, url: _url, ...story } = trace
  const whole = trace.kind !== 'refresh'
  const request = whole ? messages?.request : undefined
  const response = whole ? messages?.response : undefined
  const sentHeaders = request?.headers ?? []
  const headers = response?.headers ?? []
  const status = (whole ? trace.status : attempt?.status) ?? 0
  const timings = timingsOf(whole ? trace.durationMs : (attempt?.totalMs ?? 0), attempt, whole)
  const server = serverAddress(attempt)
  const { blocked, dns, connect, send, wait, receive } = timings
  return {
    startedDateTime: new Date(Date.parse(trace.time) + startMs).toISOString(),
    time: round([blocked, dns, connect, send, wait, receive].reduce(sumOfKnown, 0)),
    request: {
      method: asked.method,
      url: asked.url,
      httpVersion: version(trace.protocol),
      cookies: cookiesOf(headerValue(sentHeaders, 'cookie')),
      headers: pairs(sentHeaders),
      queryString: queryOf(asked.url),
      ...(request?.body && { postData: postData(request.body, sentHeaders) }),
      headersSize: -1,
      bodySize: whole ? trace.bytes.in : -1,
    },
    response: {
      status,
      statusText: response?.reason || STATUS_CODES[status] || '',
      httpVersion: version(attempt?.protocol ?? null),
      cookies: pairs(headers)
        .filter(({ name }) => name.toLowerCase() === 'set-cookie')
        .flatMap(({ value }) => cookiesOf(value.split(';')[0])),
      headers: pairs(headers),
      content: {
        size: whole ? trace.bytes.out : 0,
        mimeType: headerValue(headers, 'content-type') ?? 'x-unknown',
        ...(response?.body && text(response.body)),
      },
      redirectURL: headerValue(headers, 'location') ?? '',
      headersSize: -1,
      bodySize: whole ? trace.bytes.out : -1,
    },
    cache: {},
    timings,
    ...(server !== undefined && { serverIPAddress: server }),
    ...(trace.error && { comment: `${trace.error.code}: ${trace.error.message}` }),
    _cupbearer: story,
  }
}

/**
 * Of the last attempt; all before it, tokens that were waited for and earlier attempts, counts as blocked. The
 * parts make up the whole; TLS is a part of connecting, and -1 stands for what did not happen.
 */
function timingsOf(totalMs: number, attempt: TraceAttempt | undefined, whole: boolean): HarTimings {
  const none = { dns: -1, connect: -1, send: 0, wait: 0, receive: 0, ssl: -1 }
  if (!attempt) return { ...none, blocked: round(totalMs) }
  const dns = attempt.dnsMs ?? -1
  const ssl = attempt.tlsMs ?? -1
  const connect =
    attempt.connectMs === null || attempt.connectMs === undefined
      ? -1
      : Math.max(0, attempt.connectMs - Math.max(0, dns)) + Math.max(0, ssl)
  const connecting = Math.max(0, dns) + Math.max(0, connect)
  const sent = attempt.sentMs ?? connecting
  const firstByte = attempt.firstByteMs ?? attempt.totalMs
  const wait = Math.max(0, firstByte - sent)
  const receive = Math.max(0, attempt.totalMs - firstByte)
  const used = connecting + wait + receive
  return {
    blocked: round(whole ? Math.max(0, totalMs - used) : Math.max(0, attempt.totalMs - used)),
    dns: round(dns),
    connect: round(connect),
    send: 0,
    wait: round(wait),
    receive: round(receive),
    ssl: round(ssl),
  }
}

const sumOfKnown = (sum: number, part: number): number => sum + Math.max(0, part)
const round = (ms: number): number => (ms < 0 ? -1 : Math.round(ms * 1000) / 1000)

function version(protocol: Trace['protocol']): string {
  return protocol === 'h2' ? 'HTTP/2' : 'HTTP/1.1'
}

function serverAddress(attempt: TraceAttempt | undefined): string | undefined {
  return attempt?.address?.replace(/:\d+$/, '').replace(/^\[|\]$/g, '')
}

function pairs(headers: readonly string[]): HarPair[] {
  const list: HarPair[] = []
  for (let i = 0; i < headers.length; i += 2) {
    list.push({ name: headers[i] as string, value: headers[i + 1] as string })
  }
  return list
}

/** Their values were replaced before they were recorded. */
function cookiesOf(field: string | undefined): HarPair[] {
  return (field ?? '').split(';').flatMap((part) => {
    const [name, ...value] = part.trim().split('=')
    return name ? [{ name, value: value.join('=') }] : []
  })
}

function queryOf(url: string): HarPair[] {
  const start = url.indexOf('?')
  if (start === -1) return []
  const [query = ''] = url.slice(start + 1).split('#')
  return query.split('&').flatMap((part) => {
    const [name = '', ...value] = part.split('=')
    return part === '' ? [] : [{ name: decoded(name), value: decoded(value.join('=')) }]
  })
}

function decoded(text: string): string {
  try {
    return decodeURIComponent(text.replaceAll('+', ' '))
  } catch {
    return text
  }
}

function postData(body: RecordedBody, headers: readonly string[]) {
  const mimeType = headerValue(headers, 'content-type') ?? ''
  return { mimeType, params: [] as [], ...text(body) }
}

function text({ text, cut }: RecordedBody): { text: string; comment?: string } {
  return { text, ...(cut && { comment: 'only its beginning was recorded' }) }
}
