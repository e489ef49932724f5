import {
  constants,
  performServerHandshake,
  type ServerHttp2Session,
  type ServerHttp2Stream,
} from 'node:http2'
import type { TLSSocket } from 'node:tls'
import type { ServerConfig } from '../config/schema.ts'
import type { WireError } from '../errors.ts'
import type { Exchange } from '../exchange/exchange.ts'
import type { Clock } from '../lib/clock.ts'
import type { Inside } from './authority-check.ts'
import type { Connections, Served } from './connections.ts'
import { Http2Reply, type JoinStreams } from './http2-reply.ts'
import {
  addWebSocketKey,
  Http2Body,
  type Http2Head,
  Http2Request,
  readHead,
} from './http2-request.ts'

const MAX_STREAMS = 256
/** A request body may run that far ahead of who reads it. */
const STREAM_WINDOW = 256 * 1024
const SESSION_WINDOW = 4 * 1024 * 1024
const MAX_FIELDS = 500
/** Within that time after its end a client takes the last bytes and closes. */
const LINGER_MS = 2000
/**
 * Frames that cost the sender next to nothing: resets, pings, settings. Node bounds what waits to be answered, and
 * nghttp2 lets 33 resets a second pass: beyond that it says GOAWAY and stands still, and node:http2 tells nobody. So
 * this bound comes first, and closes.
 */
const CALM = { burst: 1000, perSecond: 30 }
/** A client that requests wait for, and that is silent for so long, is sent a frame that it need not wait for. */
const PING_AFTER_MS = 30_000

export interface Http2FrontOptions {
  readonly server: ServerConfig
  /** How long a client may neither send a body it announced nor take what it asked for, ms. */
  readonly silence: number
  readonly exchange: Exchange
  readonly clock: Clock
  readonly connections: Pick<Connections, 'serve' | 'left'>
  readonly join: JoinStreams
  /** Records a request that is refused before any exchange, and tells what its client may know. */
  refuse(
    inside: Inside,
    method: string,
    url: string,
    error: unknown,
  ): {
    readonly error: WireError
    readonly trace: string
  }
}

/** HTTP/2 from clients, on decrypted connections (RFC 9113). */
export class Http2Front {
  readonly #options: Http2FrontOptions

  constructor(options: Http2FrontOptions) {
    this.#options = options
  }

  /** Serves a connection that has agreed on `h2`; the socket is the session's from here on. */
  serve(socket: TLSSocket, inside: Inside): void {
    const { connections } = this.#options
    // What `tls.Server` would have set: the session would wait for a handshake that is over.
    Object.assign(socket, { secureConnecting: false })
    const session = new Http2Connection(socket, inside, this.#options)
    socket.once('close', () => connections.left(session))
    connections.serve(session)
  }
}

/** One request under way. */
interface Exchanging {
  readonly request: Http2Request
  readonly reply: Http2Reply
  readonly stream: ServerHttp2Stream
  /** What its client has sent and taken, as last seen, and when that changed. */
  seen: number
  movedAt: number
}

class Http2Connection implements Served {
  readonly #socket: TLSSocket
  readonly #inside: Inside
  readonly #options: Http2FrontOptions
  readonly #session: ServerHttp2Session
  readonly #streams = new Set<Exchanging>()
  #arriving: Exchanging[] = []
  /** Whether the client has said that it speaks HTTP/2. */
  #greeted = false
  #calm = CALM.burst
  #overdone = false
  #checkedAt: number
  /** Whether a request has come since the last check. */
  #busy = false
  /** Since when no request is under way. */
  #idleSince: number
  #endedAt: number | undefined
  #bytesRead = 0
  #heardAt: number
  /** What had been written when the client was pinged, and when that was. */
  #pinged: { readonly bytesWritten: number; readonly at: number } | undefined

  constructor(socket: TLSSocket, inside: Inside, options: Http2FrontOptions) {
    this.#socket = socket
    this.#inside = inside
    this.#options = options
    const now = options.clock.monotonic()
    this.#checkedAt = now
    this.#idleSince = now
    this.#heardAt = now
    const session = performServerHandshake(socket, {
      maxHeaderListPairs: MAX_FIELDS,
      settings: {
        maxConcurrentStreams: MAX_STREAMS,
        initialWindowSize: STREAM_WINDOW,
        maxHeaderListSize: options.server.maxHeaderSize,
        enableConnectProtocol: true,
      },
    })
    this.#session = session
    session.setLocalWindowSize(SESSION_WINDOW)
    // The listener lets clients half-close; who ends here has gone, as in HTTP/1.
    socket.once('end', () => socket.destroy())
    session
      .on('stream', (stream: ServerHttp2Stream, _fields: object, flags: number, raw: string[]) =>
        this.#serve(stream, flags, raw),
      )
      .on('error', ignore)
      .on('ping', () => this.#spend())
      .on('remoteSettings', () => {
        this.#greeted = true
        this.#spend()
      })
  }

  /** GOAWAY: what has begun is served, the client knows that the rest is not (RFC 9113 §6.8). */
  drain(): void {
    this.#session.close()
  }

  /** Enforces the time-outs; called every now and then. */
  check(now: number): void {
    const { headersTimeout, idleTimeout } = this.#options.server
    const passed = now - this.#checkedAt
    this.#checkedAt = now
    this.#calm = Math.min(CALM.burst, this.#calm + (passed * CALM.perSecond) / 1000)
    if (this.#session.closed && this.#streams.size === 0) {
      this.#endedAt ??= now
      if (now - this.#endedAt > LINGER_MS) this.#socket.destroy()
      return
    }
    for (const each of this.#streams) this.#lookForStall(each, now)
    this.#lookForDeath(now)
    if (this.#busy || this.#streams.size > 0) this.#idleSince = now
    this.#busy = false
    const idle = now - this.#idleSince
    if (!this.#greeted && idle >= headersTimeout) this.#socket.destroy()
    else if (idle >= idleTimeout) this.#session.close()
  }

  /** A client that could send or take something, and does neither, holds a token or memory for nothing. */
  #lookForStall(each: Exchanging, now: number): void {
    const { request, reply, stream } = each
    const window = request.sending(stream) ? (stream.state.localWindowSize ?? 0) : 0
    const seen = reply.progress * 2 ** 32 + window + stream.writableLength
    if (seen !== each.seen || (!reply.stalled && !request.sending(stream))) {
      each.seen = seen
      each.movedAt = now
    } else if (now - each.movedAt >= this.#options.silence) {
      reply.cut(constants.NGHTTP2_CANCEL)
      request.leave()
    }
  }

  /**
   * After a connection error nghttp2 says GOAWAY, and neither reads nor writes any more; node:http2 tells nobody, and
   * would not notice the client's own end either. Only that a PING does not leave shows it. Whether it is answered
   * matters not: a client may be busy, and one that has gone is found by TCP, which has something to deliver.
   */
  #lookForDeath(now: number): void {
    const { bytesRead, bytesWritten } = this.#socket
    const { silence } = this.#options
    if (bytesRead !== this.#bytesRead || this.#streams.size === 0) {
      this.#bytesRead = bytesRead
      this.#heardAt = now
      this.#pinged = undefined
    } else if (!this.#pinged) {
      if (now - this.#heardAt < Math.min(PING_AFTER_MS, silence) || this.#session.destroyed) return
      this.#pinged = { bytesWritten, at: now }
      this.#session.ping(ignore)
    } else if (bytesWritten === this.#pinged.bytesWritten && now - this.#pinged.at >= silence) {
      this.#socket.destroy()
    }
  }

  #serve(stream: ServerHttp2Stream, flags: number, raw: string[]): void {
    // What a stream suffers shows by its end.
    stream.on('error', ignore)
    this.#busy = true
    const reply = new Http2Reply(stream, this.#options.join)
    let head: Http2Head
    try {
      head = readHead(raw, this.#inside, this.#options.server.maxHeaderSize)
    } catch (error) {
      this.#refuse(reply, raw, error)
      return
    }
    const request = new Http2Request(head, this.#inside)
    if (request.upgrade !== undefined) reply.expectAccept(addWebSocketKey(request.headers))
    const each: Exchanging = { request, reply, stream, seen: 0, movedAt: this.#checkedAt }
    this.#streams.add(each)
    stream.on('aborted', () => {
      // By our own reset, which would not leave any more.
      if (reply.ended) return
      request.leave()
      // Without an error the body would seem to have ended here.
      stream.destroy(new Error('the client left'))
    })
    stream.on('close', () => {
      this.#streams.delete(each)
      if (reply.ended) return
      this.#spend()
      request.leave()
    })
    if ((flags & constants.NGHTTP2_FLAG_END_STREAM) !== 0 || request.upgrade !== undefined) {
      void this.#options.exchange.handle(request, reply)
      return
    }
    request.body = new Http2Body(stream, head.fields.length)
    if (head.expects) onFirstRead(stream, () => reply.continue())
    if (this.#arriving.length === 0) setImmediate(this.#arrived)
    this.#arriving.push(each)
  }

  /** Requests whose bodies may have come by the same read as their heads. */
  readonly #arrived = (): void => {
    const arriving = this.#arriving
    this.#arriving = []
    for (const { request, reply, stream } of arriving) {
      if (stream.closed || stream.destroyed) continue
      request.body?.gather(stream)
      void this.#options.exchange.handle(request, reply)
    }
  }

  #refuse(reply: Http2Reply, raw: readonly string[], error: unknown): void {
    const value = (name: string) => raw[raw.indexOf(name) + 1] ?? ''
    const url = this.#inside.origin + value(':path')
    const refused = this.#options.refuse(this.#inside, value(':method'), url, error)
    reply.fail(refused.error, refused.trace)
  }

  #spend(): void {
    this.#calm -= 1
    if (this.#calm >= 0 || this.#overdone) return
    this.#overdone = true
    // Not from within a callback of nghttp2, which goes on with the session when it returns.
    setImmediate(() => {
      const code = constants.NGHTTP2_ENHANCE_YOUR_CALM
      this.#session.destroy(new Error('too many idle frames'), code)
    })
  }
}

/** Flowing or not, somebody reads it. */
function onFirstRead(stream: ServerHttp2Stream, callback: () => void): void {
  stream.on('newListener', function read(name) {
    if (name !== 'data' && name !== 'readable') return
    stream.off('newListener', read)
    callback()
  })
}

function ignore(): void {}
