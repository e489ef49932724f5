import { readFile, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { afterEach, describe, expect, test, vi } from 'vitest'
import { startApp, type TestApp } from '../support/app.ts'
import { startHttpProxy } from '../support/http-proxy.ts'
import { type Origin, startOrigin } from '../support/origin.ts'
import { trusting } from '../support/protected-origin.ts'
import { startSocksProxy } from '../support/socks-proxy.ts'
import { type Spa, startSpa } from '../support/spa.ts'

const open: AsyncDisposable[] = []

afterEach(async () => {
  vi.unstubAllEnvs()
  for (const each of open.splice(0).reverse()) await each[Symbol.asyncDispose]()
})

function keep<T extends AsyncDisposable>(each: T): T {
  open.push(each)
  return each
}

interface Scene {
  readonly spa: Spa
  readonly api: Origin
  readonly app: TestApp
  ask(): Promise<{ status: number; remoteAddress: string }>
}

/** The example as it stands, with a shop whose API takes the tokens of its single-page application. */
async function openShop(more: object = {}, password?: string): Promise<Scene> {
  const spa = keep(await startSpa({ tls: true }))
  const api = keep(
    await startOrigin({
      tls: true,
      handler: (request, response) => {
        const token = request.headers.authorization?.replace('Bearer ', '') ?? ''
        const { remoteAddress } = request.socket
        response.writeHead(spa.isLive(token) ? 200 : 401).end(JSON.stringify({ remoteAddress }))
      },
    }),
  )
  vi.stubEnv('SHOP', spa.url)
  vi.stubEnv('SHOP_API', `https://api.test:${api.port}`)
  vi.stubEnv('SHOP_USER', spa.user)
  vi.stubEnv('SHOP_PASSWORD', password ?? spa.password)
  const file = new URL('../../examples/browser-spa.json', import.meta.url)
  const config = JSON.parse(await readFile(file, 'utf8'))
  Object.assign(config.pools.shop, more)
  const egress = (more as { egress?: string[] }).egress?.[0]
  const app = keep(
    await startApp({
      ...config,
      upstream: trusting(['spa.test', 'api.test']),
      ...(egress && { egress: { way: egress } }),
      pools: { shop: { ...config.pools.shop, ...(egress && { egress: ['way'] }) } },
    }),
  )
  return {
    spa,
    api,
    app,
    async ask() {
      const answer = await app.client().request(`https://api.test:${api.port}/orders`)
      return { status: answer.status, ...answer.json<{ remoteAddress: string }>() }
    },
  }
}

const statusOf = async (app: TestApp) => (await app.admin('/api/pools/shop')).credentials[0]

describe('the example browser-spa.json', () => {
  test('logs in, serves requests, and logs in again when its token dies', async () => {
    const { spa, app, ask } = await openShop()
    expect((await ask()).status).toBe(200)
    const { generation, expiresAt } = await statusOf(app)
    expect(generation).toBe(1)
    expect(Date.parse(expiresAt) - Date.now()).toBeGreaterThan(800_000)
    spa.revoke()
    expect((await ask()).status).toBe(200)
    expect((await statusOf(app)).generation).toBe(2)
    const traces = JSON.stringify(await app.admin('/api/traces'))
    expect(traces).not.toMatch(/spa-[0-9a-f]{24}|correct/)
    // The header profile of the pool, in each of the browser's requests and before its scripts.
    expect(new Set(spa.seen.map(({ language }) => language))).toEqual(new Set(['de-DE']))
    for (const { headers } of spa.origin.requests) expect(headers).toContain('de-DE,de;q=0.9')
  })

  test('ends at a refused password, with a picture and without the password', async () => {
    const { app } = await openShop({}, 'hunter2 wrong')
    await vi.waitFor(async () => expect((await statusOf(app)).state).toBe('revoked'), 40_000)
    const { lastError } = await statusOf(app)
    expect(lastError).toMatch(/^login refused: browser login at spa\.test:\d+: the page shows/)
    expect(lastError).not.toContain('hunter2')
    const picture = join(app.dir, 'data', 'screenshots', 'shop', 'ann.png')
    expect(lastError).toContain(picture)
    expect((await stat(picture)).mode & 0o777).toBe(0o600)
  })
})

describe('the browser leaves by the egress of its credential', () => {
  const auth = { user: 'ann', pass: 'proxy pass' }

  test.each([
    ['a local address', '127.0.0.3', async () => 'local://127.0.0.3'],
    [
      'an HTTP proxy with a password',
      '127.0.0.4',
      async () => keep(await startHttpProxy({ host: '127.0.0.4', auth })).url,
    ],
    [
      'a SOCKS5 proxy with a password',
      '127.0.0.5',
      async () => keep(await startSocksProxy({ host: '127.0.0.5', auth })).url,
    ],
  ])('%s', async (_what, address, egress) => {
    const { spa, ask } = await openShop({ egress: [await egress()] })
    expect(await ask()).toEqual({ status: 200, remoteAddress: address })
    const from = spa.origin.requests.map(({ remoteAddress }) => remoteAddress)
    expect(new Set(from)).toEqual(new Set([address]))
    expect(spa.seen).toHaveLength(1)
  })

  test('and by no other when that is down', async () => {
    const proxy = await startHttpProxy({ host: '127.0.0.6', auth })
    await proxy.close()
    const { spa, app } = await openShop({ egress: [proxy.url] })
    await vi.waitFor(
      async () => expect((await statusOf(app)).lastError).toMatch(/egress way is down/),
      40_000,
    )
    expect(spa.origin.connections).toBe(0)
  })
})
