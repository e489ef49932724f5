import type { Socket } from 'node:net'
import { WireError } from '../errors.ts'
import { type Authority, DEFAULT_PORT, parseAuthority, type Scheme } from '../lib/authority.ts'
import type { Destination, OwnFields } from './http1.ts'

/** A decrypted or plain connection inside a CONNECT: its destination is settled. */
export interface Inside extends Destination {
  readonly socket: Socket
  /** Another name stood in SNI: nothing may be sent. */
  readonly misdirected: boolean
  /** The spelling of `Host` that was found to agree last: a client hardly ever changes it. */
  agreed: string | undefined
}

/** CONNECT authority, SNI, `Host` and an absolute form's authority must name the same (RFC 9110 §7.4). */
export function checkInside<To extends Inside>(inside: To, url: string, fields: OwnFields): To {
  if (inside.misdirected) {
    throw new WireError(
      'AUTHORITY_MISMATCH',
      'the TLS server name is not the host of the CONNECT request',
    )
  }
  const { host, port } = inside.authority
  if (fields.hosts !== 1 || fields.host !== inside.agreed) {
    agreeHost(fields, host, port, port)
    inside.agreed = fields.host
  }
  if (url.charCodeAt(0) !== 0x2f && url !== '*') {
    const match = /^(https?):\/\/([^/?#]*)/i.exec(url)
    if (!match) throw new WireError('BAD_REQUEST', 'the request target is malformed')
    const scheme = (match[1] as string).toLowerCase() as Scheme
    const authority = parseAuthority(match[2] as string, DEFAULT_PORT[scheme])
    if (scheme !== inside.scheme || authority?.host !== host || authority.port !== port) {
      throw new WireError(
        'AUTHORITY_MISMATCH',
        'the request target is not the host of the CONNECT request',
      )
    }
  }
  return inside
}

/** What a request in absolute form outside any tunnel asks for (RFC 9112 §3.2.2). */
export function absoluteTarget(
  url: string,
  fields: OwnFields,
): { scheme: Scheme; authority: Authority } {
  const match = /^(https?):\/\/([^/?#]*)/i.exec(url)
  if (!match) {
    throw new WireError(
      'BAD_REQUEST',
      'this is a proxy: it takes CONNECT and absolute-form requests',
    )
  }
  const scheme = (match[1] as string).toLowerCase() as Scheme
  const authority = parseAuthority(match[2] as string, DEFAULT_PORT[scheme])
  if (!authority) throw new WireError('BAD_REQUEST', 'the request target names no host')
  agreeHost(fields, authority.host, authority.port, DEFAULT_PORT[scheme])
  return { scheme, authority }
}

function agreeHost(fields: OwnFields, host: string, port: number, defaultPort: number): void {
  if (fields.hosts > 1) throw new WireError('BAD_REQUEST', 'more than one Host field')
  if (fields.host === undefined) return
  const named = parseAuthority(fields.host, defaultPort)
  if (!named) throw new WireError('BAD_REQUEST', 'the Host field is malformed')
  if (named.host !== host || named.port !== port) {
    throw new WireError('AUTHORITY_MISMATCH', 'the Host field is not the host that is dialled')
  }
}

/** The origin form of a request target, verbatim; a fragment never goes on the wire. */
export function pathOf(url: string): string {
  if (url.charCodeAt(0) === 0x2f || url === '*') return url
  const rest = url.replace(/^[a-z]+:\/\/[^/?#]*/i, '')
  return rest.startsWith('/') ? rest : `/${rest}`
}
