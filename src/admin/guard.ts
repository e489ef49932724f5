import { createHash, timingSafeEqual } from 'node:crypto'
import type { IncomingHttpHeaders, IncomingMessage } from 'node:http'
import type { Socket } from 'node:net'
import { WireError } from '../errors.ts'
import { normalizeHost, parseAuthority } from '../lib/authority.ts'
import type { Secret } from '../lib/secret.ts'
import type { AuthThrottle } from '../lib/throttle.ts'
import type { AdminBackend, IdentifiedClient } from './backend.ts'
import { AdminError } from './problem.ts'
import type { Handed, Sessions } from './sessions.ts'

/** Sent with every answer; the dashboard loads nothing but its own files and runs nothing inline. */
export const SECURITY_HEADERS = {
  'content-security-policy':
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; " +
    "frame-ancestors 'none'; base-uri 'none'; form-action 'self'",
  'x-content-type-options': 'nosniff',
  'referrer-policy': 'no-referrer',
  'cache-control': 'no-store',
} as const

/** Whether a listener on this host can be reached from this machine only. */
export function isLoopback(host: string): boolean {
  const name = normalizeHost(host) ?? host
  return name === 'localhost' || name === '::1' || /^(::ffff:)?127\./.test(name)
}

/**
 * Refuses a `Host` that isn't the listener's own. A page of a stranger's whose name was rebound to this address
 * comes with the stranger's name here, and that is all that tells it from the operator.
 */
export function checkHost(
  request: IncomingMessage,
  listenHost: string,
  hosts: readonly string[],
): void {
  const { localAddress, localPort } = request.socket
  const asked = parseAuthority(request.headers.host ?? '', 80)
  const own = [listenHost, localAddress?.replace(/^::ffff:/, ''), 'localhost']
  const isOwn = own.some(
    (host) =>
      asked?.port === localPort && host !== undefined && normalizeHost(host) === asked?.host,
  )
  const isNamed = hosts.some((text) => {
    const named = parseAuthority(text, localPort as number)
    return named?.host === asked?.host && named?.port === asked?.port
  })
  if (!asked || (!isOwn && !isNamed)) {
    throw new AdminError('AUTHORITY_MISMATCH', 'Host is not this listener')
  }
}

/** Refuses a state change that a page of another origin asks for; programs send neither header. */
export function checkOrigin(headers: IncomingHttpHeaders): void {
  const site = headers['sec-fetch-site']
  const foreignSite = site !== undefined && site !== 'same-origin' && site !== 'none'
  const foreignOrigin = headers.origin !== undefined && headers.origin !== `http://${headers.host}`
  if (foreignSite || foreignOrigin) {
    throw new AdminError('ORIGIN_DENIED', 'state changes are refused to other origins')
  }
}

/**
 * Checks `Authorization: Bearer …` (RFC 6750 §2.1), in constant time and behind the throttle: the admin token, or a
 * session of the dashboard. A session is no cookie: those go to every port of a host, to anybody's server there.
 */
export class TokenGuard {
  readonly #digest: Buffer
  readonly #throttle: AuthThrottle
  readonly #sessions: Sessions

  constructor(token: Secret, throttle: AuthThrottle, sessions: Sessions) {
    this.#digest = digest(token.reveal())
    this.#throttle = throttle
    this.#sessions = sessions
  }

  /** `tokenOnly` takes no session: a page must not be able to get at tokens. */
  check(authorization: string | undefined, socket: Socket, tokenOnly = false): void {
    if (authorization === undefined) {
      throw new AdminError('UNAUTHENTICATED', 'the admin token is required')
    }
    this.#try(socket, 'the admin token is wrong', () => {
      const presented = /^Bearer +(\S+) *$/i.exec(authorization)?.[1] ?? ''
      if (timingSafeEqual(digest(presented), this.#digest)) return true
      const session = tokenOnly ? 'unknown' : this.#sessions.check(presented)
      if (session === 'ended') throw new AdminError('UNAUTHENTICATED', 'the session has ended')
      return session === 'valid' || undefined
    })
  }

  /** Changes the code of a link for a session. */
  redeem(code: string, socket: Socket): Handed {
    return this.#try(socket, 'the link was used already, or has ended', () =>
      this.#sessions.redeem(code),
    )
  }

  #try<T>(socket: Socket, failure: string, attempt: () => T | undefined): T {
    const address = socket.remoteAddress ?? ''
    const retryAfterMs = this.#throttle.check(address)
    if (retryAfterMs !== undefined) {
      throw new AdminError('TOO_MANY_ATTEMPTS', 'too many failed attempts from this address', {
        retryAfterMs,
      })
    }
    const result = attempt()
    if (result !== undefined) {
      this.#throttle.succeeded(address)
      return result
    }
    this.#throttle.failed(address)
    throw new AdminError('UNAUTHENTICATED', failure)
  }
}

/** Who asks for a lease, and the hints that came with its name. */
export type LeaseAsker = Omit<IdentifiedClient, 'lease'>

/** The holder of the admin token, or a client with `lease` by its Basic credentials (RFC 7617). */
export function identifyAsker(
  { headers: { authorization }, socket }: IncomingMessage,
  guard: TokenGuard,
  backend: AdminBackend,
): LeaseAsker {
  const address = socket.remoteAddress ?? ''
  if (authorization === undefined || !/^basic /i.test(authorization)) {
    guard.check(authorization, socket, true)
    return { client: { name: undefined, address, pools: undefined }, hints: {} }
  }
  const { client, hints, lease } = identify(backend, authorization, address)
  if (lease) return { client, hints }
  const message = `client ${client.name} may not ask for leases`
  throw new WireError('DESTINATION_DENIED', message)
}

function identify(backend: AdminBackend, authorization: string, address: string): IdentifiedClient {
  try {
    const identified = backend.identify(authorization, address)
    // The proxy may be open to anybody; leases never are.
    if (identified.client.name !== undefined) return identified
  } catch (error) {
    if (!(error instanceof WireError && error.code === 'CLIENT_UNAUTHENTICATED')) throw error
  }
  throw new AdminError('UNAUTHENTICATED', 'the client’s credentials are wrong')
}

/** Equal lengths for the comparison, whatever was presented. */
function digest(text: string): Buffer {
  return createHash('sha256').update(text).digest()
}
