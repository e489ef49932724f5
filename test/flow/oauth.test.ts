import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, describe, expect, test } from 'vitest'
import { startApp, type TestApp } from '../support/app.ts'
import { startDpopOrigin } from '../support/dpop-origin.ts'
import { startHttpProxy } from '../support/http-proxy.ts'
import {
  type LoginServer,
  type LoginServerOptions,
  startLoginServer,
} from '../support/login-server.ts'
import { LoginStream } from '../support/login-stream.ts'
import { type Origin, startOrigin } from '../support/origin.ts'
import { trusting } from '../support/protected-origin.ts'

const open: AsyncDisposable[] = []
const folders: string[] = []

afterEach(async () => {
  for (const each of open.splice(0).reverse()) await each[Symbol.asyncDispose]()
  for (const folder of folders.splice(0)) await rm(folder, { recursive: true })
})

function keep<Value extends AsyncDisposable>(value: Value): Value {
  open.push(value)
  return value
}

async function login(options?: LoginServerOptions): Promise<LoginServer> {
  return keep(await startLoginServer(options))
}

/** An API that answers 200 to a live bearer token of the server's. */
async function api(server: LoginServer): Promise<Origin> {
  return keep(
    await startOrigin({
      tls: true,
      handler: (incoming, response) => {
        const token = /^Bearer (.+)$/.exec(incoming.headers.authorization ?? '')?.[1] ?? ''
        response.writeHead(server.isActive(token) ? 200 : 401).end()
      },
    }),
  )
}

const configFor = (port: number, source: object, more: object = {}, pool: object = {}) => ({
  upstream: trusting(['api.test']),
  pools: {
    api: {
      targets: [`api.test:${port}`],
      queue: { wait: '10s' },
      credentials: [{ id: 'alice', source: { type: 'oauth2', ...source } }],
      ...pool,
    },
  },
  ...more,
})

async function start(config: object, dir?: string): Promise<TestApp> {
  return keep(await startApp(config, dir))
}

const credential = async (app: TestApp) => (await app.admin('/api/pools/api')).credentials[0]

const follow = (app: TestApp, redirectUri?: string) =>
  new LoginStream(app.app.adminUrl, 'api/alice', redirectUri === undefined ? {} : { redirectUri })

describe('grants without a person', () => {
  const cases: [string, (server: LoginServer) => object][] = [
    [
      'client_credentials with private_key_jwt',
      ({ issuer, keyClient }) => ({ grant: 'client_credentials', issuer, ...keyClient }),
    ],
    [
      'password',
      ({ issuer, clientId, clientSecret, user }) => ({
        grant: 'password',
        issuer,
        clientId,
        clientSecret,
        username: user.name,
        password: user.password,
      }),
    ],
    [
      'jwt_bearer',
      ({ issuer, clientId, clientSecret, keyClient }) => ({
        grant: 'jwt_bearer',
        issuer,
        clientId,
        clientSecret,
        privateKey: keyClient.privateKey,
        assertion: { issuer: 'service@example.test', subject: 'bob' },
      }),
    ],
  ]

  test.each(cases)('%s gets a token, and another after a 401', async (_name, sourceOf) => {
    const server = await login()
    const origin = await api(server)
    const app = await start(configFor(origin.port, sourceOf(server)))
    const url = `https://api.test:${origin.port}/orders`
    expect((await app.client().request(url)).status).toBe(200)
    server.revokeAccessTokens()
    expect((await app.client().request(url)).status).toBe(200)
    expect((await credential(app)).generation).toBe(2)
    expect(origin.requests).toHaveLength(3)
  })

  test('a token is exchanged for another', async () => {
    const server = await login()
    const origin = await api(server)
    const given = await fetch(server.tokenUrl, {
      method: 'POST',
      headers: {
        authorization: `Basic ${btoa(`${server.clientId}:${encodeURIComponent(server.clientSecret).replaceAll('%20', '+')}`)}`,
      },
      body: new URLSearchParams({ grant_type: 'client_credentials' }),
    })
    const { access_token: subjectToken } = (await given.json()) as { access_token: string }
    const { issuer, clientId, clientSecret } = server
    const source = { grant: 'token_exchange', issuer, clientId, clientSecret, subjectToken }
    const app = await start(configFor(origin.port, source))
    expect((await app.client().request(`https://api.test:${origin.port}/`)).status).toBe(200)
    expect(origin.requests[0]?.headers.join('\n')).not.toContain(subjectToken)
  })

  test('a login over the admin API gets the token afresh', async () => {
    const server = await login()
    const origin = await api(server)
    const { issuer, clientId, clientSecret } = server
    const app = await start(
      configFor(origin.port, { grant: 'client_credentials', issuer, clientId, clientSecret }),
    )
    await app.client().request(`https://api.test:${origin.port}/`)
    const flow = follow(app)
    await flow.next('begun')
    const { credential } = await flow.next('done')
    expect(credential).toMatchObject({ state: 'active', generation: 2 })
    await flow.next('end')
  })
})

describe('grants with a person', () => {
  const person = (server: LoginServer, grant: string, more: object = {}) => ({
    grant,
    issuer: server.issuer,
    clientId: server.publicClientId,
    scope: 'openid offline_access api:read',
    extra: { prompt: 'consent' },
    ...more,
  })

  test('the device flow gives a token by the pinned egress, and it renews alone', async () => {
    const server = await login()
    const origin = await api(server)
    const egress = keep(await startHttpProxy({ host: '127.0.0.2' }))
    const app = await start(
      configFor(
        origin.port,
        person(server, 'device_code'),
        { egress: { pinned: egress.url } },
        { egress: ['pinned'] },
      ),
    )
    const url = `https://api.test:${origin.port}/`
    expect((await app.client().request(url)).status).toBe(503)
    expect(await credential(app)).toMatchObject({
      state: 'revoked',
      lastError: 'login needed, run: cupbearer login api/alice',
    })
    const flow = follow(app)
    await flow.next('begun')
    const step = await flow.next('device')
    expect(step).toMatchObject({
      userCode: expect.stringMatching(/^\w{4}-\w{4}$/),
      verificationUri: `${server.issuer}/device`,
    })
    await server.browse(step.verificationUriComplete as string)
    expect((await flow.next('done')).credential.state).toBe('active')
    expect((await app.client().request(url)).status).toBe(200)
    server.revokeAccessTokens()
    expect((await app.client().request(url)).status).toBe(200)
    expect(server.calls.at(-1)?.form.get('grant_type')).toBe('refresh_token')
    expect(new Set(server.calls.map(({ remoteAddress }) => remoteAddress))).toEqual(
      new Set(['127.0.0.2']),
    )
  })

  test('the authorization code flow takes what the browser brings back', async () => {
    const server = await login()
    const origin = await api(server)
    const app = await start(configFor(origin.port, person(server, 'authorization_code')))
    const flow = follow(app, 'http://127.0.0.1:4711/callback')
    const { login: id } = await flow.next('begun')
    const { url, redirectUri } = await flow.next('open')
    expect(redirectUri).toBe('http://127.0.0.1:4711/callback')
    expect(await flow.hand(id, 'http://127.0.0.1:4711/callback?code=x&state=y')).toBe(200)
    await flow.next('note')
    expect(await flow.hand(id, (await server.browse(url)) as string)).toBe(200)
    await flow.next('done')
    expect((await app.client().request(`https://api.test:${origin.port}/`)).status).toBe(200)
    expect(await flow.hand(id, 'too late')).toBe(404)
  })

  test('a revoked refresh token needs a login again, and that heals it, over a restart', async () => {
    const server = await login()
    const origin = await api(server)
    const dir = await mkdtemp(join(tmpdir(), 'cupbearer-'))
    folders.push(dir)
    const config = configFor(origin.port, person(server, 'device_code'), {
      store: `file:${join(dir, 'data', 'state.db')}`,
    })
    const log = async (app: TestApp) => {
      const flow = follow(app)
      await flow.next('begun')
      await server.browse((await flow.next('device')).verificationUriComplete as string)
      await flow.next('done')
    }
    const url = `https://api.test:${origin.port}/`
    {
      await using first = await startApp(config, dir)
      await log(first)
      server.revokeRefreshTokens()
      server.revokeAccessTokens()
      expect((await first.client().request(url)).status).toBe(401)
      expect((await credential(first)).lastError).toMatch(
        /invalid_grant.*cupbearer login api\/alice/,
      )
    }
    {
      await using second = await startApp(config, dir)
      expect((await credential(second)).state).toBe('revoked')
      await log(second)
      expect((await second.client().request(url)).status).toBe(200)
    }
    await using third = await startApp(config, dir)
    expect((await third.client().request(url)).status).toBe(200)
  })

  test('a login that nobody follows any more is given up', async () => {
    const server = await login()
    const origin = await api(server)
    const app = await start(configFor(origin.port, person(server, 'device_code')))
    const flow = follow(app)
    await flow.next('begun')
    await flow.next('device')
    flow.stop()
    // One at a time: as soon as the first is gone, there is room for another.
    for (;;) {
      const again = follow(app)
      await again.next('begun')
      const line = await again.any()
      again.stop()
      if (line?.step === 'device') break
      expect(JSON.stringify(line)).toContain('under way already')
    }
    expect((await credential(app)).state).toBe('revoked')
  })

  test('what goes wrong is told in words, and the credential stays as it was', async () => {
    const server = await login()
    const origin = await api(server)
    const app = await start(configFor(origin.port, person(server, 'authorization_code')))
    server.account = undefined
    const flow = follow(app, 'http://127.0.0.1:4711/callback')
    const { login: id } = await flow.next('begun')
    await flow.hand(id, (await server.browse((await flow.next('open')).url)) as string)
    expect((await flow.next('failed')).error).toEqual({
      code: 'SOURCE_FAILED',
      message: 'the authorization server refused the login (access_denied)',
    })
    expect(await credential(app)).toMatchObject({ state: 'revoked', generation: 0 })
  })
})

describe('DPoP', () => {
  const bound = ({ issuer, clientId, clientSecret }: LoginServer) => ({
    grant: 'client_credentials',
    issuer,
    clientId,
    clientSecret,
    scope: 'api:read',
    dpop: true,
  })

  test('each request carries a proof of its own, and never the client’s', async () => {
    const server = await login()
    const guarded = keep(await startDpopOrigin(server.isActive))
    const { port } = guarded.origin
    const app = await start(configFor(port, bound(server)))
    const answers = await Promise.all(
      ['GET', 'POST', 'DELETE'].map((method) =>
        app.client().request(`https://api.test:${port}/orders?page=2`, {
          method,
          headers: { dpop: 'of-the-client', authorization: 'DPoP of-the-client' },
          ...(method === 'POST' && { body: 'an order' }),
        }),
      ),
    )
    expect(answers.map(({ status }) => status)).toEqual([200, 200, 200])
    for (const answer of answers) expect(answer.body.toString()).not.toContain('of-the-client')
    expect(server.calls).toHaveLength(1)
  })

  test('a nonce challenge is answered once, without a refresh, and the nonce is kept', async () => {
    const server = await login({ dpopNonce: true })
    const guarded = keep(await startDpopOrigin(server.isActive, 'first'))
    const { port } = guarded.origin
    const app = await start(configFor(port, bound(server), {}, { replay: { attempts: 0 } }))
    const client = app.client()
    const ask = () =>
      client.request(`https://api.test:${port}/`, { method: 'POST', body: 'an order' })
    const first = await ask()
    expect(first.status).toBe(200)
    expect(first.json()).toMatchObject({ bytes: 8 })
    expect((await ask()).status).toBe(200)
    expect(guarded.verdicts).toEqual(['use_dpop_nonce', '200', '200'])
    // The server turns its nonce over.
    guarded.nonce = 'second'
    expect((await ask()).status).toBe(200)
    expect(guarded.verdicts.slice(3)).toEqual(['use_dpop_nonce', '200'])
    expect(await credential(app)).toMatchObject({ state: 'active', generation: 1, inFlight: 0 })
    expect(server.calls.map(({ error }) => error)).toEqual(['use_dpop_nonce', undefined])
    const { traces } = await app.admin('/api/traces')
    expect(traces[0]).toMatchObject({
      attempts: [{ verdict: 'nonce' }, { verdict: 'ok' }],
      replay: { done: true },
    })
  })

  test('a server that is never content gets one retry, and costs the credential nothing', async () => {
    const server = await login()
    const guarded = keep(await startDpopOrigin(server.isActive))
    guarded.insatiable = true
    const { port } = guarded.origin
    const app = await start(configFor(port, bound(server)))
    const answer = await app.client().request(`https://api.test:${port}/`)
    expect(answer.status).toBe(401)
    expect(answer.headers['www-authenticate']).toContain('use_dpop_nonce')
    expect(guarded.verdicts).toEqual(['use_dpop_nonce', 'use_dpop_nonce'])
    expect(await credential(app)).toMatchObject({ state: 'active', generation: 1, inFlight: 0 })
    expect(server.calls).toHaveLength(1)
  })

  test('a bound token that died is renewed and replayed with a new proof', async () => {
    const server = await login()
    const guarded = keep(await startDpopOrigin(server.isActive, 'nonce'))
    const { port } = guarded.origin
    const app = await start(configFor(port, bound(server)))
    const url = `https://api.test:${port}/`
    expect((await app.client().request(url)).status).toBe(200)
    server.revokeAccessTokens()
    expect((await app.client().request(url)).status).toBe(200)
    expect(guarded.verdicts).toEqual(['use_dpop_nonce', '200', 'invalid_token', '200'])
  })

  test('tokens and their key survive a restart', async () => {
    const server = await login()
    const guarded = keep(await startDpopOrigin(server.isActive))
    const { port } = guarded.origin
    const dir = await mkdtemp(join(tmpdir(), 'cupbearer-'))
    folders.push(dir)
    const config = configFor(port, bound(server), {
      store: `file:${join(dir, 'data', 'state.db')}`,
    })
    for (let run = 0; run < 2; run++) {
      await using app = await startApp(config, dir)
      expect((await app.client().request(`https://api.test:${port}/`)).status).toBe(200)
    }
    expect(server.calls).toHaveLength(1)
  })

  test('a refresh token of a public client is used with the key it is bound to', async () => {
    const server = await login()
    const guarded = keep(await startDpopOrigin(server.isActive))
    const { port } = guarded.origin
    const source = {
      grant: 'device_code',
      issuer: server.issuer,
      clientId: server.publicClientId,
      scope: 'openid offline_access api:read',
      dpop: true,
    }
    const app = await start(configFor(port, source))
    const flow = follow(app)
    await flow.next('begun')
    await server.browse((await flow.next('device')).verificationUriComplete as string)
    await flow.next('done')
    await app.admin('/api/pools/api/credentials/alice/refresh', 'POST')
    expect(await credential(app)).toMatchObject({ state: 'active', generation: 2 })
    expect((await app.client().request(`https://api.test:${port}/`)).status).toBe(200)
  })

  test('a pool without it still drops the client’s own proof', async () => {
    const server = await login()
    const origin = await api(server)
    const { dpop: _dpop, ...source } = bound(server)
    const app = await start(configFor(origin.port, source))
    const headers = { dpop: 'of-the-client' }
    await app.client().request(`https://api.test:${origin.port}/`, { headers })
    expect(origin.requests[0]?.headers.map((name) => name.toLowerCase())).not.toContain('dpop')
  })
})
