import { randomBytes } from 'node:crypto'
import type { IncomingMessage, ServerResponse } from 'node:http'
import { json } from 'node:stream/consumers'
import { type Origin, startOrigin } from './origin.ts'

/** Where the page keeps its token. */
export type Keeping = 'memory' | 'local' | 'session' | 'cookie'

export interface Spa extends AsyncDisposable {
  readonly origin: Origin
  /** `http://spa.test:PORT`, or https. */
  readonly url: string
  readonly user: string
  readonly password: string
  /** The most logins that were under way at a time, from the first page to the token. */
  readonly mostAtOnce: number
  /** What scripts of the page saw of their browser, and sent along with the login. */
  readonly seen: readonly { readonly language: string; readonly userAgent: string }[]
  /** Logins are not answered until this is called. */
  hold(): () => void
  /** Resolves as soon as a login waits for its answer. */
  waiting(): Promise<void>
  /** What logins are answered instead of being looked at. */
  answer: 'well' | 'unavailable' | 'html' | 'huge'
  isLive(token: string): boolean
  /** Tokens that live now are answered 401 from now on. */
  revoke(): void
}

export interface SpaOptions {
  /** Serve it by https, with a certificate of the test's authority. */
  readonly tls?: boolean
  /** A second factor that the page asks for. */
  readonly otp?: string
  readonly keeping?: Keeping
  readonly lifetimeSeconds?: number
  /** More script for the page; it runs before anything else does, and is awaited. */
  readonly script?: string
}

/** A single-page application: one document, whose script logs in by XHR and shows what its API says. */
export async function startSpa(options: SpaOptions = {}): Promise<Spa> {
  const { tls = false, otp, keeping = 'memory', lifetimeSeconds = 900, script = '' } = options
  const user = 'ann@example.test'
  const password = 'correct {horse} & "battery"'
  const live = new Set<string>()
  const seen: { language: string; userAgent: string }[] = []
  const arrivals = new Set<() => void>()
  let held: Promise<void> | undefined
  let atOnce = 0
  let mostAtOnce = 0
  let holding = 0
  let answer: Spa['answer'] = 'well'

  const login = async (request: IncomingMessage, response: ServerResponse) => {
    const given = (await json(request)) as Record<string, string>
    seen.push({ language: given.language ?? '', userAgent: given.userAgent ?? '' })
    if (held) {
      holding += 1
      for (const arrived of arrivals) arrived()
      arrivals.clear()
      await held
      holding -= 1
    }
    if (answer === 'unavailable') return void response.writeHead(503).end('{}')
    if (answer === 'html') return void response.writeHead(200).end('<html>sorry</html>')
    if (answer === 'huge') {
      return void response.end(JSON.stringify({ access_token: 'x'.repeat(10 * 2 ** 20) }))
    }
    response.setHeader('content-type', 'application/json')
    if (given.user !== user || given.password !== password) {
      return void response.writeHead(401).end('{"error":"wrong"}')
    }
    if (otp !== undefined && given.otp !== otp) return void response.end('{"otp":true}')
    const token = `spa-${randomBytes(12).toString('hex')}`
    live.add(token)
    atOnce -= 1
    if (keeping === 'cookie') {
      response.setHeader('set-cookie', `sid=${token}; Path=/; Max-Age=${lifetimeSeconds}; HttpOnly`)
    }
    const body = { access_token: token, refresh_token: `r-${token}`, expires_in: lifetimeSeconds }
    response.end(JSON.stringify({ data: body }))
  }

  const origin = await startOrigin({
    tls,
    names: ['spa.test'],
    handler: (request, response) => {
      const path = request.url?.split('?')[0]
      if (path === '/api/session') void login(request, response).catch(() => response.destroy())
      else if (path === '/api/me') {
        const token = request.headers.authorization?.replace('Bearer ', '') ?? ''
        response.writeHead(live.has(token) ? 200 : 401).end(JSON.stringify({ name: 'Ann' }))
      } else if (path === '/') {
        mostAtOnce = Math.max(mostAtOnce, ++atOnce)
        response.setHeader('content-type', 'text/html; charset=utf-8')
        response.end(page(keeping, script))
      } else response.writeHead(404).end()
    },
  })
  return {
    origin,
    url: `${tls ? 'https' : 'http'}://spa.test:${origin.port}`,
    user,
    password,
    seen,
    get mostAtOnce() {
      return mostAtOnce
    },
    get answer() {
      return answer
    },
    set answer(next) {
      answer = next
    },
    hold() {
      let release = () => {}
      held = new Promise((resolve) => {
        release = () => {
          held = undefined
          resolve()
        }
      })
      return release
    },
    waiting: () =>
      holding > 0 ? Promise.resolve() : new Promise((resolve) => arrivals.add(resolve)),
    isLive: (token) => live.has(token),
    revoke: () => live.clear(),
    [Symbol.asyncDispose]: () => origin.close(),
  }
}

function page(keeping: Keeping, script: string): string {
  return `<!doctype html>
<title>Shop</title>
<style>body { font: 20px sans-serif; margin: 40px } input { display: block; margin: 8px 0 }</style>
<main></main>
<script type="module">
const main = document.querySelector('main')
let token
const form = (fields) => {
  main.innerHTML = '<form>' + fields + '<button>Sign in</button></form><p id="error" hidden></p>'
  return main.querySelector('form')
}
const send = async (body) => {
  const { language, userAgent } = navigator
  const response = await fetch('/api/session', {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ ...body, language, userAgent }),
  })
  if (!response.ok) throw new Error('refused')
  return response.json()
}
const enter = async ({ data }) => {
  token = data.access_token
  const kept = JSON.stringify({ tokens: { access: token, until: data.expires_in } })
  if (${keeping === 'local'}) localStorage.setItem('app:7f3a:tokens', kept)
  if (${keeping === 'session'}) sessionStorage.setItem('token', token)
  const me = await fetch('/api/me', { headers: { authorization: 'Bearer ' + token } })
  main.innerHTML = '<h1>Hello ' + (await me.json()).name + '</h1>'
  history.pushState({}, '', '/home')
}
const complain = (what) => {
  const error = main.querySelector('#error')
  error.textContent = 'No luck with ' + what
  error.hidden = false
}
${script}
const first = form('<input name="user"><input name="password" type="password">')
first.addEventListener('submit', async (event) => {
  event.preventDefault()
  const given = { user: first.user.value, password: first.password.value }
  try {
    const answer = await send(given)
    if (!answer.otp) return await enter(answer)
    const second = form('<input name="otp" inputmode="numeric">')
    second.addEventListener('submit', async (event) => {
      event.preventDefault()
      await enter(await send({ ...given, otp: second.otp.value }))
    })
  } catch {
    complain(given.password)
  }
})
</script>`
}
