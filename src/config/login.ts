import { z } from 'zod'
import { Secret } from '../lib/secret.ts'
import { templateNames } from '../lib/template.ts'
import { matcherFields } from './matcher.ts'
import type { Path } from './path.ts'
import { fieldName, headerName, headerText, object, pointer, regex } from './values.ts'

/** The source `login`: what it accepts, and the rules that look at several of its keys at once. */

const NAME = /^[A-Za-z_][A-Za-z0-9_-]*$/
const ONE_NAME = /^\{[A-Za-z_][A-Za-z0-9_-]*\}$/

/** A template may hold a password as well as ask for one, so it is kept as a secret. */
const template = z.string().transform((text) => new Secret(text))

const url = z
  .string()
  .refine(
    (text) => ONE_NAME.test(text) || /^https?:\/\/[^/?#@\s]+(?:[/?#]|$)/i.test(text),
    'expected an http:// or https:// URL without user name, or one {NAME} that holds a whole URL',
  )
  .transform((text) => new Secret(text))

const status = z.int().min(100).max(999)
const answer = z
  .union(
    [
      status.transform((value) => ({ status: [value] })),
      z
        .array(status)
        .min(1)
        .transform((values) => ({ status: values })),
      object({
        ...matcherFields,
        body: regex.optional().describe('regular expression for the text of the body'),
      }).transform(({ status, ...rest }) => ({
        ...rest,
        ...(status !== undefined && { status: [status].flat() }),
      })),
    ],
    { error: 'expected a status, a list of statuses, or { "status", "header", "json", "body" }' },
  )
  .transform(
    (
      matcher: Partial<{
        status: number[]
        header: Record<string, string> | undefined
        json: Record<string, string | number | boolean | null> | undefined
        body: string | undefined
      }>,
    ) => matcher,
  )

const picked = {
  regex: regex.optional().describe('the part of it that is wanted: the first group, else all'),
  optional: z.boolean().default(false).describe('whether it may be missing'),
}
const extraction = z.union(
  [
    object({ json: pointer.describe('where it stands in a JSON body'), ...picked }),
    object({ header: fieldName.describe('response header'), ...picked }),
    object({ cookie: fieldName.describe('cookie'), ...picked }),
    object({
      regex: regex.describe('what of the body: the first group, else all that matches'),
      optional: picked.optional,
    }),
  ],
  { error: 'expected one of { "json" }, { "header" }, { "cookie" }, { "regex" }' },
)

const step = object({
  method: z
    .string()
    .regex(/^[A-Za-z]{1,20}$/, 'expected a method')
    .transform((text) => text.toUpperCase())
    .optional()
    .describe('default: POST with a body, else GET'),
  url: url.describe('template; values are escaped as parts of a path or query'),
  headers: z
    .record(
      headerName,
      headerText.transform((text) => new Secret(text)),
    )
    .default({})
    .describe('header → template; more than those of the credential'),
  basic: object({
    username: template.describe('template'),
    password: template.describe('template'),
  })
    .optional()
    .describe('Authorization: Basic (RFC 7617)'),
  form: z.record(z.string(), template).optional().describe('form field → template'),
  json: z
    .unknown()
    .transform((value) => new Secret(JSON.stringify(value)))
    .optional()
    .describe('JSON body; its strings are templates'),
  body: template.optional().describe('body as text; values are escaped as its content-type asks'),
  expect: answer
    .optional()
    .describe('what a good answer looks like; default: any 2xx. A 3xx named here is not followed'),
  denied: answer
    .optional()
    .describe(
      'what a refusal of the user name or password looks like; default: 401, and 400, 403, 422 that are no web page, where the step sends any',
    ),
  extract: z
    .record(z.string().regex(NAME, 'expected a name of letters, digits and _ -'), extraction)
    .default({})
    .describe('NAME → where to find it in the answer'),
})
const steps = z.array(step).min(1, 'expected at least one step').max(50)

export const loginSource = object({
  type: z.literal('login'),
  steps: steps.describe('requests of a login, in order; cookies are kept from step to step'),
  token: template.describe('template of the token'),
  refreshToken: template.optional().describe('template of what a refresh needs'),
  expiresIn: template
    .optional()
    .describe(
      'template of the lifetime: seconds, a duration such as "{MS}ms", or a time (ISO 8601, epoch in s or ms)',
    ),
  refresh: object({
    steps: steps.describe('requests of a refresh; {token} and {refreshToken} are those of before'),
    token: template.optional().describe('default: as after a login'),
    refreshToken: template.optional().describe('default: as after a login, else the one of before'),
    expiresIn: template.optional().describe('default: as after a login'),
  })
    .optional()
    .describe('a shorter way than a full login, which follows when it fails'),
})

export type LoginSourceConfig = z.output<typeof loginSource>
export type LoginStepConfig = LoginSourceConfig['steps'][number]
export type AnswerMatcher = NonNullable<LoginStepConfig['expect']>
export type ExtractionConfig = LoginStepConfig['extract'][string]

type Tree = Readonly<Record<string, unknown>>
type Report = (path: Path, message: string) => void

const asObject = (value: unknown): Tree =>
  typeof value === 'object' && value !== null && !Array.isArray(value) ? (value as Tree) : {}
const asList = (value: unknown): readonly unknown[] => (Array.isArray(value) ? value : [])

/** The rules of a `login` source as it stands in the file; `vars` are the names that its credential has. */
export function checkLogin(source: unknown, vars: readonly string[], report: Report): void {
  const { steps, token, refreshToken, expiresIn, refresh } = asObject(source)
  const known = checkSteps(steps, new Set(vars), ['steps'], report)
  for (const [key, text] of Object.entries({ token, refreshToken, expiresIn })) {
    checkNames(text, known, [key], report)
  }
  if (refresh === undefined) return
  const renewal = asObject(refresh)
  const before = ['token', 'refreshToken']
  const within = checkSteps(
    renewal.steps,
    new Set([...vars, ...before]),
    ['refresh', 'steps'],
    report,
  )
  for (const key of ['refreshToken', 'expiresIn']) {
    checkNames(renewal[key], within, ['refresh', key], report)
  }
  if (refreshToken === undefined && uses(renewal.steps, 'refreshToken')) {
    report(['refreshToken'], 'required, since the steps of refresh use {refreshToken}')
  }
  // The token of before is no new one.
  const fresh = new Set([...vars, ...extractedNames(renewal.steps)])
  checkNames(renewal.token, fresh, ['refresh', 'token'], report)
  if (renewal.token === undefined && typeof token === 'string' && !isKnown(token, fresh)) {
    report(
      ['refresh', 'token'],
      'required, since the steps of refresh extract no such names as token has',
    )
  }
}

function checkSteps(steps: unknown, known: Set<string>, path: Path, report: Report): Set<string> {
  for (const [index, value] of asList(steps).entries()) {
    const step = asObject(value)
    const place = [...path, index]
    for (const [text, at] of templatesOf(step)) checkNames(text, known, [...place, ...at], report)
    const bodies = ['form', 'json', 'body'].filter((key) => step[key] !== undefined)
    if (bodies.length > 1) report(place, `expected one body, found ${bodies.join(' and ')}`)
    if (bodies[0] && /^(?:get|head)$/i.test(String(step.method ?? ''))) {
      report([...place, bodies[0]], 'not used with this method')
    }
    for (const name of Object.keys(asObject(step.extract))) known.add(name)
  }
  return known
}

function checkNames(text: unknown, known: ReadonlySet<string>, path: Path, report: Report): void {
  if (typeof text !== 'string' || isKnown(text, known)) return
  // The name isn't told: what stands in braces may be a part of a password.
  const names = known.size > 0 ? [...known].join(', ') : 'none'
  report(
    path,
    `expected in braces a name that is known here (${names}); {{TEXT}} stands for {TEXT} itself`,
  )
}

const isKnown = (text: string, known: ReadonlySet<string>): boolean =>
  templateNames(text).every((name) => known.has(name))

const extractedNames = (steps: unknown): string[] =>
  asList(steps).flatMap((step) => Object.keys(asObject(asObject(step).extract)))

const uses = (steps: unknown, name: string): boolean =>
  asList(steps).some((step) =>
    templatesOf(asObject(step)).some(([text]) => templateNames(text).includes(name)),
  )

/** Every template of a step and where it stands. */
function templatesOf({ url, headers, basic, form, json, body }: Tree): [string, Path][] {
  return strings({ url, headers, basic, form, json, body }, [])
}

function strings(value: unknown, path: Path): [string, Path][] {
  if (typeof value === 'string') return [[value, path]]
  if (typeof value !== 'object' || value === null) return []
  const entries = Array.isArray(value) ? value.entries() : Object.entries(value)
  return [...entries].flatMap(([key, item]) => strings(item, [...path, key]))
}
