import type { Readable } from 'node:stream'
import type { BodySink } from '../egress/attempt.ts'
import type { WireError } from '../errors.ts'
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

/** One request, whatever protocol brought it. */
export interface ProxyRequest {
  readonly client: Client
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
  readonly body: { readonly stream: Readable; readonly length: number | undefined } | undefined
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
  /** An answer of the proxy's own, or a cut when an answer has begun. */
  fail(error: WireError, trace: string): void
}
