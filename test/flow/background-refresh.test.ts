import { afterEach, describe, expect, test } from 'vitest'
import { startApp, type TestApp } from '../support/app.ts'
import { type AuthServer, type FailMode, startAuthServer } from '../support/auth-server.ts'
import { type Origin, startOrigin } from '../support/origin.ts'

const open: AsyncDisposable[] = []
function keep<Server extends AsyncDisposable>(server: Server): Server {
  open.unshift(server)
  return server
}

afterEach(async () => {
  for (const each of open.splice(0)) await each[Symbol.asyncDispose]()
})

/** A plain HTTP API of the auth server's; `refusals` counts its 401s, `gate` may hold an answer back. */
async function startApi(auth: AuthServer, gate?: () => Promise<void>) {
  const seen = { refusals: 0 }
  const origin: Origin = keep(
    await startOrigin({
      handler: async (request, response) => {
        const live = await auth.isActive(request.headers.authorization?.slice(7) ?? '')
        if (!live) seen.refusals += 1
        if (!live) await gate?.()
        response.writeHead(live ? 200 : 401).end()
      },
    }),
  )
  return { origin, seen }
}

function pool(auth: AuthServer, origin: Origin, more: object = {}): object {
  return {
    targets: [`http://127.0.0.1:${origin.port}`],
    credentials: [
      {
        id: 'a',
        source: {
          type: 'oauth2',
          grant: 'client_credentials',
          tokenUrl: auth.tokenUrl,
          clientId: auth.clientId,
          clientSecret: auth.clientSecret,
        },
      },
    ],
    ...more,
  }
}

describe('tokens of 3 seconds', () => {
  test('serve 100 requests a second for 12 seconds without a 401 or a pause, at the least cost', async () => {
    const auth = keep(await startAuthServer({ accessTokenTtlSeconds: 3 }))
    const { origin, seen } = await startApi(auth)
    // The server's seconds are whole: a token lives between 2 and 3 seconds and is renewed 0.7 before its end.
    const app = keep(
      await startApp({ pools: { api: pool(auth, origin, { refresh: { floor: '700ms' } }) } }),
    )
    const client = app.client()
    const url = `http://127.0.0.1:${origin.port}/`
    expect((await client.request(url)).status).toBe(200)
    const statuses: Promise<number>[] = []
    const started = performance.now()
    for (let sent = 0; sent < 1200; sent++) {
      const wait = started + sent * 10 - performance.now()
      if (wait > 0) await new Promise((resolve) => setTimeout(resolve, wait))
      statuses.push(client.request(url).then(({ status }) => status))
    }
    expect(new Set(await Promise.all(statuses))).toEqual(new Set([200]))
    expect(seen.refusals).toBe(0)
    // One more than every two whole seconds: the first token's second was under way already.
    const seconds = (performance.now() - started) / 1000
    expect(auth.calls.length).toBeLessThanOrEqual(Math.ceil(seconds / 2) + 1)
    expect(auth.calls.length).toBeGreaterThanOrEqual(Math.floor(seconds / 3))
    const status = await app.admin('/api/pools/api')
    expect(status).toMatchObject({ status: 'healthy', refreshSuccessRate: 1 })
    expect(status.authOverhead).toBeLessThan(0.05)
    const { traces } = await app.admin('/api/traces?limit=1200')
    expect(traces).toHaveLength(1200)
    expect(traces.filter(({ waitMs }: { waitMs: number }) => waitMs > 0)).toEqual([])
  }, 40_000)
})

describe('while the token endpoint fails', () => {
  const MODES: FailMode[] = ['hang', '500', 'html', 'huge']
  const TIMEOUT_MS = 300

  test('living tokens keep serving, tries come at growing intervals with jitter, and end when it heals', async () => {
    const apis = await Promise.all(
      MODES.map(async (mode) => {
        const auth = keep(await startAuthServer({ accessTokenTtlSeconds: 9 }))
        return { mode, auth, ...(await startApi(auth)) }
      }),
    )
    const app = keep(
      await startApp({
        pools: Object.fromEntries(
          apis.map(({ mode, auth, origin }) => [
            mode,
            // As early as can be: at half of the lifetime.
            pool(auth, origin, { refresh: { floor: '30s', timeout: `${TIMEOUT_MS}ms` } }),
          ]),
        ),
      }),
    )
    const client = app.client()
    const all = () =>
      Promise.all(
        apis.map(({ origin }) => client.request(`http://127.0.0.1:${origin.port}/`)),
      ).then((answers) => answers.map(({ status }) => status))
    const good = MODES.map(() => 200)
    expect(await all()).toEqual(good)
    for (const { auth, mode } of apis) auth.fail(mode)

    while (apis.some(({ auth }) => auth.calls.length < 4)) {
      expect(await all()).toEqual(good)
      await new Promise((resolve) => setTimeout(resolve, 20))
    }
    expect(await all()).toEqual(good)
    const shares: number[] = []
    for (const { mode, auth } of apis) {
      const [, first, second, third] = auth.calls.map(({ at }) => at) as [number, ...number[]]
      const try_ = mode === 'hang' ? TIMEOUT_MS : 0
      for (const [base, gap] of [
        [1000, (second as number) - (first as number) - try_],
        [2000, (third as number) - (second as number) - try_],
      ] as const) {
        // Seen at the endpoint: a request that arrives late makes the gap before it longer and the one behind it shorter.
        expect(gap / base).toBeGreaterThan(0.6)
        shares.push(gap / base)
      }
      const { credentials } = await app.admin(`/api/pools/${mode}`)
      expect(credentials[0]).toMatchObject({ state: 'active', lastError: expect.any(String) })
    }
    // Eight shares drawn from 0.75 to 1.
    expect(Math.min(...shares)).toBeLessThan(0.97)
    expect(Math.max(...shares) - Math.min(...shares)).toBeGreaterThan(0.02)

    for (const { auth } of apis) auth.fail(undefined)
    for (;;) {
      expect(await all()).toEqual(good)
      const states = await Promise.all(MODES.map((mode) => app.admin(`/api/pools/${mode}`)))
      if (states.every(({ credentials }) => credentials[0].generation === 2)) break
      await new Promise((resolve) => setTimeout(resolve, 50))
    }
    expect(apis.map(({ seen }) => seen.refusals)).toEqual(MODES.map(() => 0))
  }, 40_000)
})

describe('a background refresh that runs', () => {
  test('serves 1,000 staggered 401s, those that come after it too', async () => {
    const REQUESTS = 1000
    const auth = keep(await startAuthServer({ accessTokenTtlSeconds: 10 }))
    const held: (() => void)[] = []
    const { origin, seen } = await startApi(
      auth,
      () => new Promise<void>((release) => held.push(release)),
    )
    const app: TestApp = keep(await startApp({ pools: { api: pool(auth, origin) } }))
    const client = app.client()
    const url = `http://127.0.0.1:${origin.port}/`
    expect((await client.request(url)).status).toBe(200)

    // The refresh of half-time begins and is not answered yet; meanwhile every token is revoked.
    auth.fail({ delayMs: 2500 })
    while (auth.calls.length < 2) await new Promise((resolve) => setTimeout(resolve, 5))
    auth.revokeAccessTokens()
    const answers = Array.from({ length: REQUESTS }, () => client.request(url))
    while (held.length < REQUESTS) await new Promise((resolve) => setTimeout(resolve, 5))
    expect(auth.calls).toHaveLength(2)
    for (const release of held.splice(0, REQUESTS / 2)) {
      release()
      await new Promise((resolve) => setImmediate(resolve))
    }
    expect((await answers[0])?.status).toBe(200)
    for (const release of held.splice(0)) {
      release()
      await new Promise((resolve) => setImmediate(resolve))
    }
    const statuses = (await Promise.all(answers)).map(({ status }) => status)
    expect(statuses.filter((status) => status === 200)).toHaveLength(REQUESTS)
    expect(seen.refusals).toBe(REQUESTS)
    expect(auth.calls).toHaveLength(2)
  }, 40_000)
})
