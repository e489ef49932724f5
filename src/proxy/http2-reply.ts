import { constants, type ServerHttp2Stream } from 'node:http2'
import type { Duplex } from 'node:stream'
import { UpstreamError, type WireError } from '../errors.ts'
import type { ProxyReply } from '../exchange/request.ts'
import { headerValue, type RawHeaders, withoutHeader } from '../lib/headers.ts'
import { addFields, FieldBlock, resetStream } from '../lib/http2.ts'
import { ownAnswer } from './reply.ts'

/** Joins both sides as a byte pipe; resolves with the bytes of each way when neither side is open. */
export type JoinStreams = (client: Duplex, upstream: Duplex) => Promise<{ in: number; out: number }>

/** The proxy adds no field of its own. */
const OPEN = { sendDate: false, waitForTrailers: true }
const WITH_BODY = { sendDate: false, endStream: false }
const HEAD_ONLY = { sendDate: false, endStream: true }

/** Writes an answer to an HTTP/2 client. A short one, known whole, is one HEADERS and one DATA frame. */
export class Http2Reply implements ProxyReply {
  /** Whether the answer has ended, as far as it is ours to end it. */
  ended = false
  /** Whether the client takes nothing, though there is something for it. */
  stalled = false
  /** Grows with everything that the client has taken. */
  progress = 0
  readonly #stream: ServerHttp2Stream
  readonly #join: JoinStreams
  #accept: string | undefined
  #block: FieldBlock | undefined
  #trailers: RawHeaders = []
  #resume: (() => void) | undefined

  constructor(stream: ServerHttp2Stream, join: JoinStreams) {
    this.#stream = stream
    this.#join = join
  }

  /** What upstream must answer to the key of a WebSocket handshake. */
  expectAccept(accept: string): void {
    this.#accept = accept
  }

  /** The request's body is wanted now. */
  continue(): void {
    this.informational(constants.HTTP_STATUS_CONTINUE, '', [])
  }

  informational(status: number, _reason: string, headers: RawHeaders): void {
    const stream = this.#stream
    if (stream.closed || stream.destroyed || stream.headersSent) return
    if (status < 100 || status > 199 || status === 101) return
    stream.additionalHeaders(blockOf(status, headers))
  }

  head(status: number, _reason: string, headers: RawHeaders): void {
    // node:http2 can say no other.
    if (status > 599) this.#refuse(`HTTP/2 has no status ${status}`, headers)
    else this.#block = blockOf(status, headers)
  }

  flush(): void {
    const stream = this.#stream
    const block = this.#block
    if (!block) return
    this.#block = undefined
    if (stream.closed || stream.destroyed) return
    stream.on('wantTrailers', () => this.#sendTrailers())
    stream.respond(block, OPEN)
  }

  write(chunk: Buffer): boolean {
    this.flush()
    const stream = this.#stream
    // The answer to HEAD, 204 and 304 has ended with its head.
    if (stream.closed || stream.writableEnded) return true
    this.progress += 1
    if (stream.write(chunk)) return true
    this.stalled = true
    return false
  }

  onDrain(resume: () => void): void {
    if (!this.#resume) {
      this.#stream.on('drain', () => {
        this.stalled = false
        this.progress += 1
        this.#resume?.()
      })
    }
    this.#resume = resume
  }

  end(lastChunk: Buffer | undefined, trailers: RawHeaders): void {
    const stream = this.#stream
    this.ended = true
    // As long as the stream is open there is something that the client has not taken.
    this.stalled = true
    if (stream.closed || stream.destroyed) return
    const block = this.#block
    if (block && trailers.length === 0) {
      this.#block = undefined
      stream.respond(block, lastChunk ? WITH_BODY : HEAD_ONLY)
      if (lastChunk && !stream.writableEnded) stream.end(lastChunk)
      this.#forgetRequest()
      return
    }
    this.#trailers = trailers
    this.flush()
    if (!stream.writableEnded) stream.end(lastChunk)
  }

  abort(_error: UpstreamError): void {
    this.cut(constants.NGHTTP2_INTERNAL_ERROR)
  }

  /** Nothing more goes out, and the client sees that the answer is not whole. */
  cut(code: number): void {
    this.ended = true
    this.stalled = false
    resetStream(this.#stream, code)
  }

  async upgrade(
    _status: number,
    _reason: string,
    headers: RawHeaders,
    upstream: Duplex,
  ): Promise<{ in: number; out: number }> {
    const stream = this.#stream
    const accepted = headerValue(headers, 'sec-websocket-accept') === this.#accept
    if (!accepted || stream.closed || stream.destroyed) {
      upstream.destroy()
      this.#refuse('upstream did not accept the WebSocket handshake', headers)
      return { in: 0, out: 0 }
    }
    this.ended = true
    // RFC 8441 §5: the answer to the key is HTTP/1's own.
    stream.respond(blockOf(200, withoutHeader(headers, 'sec-websocket-accept')), WITH_BODY)
    return this.#join(stream, upstream)
  }

  fail(error: WireError, trace: string): void {
    const stream = this.#stream
    this.ended = true
    this.stalled = true
    if (stream.closed || stream.destroyed) return
    if (stream.headersSent) {
      resetStream(stream, constants.NGHTTP2_INTERNAL_ERROR)
      return
    }
    const { status, headers, body } = ownAnswer(error, trace)
    stream.respond(blockOf(status, headers), WITH_BODY)
    if (!stream.writableEnded) stream.end(body)
    this.#forgetRequest()
  }

  /** What upstream said cannot be passed on. */
  #refuse(message: string, headers: RawHeaders): void {
    const trace = headerValue(headers, 'cupbearer-trace') ?? ''
    this.fail(new UpstreamError('UPSTREAM_RESET', message, { sent: true }), trace)
  }

  #sendTrailers(): void {
    const block = new FieldBlock()
    addFields(block, this.#trailers)
    this.#stream.sendTrailers(block)
    this.#forgetRequest()
  }

  /** RFC 9113 §8.1: after the whole answer, the rest of the request may stay where it is. */
  #forgetRequest(): void {
    const stream = this.#stream
    if (stream.endAfterHeaders || stream.readableEnded || stream.state.remoteClose === 1) return
    resetStream(stream, constants.NGHTTP2_NO_ERROR)
  }
}

function blockOf(status: number, headers: RawHeaders): FieldBlock {
  const block = new FieldBlock()
  block[':status'] = status
  addFields(block, headers)
  return block
}
