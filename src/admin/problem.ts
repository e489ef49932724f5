import { CupbearerError, WIRE_CODES, WireError } from '../errors.ts'

/** Answers that only the admin API gives: code → HTTP status. */
export const ADMIN_CODES = {
  BAD_REQUEST: 400,
  UNAUTHENTICATED: 401,
  ORIGIN_DENIED: 403,
  NOT_FOUND: 404,
  METHOD_NOT_ALLOWED: 405,
  LEASE_OVER: 409,
  BODY_TOO_LARGE: 413,
  AUTHORITY_MISMATCH: 421,
  TOO_MANY_ATTEMPTS: 429,
  INTERNAL: 500,
  TOO_MANY_STREAMS: 503,
} as const satisfies Record<string, number>

export type AdminCode = keyof typeof ADMIN_CODES

/** A refusal of the admin API's own; its message is safe to send. */
export class AdminError extends Error {
  readonly code: AdminCode
  readonly retryAfterMs: number | undefined

  constructor(code: AdminCode, message: string, options?: { retryAfterMs?: number }) {
    super(message)
    this.name = 'AdminError'
    this.code = code
    this.retryAfterMs = options?.retryAfterMs
  }
}

/** An error as it is answered. */
export interface Problem {
  readonly status: number
  readonly code: string
  readonly message: string
  readonly retryAfterMs: number | undefined
}

/** What to answer for anything thrown: only errors made to be shown keep their text. */
export function toProblem(error: unknown): Problem {
  if (error instanceof AdminError) {
    const { code, message, retryAfterMs } = error
    return { status: ADMIN_CODES[code], code, message, retryAfterMs }
  }
  if (error instanceof CupbearerError) {
    const { code, message } = error
    const retryAfterMs = error instanceof WireError ? error.retryAfterMs : undefined
    return { status: statusOf(code), code, message, retryAfterMs }
  }
  // What the framework throws while it reads a request carries the status it means.
  const status = error instanceof Error && 'statusCode' in error ? error.statusCode : undefined
  if (status === 413) return problem('BODY_TOO_LARGE', 'the body is too large')
  if (typeof status === 'number' && status >= 400 && status < 500) {
    return problem('BAD_REQUEST', 'the request cannot be read')
  }
  return problem('INTERNAL', 'an internal error; the log has more')
}

function problem(code: AdminCode, message: string): Problem {
  return { status: ADMIN_CODES[code], code, message, retryAfterMs: undefined }
}

function statusOf(code: CupbearerError['code']): number {
  if (code in WIRE_CODES) return WIRE_CODES[code as keyof typeof WIRE_CODES].status
  return code === 'SOURCE_FAILED' || code === 'SOURCE_REVOKED' ? 502 : 500
}

/** A problem as JSON shows it. */
export function problemBody({ code, message }: Pick<Problem, 'code' | 'message'>) {
  return { error: { code, message } }
}
