import { type CookieJar, cookiePair } from './cookie-jar.ts'
import { type Answer, ask } from './endpoint.ts'
import { type StepAnswer, StepError } from './login-answer.ts'
import type { StepRequest } from './login-request.ts'
import type { SourceContext } from './source.ts'

const MAX_REDIRECTS = 10

/** An answer and the address that gave it. */
export interface Reply {
  readonly answer: StepAnswer
  readonly url: URL
}

/**
 * Sends a step by the pinned egress and follows its redirects, but for a status that the step itself expects.
 * Of what the step brings nothing goes to another origin; cookies go where they belong.
 */
export async function sendStep(
  request: StepRequest,
  jar: CookieJar,
  expected: readonly number[],
  label: string,
  context: SourceContext,
): Promise<Reply> {
  let { method, url, headers, body } = request
  const cookies = new Map<string, string>()
  for (let hop = 0; ; hop++) {
    const where = `${label} (${method} ${url.host})`
    const answer = await ask(context, where, url.href, {
      method,
      headers: withCookies(headers, jar.header(url, context.clock.now())),
      ...(body !== undefined && { body }),
    })
    keepCookies(answer, url, jar, cookies, context.clock.now())
    const { status } = answer
    const location = answer.headers.get('location')
    const follows = [301, 302, 303, 307, 308].includes(status) && location !== null
    if (!follows || expected.includes(status)) {
      return { answer: { ...answer, document: parseJson(answer.body), cookies }, url }
    }
    if (hop === MAX_REDIRECTS) {
      throw new StepError('other', `${where} redirects more than ${MAX_REDIRECTS} times`)
    }
    const next = target(location, url, where)
    const away = next.origin !== url.origin
    const repeats = status === 307 || status === 308 || method === 'HEAD'
    if (away && repeats && body !== undefined) {
      throw new StepError('other', `${where} redirects what it was sent to another site`)
    }
    if (!repeats) {
      // RFC 9110 §15.4: browsers go on with GET, and login pages count on it.
      method = 'GET'
      body = undefined
    }
    headers = away ? new Headers() : kept(headers, body !== undefined)
    url = next
  }
}

function target(location: string, from: URL, where: string): URL {
  const next = URL.canParse(location, from.href) ? new URL(location, from) : undefined
  const plain = next && /^https?:$/.test(next.protocol) && next.username + next.password === ''
  if (!plain) throw new StepError('other', `${where} redirects to no web address`)
  if (from.protocol === 'https:' && next.protocol === 'http:') {
    throw new StepError('other', `${where} redirects to plain http`)
  }
  return next
}

function kept(headers: Headers, withBody: boolean): Headers {
  const next = new Headers(headers)
  if (!withBody)
    for (const name of [...next.keys()]) if (name.startsWith('content-')) next.delete(name)
  return next
}

function withCookies(headers: Headers, cookies: string): Headers {
  if (cookies === '') return headers
  const all = new Headers(headers)
  const own = headers.get('cookie')
  all.set('cookie', own === null ? cookies : `${own}; ${cookies}`)
  return all
}

function keepCookies(
  { headers }: Answer,
  url: URL,
  jar: CookieJar,
  seen: Map<string, string>,
  now: number,
): void {
  const lines = headers.getSetCookie()
  jar.store(lines, url, now)
  for (const line of lines) {
    const pair = cookiePair(line)
    if (pair) seen.set(pair.name, pair.value)
  }
}

function parseJson(body: string): unknown {
  try {
    return JSON.parse(body)
  } catch {
    return undefined
  }
}
