import { WireError } from '../errors.ts'
import type { Client, IncomingBody, ProxyRequest } from '../exchange/request.ts'
import type { Authority, Scheme } from '../lib/authority.ts'
import type { RequestHead } from '../lib/http1/message.ts'
import type { Route } from '../route/match.ts'
import type { Hints } from './client-auth.ts'
import { ClientRequest } from './client-request.ts'

/** Where a request goes: of a tunnel once per connection, of an absolute-form request each time. */
export interface Destination {
  readonly client: Client
  readonly hints: Hints
  readonly scheme: Scheme
  readonly authority: Authority
  readonly origin: string
  readonly host: string
  readonly route: Route | undefined
}

/** The fields of a request that the proxy itself reads, found in one pass. */
export interface OwnFields {
  hosts: number
  host: string | undefined
  length: string | undefined
  chunked: boolean
  proxyAuthorization: string | undefined
  hints: Hints | undefined
}

export function readOwnFields(headers: readonly string[]): OwnFields {
  const fields: OwnFields = {
    hosts: 0,
    host: undefined,
    length: undefined,
    chunked: false,
    proxyAuthorization: undefined,
    hints: undefined,
  }
  for (let i = 0; i < headers.length; i += 2) {
    const name = headers[i] as string
    const value = headers[i + 1] as string
    switch (name.length) {
      case 4:
        if (name.toLowerCase() !== 'host') break
        fields.hosts += 1
        fields.host = value
        break
      case 14:
        if (name.toLowerCase() === 'content-length') fields.length = value
        break
      case 15:
        if (name.toLowerCase() === 'cupbearer-scope') {
          fields.hints = { ...fields.hints, scopes: value.split(/[\s,]+/).filter(Boolean) }
        }
        break
      case 17:
        if (name.toLowerCase() === 'transfer-encoding') fields.chunked = true
        else if (name.toLowerCase() === 'cupbearer-session')
          fields.hints = { ...fields.hints, session: value }
        break
      case 19:
        if (name.toLowerCase() === 'proxy-authorization') fields.proxyAuthorization = value
        break
      case 20:
        if (name.toLowerCase() === 'cupbearer-credential')
          fields.hints = { ...fields.hints, credential: value }
        break
    }
  }
  return fields
}

/** Only WebSocket is passed on; other offers go, and the request as what it is without (RFC 9110 §7.8). */
export function upgradeOf(head: RequestHead): string | undefined {
  const { upgrade, method } = head
  if (upgrade === undefined || method !== 'GET') return undefined
  if (!upgrade.split(',').some((token) => token.trim() === 'websocket')) return undefined
  if (head.framing === 'chunked' || head.length > 0) {
    throw new WireError('BAD_REQUEST', 'a request to upgrade has no body')
  }
  return 'websocket'
}

/** An HTTP/1 request as the exchange sees it. */
export class Http1Request extends ClientRequest implements ProxyRequest {
  readonly body: IncomingBody | undefined

  constructor(
    head: RequestHead,
    to: Destination,
    path: string,
    fields: OwnFields,
    body: IncomingBody | undefined,
    upgrade: string | undefined,
  ) {
    super(to, head.method, path, head.headers, fields.hints, upgrade)
    this.body = body
  }
}
