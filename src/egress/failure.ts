import { SourceError, UpstreamError } from '../errors.ts'
import { type Authority, formatAuthority } from '../lib/authority.ts'
import type { MessageError } from '../lib/http1/message.ts'

/** The egress itself failed: nothing was sent, and no other route may be taken. */
export function egressDown(egress: string, reason: string, cause?: unknown): UpstreamError {
  return new UpstreamError('EGRESS_DOWN', `egress ${egress} is down: ${reason}`, {
    cause,
    sent: false,
  })
}

/** The target could not be reached, though the egress works. */
export function unreachable(target: Authority, cause: unknown): UpstreamError {
  const code = errorCode(cause)
  if (code === 'ETIMEDOUT') return timedOut(target, 'connecting', cause)
  return new UpstreamError('UPSTREAM_UNREACHABLE', `${formatAuthority(target)} ${whyNot(code)}`, {
    cause,
    sent: false,
  })
}

/** The target did not answer within `upstream.connectTimeout`. */
export function timedOut(target: Authority, doing: string, cause?: unknown): UpstreamError {
  return new UpstreamError('UPSTREAM_TIMEOUT', `${doing} to ${formatAuthority(target)} timed out`, {
    cause,
    sent: false,
  })
}

/** The address must not be dialled: an own listener, or refused by policy. */
export function denied(target: Authority): UpstreamError {
  return new UpstreamError('DESTINATION_DENIED', `${formatAuthority(target)} must not be reached`, {
    sent: false,
  })
}

/** TLS with the target failed; no byte of the request was written. */
export function tlsFailed(target: Authority, cause: unknown): UpstreamError {
  return new UpstreamError(
    'UPSTREAM_TLS',
    `TLS with ${formatAuthority(target)} failed: ${tlsReason(errorCode(cause))}`,
    { cause, sent: false },
  )
}

/** The connection ended, or what came over it was no HTTP, before the response was whole. */
export function broken(message: string, cause?: unknown, sent = true): UpstreamError {
  return new UpstreamError('UPSTREAM_RESET', message, { cause, sent })
}

/** The peer has not looked at the request (RFC 9113 §8.7): it may go out again. */
export function refusedUnread(cause?: unknown): UpstreamError {
  const message = 'upstream took no more requests on this connection'
  return new UpstreamError('UPSTREAM_RESET', message, { cause, sent: false })
}

/** What came is no response as RFC 9112 has it. */
export function notHttp(error: MessageError): UpstreamError {
  const what = error.fault === 'too-large' ? 'sent too many header bytes' : 'did not speak HTTP'
  return broken(`upstream ${what}`, error)
}

/** The response did not come, or did not go on, within `upstream.headersTimeout` or `upstream.bodyTimeout`. */
export function silent(within: 'head' | 'body'): UpstreamError {
  const what = within === 'head' ? 'sent no response in time' : 'stalled within its response'
  return new UpstreamError('UPSTREAM_TIMEOUT', `upstream ${what}`, { sent: true })
}

/** Fields that would break their line, or a body of another length than the announced one. */
export function unsendable(sent: boolean, cause?: unknown): UpstreamError {
  return new UpstreamError('BAD_REQUEST', 'the request cannot be sent as it stands', {
    cause,
    sent,
  })
}

/** The connection was given up before anything was sent over it. */
export function shuttingDown(): UpstreamError {
  return new UpstreamError('SHUTTING_DOWN', 'the connection was given up', { sent: false })
}

/** Whether the peer's first bytes were no TLS record at all. */
export function speaksNoTls(error: unknown): boolean {
  const code = errorCode(error)
  return code === 'ERR_SSL_WRONG_VERSION_NUMBER' || code === 'ERR_SSL_PACKET_LENGTH_TOO_LONG'
}

/** Whether the network failed, so that a fresh connection may do: not what a target said, nor its silence. */
export function isNetworkFailure({ code, cause }: UpstreamError): boolean {
  if (code === 'UPSTREAM_TLS')
    return errorCode(cause) === 'ECONNRESET' || errorCode(cause) === 'EPIPE'
  return code === 'UPSTREAM_RESET' || code === 'UPSTREAM_UNREACHABLE'
}

/** What went wrong in TLS, in words that hold nothing of the peer's. */
export function tlsReason(code: string): string {
  switch (code) {
    case 'CERT_HAS_EXPIRED':
      return 'its certificate has expired'
    case 'CERT_NOT_YET_VALID':
      return 'its certificate is not valid yet'
    case 'ERR_TLS_CERT_ALTNAME_INVALID':
      return 'its certificate is for another name'
    case 'ERR_TLS_KEY_NOT_PINNED':
      return 'its key is none of those pinned'
    case 'DEPTH_ZERO_SELF_SIGNED_CERT':
    case 'SELF_SIGNED_CERT_IN_CHAIN':
    case 'UNABLE_TO_GET_ISSUER_CERT':
    case 'UNABLE_TO_GET_ISSUER_CERT_LOCALLY':
    case 'UNABLE_TO_VERIFY_LEAF_SIGNATURE':
      return 'its certificate is not trusted'
    default:
      return 'the handshake failed'
  }
}

/** The `code` of a Node or undici error; empty when it has none. */
export function errorCode(error: unknown): string {
  if (typeof error !== 'object' || error === null || !('code' in error)) return ''
  return typeof error.code === 'string' ? error.code : ''
}

/**
 * Maps whatever undici, net, tls or our own connector threw to an `UpstreamError`: its code by phase, its
 * message safe for the client. `sent` tells whether a byte of the request may have left.
 */
export function toUpstreamError(error: unknown, sent: boolean): UpstreamError {
  if (error instanceof UpstreamError) return error
  // fetch wraps what happened: `TypeError: fetch failed`.
  if (error instanceof TypeError && error.cause !== undefined) {
    return toUpstreamError(error.cause, sent)
  }
  const failed = (code: UpstreamError['code'], message: string) =>
    new UpstreamError(code, message, { cause: error, sent })
  const code = errorCode(error)
  switch (code) {
    case 'UND_ERR_CONNECT_TIMEOUT':
    case 'ETIMEDOUT':
      return failed('UPSTREAM_TIMEOUT', 'connecting to upstream timed out')
    case 'UND_ERR_HEADERS_TIMEOUT':
      return failed('UPSTREAM_TIMEOUT', 'upstream sent no response in time')
    case 'UND_ERR_BODY_TIMEOUT':
      return failed('UPSTREAM_TIMEOUT', 'upstream stalled within its response')
    case 'ENOTFOUND':
    case 'EAI_AGAIN':
    case 'ECONNREFUSED':
    case 'EHOSTUNREACH':
    case 'ENETUNREACH':
      return failed('UPSTREAM_UNREACHABLE', `upstream ${whyNot(code)}`)
    case 'UND_ERR_INVALID_ARG':
    case 'UND_ERR_NOT_SUPPORTED':
    case 'UND_ERR_REQ_CONTENT_LENGTH_MISMATCH':
      return failed('BAD_REQUEST', 'the request cannot be sent as it stands')
    case 'UND_ERR_HEADERS_OVERFLOW':
      return failed('UPSTREAM_RESET', 'upstream sent too many header bytes')
    case 'UND_ERR_RES_CONTENT_LENGTH_MISMATCH':
      return failed('UPSTREAM_RESET', 'upstream sent another length than it had announced')
    case 'UND_ERR_SOCKET':
    case 'UND_ERR_INFO':
    case 'UND_ERR_ABORTED':
    case 'UND_ERR_CLOSED':
    case 'UND_ERR_DESTROYED':
    case 'ECONNRESET':
    case 'ECONNABORTED':
    case 'EPIPE':
      return failed('UPSTREAM_RESET', 'upstream closed the connection')
  }
  if (code.startsWith('HPE_')) return failed('UPSTREAM_RESET', 'upstream did not speak HTTP')
  // TLS 1.3: a refused client certificate is only heard of after the handshake (RFC 8446 §4.4.2).
  if (code.startsWith('ERR_SSL_') || code.startsWith('ERR_TLS_')) {
    return failed('UPSTREAM_TLS', `TLS with upstream failed: ${tlsReason(code)}`)
  }
  return failed('INTERNAL', 'the request to upstream failed')
}

/** What a source sees of a failed fetch: its own abort as it was, else by whose fault it failed. */
export function toFetchError(error: unknown, signal: AbortSignal | null | undefined): unknown {
  if (signal?.aborted || error instanceof SourceError) return error
  const failure = toUpstreamError(error, true)
  if (failure.code !== 'EGRESS_DOWN') return failure
  return new SourceError('egress', failure.message, { cause: failure })
}

function whyNot(code: string): string {
  switch (code) {
    case 'ENOTFOUND':
      return 'has no address'
    case 'EAI_AGAIN':
      return 'could not be resolved'
    case 'ECONNREFUSED':
      return 'refused the connection'
    default:
      return 'cannot be reached'
  }
}
