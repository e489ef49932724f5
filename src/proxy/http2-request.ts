import { createHash, randomBytes } from 'node:crypto'
import { WireError } from '../errors.ts'
import type { ProxyRequest } from '../exchange/request.ts'
import { headerValue, type RawHeaders, withoutHeader } from '../lib/headers.ts'
import type { RequestFields } from '../lib/http2/request-fields.ts'
import { checkInside, type Inside } from './authority-check.ts'
import { ClientRequest } from './client-request.ts'
import { type OwnFields, readOwnFields } from './http1.ts'
import type { Http2Body } from './http2-body.ts'

/** As in HTTP/1: methods are case-sensitive, and `trace` might pass for what it is not. */
const METHOD = /^[A-Z0-9_-]{1,32}$/
const WEBSOCKET_GUID = '258EAFA5-E914-47DA-95CA-C5AB0DC85B11'

/** A request's field block, taken apart. */
export interface Http2Head {
  readonly method: string
  readonly path: string
  /** `websocket` in an extended CONNECT (RFC 8441). */
  readonly upgrade: string | undefined
  readonly headers: RawHeaders
  readonly fields: OwnFields
  /** Whether the client waits for a 100 before it sends its body (RFC 9110 §10.1.1). */
  readonly expects: boolean
}

/**
 * Reads a field block, whose form has been checked (RFC 9113 §8.3.1), and makes sure that it names the host that is
 * dialled. Throws `WireError`.
 */
export function readHead(request: RequestFields, inside: Inside): Http2Head {
  if (request.tooLarge) throw new WireError('BAD_REQUEST', 'the request header is too large')
  const { method = '', path = '', scheme, authority, protocol } = request
  let headers = joinCookies(request.headers)
  if (protocol !== undefined) headers = withoutHeader(headers, 'sec-websocket-key')
  const fields = readOwnFields(headers)
  const hosts = fields.hosts
  const { host } = fields
  if (authority !== undefined) {
    fields.hosts = 1
    fields.host = authority
  }
  checkInside(inside, path.startsWith('/') ? path : '*', fields)
  if (authority !== undefined && hosts > 0 && (hosts > 1 || host !== authority)) {
    checkInside(inside, '*', { ...fields, hosts, host })
  }
  if (method === 'CONNECT' && protocol !== 'websocket') {
    throw new WireError('BAD_REQUEST', 'CONNECT inside a tunnel is for WebSocket only')
  }
  if (!METHOD.test(method) || !isPath(method, path)) {
    throw new WireError('BAD_REQUEST', 'the request is malformed')
  }
  if (scheme !== inside.scheme) {
    const message = 'the request target is not the host of the CONNECT request'
    throw new WireError('AUTHORITY_MISMATCH', message)
  }
  const expect = headerValue(headers, 'expect')
  if (expect !== undefined && expect.toLowerCase() !== '100-continue') {
    throw new WireError('EXPECTATION_FAILED', 'the request expects more than 100-continue')
  }
  return {
    // What RFC 8441 spells as CONNECT is a GET wherever HTTP/1 is spoken.
    method: protocol === undefined ? method : 'GET',
    path,
    upgrade: protocol,
    headers,
    fields,
    expects: expect !== undefined,
  }
}

/** The same form as in HTTP/1's request line, which this may become. */
function isPath(method: string, path: string): boolean {
  if (path === '*') return method === 'OPTIONS'
  return path.startsWith('/') && !/[^\x21\x22\x24-\x7e]/.test(path)
}

/** RFC 9113 §8.2.3: a cookie field may come in pieces, and goes on as one. */
function joinCookies(headers: RawHeaders): RawHeaders {
  let first = -1
  let pieces = 0
  for (let i = 0; i < headers.length; i += 2) {
    if (headers[i] !== 'cookie') continue
    pieces += 1
    if (pieces === 1) first = i
    else headers[first + 1] += `; ${headers[i + 1]}`
  }
  if (pieces < 2) return headers
  return headers.filter((_, i) => {
    const field = i & ~1
    return field === first || headers[field] !== 'cookie'
  })
}

/**
 * RFC 8441 §5: the key is HTTP/1's own, in which the handshake goes on. Returns the answer to it
 * (RFC 6455 §4.2.2).
 */
export function addWebSocketKey(headers: RawHeaders): string {
  const key = randomBytes(16).toString('base64')
  headers.push('sec-websocket-key', key)
  return createHash('sha1')
    .update(key + WEBSOCKET_GUID)
    .digest('base64')
}

/** An HTTP/2 request as the exchange sees it. */
export class Http2Request extends ClientRequest implements ProxyRequest {
  body: Http2Body | undefined
  readonly protocol = 'h2'

  constructor({ fields, method, path, headers, upgrade }: Http2Head, to: Inside) {
    super(to, method, path, headers, fields.hints, upgrade)
  }
}
