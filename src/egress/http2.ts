import { type ClientHttp2Session, type ClientHttp2Stream, connect, constants } from 'node:http2'
import type { Socket } from 'node:net'
import type { UpstreamError } from '../errors.ts'
import { headerValue } from '../lib/headers.ts'
import { broken, refusedUnread, unsendable } from './failure.ts'
import { addFields, FieldBlock } from './http2-fields.ts'
import { Http2Sending } from './http2-stream.ts'
import type {
  ConnectionObserver,
  ConnectionOptions,
  ResponseHandler,
  Sending,
  UpstreamConnection,
  UpstreamRequest,
} from './upstream.ts'

/** Streams of one session; more of them open another. Each may hold a window of bytes that nobody reads. */
const MAX_STREAMS = 128
/** Taken for the peer's limit until it has said one: no peer should allow less (RFC 9113 §6.5.2). */
const PRESUMED_STREAMS = 100
const STREAM_WINDOW = 512 * 1024
const SESSION_WINDOW = 8 * 1024 * 1024
const MAX_HEADER_BYTES = 64 * 1024
const MAX_FIELDS = 500
/** A session may stand idle for that long: a peer that closes it says which requests it has not seen. */
const IDLE_LIMIT_MS = 60_000
/**
 * A silent peer that streams wait for is asked once whether it is still there. Only once until it says more:
 * gRPC servers close a connection that pings them without need.
 */
const PING_AFTER_MS = 30_000
const PONG_WITHIN_MS = 10_000

/** An HTTP/2 session with an origin, over a connected socket that has agreed on it by ALPN. */
export class Http2Connection implements UpstreamConnection {
  readonly protocol = 'h2'
  readonly idleLimit = IDLE_LIMIT_MS
  readonly #socket: Socket
  readonly #options: ConnectionOptions
  readonly #observer: ConnectionObserver
  readonly #session: ClientHttp2Session
  readonly #streams = new Set<Http2Sending>()
  /** Responses whose heads have come by the read that is being looked at. */
  #begun: Http2Sending[] = []
  #limit = PRESUMED_STREAMS
  #served = false
  #retired = false
  #closed = false
  #bytesRead = 0
  #quietSince: number | undefined
  #ping: 'none' | 'sent' | 'answered' = 'none'
  /** What had been written at the last check, where frames were waiting to be written. */
  #stuckAt: number | undefined

  constructor(socket: Socket, options: ConnectionOptions) {
    this.#socket = socket
    this.#options = options
    this.#observer = options.observer
    const session = connect('https://upstream', {
      createConnection: () => socket,
      maxHeaderListPairs: MAX_FIELDS,
      settings: {
        enablePush: false,
        initialWindowSize: STREAM_WINDOW,
        maxHeaderListSize: MAX_HEADER_BYTES,
      },
    })
    this.#session = session
    session.setLocalWindowSize(SESSION_WINDOW)
    session.on('remoteSettings', ({ maxConcurrentStreams }) => {
      const before = this.#limit
      this.#limit = Math.min(MAX_STREAMS, maxConcurrentStreams ?? MAX_STREAMS)
      if (this.#limit > before) this.#tellFree()
    })
    session.on('goaway', (code: number) => {
      this.#look(code)
      this.#retire()
    })
    // Its streams are told as well, each of them by an event of its own.
    session.on('error', () => this.#retire())
    session.on('close', () => {
      this.#retire()
      this.#close()
    })
  }

  get room(): number {
    const { closed, destroyed } = this.#session
    if (this.#retired || closed || destroyed || this.#socket.destroyed) return 0
    return Math.max(0, this.#limit - this.#streams.size)
  }

  get running(): number {
    return this.#streams.size
  }

  send(request: UpstreamRequest, handler: ResponseHandler): Sending {
    const sending = new Http2Sending(handler, this.#options, this.#hold, this.#socket.bytesWritten)
    const trailers = trailersOf(request)
    let stream: ClientHttp2Stream
    try {
      stream = this.#session.request(requestBlock(request), {
        endStream: request.body === null,
        waitForTrailers: trailers !== undefined,
      })
    } catch (error) {
      sending.fail(error instanceof TypeError ? unsendable(false, error) : refusedUnread(error))
      this.#tellFree()
      return sending
    }
    this.#streams.add(sending)
    handler.sent({ timings: this.#options.timings, reused: this.#served, protocol: 'h2' })
    this.#served = true
    stream.once('close', () => {
      this.#streams.delete(sending)
      this.#look(stream.rstCode)
      if (this.#retired) this.#endIfIdle()
      else this.#tellFree()
    })
    sending.start(stream, request.body, trailers)
    return sending
  }

  check(now: number): void {
    for (const sending of this.#streams) sending.check(now)
    this.#lookForDeath()
    this.#lookForSilence(now)
  }

  drain(): void {
    this.#retire()
    this.#endIfIdle()
  }

  destroy(error?: UpstreamError): void {
    for (const sending of this.#streams) sending.abort(error)
    this.#retire()
    this.#session.destroy()
    this.#socket.destroy()
  }

  readonly #hold = (sending: Http2Sending): void => {
    if (this.#begun.length === 0) setImmediate(this.#release)
    this.#begun.push(sending)
  }

  readonly #release = (): void => {
    const begun = this.#begun
    this.#begun = []
    for (const sending of begun) sending.release()
  }

  /**
   * After a connection error nghttp2 says GOAWAY, and neither reads nor writes any more; node:http2 tells nobody. That
   * shows when frames wait and nothing leaves from one check to the next. It might also be a peer that reads nothing:
   * so what has left is not given up, but the rest, and what is to come, go another way.
   */
  #lookForDeath(): void {
    const { bytesWritten } = this.#socket
    if (this.#streams.size === 0 || !this.#session.state.outboundQueueSize) {
      this.#stuckAt = undefined
    } else if (this.#stuckAt !== bytesWritten) {
      this.#stuckAt = bytesWritten
    } else {
      this.#retire()
      for (const sending of this.#streams) sending.recallUnlessSent(bytesWritten)
    }
  }

  /** Whether the peer is still there, where all that runs waits for it. */
  #lookForSilence(now: number): void {
    const { bytesRead } = this.#socket
    const since = this.#quietSince
    if (since === undefined || bytesRead !== this.#bytesRead || this.#streams.size === 0) {
      this.#bytesRead = bytesRead
      this.#quietSince = now
      this.#ping = 'none'
      return
    }
    const quiet = now - since
    if (this.#ping === 'none' && quiet > PING_AFTER_MS) {
      this.#ping = 'sent'
      this.#session.ping((error) => {
        if (error) return
        this.#ping = 'answered'
        this.#bytesRead = this.#socket.bytesRead
      })
    } else if (this.#ping === 'sent' && quiet > PING_AFTER_MS + PONG_WITHIN_MS) {
      this.destroy(broken('upstream is gone without a word'))
    }
  }

  /** Whether the peer has ended something because it is HTTP/2. */
  #look(code: number): void {
    if (code !== constants.NGHTTP2_HTTP_1_1_REQUIRED) return
    this.#observer.http1Required()
    this.drain()
  }

  #tellFree(): void {
    if (this.room > 0) this.#observer.free(this)
  }

  #retire(): void {
    if (this.#retired) return
    this.#retired = true
    this.#observer.retired(this)
  }

  #endIfIdle(): void {
    if (this.#streams.size > 0 || this.#socket.destroyed) return
    const socket = this.#socket
    // The session ends its side when its GOAWAY is out, and would then wait for the peer without a bound.
    if (socket.writableFinished) socket.destroy()
    else socket.once('finish', () => socket.destroy())
    // Not from within a callback of nghttp2, which goes on with the session when it returns.
    setImmediate(() => this.#session.destroy())
  }

  #close(): void {
    if (this.#closed) return
    this.#closed = true
    this.#observer.closed(this)
  }
}

/** Asks of a whole body at once: most have none, and waiting to be asked for them costs a frame. */
function trailersOf({ body, trailers }: UpstreamRequest): UpstreamRequest['trailers'] {
  if (!Buffer.isBuffer(body) || !trailers) return body === null ? undefined : trailers
  const fields = trailers()
  return fields.length === 0 ? undefined : () => fields
}

function requestBlock({ origin, method, path, headers }: UpstreamRequest): FieldBlock {
  const block = new FieldBlock()
  block[':method'] = method
  block[':scheme'] = origin.startsWith('https:') ? 'https' : 'http'
  block[':authority'] = headerValue(headers, 'host') ?? origin.slice(origin.indexOf('//') + 2)
  block[':path'] = path
  if (/[^\x21-\x7e\x80-\xff]/.test(path)) throw new TypeError('a path would break its field')
  addFields(block, headers, 'host')
  return block
}
