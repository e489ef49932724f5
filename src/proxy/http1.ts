import { type IncomingMessage, type ServerResponse, STATUS_CODES } from 'node:http'
import type { UpstreamError, WireError } from '../errors.ts'
import type { Client, ProxyReply, ProxyRequest } from '../exchange/request.ts'
import type { Authority, Scheme } from '../lib/authority.ts'
import type { RawHeaders } from '../lib/headers.ts'
import type { Route } from '../route/match.ts'
import type { Hints } from './client-auth.ts'
import { sendOwnAnswer } from './reply.ts'

/** Bodies up to this size are written together with their headers. */
const ONE_WRITE = 8 * 1024

/** Where a request goes: of a tunnel once per connection, of an absolute-form request each time. */
export interface Destination {
  readonly client: Client
  readonly hints: Hints
  readonly scheme: Scheme
  readonly authority: Authority
  readonly origin: string
  readonly host: string
  readonly route: Route | undefined
}

/** The fields of a request that the proxy itself reads, found in one pass. */
export interface OwnFields {
  hosts: number
  host: string | undefined
  length: string | undefined
  chunked: boolean
  proxyAuthorization: string | undefined
  hints: Hints | undefined
}

export function readOwnFields(headers: readonly string[]): OwnFields {
  const fields: OwnFields = {
    hosts: 0,
    host: undefined,
    length: undefined,
    chunked: false,
    proxyAuthorization: undefined,
    hints: undefined,
  }
  for (let i = 0; i < headers.length; i += 2) {
    const name = headers[i] as string
    const value = headers[i + 1] as string
    switch (name.length) {
      case 4:
        if (name.toLowerCase() !== 'host') break
        fields.hosts += 1
        fields.host = value
        break
      case 14:
        if (name.toLowerCase() === 'content-length') fields.length = value
        break
      case 15:
        if (name.toLowerCase() === 'cupbearer-scope') {
          fields.hints = { ...fields.hints, scopes: value.split(/[\s,]+/).filter(Boolean) }
        }
        break
      case 17:
        if (name.toLowerCase() === 'transfer-encoding') fields.chunked = true
        else if (name.toLowerCase() === 'cupbearer-session')
          fields.hints = { ...fields.hints, session: value }
        break
      case 19:
        if (name.toLowerCase() === 'proxy-authorization') fields.proxyAuthorization = value
        break
      case 20:
        if (name.toLowerCase() === 'cupbearer-credential')
          fields.hints = { ...fields.hints, credential: value }
        break
    }
  }
  return fields
}

/** An HTTP/1 request as the exchange sees it, with its way back. */
export class Http1Request implements ProxyRequest {
  readonly client: Client
  readonly method: string
  readonly scheme: Scheme
  readonly authority: Authority
  readonly origin: string
  readonly host: string
  readonly path: string
  readonly headers: RawHeaders
  readonly route: Route | undefined
  readonly hints: Hints
  readonly body: ProxyRequest['body']
  closed = false
  underway: ProxyRequest['underway']
  #controller: AbortController | undefined

  constructor(message: IncomingMessage, to: Destination, path: string, fields: OwnFields) {
    this.client = to.client
    this.method = message.method as string
    this.scheme = to.scheme
    this.authority = to.authority
    this.origin = to.origin
    this.host = to.host
    this.path = path
    this.headers = message.rawHeaders
    this.route = to.route
    this.hints = fields.hints ? { ...to.hints, ...fields.hints } : to.hints
    const length = fields.length === undefined ? undefined : Number(fields.length)
    this.body =
      fields.chunked || (length !== undefined && length > 0)
        ? { stream: message, length: fields.chunked ? undefined : length }
        : undefined
  }

  /** The client has gone before it had its answer. */
  leave(): void {
    this.closed = true
    this.#controller?.abort()
    this.underway?.abort()
  }

  get signal(): AbortSignal {
    this.#controller ??= new AbortController()
    if (this.closed) this.#controller.abort()
    return this.#controller.signal
  }
}

/** Writes an answer to an HTTP/1 client; the framing of this leg is Node's own. */
export class Http1Reply implements ProxyReply {
  readonly #response: ServerResponse
  readonly #silence: number
  #resume: (() => void) | undefined

  /** `silence`: how long the client may take nothing, ms. */
  constructor(response: ServerResponse, silence: number) {
    this.#response = response
    this.#silence = silence
    response.sendDate = false
  }

  informational(status: number, reason: string, headers: RawHeaders): void {
    const response = this.#response
    // Only the response whose turn it is has a socket; an interim one is not worth waiting for.
    if (response.headersSent || !response.socket?.writable || response.req.httpVersionMinor === 0)
      return
    let text = `HTTP/1.1 ${status} ${reason}\r\n`
    for (let i = 0; i < headers.length; i += 2) text += `${headers[i]}: ${headers[i + 1]}\r\n`
    response.socket.write(`${text}\r\n`, 'latin1')
  }

  head(status: number, reason: string, headers: RawHeaders): void {
    const usual = reason === STATUS_CODES[status] || !/[^\t\x20-\x7e\x80-\xff]/.test(reason)
    this.#response.writeHead(status, usual ? reason : '', headers)
  }

  flush(): void {
    this.#response.flushHeaders()
  }

  write(chunk: Buffer): boolean {
    if (this.#response.write(chunk)) return true
    if (this.#resume) this.#response.once('drain', this.#resume)
    this.#response.socket?.setTimeout(this.#silence)
    return false
  }

  onDrain(resume: () => void): void {
    this.#resume = resume
  }

  end(lastChunk: Buffer | undefined, trailers: RawHeaders): void {
    if (trailers.length > 0) {
      const pairs: [string, string][] = []
      for (let i = 0; i < trailers.length; i += 2)
        pairs.push([trailers[i] as string, trailers[i + 1] as string])
      this.#response.addTrailers(pairs)
    }
    if (!lastChunk) this.#response.end()
    // Headers and a short body as one string are one TLS record and one write, not a vector of two.
    else if (lastChunk.length <= ONE_WRITE && trailers.length === 0) {
      this.#response.end(lastChunk.toString('latin1'), 'latin1')
    } else this.#response.end(lastChunk)
  }

  abort(_error: UpstreamError): void {
    this.#response.destroy()
  }

  fail(error: WireError, trace: string): void {
    if (this.#response.headersSent) this.#response.destroy()
    else sendOwnAnswer(this.#response, error, trace)
  }
}
