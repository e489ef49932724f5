import { Readable } from 'node:stream'
import { headerValue } from '../lib/headers.ts'
import { formatRequestHead, lastChunk } from '../lib/http1/serializer.ts'
import type { UpstreamRequest } from './upstream.ts'

/** A request as it goes over an HTTP/1.1 connection. */
export interface Outgoing {
  /** latin1; a short body stands in it already. */
  readonly head: string
  readonly body: Buffer | Readable | undefined
  /** What ends a body that is a Buffer; latin1. */
  readonly tail: string
  /** Of a body that streams; undefined for chunked. */
  readonly length: number | undefined
}

/** A body up to this size is written together with its head, as one string. */
const SHORT_BODY_BYTES = 4096
/** Methods whose servers expect to be told of an empty body (RFC 9110 §8.6). */
const BODY_EXPECTED: ReadonlySet<string> = new Set(['POST', 'PUT', 'PATCH'])
const PROTOCOL = /^[!#$%&'*+\-.^_`|~0-9A-Za-z/]+$/

/** Throws for fields that would break their line, and for a length that is not the body's. */
export function formatRequest(request: UpstreamRequest): Outgoing {
  const { method, path, headers, body, upgrade } = request
  const length = announcedLength(headers)
  // RFC 9110 §10.1.4: `TE` is of this connection, and says so.
  const own =
    upgrade === undefined && headerValue(headers, 'te') !== undefined ? 'Connection: TE\r\n' : ''
  const withHead = (more: string) => formatRequestHead(method, path, headers, more + own)
  if (body instanceof Readable) {
    const more = length === undefined ? 'Transfer-Encoding: chunked\r\n' : ''
    return { head: withHead(more), body, tail: '', length }
  }
  if (length !== undefined && length !== (body?.length ?? 0)) throw new TypeError('wrong length')
  if (body === null) {
    let more = ''
    if (upgrade !== undefined) {
      if (!PROTOCOL.test(upgrade)) throw new TypeError('no protocol')
      more = `Connection: Upgrade\r\nUpgrade: ${upgrade}\r\n`
    } else if (length === undefined && BODY_EXPECTED.has(method)) {
      more = 'Content-Length: 0\r\n'
    }
    return { head: withHead(more), body: undefined, tail: '', length }
  }
  if (length === undefined) {
    const trailers = request.trailers?.() ?? []
    if (trailers.length > 0) return formatChunked(body, trailers, withHead)
  }
  const head = withHead(length === undefined ? `Content-Length: ${body.length}\r\n` : '')
  if (body.length > SHORT_BODY_BYTES) return { head, body, tail: '', length }
  return { head: head + body.toString('latin1'), body: undefined, tail: '', length }
}

/** Only a chunked body can have trailers (RFC 9112 §7.1.2). */
function formatChunked(
  body: Buffer,
  trailers: readonly string[],
  withHead: (more: string) => string,
): Outgoing {
  const head = withHead('Transfer-Encoding: chunked\r\n')
  const last = lastChunk(trailers)
  const size = body.length
  if (size === 0) return { head: head + last, body: undefined, tail: '', length: undefined }
  return {
    head: `${head}${size.toString(16)}\r\n`,
    body,
    tail: `\r\n${last}`,
    length: undefined,
  }
}

/** The length that the fields name; throws where they name several, or frame the body by themselves. */
function announcedLength(headers: readonly string[]): number | undefined {
  let length: number | undefined
  for (let i = 0; i < headers.length; i += 2) {
    const name = headers[i] as string
    if (name.length !== 14 && name.length !== 17) continue
    const lower = name.toLowerCase()
    if (lower === 'transfer-encoding') throw new TypeError('the framing is set here')
    if (lower !== 'content-length') continue
    const value = headers[i + 1] as string
    if (length !== undefined || !/^\d{1,15}$/.test(value)) throw new TypeError('no single length')
    length = Number(value)
  }
  return length
}
