import { mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, describe, expect, test, vi } from 'vitest'
import { startApp, type TestApp } from '../support/app.ts'
import { type DpopOrigin, startDpopOrigin } from '../support/dpop-origin.ts'
import { type LoginServer, startLoginServer } from '../support/login-server.ts'
import { LoginStream } from '../support/login-stream.ts'
import { startOrigin } from '../support/origin.ts'
import { trusting } from '../support/protected-origin.ts'

const EXAMPLES = new URL('../../examples/', import.meta.url)

const open: AsyncDisposable[] = []

afterEach(async () => {
  vi.unstubAllEnvs()
  for (const each of open.splice(0).reverse()) await each[Symbol.asyncDispose]()
})

async function folder(): Promise<string> {
  const path = await mkdtemp(join(tmpdir(), 'cupbearer-'))
  open.push({ [Symbol.asyncDispose]: () => rm(path, { recursive: true }) })
  return path
}

/** Runs an example as it stands, between a real authorization server and an API that knows its tokens. */
async function run(
  name: string,
  options: { bound?: boolean; prepare?: (server: LoginServer, dir: string) => Promise<void> } = {},
): Promise<{ server: LoginServer; app: TestApp; ask: () => Promise<number> }> {
  const server = await startLoginServer()
  open.push(server)
  const dir = await folder()
  const guarded: DpopOrigin | undefined = options.bound
    ? await startDpopOrigin(server.isActive)
    : undefined
  const origin =
    guarded?.origin ??
    (await startOrigin({
      tls: true,
      handler: (incoming, response) => {
        const token = incoming.headers.authorization?.replace('Bearer ', '') ?? ''
        response.writeHead(server.isActive(token) ? 200 : 401).end()
      },
    }))
  open.push(origin)
  const api = `https://api.test:${origin.port}`
  const env = {
    ORDERS_API: api,
    ISSUER: server.issuer,
    CLIENT_ID: name.includes('client-credentials') ? server.keyClient.clientId : server.clientId,
    CLIENT_SECRET: server.clientSecret,
    PUBLIC_CLIENT_ID: server.publicClientId,
    PASSWORD: server.user.password,
  }
  for (const [key, value] of Object.entries(env)) vi.stubEnv(key, value)
  await writeFile(join(dir, 'client-key.pem'), server.keyClient.privateKey)
  await options.prepare?.(server, dir)
  const config = JSON.parse(await readFile(new URL(name, EXAMPLES), 'utf8')) as object
  const app = await startApp({ ...config, upstream: trusting(['api.test']) }, dir)
  open.push(app)
  return { server, app, ask: async () => (await app.client().request(`${api}/orders`)).status }
}

/** A token of the server's, as somebody else would have got it. */
async function grant(server: LoginServer, form: Record<string, string>): Promise<string> {
  const basic = btoa(`${server.clientId}:${server.clientSecret.replaceAll(' ', '+')}`)
  const response = await fetch(server.tokenUrl, {
    method: 'POST',
    headers: { authorization: `Basic ${basic}` },
    body: new URLSearchParams(form),
  })
  return ((await response.json()) as { access_token: string }).access_token
}

describe('an example without a person', () => {
  test.each(['oauth2-client-credentials.json', 'oauth2-password.json', 'oauth2-jwt-bearer.json'])(
    '%s gets its tokens',
    async (name) => {
      const { ask } = await run(name)
      expect(await ask()).toBe(200)
    },
  )

  test('oauth2-token-exchange.json gets its tokens', async () => {
    const { ask } = await run('oauth2-token-exchange.json', {
      prepare: async (server, dir) => {
        const token = await grant(server, { grant_type: 'client_credentials' })
        await writeFile(join(dir, 'workload-token'), `${token}\n`)
      },
    })
    expect(await ask()).toBe(200)
  })

  test('oauth2-dpop.json gets tokens that only their holder can use', async () => {
    const { ask } = await run('oauth2-dpop.json', { bound: true })
    expect(await ask()).toBe(200)
  })

  test('oauth2-refresh-token.json goes on from the login that it is given', async () => {
    const { ask, server } = await run('oauth2-refresh-token.json', {
      prepare: async (server) => {
        vi.stubEnv('REFRESH_TOKEN', await refreshTokenOf(server))
      },
    })
    expect(await ask()).toBe(200)
    expect(server.calls.at(-1)?.form.get('grant_type')).toBe('refresh_token')
  })
})

describe('an example with a person', () => {
  test('oauth2-device-code.json serves after a login', async () => {
    const { ask, app, server } = await run('oauth2-device-code.json')
    const login = new LoginStream(app.app.adminUrl, 'orders/alice')
    await login.next('begun')
    await server.browse((await login.next('device')).verificationUriComplete as string)
    await login.next('done')
    expect(await ask()).toBe(200)
  })

  test('oauth2-authorization-code.json serves after a login', async () => {
    const { ask, app, server } = await run('oauth2-authorization-code.json')
    const login = new LoginStream(app.app.adminUrl, 'orders/alice', {
      redirectUri: 'http://127.0.0.1:4711/callback',
    })
    const { login: id } = await login.next('begun')
    await login.hand(id, await server.browse((await login.next('open')).url))
    await login.next('done')
    expect(await ask()).toBe(200)
  })
})

test('every OAuth example is run here', async () => {
  const source = await readFile(new URL(import.meta.url), 'utf8')
  const names = (await readdir(EXAMPLES)).filter((name) => name.startsWith('oauth2-'))
  expect(names.length).toBeGreaterThan(0)
  for (const name of names) expect(source).toContain(name)
})

/** A login at a browser, done elsewhere. */
async function refreshTokenOf(server: LoginServer): Promise<string> {
  const begun = await fetch(`${server.issuer}/device/auth`, {
    method: 'POST',
    body: new URLSearchParams({
      client_id: server.publicClientId,
      scope: 'openid offline_access api:read',
    }),
  })
  const device = (await begun.json()) as { device_code: string; verification_uri_complete: string }
  await server.browse(device.verification_uri_complete)
  const answer = await fetch(server.tokenUrl, {
    method: 'POST',
    body: new URLSearchParams({
      grant_type: 'urn:ietf:params:oauth:grant-type:device_code',
      client_id: server.publicClientId,
      device_code: device.device_code,
    }),
  })
  return ((await answer.json()) as { refresh_token: string }).refresh_token
}
