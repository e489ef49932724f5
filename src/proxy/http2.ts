import type { Duplex } from 'node:stream'
import type { TLSSocket } from 'node:tls'
import type { ServerConfig } from '../config/schema.ts'
import type { WireError } from '../errors.ts'
import type { Exchange } from '../exchange/exchange.ts'
import type { Clock } from '../lib/clock.ts'
import type { RawHeaders } from '../lib/headers.ts'
import { ERROR } from '../lib/http2/protocol.ts'
import { ServerSession, type SessionHandler } from '../lib/http2/server-session.ts'
import type { ServerStream, StreamConsumer } from '../lib/http2/server-stream.ts'
import type { Inside } from './authority-check.ts'
import type { Connections, Served } from './connections.ts'
import { Http2Body } from './http2-body.ts'
import { Http2Inflow } from './http2-inflow.ts'
import { Http2Pipe } from './http2-pipe.ts'
import { Http2Reply, type JoinStreams } from './http2-reply.ts'
import { addWebSocketKey, type Http2Head, Http2Request, readHead } from './http2-request.ts'

const MAX_STREAMS = 256
/** A request body may run that far ahead of who reads it. */
const STREAM_WINDOW = 256 * 1024
const SESSION_WINDOW = 4 * 1024 * 1024
const MAX_FIELDS = 500
/** Within that time after its end a client takes the last bytes and closes. */
const LINGER_MS = 2000
/** Frames that cost the sender next to nothing: resets, pings, settings, and the like. Who says more is sent away. */
const CALM = { burst: 1000, perSecond: 30 }
/** A client that requests wait for, and that is silent for so long, is sent a frame: TCP finds out whether it is there. */
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
    const session = new Http2Connection(socket, inside, this.#options)
    socket.once('close', () => connections.left(session))
    connections.serve(session)
  }
}

class Http2Connection implements Served, SessionHandler {
  readonly #socket: TLSSocket
  readonly #inside: Inside
  readonly #options: Http2FrontOptions
  readonly #session: ServerSession
  readonly #exchanges = new Set<Http2Exchange>()
  #arriving: Http2Exchange[] = []
  #calm = CALM.burst
  #checkedAt: number
  /** Whether a request has come or gone since the last check. */
  #busy = false
  /** Since when no request is under way, and since when the head of one is. */
  #idleSince: number
  #headSince: number | undefined
  #count = 0
  #endedAt: number | undefined
  #bytesRead = 0
  #heardAt: number
  #pinged = false
  /** What the client had taken, and when that changed. */
  #bytesWritten = 0
  #takenAt: number

  constructor(socket: TLSSocket, inside: Inside, options: Http2FrontOptions) {
    this.#socket = socket
    this.#inside = inside
    this.#options = options
    const now = options.clock.monotonic()
    this.#checkedAt = now
    this.#idleSince = now
    this.#heardAt = now
    this.#takenAt = now
    this.#session = new ServerSession(
      socket,
      {
        maxStreams: MAX_STREAMS,
        maxHeaderSize: options.server.maxHeaderSize,
        maxFields: MAX_FIELDS,
        streamWindow: STREAM_WINDOW,
        sessionWindow: SESSION_WINDOW,
      },
      this,
    )
  }

  drain(): void {
    this.#session.drain()
  }

  /** Enforces the time-outs; called every now and then. */
  check(now: number): void {
    const passed = now - this.#checkedAt
    this.#checkedAt = now
    this.#calm = Math.min(CALM.burst, this.#calm + (passed * CALM.perSecond) / 1000)
    if (this.#session.ended) {
      this.#endedAt ??= now
      if (now - this.#endedAt > LINGER_MS) this.#socket.destroy()
      return
    }
    const { silence } = this.#options
    for (const each of this.#exchanges) each.check(now, silence)
    this.#lookForStall(now)
    this.#lookForSilence(now)
    this.#lookForIdleness(now)
  }

  /** A client that takes nothing of what it has been sent. */
  #lookForStall(now: number): void {
    const { bytesWritten } = this.#socket
    if (bytesWritten !== this.#bytesWritten || !this.#session.busy) {
      this.#bytesWritten = bytesWritten
      this.#takenAt = now
    } else if (now - this.#takenAt >= this.#options.silence) this.#socket.destroy()
  }

  /** Whether a PING is answered matters not: a client may be busy. */
  #lookForSilence(now: number): void {
    const { bytesRead } = this.#socket
    if (bytesRead !== this.#bytesRead || this.#exchanges.size === 0) {
      this.#bytesRead = bytesRead
      this.#heardAt = now
      this.#pinged = false
    } else if (!this.#pinged && now - this.#heardAt >= PING_AFTER_MS) {
      this.#pinged = true
      this.#session.ping()
    }
  }

  #lookForIdleness(now: number): void {
    const { headersTimeout, idleTimeout } = this.#options.server
    if (this.#busy || this.#exchanges.size > 0) this.#idleSince = now
    else this.#session.rest()
    this.#busy = false
    const { amidHead, count } = this.#session
    if (!amidHead || count !== this.#count) this.#headSince = undefined
    if (amidHead) this.#headSince ??= now
    this.#count = count
    const idle = now - this.#idleSince
    if (!this.#session.greeted && idle >= headersTimeout) this.#socket.destroy()
    else if (now - (this.#headSince ?? now) >= headersTimeout) this.#socket.destroy()
    // What refused requests were answered is all that is left, and the client does not take it.
    else if (idle >= idleTimeout + this.#options.silence) this.#socket.destroy()
    else if (idle >= idleTimeout) this.#session.drain()
  }

  request(stream: ServerStream): void {
    this.#busy = true
    const reply = new Http2Reply(stream, this.#options.join)
    let head: Http2Head
    try {
      head = readHead(stream.request, this.#inside)
    } catch (error) {
      const { method = '', path = '' } = stream.request
      const refused = this.#options.refuse(this.#inside, method, this.#inside.origin + path, error)
      reply.fail(refused.error, refused.trace)
      return
    }
    const request = new Http2Request(head, this.#inside)
    const exchange = new Http2Exchange(stream, request, reply, head.expects, (ended) => {
      this.#exchanges.delete(ended)
      this.#busy = true
    })
    if (request.upgrade !== undefined) {
      reply.expectUpgrade(addWebSocketKey(request.headers), () => exchange.becomePipe())
    }
    exchange.movedAt = this.#checkedAt
    stream.consumer = exchange
    this.#exchanges.add(exchange)
    if (stream.remoteEnded || request.upgrade !== undefined) {
      void this.#options.exchange.handle(request, reply)
      return
    }
    request.body = exchange.body
    if (this.#arriving.length === 0) setImmediate(this.#arrived)
    this.#arriving.push(exchange)
  }

  /** Requests whose bodies may have come by the same read as their heads. */
  readonly #arrived = (): void => {
    const arriving = this.#arriving
    this.#arriving = []
    for (const { request, reply, stream } of arriving) {
      if (!stream.closed) void this.#options.exchange.handle(request, reply)
    }
  }

  spent(): void {
    this.#calm -= 1
    if (this.#calm < 0) this.#session.fail(ERROR.enhanceYourCalm)
  }
}

/** One request under way. */
class Http2Exchange implements StreamConsumer {
  readonly stream: ServerStream
  readonly request: Http2Request
  readonly reply: Http2Reply
  readonly body: Http2Body
  /** When something came or went last, as far as the checks have seen. */
  movedAt = 0
  #moved = 0
  /** Whether the client waits for a 100 before it sends its body (RFC 9110 §10.1.1). */
  #awaitsContinue: boolean
  readonly #left: (exchange: Http2Exchange) => void
  readonly #inflow: Http2Inflow
  #pipe: Http2Pipe | undefined

  constructor(
    stream: ServerStream,
    request: Http2Request,
    reply: Http2Reply,
    expects: boolean,
    left: (exchange: Http2Exchange) => void,
  ) {
    this.stream = stream
    this.request = request
    this.reply = reply
    this.#awaitsContinue = expects
    this.#left = left
    this.#inflow = new Http2Inflow(stream)
    this.body = new Http2Body(this.#inflow, stream.request.contentLength, () => this.#continue())
  }

  #continue(): void {
    if (this.#awaitsContinue) this.reply.continue()
    this.#awaitsContinue = false
  }

  /** A client that could send or take something, and does neither, holds a token or memory for nothing. */
  check(now: number, silence: number): void {
    const { moved, blocked } = this.stream
    const sends = this.request.body?.awaited === true
    if (moved !== this.#moved || (!blocked && !sends)) {
      this.#moved = moved
      this.movedAt = now
    } else if (now - this.movedAt >= silence) {
      this.reply.cut(ERROR.cancel)
      this.request.leave()
    }
  }

  /** Both sides go on as a byte pipe. */
  becomePipe(): Duplex {
    this.#pipe = new Http2Pipe(this.stream, this.#inflow)
    if (this.stream.remoteEnded) this.#pipe.ended()
    return this.#pipe
  }

  arrived(chunk: Buffer): void {
    this.#awaitsContinue = false
    this.#inflow.arrived(chunk)
  }

  ended(trailers: RawHeaders): void {
    if (this.#pipe) this.#pipe.ended()
    else this.body.ended(trailers)
  }

  drained(): void {
    if (this.#pipe) this.#pipe.drained()
    else this.reply.drained()
  }

  aborted(): void {
    // Without an error the body would seem to have ended here.
    const error = new Error('the client left')
    this.#pipe?.destroy(error)
    this.body.destroy(error)
    if (!this.reply.ended) this.request.leave()
  }

  closed(): void {
    this.#left(this)
    if (!this.reply.ended) this.request.leave()
    this.body.destroy()
  }
}
