import type { LoginStepConfig } from '../config/login.ts'
import type { Secret } from '../lib/secret.ts'
import { renderTemplate, templateNames } from '../lib/template.ts'
import { StepError } from './login-answer.ts'

/** What templates of a step can ask for. */
export type Scope = ReadonlyMap<string, Secret>

/** A step with its templates filled in. */
export interface StepRequest {
  readonly method: string
  readonly url: URL
  readonly headers: Headers
  readonly body: string | undefined
}

/** How a step is told in messages: never its path or query, which may hold secrets. */
export interface StepPlace {
  readonly label: string
  /** Addresses that the steps name or that redirects of theirs have led to. */
  readonly origins: ReadonlySet<string>
  /** Where the step before ended. */
  readonly from: URL | undefined
}

/** Fills in a step. Throws a `StepError` for a value that is missing or cannot stand where it is asked for. */
export function renderStep(step: LoginStepConfig, scope: Scope, place: StepPlace): StepRequest {
  const render = (text: Secret | string, quote?: (value: string, before: string) => string) =>
    fill(typeof text === 'string' ? text : text.reveal(), scope, place.label, quote)
  const url = renderUrl(step.url.reveal(), scope, place)
  const headers = new Headers()
  for (const [name, text] of Object.entries(step.headers)) {
    headers.set(name, headerText(render(text), name, place))
  }
  if (step.basic) {
    const { username, password } = step.basic
    const user = render(username)
    // RFC 7617 §2: the first colon ends the user name.
    if (user.includes(':')) throw unusable(place, 'a user name with a colon', 'Basic')
    const pair = Buffer.from(`${user}:${render(password)}`, 'utf8').toString('base64')
    headers.set('authorization', `Basic ${pair}`)
  }
  const body = renderBody(step, headers, render)
  const method = step.method ?? (body === undefined ? 'GET' : 'POST')
  return { method, url, headers, body }
}

/** Fills in one template; undefined where a value that it asks for has not been found. */
export function renderOptional(text: Secret | undefined, scope: Scope): string | undefined {
  if (!text || !templateNames(text.reveal()).every((name) => scope.has(name))) return undefined
  return fill(text.reveal(), scope, '')
}

/** Whether a template of the step asks for this value. */
export function asksFor({ url, headers, basic, form, json, body }: LoginStepConfig, name: string) {
  const texts = [url, json, body, basic?.username, basic?.password]
  return [...texts, ...Object.values(headers), ...Object.values(form ?? {})].some(
    // A body in JSON needs no parsing for it: its escapes don't touch names.
    (text) => text !== undefined && templateNames(text.reveal()).includes(name),
  )
}

/** Whether a step carries what a server could refuse: a body, credentials in a header, a value of `vars`. */
export function carriesCredentials(step: LoginStepConfig, vars: ReadonlySet<string>): boolean {
  if (step.basic || step.form || step.json || step.body) return true
  const headers = Object.entries(step.headers)
  if (headers.some(([name]) => name.toLowerCase() === 'authorization')) return true
  return [step.url, ...headers.map(([, text]) => text)].some((text) =>
    templateNames(text.reveal()).some((name) => vars.has(name)),
  )
}

function fill(
  text: string,
  scope: Scope,
  label: string,
  quote?: (value: string, before: string) => string,
): string {
  return renderTemplate(
    text,
    (name) => {
      const value = scope.get(name)
      if (!value) throw new StepError('other', `${label} needs {${name}}, which was not found`)
      return value.reveal()
    },
    quote,
  )
}

function renderUrl(text: string, scope: Scope, place: StepPlace): URL {
  if (/^https?:/i.test(text)) {
    const url = fill(text, scope, place.label, (value, before) => escapeInUrl(value, before, place))
    return parseUrl(url, undefined, place)
  }
  // A whole URL that a step has found, a form's action say: it must not lead elsewhere.
  const url = parseUrl(fill(text, scope, place.label), place.from, place)
  if (!place.origins.has(url.origin)) throw unusable(place, 'an address of another site', 'url')
  return url
}

function escapeInUrl(value: string, before: string, place: StepPlace): string {
  if (!/^https?:\/\/[^/?#]*[/?#]/i.test(before)) {
    if (/^[a-z0-9.-]+(?::\d{1,5})?$/i.test(value)) return value
    throw unusable(place, 'a value that is no host name', 'url')
  }
  // These would move a path, however they are escaped.
  if (value === '.' || value === '..') throw unusable(place, 'dots', 'url')
  try {
    return encodeURIComponent(value)
  } catch {
    throw unusable(place, 'broken text', 'url')
  }
}

function parseUrl(text: string, base: URL | undefined, place: StepPlace): URL {
  if (!URL.canParse(text, base?.href)) throw unusable(place, 'something that is no URL', 'url')
  const url = new URL(text, base)
  if (!/^https?:$/.test(url.protocol) || url.username !== '' || url.password !== '') {
    throw unusable(place, 'something other than a plain http(s) address', 'url')
  }
  return url
}

function headerText(value: string, name: string, place: StepPlace): string {
  // RFC 9110 §5.5, and nothing outside latin1.
  if (/[^\t\x20-\x7e\x80-\xff]/.test(value)) {
    throw unusable(place, 'characters that no header field can carry', name)
  }
  return value
}

type Render = (text: Secret | string, quote?: (value: string) => string) => string

function renderBody(step: LoginStepConfig, headers: Headers, render: Render): string | undefined {
  if (step.form) {
    setType(headers, 'application/x-www-form-urlencoded')
    const fields = new URLSearchParams()
    for (const [name, text] of Object.entries(step.form)) fields.append(name, render(text))
    return fields.toString()
  }
  if (step.json) {
    setType(headers, 'application/json')
    return JSON.stringify(renderJson(JSON.parse(step.json.reveal()), render))
  }
  if (!step.body) return undefined
  const type = headers.get('content-type') ?? ''
  const looksLikeJson = type === '' && /^\s*[[{]/.test(step.body.reveal())
  if (looksLikeJson) setType(headers, 'application/json')
  return render(step.body, escapeFor(looksLikeJson ? 'application/json' : type))
}

function setType(headers: Headers, type: string): void {
  if (!headers.has('content-type')) headers.set('content-type', type)
}

function renderJson(value: unknown, render: Render): unknown {
  if (typeof value === 'string') return render(value)
  if (Array.isArray(value)) return value.map((item) => renderJson(item, render))
  if (typeof value !== 'object' || value === null) return value
  // Defines own properties, so that a key `__proto__` stays a key.
  return Object.fromEntries(
    Object.entries(value).map(([key, item]) => [key, renderJson(item, render)]),
  )
}

const XML: Readonly<Record<string, string>> = {
  '&': '&amp;',
  '<': '&lt;',
  '>': '&gt;',
  '"': '&quot;',
  "'": '&#39;',
}

function escapeFor(type: string): (value: string) => string {
  if (/\bjson\b/i.test(type)) return (value) => JSON.stringify(value).slice(1, -1)
  if (/x-www-form-urlencoded/i.test(type)) {
    return (value) => new URLSearchParams([['', value]]).toString().slice(1)
  }
  if (/\bxml\b/i.test(type))
    return (value) => value.replace(/[&<>"']/g, (each) => XML[each] ?? each)
  return (value) => value
}

function unusable(place: StepPlace, what: string, where: string): StepError {
  return new StepError('other', `${place.label}: ${what} cannot be used in ${where}`)
}
