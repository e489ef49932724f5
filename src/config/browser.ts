import { z } from 'zod'
import { Secret } from '../lib/secret.ts'
import { templateNames } from '../lib/template.ts'
import { checkExec, execSource } from './exec.ts'
import type { Path } from './path.ts'
import { duration, fieldName, headerName, object, pointer, regex, timeout } from './values.ts'

/** The source `browser`: what it accepts, and the rules that look at several of its keys at once. */

const selector = z.string().min(1, 'expected a selector')
const template = z.string().transform((text) => new Secret(text))
/** The host stands as it is: a value must not lead the browser elsewhere. */
const url = z
  .string()
  .refine(
    (text) => /^https?:\/\/[^/?#@\s{}]+(?:[/?#].*)?$/i.test(text),
    'expected an http:// or https:// URL without user name; values in braces stand after the host',
  )
  .transform((text) => new Secret(text))
/** A URL in which `*` is any text. */
export const urlGlob = z
  .string()
  .refine(
    (text) => /^(?:https?|\*):\/\/[^/?#@\s]+(?:[/?#].*)?$/i.test(text),
    'expected a URL, in which * is any text',
  )

const wait = object({
  selector: selector.optional().describe('until such an element shows'),
  url: urlGlob.optional().describe('until the page has such a URL; * is any text'),
  time: duration.optional().describe('for so long'),
})

const { command, env, cwd } = execSource.shape
const step = object({
  goto: url.optional().describe('opens a URL; template'),
  fill: selector.optional().describe('types value into this field; CSS, or text=… and the like'),
  select: selector.optional().describe('chooses value, or what is labelled so, in this list'),
  click: selector.optional().describe('clicks this element'),
  press: z.string().min(1).optional().describe('presses a key such as Enter'),
  wait: wait.optional().describe('waits for one thing'),
  otp: selector
    .optional()
    .describe('types what command prints, a one-time password, into this field'),
  value: template.optional().describe('template, of fill and select'),
  on: selector.optional().describe('where press happens; default: wherever the page is'),
  command: command.optional().describe('of otp: program and arguments, run without a shell'),
  env: env.unwrap().optional().describe('of otp: variable → template'),
  cwd: cwd.describe('of otp; default: folder of this file'),
})

const stored = object({
  key: z.string().min(1).describe('* is any text'),
  token: pointer.optional().describe('where it stands in the value as JSON; default: all of it'),
  refreshToken: pointer.optional().describe('the same for a refresh token'),
  expiresIn: pointer.optional().describe('lifetime or end'),
})

const capture = object({
  request: object({
    url: urlGlob.describe('of the request; * is any text'),
    header: headerName.default('authorization').describe('header that carries it'),
    regex: regex.optional().describe('the first group is it; default: what follows the scheme'),
  })
    .optional()
    .describe('a request that the page makes'),
  response: object({
    url: urlGlob.describe('of the request; * is any text'),
    token: pointer.describe('where it stands in the JSON'),
    refreshToken: pointer.optional().describe('the same for a refresh token'),
    expiresIn: pointer.optional().describe('lifetime or end'),
  })
    .optional()
    .describe('an answer that the page gets'),
  localStorage: stored.optional().describe('what the page keeps'),
  sessionStorage: stored.optional().describe('what the page keeps'),
  cookie: object({
    name: fieldName.describe('its name'),
    regex: regex.optional().describe('the first group is the token; default: all of it'),
  })
    .optional()
    .describe('a cookie, of whatever site'),
})

export const browserSource = object({
  type: z.literal('browser'),
  url: url.describe('first page; template'),
  steps: z.array(step).max(50).default([]).describe('what a person would do there, in order'),
  capture: capture.describe('where the token shows; the latest counts when the steps are done'),
  denied: selector
    .optional()
    .describe('an element that shows when the user name or password is refused: no further try'),
  headless: z.boolean().default(true).describe('false shows the browser, on a display'),
  executable: z
    .string()
    .min(1, 'expected a path')
    .optional()
    .describe('a Chromium; default: chromium, chromium-browser or google-chrome on PATH'),
  timeout: timeout.optional().describe('default: refresh.timeout of the pool, which bounds it too'),
})

export type BrowserSourceConfig = z.output<typeof browserSource>
export type BrowserStepConfig = BrowserSourceConfig['steps'][number]
export type BrowserCaptureConfig = BrowserSourceConfig['capture']

type Tree = Readonly<Record<string, unknown>>
type Report = (path: Path, message: string) => void

/** What a step does → the keys that go with it: true for those that must be there. */
const ACTIONS: Readonly<Record<string, Readonly<Record<string, boolean>>>> = {
  goto: {},
  fill: { value: true },
  select: { value: true },
  click: {},
  press: { on: false },
  wait: {},
  otp: { command: true, env: false, cwd: false },
}

const asObject = (value: unknown): Tree =>
  typeof value === 'object' && value !== null && !Array.isArray(value) ? (value as Tree) : {}
const asList = (value: unknown): readonly unknown[] => (Array.isArray(value) ? value : [])

/** The rules of a `browser` source as it stands in the file; `vars` are the names that its credential has. */
export function checkBrowser(source: Tree, vars: readonly string[], report: Report): void {
  checkNames(source.url, vars, ['url'], report)
  for (const [index, value] of asList(source.steps).entries()) {
    const at = (path: Path, message: string) => report(['steps', index, ...path], message)
    checkStep(asObject(value), vars, at)
  }
  checkOne(asObject(source.capture), capture.shape, (message) => report(['capture'], message))
}

function checkStep(step: Tree, vars: readonly string[], report: Report): void {
  const known = Object.keys(ACTIONS).filter((key) => step[key] !== undefined)
  const [action] = known
  if (action === undefined || known.length > 1) {
    const found = known.length > 1 ? `, found ${known.join(' and ')}` : ''
    report([], `expected one of ${Object.keys(ACTIONS).join(', ')}${found}`)
    return
  }
  const companions = ACTIONS[action] ?? {}
  for (const [key, needed] of Object.entries(companions)) {
    if (needed && step[key] === undefined) report([key], `required beside ${action}`)
  }
  for (const key of ['value', 'on', 'command', 'env', 'cwd']) {
    if (step[key] !== undefined && !(key in companions)) report([key], `not used with ${action}`)
  }
  if (action === 'wait') checkOne(asObject(step.wait), wait.shape, (text) => report(['wait'], text))
  checkNames(step.goto, vars, ['goto'], report)
  checkNames(step.value, vars, ['value'], report)
  checkExec(step, vars, report)
}

function checkOne(value: Tree, shape: object, report: (message: string) => void): void {
  const found = Object.keys(shape).filter((key) => value[key] !== undefined)
  if (found.length !== 1) report(`expected exactly one of ${Object.keys(shape).join(', ')}`)
}

function checkNames(text: unknown, vars: readonly string[], path: Path, report: Report): void {
  if (typeof text !== 'string' || templateNames(text).every((name) => vars.includes(name))) return
  report(
    path,
    `expected in braces the name of one of vars (${vars.join(', ') || 'none'}); {{TEXT}} stands for {TEXT} itself`,
  )
}
