import type { Client, ProxyRequest } from '../exchange/request.ts'
import type { Authority, Scheme } from '../lib/authority.ts'
import type { RawHeaders } from '../lib/headers.ts'
import type { Route } from '../route/match.ts'
import type { Hints } from './client-auth.ts'
import type { Destination } from './http1.ts'

/** What requests have in common, whatever protocol brought them. */
export abstract class ClientRequest {
  readonly client: Client
  readonly method: string
  readonly scheme: Scheme
  readonly authority: Authority
  readonly origin: string
  readonly host: string
  readonly path: string
  readonly headers: RawHeaders
  readonly route: Route | undefined
  readonly hints: Hints
  readonly upgrade: string | undefined
  closed = false
  underway: ProxyRequest['underway']
  #controller: AbortController | undefined

  /** `hints` are the request's own; they go before those of its connection. */
  constructor(
    to: Destination,
    method: string,
    path: string,
    headers: RawHeaders,
    hints: Hints | undefined,
    upgrade: string | undefined,
  ) {
    this.client = to.client
    this.method = method
    this.scheme = to.scheme
    this.authority = to.authority
    this.origin = to.origin
    this.host = to.host
    this.path = path
    this.headers = headers
    this.route = to.route
    this.hints = hints ? { ...to.hints, ...hints } : to.hints
    this.upgrade = upgrade
  }

  /** The client has gone before it had its answer. */
  leave(): void {
    if (this.closed) return
    this.closed = true
    this.#controller?.abort()
    this.underway?.abort()
  }

  get signal(): AbortSignal {
    this.#controller ??= new AbortController()
    if (this.closed) this.#controller.abort()
    return this.#controller.signal
  }
}
