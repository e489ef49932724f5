import { WIRE_CODES, WireError } from '../errors.ts'
import type { RawHeaders } from '../lib/headers.ts'
import { MessageError } from '../lib/http1/message.ts'

/** An answer of the proxy's own: status, headers and JSON body (contract "On the wire", RFC 9209). */
export function ownAnswer(
  error: WireError,
  trace: string | undefined,
): { status: number; headers: RawHeaders; body: Buffer } {
  const { status, proxyError } = WIRE_CODES[error.code]
  const body = Buffer.from(
    `${JSON.stringify({ error: { code: error.code, message: error.message, ...(trace && { trace }) } })}\n`,
  )
  const headers = [
    'Content-Type',
    'application/json',
    'Content-Length',
    String(body.length),
    'Cache-Control',
    'no-store',
    'Proxy-Status',
    `cupbearer; error=${proxyError}; details="${error.code}"`,
  ]
  if (trace) headers.push('Cupbearer-Trace', trace)
  if (status === 407) headers.push('Proxy-Authenticate', 'Basic realm="cupbearer", charset="UTF-8"')
  if (status === 405) headers.push('Allow', 'GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS')
  if (error.retryAfterMs !== undefined) {
    headers.push('Retry-After', String(Math.max(1, Math.ceil(error.retryAfterMs / 1000))))
  }
  return { status, headers, body }
}

/** The same as bytes, for a CONNECT or a connection on which no request could be read; always the last answer on it. */
export function ownAnswerBytes(error: WireError, trace?: string): Buffer {
  const { status, headers, body } = ownAnswer(error, trace)
  let head = `HTTP/1.1 ${status} ${REASONS[status] ?? 'Error'}\r\n`
  for (let i = 0; i < headers.length; i += 2) head += `${headers[i]}: ${headers[i + 1]}\r\n`
  return Buffer.concat([Buffer.from(`${head}Connection: close\r\n\r\n`, 'latin1'), body])
}

/** Reason phrases of the answers that are the proxy's own. */
export const REASONS: Record<number, string> = {
  400: 'Bad Request',
  403: 'Forbidden',
  405: 'Method Not Allowed',
  407: 'Proxy Authentication Required',
  417: 'Expectation Failed',
  421: 'Misdirected Request',
  429: 'Too Many Requests',
  431: 'Request Header Fields Too Large',
  500: 'Internal Server Error',
  502: 'Bad Gateway',
  503: 'Service Unavailable',
  504: 'Gateway Timeout',
}

/** What the parser says of a request, as its client may know it. */
export function asWireError(cause: unknown): unknown {
  if (!(cause instanceof MessageError)) return cause
  const message =
    cause.fault === 'too-large' ? 'the request header is too large' : 'the request is malformed'
  return new WireError('BAD_REQUEST', message, { cause })
}
