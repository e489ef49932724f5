import { type ClientHttp2Stream, constants } from 'node:http2'
import { Readable } from 'node:stream'
import type { UpstreamError } from '../errors.ts'
import type { RawHeaders } from '../lib/headers.ts'
import { allowedTrailers } from '../lib/http1/fields.ts'
import { addFields, type FieldBlock, regularFields, resetStream } from '../lib/http2.ts'
import { broken, errorCode, refusedUnread, silent, toUpstreamError } from './failure.ts'
import { Http2Body } from './http2-body.ts'
import type { ConnectionOptions, ResponseHandler, Sending, UpstreamRequest } from './upstream.ts'

const NO_TRAILERS: RawHeaders = []

/** One request on a stream of an HTTP/2 session, and its response. */
export class Http2Sending implements Sending {
  readonly #handler: ResponseHandler
  readonly #timeouts: Pick<ConnectionOptions, 'headersTimeout' | 'bodyTimeout'>
  readonly #hold: (sending: Http2Sending) => void
  #stream: ClientHttp2Stream | undefined
  #body: Http2Body | undefined
  #headSeen = false
  #trailers: RawHeaders = NO_TRAILERS
  /** Whether the peer has ended the stream, which a reset without an error looks just like. */
  #whole = false
  #paused = false
  /** A head that has come, told together with what came by the same read. */
  #head: { readonly status: number; readonly headers: RawHeaders } | undefined
  #held: Buffer[] = []
  /** What had come of a whole response when its session went, where nobody could take it yet. */
  #rest: Buffer | undefined
  #over = false
  /** Whether anything happened since the last check, and the time of the check when it did. */
  #stirred = true
  #quietSince = 0

  /** `hold`: has `release` called once all has been looked at that came by the same read. */
  constructor(
    handler: ResponseHandler,
    timeouts: Pick<ConnectionOptions, 'headersTimeout' | 'bodyTimeout'>,
    hold: (sending: Http2Sending) => void,
  ) {
    this.#handler = handler
    this.#timeouts = timeouts
    this.#hold = hold
  }

  start(
    stream: ClientHttp2Stream,
    body: UpstreamRequest['body'],
    trailers: UpstreamRequest['trailers'],
  ): void {
    this.#stream = stream
    const push = stream.push
    stream.push = (chunk) => {
      if (chunk === null && !stream.closed) this.#whole = true
      return push.call(stream, chunk)
    }
    stream
      .on('headers', this.#onInterim)
      .on('response', this.#onResponse)
      .on('trailers', this.#onTrailers)
      .on('data', this.#onData)
      .on('end', this.#onEnd)
      .on('error', this.#onError)
      .on('close', this.#onClose)
    if (body === null) return
    if (trailers) stream.on('wantTrailers', () => sendTrailers(stream, trailers()))
    if (body instanceof Readable) {
      this.#body = new Http2Body(stream, body, {
        progressed: () => {
          this.#stirred = true
        },
        failed: (error) => this.#give(toUpstreamError(error, true)),
      })
      this.#body.start()
    } else stream.end(body)
  }

  abort(error: Error = new Error('aborted')): void {
    this.#give(toUpstreamError(error, true))
  }

  resume(): void {
    if (!this.#paused) return
    this.#paused = false
    if (this.#rest) this.#handOver(this.#rest)
    else this.#stream?.resume()
  }

  check(now: number): void {
    const awaitsClient = this.#paused || this.#body?.awaitsClient === true
    if (this.#stirred || awaitsClient) {
      this.#stirred = false
      this.#quietSince = now
      return
    }
    const within = this.#headSeen ? 'body' : 'head'
    const { headersTimeout, bodyTimeout } = this.#timeouts
    const limit = this.#headSeen ? bodyTimeout : headersTimeout
    if (now - this.#quietSince >= limit) this.#give(silent(within))
  }

  /** Tells the head, and what came with it: a short response is told as a whole. */
  release(): void {
    const head = this.#head
    if (!head || this.#over) return
    this.#head = undefined
    this.#handler.head(head.status, '', head.headers)
    const held = this.#held
    this.#held = []
    for (const chunk of held) this.#pass(chunk)
  }

  /** It failed: nothing more is heard of it. */
  fail(error: UpstreamError): void {
    if (this.#over) return
    this.#over = true
    this.#body?.stop()
    this.#handler.failed(error)
  }

  readonly #onInterim = (
    { ':status': status = 0 }: { ':status'?: number },
    _flags: number,
    raw: string[],
  ) => {
    this.#stirred = true
    if (this.#over || this.#headSeen || status === constants.HTTP_STATUS_CONTINUE) return
    this.#handler.informational(status, '', regularFields(raw))
  }

  readonly #onResponse = (
    { ':status': status = 0 }: { ':status'?: number },
    _flags: number,
    raw: string[],
  ) => {
    if (this.#over || this.#headSeen) return
    this.#stirred = true
    this.#headSeen = true
    this.#head = { status, headers: regularFields(raw) }
    this.#hold(this)
  }

  readonly #onTrailers = (_fields: object, _flags: number, raw: string[]) => {
    this.#trailers = allowedTrailers(regularFields(raw))
  }

  readonly #onData = (chunk: Buffer) => {
    if (this.#over) return
    this.#stirred = true
    if (this.#head) this.#held.push(chunk)
    else this.#pass(chunk)
  }

  readonly #onEnd = () => {
    // Without the peer's END_STREAM the stream was cut short: `close` tells by what.
    if (this.#over || !this.#whole || !this.#headSeen) return
    this.release()
    if (this.#over) return
    this.#over = true
    const stream = this.#stream as ClientHttp2Stream
    // RFC 9113 §8.1: who has answered in full need not hear the rest.
    if (this.#body?.stop() || !stream.writableFinished)
      resetStream(stream, constants.NGHTTP2_CANCEL)
    this.#handler.end(this.#trailers)
  }

  readonly #onError = (error: Error) => {
    if (!this.#whole) this.fail(failureOf(this.#stream as ClientHttp2Stream, error))
  }

  readonly #onClose = () => {
    if (this.#over) return
    const stream = this.#stream as ClientHttp2Stream
    if (!this.#whole || !this.#headSeen) return this.fail(failureOf(stream, undefined))
    // The session went after the whole response had come: what waits in the stream is still good.
    this.release()
    const rest = (stream.read() as Buffer | null) ?? Buffer.alloc(0)
    if (this.#paused) this.#rest = rest
    else this.#handOver(rest)
  }

  #pass(chunk: Buffer): void {
    if (this.#over || this.#handler.data(chunk) || this.#over || this.#paused) return
    this.#paused = true
    this.#stream?.pause()
  }

  #handOver(rest: Buffer): void {
    if (this.#over) return
    this.#over = true
    this.#rest = undefined
    this.#body?.stop()
    if (rest.length > 0) this.#handler.data(rest)
    this.#handler.end(this.#trailers)
  }

  #give(error: UpstreamError): void {
    if (this.#over) return
    if (this.#stream) resetStream(this.#stream, constants.NGHTTP2_CANCEL)
    this.fail(error)
  }
}

function sendTrailers(stream: ClientHttp2Stream, trailers: RawHeaders): void {
  const block: FieldBlock = Object.create(null)
  try {
    addFields(block, trailers)
    stream.sendTrailers(block)
  } catch {
    resetStream(stream, constants.NGHTTP2_CANCEL)
  }
}

/** Why a stream broke off. One that the peer has not looked at may go out again (RFC 9113 §8.7). */
function failureOf(stream: ClientHttp2Stream, error: Error | undefined): UpstreamError {
  if (stream.rstCode === constants.NGHTTP2_REFUSED_STREAM) return refusedUnread(error)
  if (error && !errorCode(error).startsWith('ERR_HTTP2_')) return toUpstreamError(error, true)
  return broken('upstream broke the response off', error)
}
