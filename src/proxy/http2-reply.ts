import type { Duplex } from 'node:stream'
import { UpstreamError, type WireError } from '../errors.ts'
import type { ProxyReply } from '../exchange/request.ts'
import { headerValue, type RawHeaders, withoutHeader } from '../lib/headers.ts'
import { ERROR } from '../lib/http2/protocol.ts'
import { CONNECTION_SPECIFIC } from '../lib/http2/request-fields.ts'
import type { ServerStream } from '../lib/http2/server-stream.ts'
import { ownAnswer } from './reply.ts'

/** Joins both sides as a byte pipe; resolves with the bytes of each way when neither side is open. */
export type JoinStreams = (client: Duplex, upstream: Duplex) => Promise<{ in: number; out: number }>

/** Writes an answer to an HTTP/2 client. */
export class Http2Reply implements ProxyReply {
  /** Whether the answer has ended, as far as it is ours to end it. */
  ended = false
  readonly #stream: ServerStream
  readonly #join: JoinStreams
  readonly #isHead: boolean
  #accept: string | undefined
  #toPipe: (() => Duplex) | undefined
  /** The head, until it goes out together with what follows. */
  #status = 0
  #headers: RawHeaders | undefined
  #bodiless = false
  #resume: (() => void) | undefined

  constructor(stream: ServerStream, join: JoinStreams) {
    this.#stream = stream
    this.#join = join
    this.#isHead = stream.request.method === 'HEAD'
  }

  /** What upstream must answer to the key of a WebSocket handshake, and what the stream becomes then. */
  expectUpgrade(accept: string, toPipe: () => Duplex): void {
    this.#accept = accept
    this.#toPipe = toPipe
  }

  /** The request's body is wanted now. */
  continue(): void {
    this.informational(100, '', [])
  }

  informational(status: number, _reason: string, headers: RawHeaders): void {
    // RFC 9113 §8.6: there is no 101.
    if (status >= 100 && status <= 199 && status !== 101) {
      this.#stream.inform(status, fieldsOf(headers))
    }
  }

  head(status: number, _reason: string, headers: RawHeaders): void {
    this.#status = status
    this.#headers = fieldsOf(headers)
    this.#bodiless = this.#isHead || status === 204 || status === 304
  }

  flush(): void {
    const headers = this.#headers
    if (!headers) return
    this.#headers = undefined
    this.#stream.respond(this.#status, headers)
  }

  write(chunk: Buffer): boolean {
    this.flush()
    return this.#bodiless || this.#stream.write(chunk)
  }

  onDrain(resume: () => void): void {
    this.#resume = resume
  }

  /** The client has taken what it was given. */
  drained(): void {
    this.#resume?.()
  }

  end(lastChunk: Buffer | undefined, trailers: RawHeaders): void {
    this.ended = true
    const headers = this.#headers
    const last = this.#bodiless ? undefined : lastChunk
    if (headers && !last && trailers.length === 0) {
      this.#stream.respond(this.#status, headers, true)
      return
    }
    this.flush()
    this.#stream.end(last, fieldsOf(trailers))
  }

  abort(_error: UpstreamError): void {
    this.cut(ERROR.internalError)
  }

  /** Nothing more goes out, and the client sees that the answer is not whole. */
  cut(code: number): void {
    this.ended = true
    this.#stream.reset(code)
  }

  async upgrade(
    _status: number,
    _reason: string,
    headers: RawHeaders,
    upstream: Duplex,
  ): Promise<{ in: number; out: number }> {
    const stream = this.#stream
    const accepted = headerValue(headers, 'sec-websocket-accept') === this.#accept
    if (!accepted || !this.#toPipe || stream.closed) {
      upstream.destroy()
      this.#refuse('upstream did not accept the WebSocket handshake', headers)
      return { in: 0, out: 0 }
    }
    this.ended = true
    // RFC 8441 §5: the answer to the key is HTTP/1's own.
    stream.respond(200, fieldsOf(withoutHeader(headers, 'sec-websocket-accept')))
    return this.#join(this.#toPipe(), upstream)
  }

  fail(error: WireError, trace: string): void {
    this.ended = true
    const stream = this.#stream
    if (stream.answered) {
      stream.reset(ERROR.internalError)
      return
    }
    const { status, headers, body } = ownAnswer(error, trace)
    stream.respond(status, fieldsOf(headers))
    stream.end(this.#isHead ? undefined : body)
  }

  /** What upstream said cannot be passed on. */
  #refuse(message: string, headers: RawHeaders): void {
    const trace = headerValue(headers, 'cupbearer-trace') ?? ''
    this.fail(new UpstreamError('UPSTREAM_RESET', message, { sent: true }), trace)
  }
}

/** Fields as HTTP/2 has them: names in lower case, nothing of one HTTP/1 connection (RFC 9113 §8.2). */
function fieldsOf(headers: readonly string[]): RawHeaders {
  const fields: RawHeaders = []
  for (let i = 0; i < headers.length; i += 2) {
    const name = (headers[i] as string).toLowerCase()
    const value = headers[i + 1] as string
    if (CONNECTION_SPECIFIC.has(name) || (name === 'te' && value !== 'trailers')) continue
    fields.push(name, value)
  }
  return fields
}
