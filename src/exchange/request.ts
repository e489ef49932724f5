import type { Duplex, Readable } from 'node:stream'
import type { BodySink } from '../egress/attempt.ts'
import type { WireError } from '../errors.ts'
import type { Protocol } from '../events.ts'
import type { Authority, Scheme } from '../lib/authority.ts'
import type { RawHeaders } from '../lib/headers.ts'
import type { LeaseRequest } from '../pool/lease.ts'
import type { Route } from '../route/match.ts'

/** Who sends; `pools` limits what the client may use. */
export interface Client {
  readonly name: string | undefined
  readonly address: string
  readonly pools: ReadonlySet<string> | undefined
}

/** A request's body as it comes. */
export interface IncomingBody {
  /** Whole where it came together with the head; else its stream, read only as fast as it is taken. */
  readonly source: Buffer | Readable
  /** As announced; undefined for a body that ends where it ends. */
  readonly length: number | undefined
  /** Trailer fields; there once the body has ended. */
  trailers(): RawHeaders
}

/** One request, whatever protocol brought it. */
export interface ProxyRequest {
  readonly client: Client
  /** What the client speaks; HTTP/1.1 where it isn't said. */
  readonly protocol?: Protocol | undefined
  readonly method: string
  readonly scheme: Scheme
  /** As dialled. */
  readonly authority: Authority
  /** `scheme://host:port` of the authority. */
  readonly origin: string
  /** `Host` as it goes upstream. */
  readonly host: string
  /** Origin form, query included. */
  readonly path: string
  readonly headers: RawHeaders
  /** What is mapped at this authority; undefined for none. */
  readonly route: Route | undefined
  readonly hints: Pick<LeaseRequest, 'session' | 'credential' | 'scopes'>
  readonly body: IncomingBody | undefined
  /** The protocol that the connection is to change to: `websocket` or none. Such a request has no body. */
  readonly upgrade: string | undefined
  /** Whether the client has gone. */
  readonly closed: boolean
  /** Aborts when the client goes; made on first use. */
  readonly signal: AbortSignal
  /** What is aborted when the client goes. */
  underway: { abort(): void } | undefined
}

/** The way back to the client. */
export interface ProxyReply extends BodySink {
  informational(status: number, reason: string, headers: RawHeaders): void
  head(status: number, reason: string, headers: RawHeaders): void
  /**
   * Answers a request's `upgrade` with this 101 (200 on HTTP/2) and joins both sides as a byte pipe, idle
   * time-out and drain included. Resolves, never rejects, with the bytes of each way when neither side is open.
   */
  upgrade(
    status: number,
    reason: string,
    headers: RawHeaders,
    upstream: Duplex,
  ): Promise<{ in: number; out: number }>
  /** An answer of the proxy's own, or a cut when an answer has begun. */
  fail(error: WireError, trace: string): void
}
