import { createHash, randomBytes } from 'node:crypto'
import type { ServerHttp2Stream } from 'node:http2'
import { WireError } from '../errors.ts'
import type { IncomingBody, ProxyRequest } from '../exchange/request.ts'
import { headerValue, type RawHeaders, withoutHeader } from '../lib/headers.ts'
import { allowedTrailers } from '../lib/http1/fields.ts'
import { regularFields } from '../lib/http2.ts'
import { checkInside, type Inside } from './authority-check.ts'
import { ClientRequest } from './client-request.ts'
import { type OwnFields, readOwnFields } from './http1.ts'

/** As in HTTP/1: methods are case-sensitive, and `trace` might pass for what it is not. */
const METHOD = /^[A-Z0-9_-]{1,32}$/
const NO_TRAILERS: RawHeaders = []
/** RFC 9113 §6.5.2: each field counts for 32 bytes more than its name and value. */
const FIELD_PART_BYTES = 16
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
 * Reads a field block, whose form nghttp2 has checked (RFC 9113 §8.3.1), and makes sure that it names the host that is
 * dialled. Throws `WireError`.
 */
export function readHead(raw: readonly string[], inside: Inside, maxHeaderSize: number): Http2Head {
  // nghttp2 knows of the limit only when the client has said that it does.
  let size = 0
  for (let i = 0; i < raw.length; i++) size += (raw[i] as string).length + FIELD_PART_BYTES
  if (size > maxHeaderSize) throw new WireError('BAD_REQUEST', 'the request header is too large')
  let method = ''
  let path = ''
  let scheme = ''
  let authority: string | undefined
  let protocol: string | undefined
  for (let i = 0; i < raw.length && (raw[i] as string).startsWith(':'); i += 2) {
    const value = raw[i + 1] as string
    if (raw[i] === ':method') method = value
    else if (raw[i] === ':path') path = value
    else if (raw[i] === ':scheme') scheme = value
    else if (raw[i] === ':authority') authority = value
    else if (raw[i] === ':protocol') protocol = value
  }
  let headers = joinCookies(regularFields(raw))
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

  /** Whether its client has still to send of the body. */
  sending(stream: ServerHttp2Stream): boolean {
    return this.body?.source === stream && !stream.readableEnded && !stream.closed
  }
}

/** A request's body on its stream. */
export class Http2Body implements IncomingBody {
  source: Buffer | ServerHttp2Stream
  readonly length: number | undefined
  #trailers = NO_TRAILERS

  /** `announced`: `content-length`, which nghttp2 holds the client to. */
  constructor(stream: ServerHttp2Stream, announced: string | undefined) {
    this.source = stream
    this.length = announced === undefined ? undefined : Number(announced)
    stream.on('trailers', (_fields: object, _flags: number, raw: string[]) => {
      this.#trailers = allowedTrailers(regularFields(raw))
    })
  }

  trailers(): RawHeaders {
    return this.#trailers
  }

  /** Takes it at once where all of it has come. */
  gather(stream: ServerHttp2Stream): void {
    if (stream.state.remoteClose !== 1) return
    this.source = (stream.read() as Buffer | null) ?? Buffer.alloc(0)
    // To its end, which is all that is left of it.
    stream.resume()
  }
}
