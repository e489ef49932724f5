/**
 * The error family. Match `code`, never text. Messages are safe to show to a client: they name hosts,
 * pools and paths, never a secret; what a library said goes into `cause` and is never sent.
 */

/** Answers of the proxy's own: code → HTTP status, RFC 9209 §2.3 error type. */
export const WIRE_CODES = {
  CLIENT_UNAUTHENTICATED: { status: 407, proxyError: 'http_request_denied' },
  DESTINATION_DENIED: { status: 403, proxyError: 'destination_ip_prohibited' },
  AUTHORITY_MISMATCH: { status: 421, proxyError: 'http_request_error' },
  BAD_REQUEST: { status: 400, proxyError: 'http_request_error' },
  EXPECTATION_FAILED: { status: 417, proxyError: 'http_request_error' },
  POOL_EXHAUSTED: { status: 503, proxyError: 'connection_limit_reached' },
  QUEUE_FULL: { status: 503, proxyError: 'connection_limit_reached' },
  NO_TOKEN_WITH_SCOPE: { status: 403, proxyError: 'http_request_denied' },
  EGRESS_DOWN: { status: 502, proxyError: 'destination_unavailable' },
  UPSTREAM_UNREACHABLE: { status: 502, proxyError: 'destination_unavailable' },
  UPSTREAM_TLS: { status: 502, proxyError: 'tls_certificate_error' },
  UPSTREAM_RESET: { status: 502, proxyError: 'connection_terminated' },
  UPSTREAM_TIMEOUT: { status: 504, proxyError: 'connection_timeout' },
  METHOD_REFUSED: { status: 405, proxyError: 'http_request_denied' },
  TOO_MANY_ATTEMPTS: { status: 429, proxyError: 'http_request_denied' },
  SHUTTING_DOWN: { status: 503, proxyError: 'proxy_internal_response' },
  INTERNAL: { status: 500, proxyError: 'proxy_internal_error' },
} as const satisfies Record<string, { status: number; proxyError: string }>

export type WireCode = keyof typeof WIRE_CODES

/** Failures at start, in the store or of one credential's source: they end a command or rest a credential. */
export const OPERATOR_CODES = [
  'CONFIG_INVALID',
  'STORE_CORRUPT',
  'STORE_KEY_WRONG',
  'STORE_IN_USE',
  'STORE_FAILED',
  'CA_INVALID',
  'LISTEN_FAILED',
  'WORKER_FAILED',
  'SOURCE_FAILED',
  'SOURCE_REVOKED',
] as const

export type OperatorCode = (typeof OPERATOR_CODES)[number]

/** Base of every error that Cupbearer throws on purpose. */
export class CupbearerError extends Error {
  readonly code: WireCode | OperatorCode

  constructor(code: WireCode | OperatorCode, message: string, options?: { cause?: unknown }) {
    super(message, options)
    this.name = 'CupbearerError'
    this.code = code
  }
}

export interface WireErrorOptions {
  readonly cause?: unknown
  readonly retryAfterMs?: number | undefined
  readonly passedOver?:
    | { readonly skipped: { credential: string; why: string }[]; readonly more: number }
    | undefined
}

/** An error that a client sees as an answer of the proxy's own. */
export class WireError extends CupbearerError {
  declare readonly code: WireCode
  /** How long a client should wait before it tries again, in ms; sent as `Retry-After`. */
  readonly retryAfterMs: number | undefined
  /** Who could not be had, where no token could; for the trace alone. */
  readonly passedOver: WireErrorOptions['passedOver']

  constructor(code: WireCode, message: string, options?: WireErrorOptions) {
    super(code, message, options)
    this.name = 'WireError'
    this.retryAfterMs = options?.retryAfterMs
    this.passedOver = options?.passedOver
  }

  get status(): number {
    return WIRE_CODES[this.code].status
  }
}

/** The error itself when it is one of ours, else INTERNAL: what a library said is never shown to a client. */
export function toWireError(error: unknown): WireError {
  if (error instanceof WireError) return error
  return new WireError('INTERNAL', 'an internal error', { cause: error })
}

/**
 * A failure on the way to, or at, an upstream.
 * `sent` tells whether a byte of the request may have left: only an unsent one may be tried again freely.
 */
export class UpstreamError extends WireError {
  readonly sent: boolean

  constructor(code: WireCode, message: string, options: { cause?: unknown; sent: boolean }) {
    super(code, message, options)
    this.name = 'UpstreamError'
    this.sent = options.sent
  }
}

/**
 * A source could not give a token.
 * - `revoked`: the authorization server said `invalid_grant` (RFC 6749 §5.2); terminal until a new login.
 * - `transient`: time-out, 5xx, 429, garbage, network; worth another try after a back-off.
 * - `egress`: the pinned egress is down; nothing was said to the authorization server.
 */
export class SourceError extends CupbearerError {
  readonly kind: 'revoked' | 'transient' | 'egress'
  /** What the endpoint asked for by `Retry-After`, in ms. */
  readonly retryAfterMs: number | undefined

  constructor(
    kind: SourceError['kind'],
    message: string,
    options?: { cause?: unknown; retryAfterMs?: number },
  ) {
    super(kind === 'revoked' ? 'SOURCE_REVOKED' : 'SOURCE_FAILED', message, options)
    this.name = 'SourceError'
    this.kind = kind
    this.retryAfterMs = options?.retryAfterMs
  }
}

/** One thing wrong in the configuration: where, and what was expected; never a value that may be secret. */
export interface ConfigIssue {
  readonly path: string
  readonly message: string
}

/** Every issue of a config file at once. */
export class ConfigError extends CupbearerError {
  readonly issues: readonly ConfigIssue[]

  constructor(issues: readonly ConfigIssue[], file?: string) {
    super(
      'CONFIG_INVALID',
      `${file ? `${file}: ` : ''}${issues.length} problem${issues.length === 1 ? '' : 's'} in the configuration\n${issues
        .map((issue) => `  ${issue.path || '(file)'}: ${issue.message}`)
        .join('\n')}`,
    )
    this.name = 'ConfigError'
    this.issues = issues
  }
}
