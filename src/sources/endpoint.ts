import { CupbearerError, SourceError } from '../errors.ts'
import type { SourceContext } from './source.ts'

/** What an authorization server's endpoint said, read whole. */
export interface Answer {
  readonly status: number
  readonly headers: Headers
  readonly body: string
}

/** No honest answer of a token endpoint or issuer comes near it. */
const MAX_ANSWER_BYTES = 2 ** 20

/**
 * Sends one request that carries credentials by the pinned egress. Redirects are never followed, the answer is
 * bounded while it is read, and every failure is a `SourceError` that names `where` and no text of the peer's.
 */
export async function ask(
  context: SourceContext,
  where: string,
  url: string,
  init: RequestInit,
): Promise<Answer> {
  const { signal, end } = bounded(context)
  try {
    signal.throwIfAborted()
    const response = await context.fetch(url, { ...init, redirect: 'manual', signal })
    // What these say besides the status isn't used, and it may be long or never end.
    if (isRedirect(response.status) || response.status >= 500) {
      response.body?.cancel().catch(() => {})
      return { status: response.status, headers: response.headers, body: '' }
    }
    const body = await readBounded(response, where, signal)
    return { status: response.status, headers: response.headers, body }
  } catch (cause) {
    throw explain(cause, where, signal)
  } finally {
    end()
  }
}

/** The signal of one request: the try's own, and the request's bound where there is one. */
function bounded({ signal, clock, requestTimeoutMs }: SourceContext): {
  signal: AbortSignal
  end: () => void
} {
  if (requestTimeoutMs === undefined) return { signal, end: () => {} }
  const late = new AbortController()
  const end = clock.schedule(requestTimeoutMs, () => late.abort())
  return { signal: AbortSignal.any([signal, late.signal]), end }
}

/** Whether a status is one of 2xx. */
export function isSuccess(status: number): boolean {
  return status >= 200 && status < 300
}

/** The error for an answer that is no success. */
export function refusal(answer: Answer, where: string, context: SourceContext): SourceError {
  if (isRedirect(answer.status)) {
    return new SourceError(
      'transient',
      `${where} answered with a redirect (${answer.status}), which is not followed with credentials`,
    )
  }
  const word = errorWord(answer.body)
  const retryAfterMs = readRetryAfter(answer.headers, context.clock.now())
  return new SourceError(
    'transient',
    `${where} answered ${answer.status}${word === undefined ? '' : ` (${word})`}`,
    retryAfterMs === undefined ? {} : { retryAfterMs },
  )
}

/** The `error` of RFC 6749 §5.2, if it is a plain word: anything else may be text that must not be shown. */
export function errorWord(body: string): string | undefined {
  const error = parseObject(body)?.error
  return typeof error === 'string' && /^[a-z_]{1,40}$/.test(error) ? error : undefined
}

/** A JSON object's members; undefined for any other text. */
export function parseObject(body: string): Record<string, unknown> | undefined {
  try {
    const document: unknown = JSON.parse(body)
    return typeof document === 'object' && document !== null && !Array.isArray(document)
      ? (document as Record<string, unknown>)
      : undefined
  } catch {
    return undefined
  }
}

/** The error of ours that an error carries in its causes, if there is one: libraries wrap what `fetch` throws. */
export function ownError(error: unknown): CupbearerError | undefined {
  let current = error
  for (let depth = 0; depth < 10 && current instanceof Error; depth++) {
    if (current instanceof CupbearerError) return current
    current = current.cause
  }
  return undefined
}

/** A `fetch` shows a redirect as it is, or, after the letter of its standard, as status 0. */
function isRedirect(status: number): boolean {
  return status === 0 || (status >= 300 && status < 400)
}

async function readBounded(
  response: Response,
  where: string,
  signal: AbortSignal,
): Promise<string> {
  if (!response.body) return ''
  const reader: ReadableStreamDefaultReader<Uint8Array> = response.body.getReader()
  const cancel = () => void reader.cancel().catch(() => {})
  signal.addEventListener('abort', cancel, { once: true })
  try {
    const chunks: Uint8Array[] = []
    let length = 0
    for (;;) {
      const { done, value } = await reader.read()
      signal.throwIfAborted()
      if (done) return Buffer.concat(chunks, length).toString('utf8')
      length += value.byteLength
      if (length > MAX_ANSWER_BYTES) {
        cancel()
        throw new SourceError('transient', `${where} answered with more than 1 MiB`)
      }
      chunks.push(value)
    }
  } finally {
    signal.removeEventListener('abort', cancel)
  }
}

function explain(cause: unknown, where: string, signal: AbortSignal): Error {
  const own = ownError(cause)
  // The egress is down: that is about the route, and whoever pinned it knows what to do.
  if (own instanceof SourceError || own?.code === 'EGRESS_DOWN') return own
  if (signal.aborted)
    return new SourceError('transient', `${where} did not answer in time`, { cause })
  return new SourceError('transient', `${where} failed (${own?.code ?? systemCode(cause)})`, {
    cause,
  })
}

/** The innermost code such as `ECONNREFUSED`: a `fetch` hides it in its causes. */
function systemCode(cause: unknown): string {
  let found = 'network error'
  let current = cause
  for (let depth = 0; depth < 10 && current instanceof Error; depth++) {
    const { code } = current as NodeJS.ErrnoException
    if (typeof code === 'string' && /^[A-Z][A-Z0-9_]{1,60}$/.test(code)) found = code
    current = current.cause
  }
  return found
}

/** RFC 9110 §10.2.3: seconds or a date. */
function readRetryAfter(headers: Headers, now: number): number | undefined {
  const value = headers.get('retry-after')?.trim()
  if (!value) return undefined
  if (/^\d{1,10}$/.test(value)) return Number(value) * 1000
  const date = Date.parse(value)
  return Number.isFinite(date) ? Math.max(0, date - now) : undefined
}
