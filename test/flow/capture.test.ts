import { mkdtemp, readdir, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { brotliCompressSync, gzipSync } from 'node:zlib'
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest'
import { CaptureScene, post } from '../support/capture.ts'
import { type Origin, startOrigin } from '../support/origin.ts'

let scene: CaptureScene
const open: AsyncDisposable[] = []

beforeEach(async () => {
  scene = await CaptureScene.create()
})
afterEach(async () => {
  vi.unstubAllEnvs()
  await scene[Symbol.asyncDispose]()
  for (const each of open.splice(0).reverse()) await each[Symbol.asyncDispose]()
})

/** Learning goes on after the answer has passed: as soon as the pool says so, it is done. */
const learned = (generation = 1, id = 'ann') =>
  vi.waitFor(async () => {
    expect(await scene.status(id)).toMatchObject({ state: 'active', generation })
  }, 20_000)

const exampleOf = async (name: string) => {
  vi.stubEnv('SHOP_API', scene.apiUrl)
  vi.stubEnv('SHOP_TOKEN_URL', scene.server.tokenUrl)
  const file = new URL(`../../examples/${name}`, import.meta.url)
  return JSON.parse(await readFile(file, 'utf8')).pools.shop as object
}

describe('a login that goes through the proxy', () => {
  test('serves everybody from then on, and is renewed alone (examples/capture.json)', async () => {
    await scene.start(await exampleOf('capture.json'))
    expect((await scene.status()).state).toBe('pending')
    const { access, refresh } = await scene.logIn()
    await learned()
    expect(await scene.ask()).toBe(200)
    expect(scene.lastSeen).toBe(access)
    expect(await scene.status()).toMatchObject({ subject: 'alice', scopes: ['api:read'] })

    scene.server.revokeAccessTokens()
    expect(await scene.ask()).toBe(200)
    expect((await scene.status()).generation).toBe(2)
    const { form, headers } = scene.server.calls.at(-1) ?? { form: new URLSearchParams() }
    expect(Object.fromEntries(form)).toEqual({
      grant_type: 'refresh_token',
      client_id: 'public-client',
      refresh_token: refresh,
    })
    expect(headers?.authorization).toBeUndefined()
    const told = JSON.stringify([
      await scene.app.admin('/api/traces'),
      await scene.app.admin('/api/pools'),
    ])
    expect(told).not.toContain(access)
    expect(told).not.toContain(refresh)
  })

  test('is renewed after a restart too, and lies sealed on the disk', async () => {
    const dir = await mkdtemp(join(tmpdir(), 'cupbearer-'))
    open.push({ [Symbol.asyncDispose]: () => rm(dir, { recursive: true }) })
    const store = { store: 'file:data/store.db' }
    const first = await scene.start({}, store, dir)
    const { access, refresh } = await scene.logIn()
    await learned()
    await first.app.stop()
    for (const file of await readdir(join(dir, 'data'))) {
      const content = await readFile(join(dir, 'data', file), 'latin1')
      for (const secret of [access, refresh, 'public-client']) expect(content).not.toContain(secret)
    }
    await scene.start({}, store, dir)
    scene.server.revokeAccessTokens()
    expect(await scene.ask()).toBe(200)
    expect((await scene.status()).generation).toBe(2)
  })

  test('leaves by the egress of the credential, as its renewal does', async () => {
    const credentials = [{ id: 'ann', egress: 'way', source: { type: 'capture' } }]
    await scene.start({ credentials }, { egress: { way: 'local://127.0.0.9' } })
    await scene.logIn()
    await learned()
    scene.server.revokeAccessTokens()
    expect(await scene.ask()).toBe(200)
    const from = scene.server.calls.map(({ remoteAddress }) => remoteAddress)
    expect(from).toEqual(['127.0.0.9', '127.0.0.9'])
  })

  test('is learned again when the old one is revoked', async () => {
    await scene.start()
    await scene.logIn()
    await learned()
    scene.server.revokeRefreshTokens()
    scene.server.revokeAccessTokens()
    expect(await scene.ask()).toBe(401)
    const { state, lastError } = await scene.status()
    expect(state).toBe('revoked')
    expect(lastError).toMatch(/^token endpoint 127\.0\.0\.1:\d+ refuses the learned login, run: /)
    await scene.logIn()
    await learned(2)
    expect(await scene.ask()).toBe(200)
  })

  test('keeps up with a page that renews its token itself', async () => {
    await scene.start()
    const { refresh } = await scene.logIn()
    await learned()
    const page = await post(scene.app.client(), scene.server.tokenUrl, {
      grant_type: 'refresh_token',
      client_id: scene.server.publicClientId,
      refresh_token: refresh,
    })
    await learned(2)
    await scene.ask()
    expect(scene.lastSeen).toBe(page.access)
    scene.server.revokeAccessTokens()
    expect(await scene.ask()).toBe(200)
    expect(scene.server.calls.at(-1)?.form.get('refresh_token')).toBe(page.refresh)
  })

  test('at a host of another kind counts once its token has served', async () => {
    // Intercepted, but no target covers the endpoint.
    const { issuer, tokenUrl } = scene.server
    await scene.start({ targets: [scene.apiUrl, `${issuer}/elsewhere`] })
    const { access } = await scene.logIn()
    expect(await scene.ask(access)).toBe(200)
    await learned()
    scene.server.revokeAccessTokens()
    expect(await scene.ask()).toBe(200)
    expect(scene.server.calls).toHaveLength(2)
    expect(tokenUrl.startsWith(issuer)).toBe(true)
  })
})

describe('a request with a token of its own', () => {
  /** A token that the API takes, got past the proxy. */
  const tokenFrom = async (account: string) => {
    const direct = await CaptureScene.create()
    open.push(direct)
    await direct.start()
    return { direct, token: (await direct.logIn(account)).access }
  }

  test('passes while the pool is empty, and is learned from when upstream takes it', async () => {
    const { direct, token } = await tokenFrom('alice')
    const targets = [direct.apiUrl]
    await scene.start({ targets })
    const ask = async (bearer?: string) =>
      (
        await scene.app.client().request(`${direct.apiUrl}/x`, {
          headers: bearer === undefined ? {} : { authorization: `Bearer ${bearer}` },
        })
      ).status
    expect(await ask()).toBe(503)
    expect(await ask('nobodys-token')).toBe(401)
    expect((await scene.status()).state).toBe('pending')
    expect(await ask(token)).toBe(200)
    await learned()
    expect(await ask()).toBe(200)
    // Full: a foreign token is dropped as ever.
    expect(await ask('nobodys-token')).toBe(200)
    expect(direct.lastSeen).toBe(token)
    // Nothing to renew it from: it is out, and the next login is learned from.
    direct.server.revokeAccessTokens()
    expect(await ask()).toBe(401)
    expect((await scene.status()).state).toBe('quarantined')
    const { access } = await direct.logIn()
    expect(await ask(access)).toBe(200)
    await learned(2)
    expect(await ask()).toBe(200)
  })

  test('is not learned from where the configuration says so', async () => {
    const source = { type: 'capture', authorization: false }
    await scene.start({ credentials: [{ id: 'ann', source }], targets: [scene.apiUrl] })
    const { token } = await tokenFrom('alice')
    expect(await scene.ask(token)).toBe(401)
    expect((await scene.status()).generation).toBe(0)
  })

  test('two clients at once: each credential has one account', async () => {
    const ids = ['ann', 'bob', 'cid']
    const credentials = ids.map((id) => ({ id, source: { type: 'capture' } }))
    const tokens = new Set(['alpha', 'beta'])
    const api = await keepOrigin((request, response) => {
      const token = request.headers.authorization?.slice(7) ?? ''
      response.writeHead(tokens.has(token) ? 200 : 401).end(token)
    })
    await scene.start({ targets: [`https://api.test:${api.port}`], credentials })
    const clients = ['alpha', 'beta'].flatMap((token) => Array(10).fill(token) as string[])
    await Promise.all(
      clients.map((token) =>
        scene.app.client().request(`https://api.test:${api.port}/`, {
          headers: { authorization: `Bearer ${token}` },
        }),
      ),
    )
    await learned()
    const { credentials: all } = await scene.app.admin('/api/pools/shop')
    const generations = all.map(({ generation }: { generation: number }) => generation)
    expect(generations.every((each: number) => each <= 1)).toBe(true)
    expect(generations[2]).toBe(0)
  })
})

async function keepOrigin(
  handler: NonNullable<Parameters<typeof startOrigin>[0]>['handler'],
): Promise<Origin> {
  const origin = await startOrigin({
    tls: true,
    names: ['api.test', 'other.test'],
    ...(handler && { handler }),
  })
  open.push(origin)
  return origin
}

describe('an answer that the configuration describes', () => {
  /** A login that is none of OAuth, and an API that takes `tok-1`. */
  async function openShop(answer: (body: string) => { headers: object; body: Buffer | string }) {
    const login = JSON.stringify({ data: { jwt: 'tok-1', seconds: 900 } })
    const api = await keepOrigin((request, response) => {
      if (request.url === '/login') {
        const { headers, body } = answer(login)
        response.writeHead(200, { 'content-type': 'application/json', ...headers }).end(body)
      } else response.writeHead(request.headers.authorization === 'Bearer tok-1' ? 200 : 401).end()
    })
    const url = `https://api.test:${api.port}`
    const source = {
      type: 'capture',
      response: { url: `${url}/login`, token: '/data/jwt', expiresIn: '/data/seconds' },
    }
    await scene.start({ targets: [url], credentials: [{ id: 'ann', source }] })
    const client = scene.app.client()
    const logIn = () => client.request(`${url}/login`, { method: 'POST', body: '{"user":"ann"}' })
    return { login, logIn, ask: async () => (await client.request(`${url}/x`)).status }
  }

  test.each([
    ['plain', (body: string) => ({ headers: {}, body })],
    ['gzip', (body: string) => ({ headers: { 'content-encoding': 'gzip' }, body: gzipSync(body) })],
    [
      'brotli',
      (body: string) => ({ headers: { 'content-encoding': 'br' }, body: brotliCompressSync(body) }),
    ],
  ])('gives its token, %s', async (_coding, answer) => {
    const { login, logIn, ask } = await openShop(answer)
    const { body } = await logIn()
    expect(body).toEqual(Buffer.from(answer(login).body))
    await learned()
    expect(await ask()).toBe(200)
    const { expiresAt } = await scene.status()
    expect(Date.parse(expiresAt) - Date.now()).toBeGreaterThan(800_000)
  })

  test.each([
    ['HTML', '<h1>Welcome</h1>', {}],
    ['HTML that is called so', '<h1>Welcome</h1>', { 'content-type': 'text/html' }],
    ['a huge one', JSON.stringify({ data: { jwt: 'tok-1' }, more: 'x'.repeat(100_000) }), {}],
    ['what is no gzip', 'tok-1', { 'content-encoding': 'gzip' }],
    ['a bomb', gzipSync(Buffer.alloc(10_000_000, 0x20)), { 'content-encoding': 'gzip' }],
    ['no token', '{"data":{"jwt":null}}', {}],
    ['an array', '[1]', {}],
    ['nothing', '', {}],
  ])('that is %s passes as it is and teaches nothing', async (_what, body, headers) => {
    const { logIn, ask } = await openShop(() => ({ headers, body }))
    expect((await logIn()).body).toEqual(Buffer.from(body))
    expect(await ask()).toBe(503)
    expect(await scene.status()).toMatchObject({ state: 'pending', generation: 0 })
  })

  test('whose token holds a line break is told as an error of the credential', async () => {
    const body = '{"data":{"jwt":"tok-1\\r\\nx: y"}}'
    const { logIn, ask } = await openShop(() => ({ headers: {}, body }))
    expect((await logIn()).body.toString()).toBe(body)
    expect(await ask()).toBe(503)
    const { state, lastError } = await scene.status()
    expect(state).toBe('pending')
    expect(lastError).toMatch(/^a token was seen and not learned: .* no header field can carry$/)
  })
})

test('what streams passes while it comes', async () => {
  let end = () => {}
  const api = await keepOrigin((_request, response) => {
    response.writeHead(200, { 'content-type': 'application/json' }).write('{"first":1,')
    end = () => response.end('"last":2}')
  })
  await scene.start({ targets: [`https://api.test:${api.port}`] })
  const message = await scene.app.client().open(`https://api.test:${api.port}/`, {
    headers: { authorization: 'Bearer streaming' },
  })
  const pieces: string[] = []
  for await (const piece of message) {
    pieces.push(String(piece))
    if (pieces.length === 1) {
      expect((await scene.status()).state).toBe('pending')
      end()
    }
  }
  expect(pieces.join('')).toBe('{"first":1,"last":2}')
  await learned()
})

test('a pool without such a source treats logins as ever', async () => {
  await scene.start({ credentials: [{ id: 'ann', source: { type: 'static', token: 'static' } }] })
  const { tokenUrl } = scene.server
  const { response } = await post(scene.app.client(), tokenUrl, { grant_type: 'refresh_token' })
  expect(response.status).toBeGreaterThanOrEqual(400)
  expect(await scene.ask('own')).toBe(401)
  expect(scene.lastSeen).toBe('static')
})
