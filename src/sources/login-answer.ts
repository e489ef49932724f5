import type { AnswerMatcher, ExtractionConfig, LoginStepConfig } from '../config/login.ts'
import { SourceError } from '../errors.ts'
import { Secret } from '../lib/secret.ts'
import { type Answer, errorWord, isSuccess, refusal } from './endpoint.ts'
import { readPointer } from './pointer.ts'
import type { SourceContext } from './source.ts'

/** How a step was answered, after its redirects. */
export interface StepAnswer extends Answer {
  /** The body as JSON; undefined for any other. */
  readonly document: unknown
  /** What the step's answers have set, whether or not it may be sent again. */
  readonly cookies: ReadonlyMap<string, string>
}

/**
 * Whose doing a failed step is:
 * - `refused`: the user name or password is wrong; to try it again may lock the account
 * - `unclear`: it may be that; only so many tries are safe
 * - `busy`: the server has no time (429, 502, 503, 504)
 * - `other`: a block page, an error of the server's, something that is not what the steps were written for
 */
export type Fault = 'refused' | 'unclear' | 'busy' | 'other'

/** A step that was answered, but not as it should be; transport failures are plain `SourceError`s. */
export class StepError extends SourceError {
  readonly fault: Fault

  constructor(fault: Fault, message: string, options?: { retryAfterMs?: number }) {
    super('transient', message, options)
    this.name = 'StepError'
    this.fault = fault
  }
}

/** What has been sent when an answer is judged. */
export interface Sent {
  /** The step itself carried a user name, a password or the like. */
  readonly credentials: boolean
  /** It or a step before did. */
  readonly credentialsBefore: boolean
}

/** Throws a `StepError` for an answer that is not what the step expects. */
export function judgeAnswer(
  answer: StepAnswer,
  step: LoginStepConfig,
  sent: Sent,
  where: string,
  context: SourceContext,
): void {
  if (step.denied && matches(step.denied, answer)) {
    throw new StepError('refused', describe(answer, where, context).message)
  }
  const { expect } = step
  const statusAsked = expect?.status !== undefined
  if ((statusAsked || isSuccess(answer.status)) && (!expect || matches(expect, answer))) return
  const { message, retryAfterMs } = describe(answer, where, context)
  throw new StepError(
    faultOf(answer, step, sent),
    message,
    retryAfterMs === undefined ? {} : { retryAfterMs },
  )
}

/** What the step takes from its answer. Throws a `StepError` where something is missing. */
export function extractFrom(
  answer: StepAnswer,
  step: LoginStepConfig,
  sent: Sent,
  where: string,
): Map<string, Secret> {
  const values = new Map<string, Secret>()
  for (const [name, extraction] of Object.entries(step.extract)) {
    const value = pick(answer, extraction)
    if (value !== undefined) values.set(name, new Secret(value))
    else if (!extraction.optional) {
      throw new StepError(
        faultOf(answer, step, sent),
        `${where} answered ${answer.status}${isWebPage(answer) ? ' with a web page' : ''}, without ${name}`,
      )
    }
  }
  return values
}

function faultOf(answer: StepAnswer, step: LoginStepConfig, sent: Sent): Fault {
  const { status } = answer
  if (status === 429 || (status >= 502 && status <= 504)) return 'busy'
  // Where the configuration says what a refusal looks like, nothing else is taken for one.
  if (step.denied || status >= 500) return 'other'
  const page = isWebPage(answer)
  if (sent.credentials) {
    if (status === 401) return 'refused'
    if ((status === 400 || status === 422) && !page) return 'refused'
    // Firewalls say 403 too; an API tells in JSON.
    if (status === 403 && !page) return answer.document === undefined ? 'unclear' : 'refused'
  }
  if (page && (!isSuccess(status) || wantsJson(step))) return 'other'
  const telling = isSuccess(status) || status === 401 || status === 403
  return sent.credentialsBefore && telling ? 'unclear' : 'other'
}

function describe(
  answer: StepAnswer,
  where: string,
  context: SourceContext,
): { message: string; retryAfterMs: number | undefined } {
  const page = isWebPage(answer) ? ' with a web page' : ''
  if (!isSuccess(answer.status)) {
    const { message, retryAfterMs } = refusal(answer, where, context)
    return { message: message + page, retryAfterMs }
  }
  const word = errorWord(answer.body)
  const detail = page || (word === undefined ? '' : ` (${word})`)
  return {
    message: `${where} answered ${answer.status}${detail}, but not what is expected`,
    retryAfterMs: undefined,
  }
}

function matches(matcher: AnswerMatcher, answer: StepAnswer): boolean {
  const { status, header = {}, json = {}, body } = matcher
  return (
    (status === undefined || status.includes(answer.status)) &&
    Object.entries(header).every(([name, pattern]) =>
      new RegExp(pattern, 'i').test(answer.headers.get(name) ?? ''),
    ) &&
    Object.entries(json).every(([pointer, expected]) =>
      isValue(readPointer(answer.document, pointer), expected),
    ) &&
    (body === undefined || new RegExp(body).test(answer.body))
  )
}

/** A string `/…/` is a regular expression, anything else must be equal. */
function isValue(value: unknown, expected: string | number | boolean | null): boolean {
  const pattern = typeof expected === 'string' ? /^\/(.*)\/$/s.exec(expected)?.[1] : undefined
  if (pattern === undefined) return value === expected
  return (
    (typeof value === 'string' || typeof value === 'number') &&
    new RegExp(pattern).test(String(value))
  )
}

function pick(answer: StepAnswer, extraction: ExtractionConfig): string | undefined {
  const found = find(answer, extraction)
  if (found === undefined || extraction.regex === undefined) return found || undefined
  const match = new RegExp(extraction.regex).exec(found)
  const text = match?.[1] ?? match?.[0]
  const inPage = text !== undefined && found === answer.body && isWebPage(answer)
  return (inPage ? decodeEntities(text) : text) || undefined
}

function find(answer: StepAnswer, extraction: ExtractionConfig): string | undefined {
  if ('json' in extraction) {
    const value = readPointer(answer.document, extraction.json)
    return typeof value === 'string' || typeof value === 'number' ? String(value) : undefined
  }
  if ('header' in extraction) return answer.headers.get(extraction.header) ?? undefined
  return 'cookie' in extraction ? answer.cookies.get(extraction.cookie) : answer.body
}

const isWebPage = ({ headers, body }: Answer): boolean =>
  /\bx?html\b/i.test(headers.get('content-type') ?? '') || /^\s*<(?:!doctype\s+)?html\b/i.test(body)

const wantsJson = ({ expect, extract }: LoginStepConfig): boolean =>
  Object.keys(expect?.json ?? {}).length > 0 ||
  Object.values(extract).some((extraction) => 'json' in extraction)

const ENTITIES: Readonly<Record<string, string>> = {
  amp: '&',
  lt: '<',
  gt: '>',
  quot: '"',
  apos: "'",
}

/** What stands in an attribute of a page is escaped: addresses of forms, hidden fields. */
function decodeEntities(text: string): string {
  return text.replace(
    /&(?:#(\d{1,7})|#[xX]([0-9a-fA-F]{1,6})|(amp|lt|gt|quot|apos));/g,
    (whole, ...found) => {
      const [decimal, hex, name] = found as (string | undefined)[]
      if (name !== undefined) return ENTITIES[name] as string
      const code = decimal === undefined ? Number.parseInt(hex as string, 16) : Number(decimal)
      return code <= 0x10ffff ? String.fromCodePoint(code) : whole
    },
  )
}
