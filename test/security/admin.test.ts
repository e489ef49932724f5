import { once } from 'node:events'
import { createServer, type IncomingHttpHeaders } from 'node:http'
import type { AddressInfo } from 'node:net'
import type { Browser } from 'playwright-core'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { ADMIN_TOKEN, TestAdmin } from '../support/admin.ts'
import { startApp } from '../support/app.ts'
import { launchChromium } from '../support/dashboard.ts'

let admin: TestAdmin
beforeEach(async () => {
  admin = await TestAdmin.start()
})
afterEach(() => admin[Symbol.asyncDispose]())

const RELEASE = '/api/pools/supplier/credentials/alice/release'

describe('in a browser', () => {
  let browser: Browser
  beforeAll(async () => {
    browser = await launchChromium(['--host-resolver-rules=MAP *.example 127.0.0.1'])
  })
  afterAll(() => browser.close())

  /** Another server on this machine, and what it was asked. */
  async function startStranger() {
    const seen: [url: string, headers: IncomingHttpHeaders][] = []
    const server = createServer((request, response) => {
      seen.push([request.url ?? '', request.headers])
      response.setHeader('content-type', 'text/html').end('<title>elsewhere</title>')
    }).listen(0, '127.0.0.1')
    await once(server, 'listening')
    const close = async () => {
      server.closeAllConnections()
      server.close()
    }
    return { seen, port: (server.address() as AddressInfo).port, [Symbol.asyncDispose]: close }
  }

  /** What a script gets when it asks for these on the page at this URL, whatever policy that has. */
  async function ask(from: string, asked: [url: string, init?: object][]): Promise<unknown[]> {
    const context = await browser.newContext({ bypassCSP: true })
    try {
      const page = await context.newPage()
      await page.goto(from)
      return (await page.evaluate(`Promise.all(${JSON.stringify(asked)}.map(async ([url, init]) => {
        try {
          const response = await fetch(url, init)
          return [response.status, response.type, await response.text()]
        } catch (error) {
          return error.name
        }
      }))`)) as unknown[]
    } finally {
      await context.close()
    }
  }

  test('a name that was rebound to the listener gets nothing, with the token neither', async () => {
    const { port } = admin.server
    const authorization = `Bearer ${ADMIN_TOKEN}`
    const answers = await ask(`http://rebound.example:${port}/evil`, [
      ['/healthz'],
      ['/'],
      ['/metrics'],
      ['/api/pools', { headers: { authorization } }],
      ['/api/events', { headers: { authorization } }],
      [RELEASE, { method: 'POST', headers: { authorization } }],
      ['/api/sessions', { method: 'POST', body: '{"code":"x"}' }],
    ])
    expect(answers).toHaveLength(7)
    for (const answer of answers) {
      expect(answer).toMatchObject([421, 'basic', expect.stringContaining('AUTHORITY_MISMATCH')])
    }
    expect(admin.actions).toEqual([])
  })

  test('a page of another origin reads nothing, changes nothing, and makes no guesses', async () => {
    const to = admin.server.url
    const authorization = `Bearer ${ADMIN_TOKEN}`
    const guess = { method: 'POST', mode: 'no-cors', body: '{"code":"guess"}' }
    await using stranger = await startStranger()
    const answers = await ask(`http://stranger.example:${stranger.port}/`, [
      [`${to}/healthz`],
      [`${to}/metrics`],
      [`${to}/api/pools`, { headers: { authorization } }],
      [to + RELEASE, { method: 'POST', headers: { authorization } }],
      [to + RELEASE, { method: 'POST', body: 'x' }],
      ...Array.from({ length: 12 }, (): [string, object] => [`${to}/api/sessions`, guess]),
    ])
    expect(answers.slice(0, 5)).toEqual(Array(5).fill('TypeError'))
    // What it is told of the rest is nothing: no status, no text; a browser may refuse to send it at all.
    for (const answer of answers.slice(5)) {
      expect([[0, 'opaque', ''], 'TypeError']).toContainEqual(answer)
    }
    expect(admin.actions).toEqual([])
    expect((await admin.ask('/api/pools')).status).toBe(200)
  })

  test('a link’s code is in no request for a page, and in no Referer', async () => {
    await using stranger = await startStranger()
    const { seen } = stranger
    const context = await browser.newContext()
    try {
      const page = await context.newPage()
      const asked: string[] = []
      page.on('request', (request) => asked.push(request.url(), request.headers().referer ?? ''))
      const { url } = (await admin.ask('/api/dashboard-links', { method: 'POST' })).json()
      const code = new URL(url as string).hash.slice('#code='.length)
      expect(code).toMatch(/^[\w-]{32}$/)
      await page.goto(url as string)
      await page.getByText('live', { exact: true }).waitFor()
      expect(page.url()).not.toContain(code)
      const elsewhere = `http://127.0.0.1:${stranger.port}/`
      await page.evaluate(`{ location.href = ${JSON.stringify(elsewhere)} }`)
      await page.waitForURL(elsewhere)
      expect(seen[0]?.[0]).toBe('/')
      expect(seen[0]?.[1].referer).toBeUndefined()
      // Playwright tells of what stands after the `#`, which no server sees.
      const sent = asked.map((text) => text.split('#')[0])
      expect(sent.some((text) => text?.includes(code) || text?.includes('cbs.'))).toBe(false)
    } finally {
      await context.close()
    }
  })
})

describe('the code of a link', () => {
  const link = async () => {
    const answer = await admin.ask('/api/dashboard-links', { method: 'POST' })
    return new URL(answer.json().url as string).hash.slice('#code='.length)
  }
  const redeem = async (code: string) => {
    const body = JSON.stringify({ code })
    const headers = { 'content-type': 'application/json' }
    return admin.ask('/api/sessions', { method: 'POST', token: null, headers, body })
  }

  test('works within five minutes, and not after', async () => {
    const [early, late] = [await link(), await link()]
    admin.clock.advance(5 * 60_000 - 1)
    expect((await redeem(early)).status).toBe(201)
    admin.clock.advance(1)
    expect((await redeem(late)).status).toBe(401)
  })

  test('works once, also when it is used twice at a time', async () => {
    const code = await link()
    const answers = await Promise.all([redeem(code), redeem(code), redeem(code)])
    expect(answers.map(({ status }) => status).sort()).toEqual([201, 401, 401])
  })

  test('is guessed ten times at most', async () => {
    for (let i = 0; i < 10; i++) expect((await redeem(`guess-${i}`)).status).toBe(401)
    const good = await link().catch(() => '')
    expect((await redeem(good)).status).toBe(429)
  })

  test('opens no door to tokens: a session gets no lease, no link and no other session', async () => {
    const { session } = (await redeem(await link())).json()
    const asked = (path: string) =>
      admin.ask(path, { method: 'POST', token: session as string, body: '{}' })
    expect((await asked('/api/pools/supplier/leases')).status).toBe(401)
    expect((await asked('/api/dashboard-links')).status).toBe(401)
    expect((await asked('/api/sessions')).status).toBe(401)
    expect((await admin.ask('/api/pools', { token: session as string })).status).toBe(200)
  })
})

test('a foreign page’s state change is refused before its credentials are looked at', async () => {
  const headers = { origin: 'http://stranger.example' }
  for (let i = 0; i < 12; i++) {
    const answer = await admin.ask(RELEASE, { method: 'POST', token: 'guess', headers })
    expect(answer.status).toBe(403)
  }
  expect((await admin.ask('/api/pools')).status).toBe(200)
})

test('guesses at a client’s password count together, by the proxy and by the lease API', async () => {
  const pools = {
    supplier: {
      targets: ['api.test'],
      credentials: [{ id: 'a', source: { type: 'static', token: 'token-of-the-test' } }],
    },
  }
  await using app = await startApp({
    pools,
    clients: { ann: { password: 'right-password', lease: true } },
  })
  const lease = (password: string) =>
    fetch(`${app.app.adminUrl}/api/pools/supplier/leases`, {
      method: 'POST',
      headers: { authorization: `Basic ${Buffer.from(`ann:${password}`).toString('base64')}` },
      body: '{}',
    })
  const wrong = app.client({ auth: 'ann:wrong' })
  for (let i = 0; i < 5; i++) {
    const { socket, status } = await wrong.tunnel('api.test:443')
    socket.destroy()
    expect(status).toBe(407)
    expect((await lease('wrong')).status).toBe(401)
  }
  const refused = await lease('right-password')
  expect(refused.status).toBe(429)
  const { socket, status } = await app.client({ auth: 'ann:right-password' }).tunnel('api.test:443')
  socket.destroy()
  expect(status).toBe(429)
})
