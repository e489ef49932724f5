import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { fileURLToPath } from 'node:url'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { startApp, type TestApp } from '../support/app.ts'
import { type AuthServer, startAuthServer } from '../support/auth-server.ts'
import { testAuthority } from '../support/certificates.ts'
import { startHttpProxy } from '../support/http-proxy.ts'
import { type Origin, startOrigin } from '../support/origin.ts'
import { startProtectedOrigin, trusting } from '../support/protected-origin.ts'
import { until } from '../support/until.ts'

interface Lease {
  lease: string
  credential: string
  token: string
  header: { name: string; value: string }
  headers: Record<string, string>
  egress: { name: string; url?: string }
  expiresAt: string
}
interface Answer {
  status: number
  retryAfter: string | null
  body: Lease & { verdict?: string; recovery?: string; trace: string; error?: { code: string } }
}

let origin: Origin
let app: TestApp
let auth: AuthServer | undefined

beforeEach(async () => {
  origin = await startOrigin()
})
afterEach(async () => {
  await app[Symbol.asyncDispose]()
  await origin[Symbol.asyncDispose]()
  await auth?.[Symbol.asyncDispose]()
  auth = undefined
})

const ADMIN = 'Bearer admin-token-of-the-test'
const basic = (text: string) => `Basic ${Buffer.from(text).toString('base64')}`

function config(pool: object = {}, more: object = {}, ids: readonly string[] = ['a']): object {
  const credentials = ids.map((id) => ({ id, source: { type: 'static', token: `token-of-${id}` } }))
  const targets = [`http://127.0.0.1:${origin.port}`]
  return { ...more, pools: { api: { targets, credentials, ...pool } } }
}

async function start(...how: Parameters<typeof config>): Promise<void> {
  app = await startApp(config(...how))
}

/** A pool whose tokens come from the auth server and are refused once they are revoked. */
async function startRenewing(pool: object = {}, more: object = {}): Promise<void> {
  auth ??= await startAuthServer({ accessTokenTtlSeconds: 600 })
  const { tokenUrl, clientId, clientSecret } = auth
  const refreshToken = await auth.issueRefreshToken('a')
  const grant = { grant: 'refresh_token', tokenUrl, clientId, clientSecret, refreshToken }
  const credentials = [{ id: 'a', source: { type: 'oauth2', ...grant } }]
  await start({ credentials, refresh: { minInterval: '50ms' }, ...pool }, more)
}

async function post(path: string, body: object, as = ADMIN, signal?: AbortSignal): Promise<Answer> {
  const response = await fetch(app.app.adminUrl + path, {
    method: 'POST',
    headers: { authorization: as },
    body: JSON.stringify(body),
    ...(signal && { signal }),
  })
  expect(response.headers.get('cache-control')).toBe('no-store')
  const { status, headers } = response
  return {
    status,
    retryAfter: headers.get('retry-after'),
    body: (await response.json()) as Answer['body'],
  }
}
const ask = (body: object = {}, as?: string) => post('/api/pools/api/leases', body, as)
const report = (lease: Lease, body: object, as?: string) =>
  post(`/api/leases/${lease.lease}`, body, as)

async function lease(body: object = {}, as?: string): Promise<Lease> {
  const answer = await ask(body, as)
  expect(answer.body).toMatchObject({ lease: expect.any(String) })
  return answer.body
}
const codeOf = async (asking: Promise<Answer>) => {
  const { status, body } = await asking
  return [status, body.error?.code]
}

const get = (path = '/') => app.client().request(`http://127.0.0.1:${origin.port}${path}`)
const pool = () => app.admin('/api/pools/api')
const stateOf = async (index = 0) => (await pool()).credentials[index].state

async function waiting(count: number): Promise<void> {
  await until(async () => (await pool()).waiting === count)
}

describe('a lease', () => {
  test('hands out the live token, its header, egress and fixed headers', async () => {
    await using proxy = await startHttpProxy({ auth: { user: 'me', pass: 'p@ss' } })
    const more = { egress: { home: proxy.url, lan: 'local://127.0.0.3' } }
    const source = (id: string) => ({ type: 'static', token: `token-of-${id}` })
    const credentials = [
      { id: 'a', egress: 'home', headers: { 'User-Agent': 'Shop/1' }, source: source('a') },
      { id: 'b', egress: 'lan', source: source('b') },
      { id: 'c', source: source('c') },
    ]
    await start({ credentials }, more)
    const first = await lease({ credential: 'a' })
    expect(first).toMatchObject({
      credential: 'a',
      token: 'token-of-a',
      header: { name: 'authorization', value: 'Bearer token-of-a' },
      headers: { 'User-Agent': 'Shop/1' },
      egress: { name: 'home', url: proxy.url },
    })
    expect(first.lease).toMatch(/^[\w-]{24}$/)
    const left = Date.parse(first.expiresAt) - Date.now()
    expect(left).toBeGreaterThan(40_000)
    expect(left).toBeLessThanOrEqual(60_000)
    const [b, c] = [await lease({ credential: 'b' }), await lease({ credential: 'c' })]
    expect(b.egress).toEqual({ name: 'lan', url: 'local://127.0.0.3' })
    expect(c.egress).toEqual({ name: 'direct', url: 'direct:' })
  })

  test('ends with its token where that comes first', async () => {
    const expiresAt = new Date(Date.now() + 30_000).toISOString()
    await start({
      credentials: [{ id: 'a', source: { type: 'static', token: 'short', expiresAt } }],
    })
    expect((await lease()).expiresAt).toBe(expiresAt)
  })

  test('sticks to its session', async () => {
    await start({}, {}, ['a', 'b', 'c'])
    const home = (await lease({ session: 'one' })).credential
    for (let i = 0; i < 3; i++) expect((await lease({ session: 'one' })).credential).toBe(home)
  })

  test('is judged by what the pool requires of its path, and by the scopes asked for', async () => {
    const claims = { scope: 'read', exp: Math.floor(Date.now() / 1000) + 600 }
    const part = (value: object) => Buffer.from(JSON.stringify(value)).toString('base64url')
    const token = `${part({ alg: 'none' })}.${part(claims)}.`
    await start({
      credentials: [{ id: 'a', source: { type: 'static', token } }],
      requires: [{ methods: ['POST'], path: '/admin/*', scopes: ['write'] }],
    })
    const missing = [403, 'NO_TOKEN_WITH_SCOPE']
    expect(await codeOf(ask({ method: 'POST', path: '/admin/x' }))).toEqual(missing)
    expect(await codeOf(ask({ scopes: ['write'] }))).toEqual(missing)
    expect((await ask({ path: '/admin/x', scopes: ['read'] })).status).toBe(201)
  })
})

describe('limits', () => {
  test('of concurrency are held by a lease until it is reported, in order of arrival', async () => {
    await start({ limits: { concurrency: 1 } })
    const first = await lease()
    expect((await pool()).credentials[0]).toMatchObject({ inFlight: 1, uses: 1 })
    const second = lease()
    await waiting(1)
    let served = false
    const request = get().finally(() => {
      served = true
    })
    await waiting(2)
    expect((await report(first, { status: 200 })).body.verdict).toBe('ok')
    const next = await second
    expect(served).toBe(false)
    expect(origin.requests).toEqual([])
    await report(next, { status: 200 })
    expect((await request).status).toBe(200)
  })

  test('of concurrency are free again when an unreported lease has expired', async () => {
    await start({ limits: { concurrency: 1 } })
    const asked = performance.now()
    const first = await lease({ ttlSeconds: 1 })
    expect((await get()).status).toBe(200)
    expect(performance.now() - asked).toBeGreaterThan(990)
    expect(await codeOf(report(first, { status: 401 }))).toEqual([409, 'LEASE_OVER'])
    expect(await stateOf()).toBe('active')
    const { traces } = await app.admin('/api/traces?verdict=unreported')
    expect(traces).toMatchObject([{ kind: 'lease', pool: 'api', status: null }])
  })

  test('of a rate count leases and requests together, from the start', async () => {
    await start({ limits: { rate: ['2/60s'] } })
    await lease()
    expect((await get()).status).toBe(200)
    const refused = await ask({ waitSeconds: 0 })
    expect([refused.status, refused.body.error?.code]).toEqual([503, 'POOL_EXHAUSTED'])
    expect(Number(refused.retryAfter)).toBeGreaterThanOrEqual(30)
    expect(Number(refused.retryAfter)).toBeLessThanOrEqual(61)
  })

  test('of the queue hold: QUEUE_FULL beyond it, and a worker that leaves is gone from it', async () => {
    await start({ limits: { concurrency: 1 }, queue: { max: 1 } })
    const first = await lease()
    const leaving = new AbortController()
    const left = post('/api/pools/api/leases', {}, ADMIN, leaving.signal).catch(
      (error: Error) => error.name,
    )
    await waiting(1)
    expect(await codeOf(ask())).toEqual([503, 'QUEUE_FULL'])
    leaving.abort()
    expect(await left).toBe('AbortError')
    await waiting(0)
    await report(first, { status: 200 })
    expect((await pool()).credentials[0]).toMatchObject({ inFlight: 0, uses: 1 })
  })

  test('let a lease wait no longer than it says', async () => {
    await start({ limits: { concurrency: 1 } })
    await lease()
    const asked = performance.now()
    expect(await codeOf(ask({ waitSeconds: 0.2 }))).toEqual([503, 'POOL_EXHAUSTED'])
    // Far from the pool's own patience of half a minute.
    expect(performance.now() - asked).toBeLessThan(15_000)
  })
})

describe('a report', () => {
  test('of 401 renews the token once for all, and the next lease is good', async () => {
    await startRenewing()
    const leases = await Promise.all([lease(), lease(), lease()])
    expect(new Set(leases.map(({ token }) => token)).size).toBe(1)
    auth?.revokeAccessTokens()
    const answers = await Promise.all(leases.map((each) => report(each, { status: 401 })))
    for (const { body } of answers) {
      expect(body.verdict).toBe('expired')
      expect(['renewed', 'stale']).toContain(body.recovery)
    }
    expect(auth?.calls).toHaveLength(2)
    const next = await lease()
    expect(next.token).not.toBe(leases[0]?.token)
    expect(await auth?.isActive(next.token)).toBe(true)
    const trace = await app.admin(`/api/traces/${answers[0]?.body.trace}`)
    expect(trace).toMatchObject({ kind: 'lease', status: 401, verdict: 'expired' })
    expect(trace.refresh.result).toBe('renewed')
    // An old generation teaches nothing.
    expect((await pool()).credentials[0]).toMatchObject({ state: 'active', generation: 2 })
  })

  test('of 401 on a token that cannot be renewed quarantines it for requests too', async () => {
    await start({ queue: { wait: '0s' } })
    const first = await lease()
    expect((await report(first, { status: 401 })).body).toMatchObject({
      verdict: 'expired',
      recovery: 'failed',
    })
    expect(await stateOf()).toBe('quarantined')
    expect((await get()).status).toBe(503)
    expect(origin.requests).toEqual([])
  })

  test('of 429 rests the credential for as long as upstream asked', async () => {
    await start({ select: 'fill-first' }, {}, ['a', 'b'])
    const first = await lease()
    const limited = await report(first, { status: 429, retryAfterSeconds: 40 })
    expect(limited.body.verdict).toBe('limited')
    const [a] = (await pool()).credentials
    expect(a.state).toBe('cooling')
    expect(Date.parse(a.cooldownUntil) - Date.now()).toBeGreaterThan(35_000)
    expect((await lease()).credential).toBe('b')
    expect((await get()).json().authorization).toBe('Bearer token-of-b')
  })

  test.each([
    ['200 with a body that says so', { status: 200, body: { error: 'expired' } }, 'expired'],
    ['the body as text', { status: 200, body: '{"error":"expired"}' }, 'expired'],
    ['another body', { status: 200, body: { error: null } }, 'ok'],
    ['no body', { status: 200 }, 'ok'],
    [
      'a body that was gunzipped',
      { status: 200, body: { error: 'expired' }, headers: { 'Content-Encoding': 'gzip' } },
      'expired',
    ],
    [
      'a denial by header',
      { status: 403, headers: { 'WWW-Authenticate': 'Bearer error="insufficient_scope"' } },
      'denied',
    ],
    ['another 403', { status: 403 }, 'ok'],
    ['503 with a time', { status: 503, retryAfterSeconds: 1 }, 'limited'],
    ['503 without', { status: 503 }, 'upstream'],
    ['its own verdict', { status: 200, verdict: 'limited' }, 'limited'],
    ['no answer', { verdict: 'unknown' }, 'unknown'],
  ])('is judged by the pool’s matchers: %s', async (_what, body, verdict) => {
    await start({ expired: [{ status: 200, json: { '/error': 'expired' } }] })
    expect((await report(await lease(), body)).body.verdict).toBe(verdict)
  })

  test('counts once, and only from who has the lease or the admin token', async () => {
    const client = { password: 'pw', lease: true }
    await start({}, { clients: { one: client, two: client } })
    const mine = await lease({}, basic('one:pw'))
    const foreign = await codeOf(report(mine, { status: 401 }, basic('two:pw')))
    expect(foreign).toEqual([404, 'NOT_FOUND'])
    expect(await stateOf()).toBe('active')
    expect((await report(mine, { status: 200 }, basic('one:pw'))).status).toBe(200)
    expect(await codeOf(report(mine, { status: 401 }))).toEqual([409, 'LEASE_OVER'])
    expect(await stateOf()).toBe('active')
    const other = await lease({}, basic('one:pw'))
    expect((await report(other, { status: 200 })).status).toBe(200)
  })
})

describe('a client', () => {
  test('leases with lease: true and from its pools only', async () => {
    await start(
      {},
      {
        clients: {
          worker: { password: 'pw', lease: true },
          elsewhere: { password: 'pw', lease: true, pools: [] },
          plain: { password: 'pw' },
        },
      },
    )
    expect((await ask({}, basic('worker:pw'))).status).toBe(201)
    const denied = [403, 'DESTINATION_DENIED']
    expect(await codeOf(ask({}, basic('elsewhere:pw')))).toEqual(denied)
    expect(await codeOf(ask({}, basic('plain:pw')))).toEqual(denied)
    expect(await codeOf(ask({}, basic('worker:wrong')))).toEqual([401, 'UNAUTHENTICATED'])
    const { traces } = await app.admin('/api/traces')
    expect(traces).toEqual([])
  })

  test('is needed: without clients only the admin token leases', async () => {
    await start()
    expect(await codeOf(ask({}, basic('anybody:pw')))).toEqual([401, 'UNAUTHENTICATED'])
    expect((await ask()).status).toBe(201)
  })

  test('that guesses is refused with the right password too, by the proxy as well', async () => {
    await start({}, { clients: { worker: { password: 'pw', lease: true } } })
    for (let i = 0; i < 10; i++) await ask({}, basic('worker:wrong'))
    expect(await codeOf(ask({}, basic('worker:pw')))).toEqual([429, 'TOO_MANY_ATTEMPTS'])
    const client = app.client({ auth: 'worker:pw' })
    expect((await client.request(`http://127.0.0.1:${origin.port}/`)).status).toBe(429)
  })
})

test('no token stands in traces, metrics or the state of a pool', async () => {
  await start({ inject: { query: 'k', value: '{token}' } })
  await report(await lease({ path: '/x' }), { status: 200 })
  await lease()
  const shown = [await app.admin('/api/traces'), await pool()]
  expect(JSON.stringify(shown)).not.toContain('token-of-a')
  expect(shown[0].traces).toMatchObject([
    {
      kind: 'lease',
      method: 'POST',
      url: '/api/pools/api/leases',
      pool: 'api',
      status: 200,
      verdict: 'ok',
      attempts: [{ credential: 'a', egress: 'direct', status: 200, verdict: 'ok' }],
    },
  ])
  const metrics = await (await fetch(`${app.app.adminUrl}/metrics`)).text()
  expect(metrics).toContain('cupbearer_requests_total{pool="api",verdict="ok"} 1')
  expect(metrics).not.toContain('token-of-a')
})

test('an egress that is down is not kept from requests by a lease that tries it', async () => {
  await using proxy = await startHttpProxy({ behaviour: 'refuse-407' })
  await start({ egress: ['home'] }, { egress: { home: proxy.url } })
  expect((await get()).json()).toMatchObject({ error: { code: 'EGRESS_DOWN' } })
  proxy.behaviour = 'normal'
  const held = await lease()
  expect((await get()).status).toBe(200)
  await report(held, { status: 200 })
})

describe('a reload', () => {
  test('leaves leases as they are, also those of a pool that goes', async () => {
    await start({ limits: { concurrency: 2 } })
    const [first, second] = [await lease(), await lease()]
    await app.reconfigure(config({ limits: { concurrency: 1 } }))
    expect(await codeOf(ask({ waitSeconds: 0 }))).toEqual([503, 'POOL_EXHAUSTED'])
    expect((await report(first, { status: 200 })).body.verdict).toBe('ok')
    const { pools } = config() as { pools: { api: object } }
    await app.reconfigure({ pools: { other: pools.api } })
    expect(await codeOf(ask())).toEqual([404, 'NOT_FOUND'])
    expect((await report(second, { status: 200 })).body.verdict).toBe('ok')
  })

  test('gives clients that lost the right no more leases', async () => {
    const client = (right: boolean) => ({ clients: { w: { password: 'pw', lease: right } } })
    await start({}, client(true))
    expect((await ask({}, basic('w:pw'))).status).toBe(201)
    await app.reconfigure(config({}, client(false)))
    expect(await codeOf(ask({}, basic('w:pw')))).toEqual([403, 'DESTINATION_DENIED'])
  })
})

test('at the end who waits is told, and no lease keeps the process', async () => {
  await start({ limits: { concurrency: 1 } })
  await lease({ ttlSeconds: 300 })
  const second = ask()
  await waiting(1)
  const stopped = app.app.stop()
  expect(await codeOf(second)).toEqual([503, 'SHUTTING_DOWN'])
  await stopped
})

describe('the example worker', () => {
  /** Runs it to its end: exit code and what it printed. */
  async function work(worker: ChildProcess): Promise<unknown[]> {
    let printed = ''
    for (const stream of [worker.stdout, worker.stderr]) {
      stream?.on('data', (chunk: Buffer) => {
        printed += chunk.toString()
      })
    }
    const [code] = await once(worker, 'close')
    return [code, printed.trim().split('\n')]
  }
  const example = (name: string) =>
    fileURLToPath(new URL(`../../examples/${name}`, import.meta.url))
  const { caFile } = testAuthority()
  const environment = () => ({
    PATH: process.env.PATH,
    CUPBEARER_ADMIN: app.app.adminUrl,
    CUPBEARER_CLIENT: 'worker:pw',
    HTTP_PROXY: 'http://127.0.0.1:1',
    SSL_CERT_FILE: caFile,
    NODE_EXTRA_CA_CERTS: caFile,
  })
  const workers: Record<string, (args: string[]) => ChildProcess> = {
    'lease-worker.py': (args) =>
      spawn('python3', [example('lease-worker.py'), ...args], { env: environment() }),
    'lease-worker.mjs': (args) =>
      spawn(process.execPath, [example('lease-worker.mjs'), ...args], { env: environment() }),
  }

  test.each(Object.entries(workers))(
    '%s leaves by its egress and gets over a token that has died',
    async (_name, worker) => {
      await using proxy = await startHttpProxy({ auth: { user: 'me', pass: 'p@ss' } })
      auth = await startAuthServer({ accessTokenTtlSeconds: 600 })
      await using api = await startProtectedOrigin(auth)
      await startRenewing(
        { targets: [`127.0.0.1:${api.port}`], egress: ['home'] },
        {
          upstream: trusting(),
          egress: { home: proxy.url },
          clients: { worker: { password: 'pw', lease: true } },
        },
      )
      const warm = await lease()
      await report(warm, { status: 200 })
      auth.revokeAccessTokens()
      const url = `https://127.0.0.1:${api.port}/items?page=2`
      expect(await work(worker(['api', url]))).toEqual([
        0,
        [`401 expired a ${url}`, `200 ok a ${url}`],
      ])
      expect(api.requests.map(({ remoteAddress }) => remoteAddress)).toEqual([
        proxy.host,
        proxy.host,
      ])
      expect((await pool()).credentials[0]).toMatchObject({ inFlight: 0, generation: 2 })
    },
  )

  test.each(Object.entries(workers))('%s goes no other way', async (_name, worker) => {
    await start(
      { egress: ['far'] },
      {
        clients: { worker: { password: 'pw', lease: true } },
        egress: { far: 'socks5://127.0.0.1:1' },
      },
    )
    const [code, printed] = await work(worker(['api', `${origin.url}/`]))
    expect(code).toBe(1)
    expect(String(printed)).toContain('this example cannot leave by socks5:, the egress far')
    expect(origin.requests).toEqual([])
    expect((await pool()).credentials[0].inFlight).toBe(0)
  })
})
