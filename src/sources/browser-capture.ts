import type { BrowserContext, Page, Request, Response } from 'playwright-core'
import type { BrowserCaptureConfig } from '../config/browser.ts'
import { parseUrlGlob } from './browser-url.ts'
import { readPointer } from './pointer.ts'

/** What was found, as text that has not been looked into. */
export interface Captured {
  readonly token: string
  readonly refreshToken?: string | undefined
  readonly expiresIn?: string | undefined
}

const MAX_BODY_BYTES = 2 ** 20

/** How often a store or the cookies are looked at. */
const LOOK_EVERY_MS = 200

/** Looks out for the token from the first page on; the latest one counts. */
export class Capture {
  readonly #config: BrowserCaptureConfig
  readonly #page: Page
  #latest: { readonly order: number; readonly found: Captured } | undefined
  #order = 0
  #near: string | undefined
  #arrived = () => {}

  constructor(page: Page, config: BrowserCaptureConfig) {
    this.#page = page
    this.#config = config
    const context = page.context()
    if (config.request) this.#watchRequests(context, config.request)
    if (config.response) this.#watchResponses(context, config.response)
  }

  /** What came near to it, for the message when nothing was found. */
  get near(): string {
    return this.#near ?? 'nothing that capture asks for was seen'
  }

  /** The token, as soon as there is one. `sleep` rejects when the time is up. */
  async take(sleep: (ms: number) => Promise<void>): Promise<Captured> {
    const { localStorage, sessionStorage, cookie } = this.#config
    for (;;) {
      if (this.#latest) return this.#latest.found
      if (cookie) await this.#lookAtCookies(cookie)
      if (localStorage) await this.#lookInto('localStorage', localStorage)
      if (sessionStorage) await this.#lookInto('sessionStorage', sessionStorage)
      if (this.#latest) continue
      const arrived = new Promise<void>((resolve) => {
        this.#arrived = resolve
      })
      await Promise.race([arrived, sleep(LOOK_EVERY_MS)])
    }
  }

  #watchRequests(
    context: BrowserContext,
    { url, header, regex }: NonNullable<BrowserCaptureConfig['request']>,
  ): void {
    const covers = parseUrlGlob(url)
    const name = header.toLowerCase()
    const pattern = new RegExp(regex ?? (name === 'authorization' ? '^\\S+\\s+(\\S+)$' : '.+'))
    const read = async (request: Request, order: number) => {
      const value = request.headers()[name] ?? (await request.allHeaders())[name]
      const token = value === undefined ? undefined : group(pattern, value)
      if (token !== undefined) this.#offer(order, { token })
      else this.#near = `a request to such a URL had no ${name} that fits`
    }
    context.on('request', (request) => {
      // The page may be gone before its headers are told.
      if (covers(request.url())) read(request, ++this.#order).catch(() => {})
    })
  }

  #watchResponses(
    context: BrowserContext,
    config: NonNullable<BrowserCaptureConfig['response']>,
  ): void {
    const covers = parseUrlGlob(config.url)
    const read = async (response: Response, order: number) => {
      const found = readMembers(parse(await bodyOf(response)), config)
      if (found) this.#offer(order, found)
      else this.#near = `an answer from such a URL (${response.status()}) had no token at its place`
    }
    context.on('response', (response) => {
      if (!covers(response.url()) || response.request().method() === 'OPTIONS') return
      // Redirects have no body, and the page may be gone before it is read.
      read(response, ++this.#order).catch(() => {})
    })
  }

  async #lookAtCookies({ name, regex }: NonNullable<BrowserCaptureConfig['cookie']>) {
    const cookies = await this.#page.context().cookies()
    const cookie = cookies.findLast((each) => each.name === name)
    const token = cookie && group(new RegExp(regex ?? '.+'), cookie.value)
    if (cookie && token !== undefined) {
      // Seconds since the epoch; -1 for a cookie of the session.
      const expiresIn = cookie.expires > 0 ? String(Math.round(cookie.expires * 1000)) : undefined
      this.#offer(++this.#order, { token, expiresIn })
    } else if (cookie) this.#near = 'the cookie was there, but does not fit'
  }

  async #lookInto(
    store: 'localStorage' | 'sessionStorage',
    config: NonNullable<BrowserCaptureConfig['localStorage']>,
  ): Promise<void> {
    const text = await this.#page
      .evaluate<string>(`JSON.stringify(Object.entries(${store}))`)
      // Between two pages there is no store, and some pages have none.
      .catch(() => '[]')
    const key = new RegExp(`^${config.key.split('*').map(escapeRegex).join('.*')}$`, 's')
    const entry = (JSON.parse(text) as [string, string][]).find(([name]) => key.test(name))
    if (!entry) return
    const document = parse(entry[1])
    const whole = typeof document === 'string' ? document : entry[1]
    const found = readMembers(document, config, whole)
    if (found) this.#offer(++this.#order, found)
    else this.#near = `the entry of ${store} was there, without a token at its place`
  }

  #offer(order: number, found: Captured): void {
    if (this.#latest && this.#latest.order > order) return
    this.#latest = { order, found }
    this.#arrived()
  }
}

async function bodyOf(response: Response): Promise<string> {
  const length = Number((await response.allHeaders())['content-length'] ?? 0)
  if (length > MAX_BODY_BYTES) return ''
  const body = await response.body()
  return body.length > MAX_BODY_BYTES ? '' : body.toString('utf8')
}

interface Places {
  readonly token?: string | undefined
  readonly refreshToken?: string | undefined
  readonly expiresIn?: string | undefined
}

/** Without a place of its own the token is `whole`. */
function readMembers(document: unknown, places: Places, whole?: string): Captured | undefined {
  const at = (pointer: string | undefined) => {
    const value = pointer === undefined ? undefined : readPointer(document, pointer)
    return typeof value === 'string' || typeof value === 'number' ? String(value) : undefined
  }
  const token = places.token === undefined ? whole : at(places.token)
  if (token === undefined || token === '') return undefined
  return { token, refreshToken: at(places.refreshToken), expiresIn: at(places.expiresIn) }
}

function parse(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return undefined
  }
}

function group(pattern: RegExp, text: string): string | undefined {
  const match = pattern.exec(text)
  return (match?.[1] ?? match?.[0]) || undefined
}

function escapeRegex(text: string): string {
  return text.replace(/[.*+?^${}()|[\]\\]/g, '\\$&')
}
