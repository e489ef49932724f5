import { type ClientHttp2Stream, constants } from 'node:http2'
import { Readable } from 'node:stream'
import type { UpstreamError } from '../errors.ts'
import type { RawHeaders } from '../lib/headers.ts'
import { allowedTrailers } from '../lib/http1/fields.ts'
import { broken, errorCode, refusedUnread, silent, toUpstreamError } from './failure.ts'
import { Http2Body } from './http2-body.ts'
import { addFields, FieldBlock, regularFields, resetStream } from './http2-fields.ts'
import type { ConnectionOptions, ResponseHandler, Sending, UpstreamRequest } from './upstream.ts'

const NO_TRAILERS: RawHeaders = []
/** Nobody takes interim responses as fast as a flood of them comes: they have no body that could be held back. */
const MAX_INTERIM_BYTES = 256 * 1024

/** A stream with what listens to it: one set of listeners serves all streams. */
const SENDING = Symbol('sending')
type Stream = ClientHttp2Stream & { [SENDING]: Http2Sending }
type Fields = { ':status'?: number }

/** One request on a stream of an HTTP/2 session, and its response. */
export class Http2Sending implements Sending {
  readonly #handler: ResponseHandler
  readonly #timeouts: Pick<ConnectionOptions, 'headersTimeout' | 'bodyTimeout'>
  readonly #hold: (sending: Http2Sending) => void
  readonly #writtenBefore: number
  #stream: ClientHttp2Stream | undefined
  #body: Http2Body | undefined
  #headSeen = false
  /** Bytes of interim responses. */
  #interim = 0
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

  /**
   * `hold`: has `release` called once all has been looked at that came by the same read. `writtenBefore`: bytes that
   * the connection had written when this came.
   */
  constructor(
    handler: ResponseHandler,
    timeouts: Pick<ConnectionOptions, 'headersTimeout' | 'bodyTimeout'>,
    hold: (sending: Http2Sending) => void,
    writtenBefore: number,
  ) {
    this.#handler = handler
    this.#writtenBefore = writtenBefore
    this.#timeouts = timeouts
    this.#hold = hold
  }

  start(
    stream: ClientHttp2Stream,
    body: UpstreamRequest['body'],
    trailers: UpstreamRequest['trailers'],
  ): void {
    this.#stream = stream
    Object.assign(stream, { [SENDING]: this, push })
    stream
      .on('headers', LISTENERS.headers)
      .on('response', LISTENERS.response)
      .on('trailers', LISTENERS.trailers)
      .on('data', LISTENERS.data)
      .on('end', LISTENERS.end)
      .on('error', LISTENERS.error)
      .on('close', LISTENERS.close)
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

  /** Where the connection has written no byte since it came: it may go out by another. */
  recallUnlessSent(written: number): void {
    const stream = this.#stream
    if (!stream || this.#over || written !== this.#writtenBefore) return
    // At once, for which nghttp2 drops a head that it has not sent.
    stream.close(constants.NGHTTP2_CANCEL)
    this.fail(refusedUnread())
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

  // What its stream tells.

  interim({ ':status': status = 0 }: Fields, raw: string[]): void {
    this.#stirred = true
    if (this.#over || this.#headSeen) return
    for (const part of raw) this.#interim += part.length
    if (this.#interim > MAX_INTERIM_BYTES) {
      this.#give(broken('upstream sent too many interim responses'))
      return
    }
    if (status === constants.HTTP_STATUS_CONTINUE) return
    this.#handler.informational(status, '', regularFields(raw))
  }

  response({ ':status': status = 0 }: Fields, raw: string[]): void {
    if (this.#over || this.#headSeen) return
    this.#stirred = true
    this.#headSeen = true
    this.#head = { status, headers: regularFields(raw) }
    this.#hold(this)
  }

  data(chunk: Buffer): void {
    if (this.#over) return
    this.#stirred = true
    if (this.#head) this.#held.push(chunk)
    else this.#pass(chunk)
  }

  trailers(raw: string[]): void {
    this.#trailers = allowedTrailers(regularFields(raw))
  }

  peerEnded(): void {
    this.#whole = true
  }

  end(): void {
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

  broken(error: Error): void {
    if (!this.#whole) this.fail(failureOf(this.#stream as ClientHttp2Stream, error))
  }

  closed(): void {
    if (this.#over) return
    const stream = this.#stream as ClientHttp2Stream
    if (!this.#whole || !this.#headSeen) {
      this.fail(failureOf(stream, undefined))
      return
    }
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

const LISTENERS = {
  headers(this: Stream, fields: Fields, _flags: number, raw: string[]) {
    this[SENDING].interim(fields, raw)
  },
  response(this: Stream, fields: Fields, _flags: number, raw: string[]) {
    this[SENDING].response(fields, raw)
  },
  trailers(this: Stream, _fields: Fields, _flags: number, raw: string[]) {
    this[SENDING].trailers(raw)
  },
  data(this: Stream, chunk: Buffer) {
    this[SENDING].data(chunk)
  },
  end(this: Stream) {
    this[SENDING].end()
  },
  error(this: Stream, error: Error) {
    this[SENDING].broken(error)
  },
  close(this: Stream) {
    this[SENDING].closed()
  },
}

/** In place of the stream's own: null where the peer has ended it, and again where it has closed for whatever reason. */
function push(this: Stream, chunk: Buffer | null): boolean {
  if (chunk === null && !this.closed) this[SENDING].peerEnded()
  return Readable.prototype.push.call(this, chunk)
}

function sendTrailers(stream: ClientHttp2Stream, trailers: RawHeaders): void {
  const block = new FieldBlock()
  try {
    addFields(block, trailers)
    stream.sendTrailers(block)
  } catch {
    resetStream(stream, constants.NGHTTP2_CANCEL)
  }
}

/** Says that the peer has not served the request (RFC 9113 §7 and §8.7). */
const UNSERVED: readonly number[] = [
  constants.NGHTTP2_REFUSED_STREAM,
  constants.NGHTTP2_HTTP_1_1_REQUIRED,
]

/** Why a stream broke off. One that the peer has not served may go out again. */
function failureOf(stream: ClientHttp2Stream, error: Error | undefined): UpstreamError {
  if (UNSERVED.includes(stream.rstCode)) return refusedUnread(error)
  if (error && !errorCode(error).startsWith('ERR_HTTP2_')) return toUpstreamError(error, true)
  return broken('upstream broke the response off', error)
}
