import type { Duplex, Readable } from 'node:stream'
import type { UpstreamError } from '../errors.ts'
import type { Protocol } from '../events.ts'
import type { RawHeaders } from '../lib/headers.ts'
import type { ConnectTimings } from './connector.ts'

/** One request as it leaves: end-to-end fields only, in their order and case, `Host` among them. */
export interface UpstreamRequest {
  /** `scheme://host:port`. */
  readonly origin: string
  readonly method: string
  /** Origin form, query included. */
  readonly path: string
  /**
   * A `content-length` frames the body and must be its length; without one it goes out chunked (or, whole and
   * without `trailers`, with the length that it has).
   */
  readonly headers: RawHeaders
  readonly body: Buffer | Readable | null
  /** Fields to send after the body; asked once, when the body has ended. */
  readonly trailers?: (() => RawHeaders) | undefined
  /** Token of `Upgrade`, `websocket` say: only HTTP/1.1 will do for it, and `body` is null. */
  readonly upgrade?: string | undefined
}

/** By which connection a request leaves. */
export interface SentInfo {
  readonly timings: ConnectTimings | undefined
  /** Whether the connection has carried a request before. */
  readonly reused: boolean
  readonly protocol: Protocol
}

/**
 * Hears what becomes of one request. `sent` and `failed` may be called before `send` has returned, nothing else
 * is. After `end`, `upgraded` or `failed` there comes nothing more.
 */
export interface ResponseHandler {
  /** The first byte of the request is handed to a socket now: from here on it counts as sent. */
  sent(info: SentInfo): void
  /** An interim response (RFC 9110 §15.2); 100 is swallowed. */
  informational(status: number, reason: string, headers: RawHeaders): void
  head(status: number, reason: string, headers: RawHeaders): void
  /** A piece of the body; false asks for a pause until `Sending.resume`, though some more may come before. */
  data(chunk: Buffer): boolean
  end(trailers: RawHeaders): void
  /** 101: the connection is the caller's now, with what has come already put back into it; it is paused. */
  upgraded(status: number, reason: string, headers: RawHeaders, stream: Duplex): void
  failed(error: UpstreamError): void
}

/** A request on its way. */
export interface Sending {
  /** Gives it up: `failed` follows, unless it has ended. */
  abort(error?: Error): void
  /** Lets the body flow on after `data` has answered false. */
  resume(): void
}

/** Takes requests for any origin by connections of its own key: see `Egresses.dispatcher`. */
export interface Dispatcher {
  dispatch(request: UpstreamRequest, handler: ResponseHandler): Sending
}

/** What a connection tells the pool that it belongs to. */
export interface ConnectionObserver {
  /** A request (h2: a stream) has ended and the connection can take another. */
  free(connection: UpstreamConnection): void
  /** It takes no more requests: said once, at the latest when the socket has closed. */
  retired(connection: UpstreamConnection): void
  /** Its socket has closed or is no longer its own: said once, last. */
  closed(connection: UpstreamConnection): void
  /** The peer wants to be asked over HTTP/1.1 (RFC 9113 §7, HTTP_1_1_REQUIRED). */
  http1Required(): void
}

export interface ConnectionOptions {
  readonly timings: ConnectTimings | undefined
  /** ms without a sign of the response after the request went out. */
  readonly headersTimeout: number
  /** ms of silence within a response's body that somebody is reading. */
  readonly bodyTimeout: number
  readonly observer: ConnectionObserver
}

/** One connection to an origin: HTTP/1.1 with one request at a time, or an HTTP/2 session with many. */
export interface UpstreamConnection {
  readonly protocol: 'http/1.1' | 'h2'
  /** How many more requests it can take now; 0 once it is retired, or seen to be closing. */
  readonly room: number
  /** How many requests are under way. */
  readonly running: number
  /** ms that it may stand idle before it is better closed; the peer may have said. */
  readonly idleLimit: number
  /** Sends a request; only where there is `room`. */
  send(request: UpstreamRequest, handler: ResponseHandler): Sending
  /** Called every now and then with the monotonic time in ms: enforces the time-outs. */
  check(now: number): void
  /** Takes no more requests, serves what has begun, then closes. */
  drain(): void
  /** Closes at once; requests under way fail with `error`, by default `UPSTREAM_RESET`. */
  destroy(error?: UpstreamError): void
}
