import { afterEach, describe, expect, test } from 'vitest'
import { startApp, type TestApp } from '../support/app.ts'
import { type AuthServer, type FailMode, startAuthServer } from '../support/auth-server.ts'
import { type Origin, startOrigin } from '../support/origin.ts'
import { Pauses } from '../support/pauses.ts'
import { until } from '../support/until.ts'

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

describe('tokens of 6 seconds', () => {
  test('serve 100 requests a second for 12 seconds without a 401 or a pause, at the least cost', async () => {
    const auth = keep(await startAuthServer({ accessTokenTtlSeconds: 6 }))
    const { origin, seen } = await startApi(auth)
    // The server's seconds are whole: a token lives between 5 and 6 seconds and is renewed 2.5 to 3 before its end.
    // Far from each 5 s, after which the server closes its idle connections.
    const app = keep(
      await startApp({ pools: { api: pool(auth, origin, { refresh: { floor: '2500ms' } }) } }),
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
    const seconds = (performance.now() - started) / 1000
    expect(auth.calls.length).toBeLessThanOrEqual(Math.ceil(seconds / 2) + 1)
    expect(auth.calls.length).toBeGreaterThanOrEqual(Math.floor(seconds / 6))
    const status = await app.admin('/api/pools/api')
    expect(status).toMatchObject({ status: 'healthy', refreshSuccessRate: 1 })
    expect(status.authOverhead).toBeLessThan(0.05)
    const { traces } = await app.admin('/api/traces?limit=1200')
    expect(traces).toHaveLength(1200)
    expect(traces.filter(({ waitMs }: { waitMs: number }) => waitMs > 0)).toEqual([])
  }, 90_000)
})

describe('while the token endpoint fails', () => {
  const MODES: FailMode[] = ['hang', '500', 'html', 'huge']
  const TIMEOUT_MS = 1000

  test('living tokens keep serving, tries come at growing intervals with jitter, and end when it heals', async () => {
    const apis = await Promise.all(
      MODES.map(async (mode) => {
        const auth = keep(await startAuthServer({ accessTokenTtlSeconds: 600 }))
        return { mode, auth, ...(await startApi(auth)) }
      }),
    )
    const app = keep(
      await startApp({
        pools: Object.fromEntries(
          apis.map(({ mode, auth, origin }) => [
            mode,
            pool(auth, origin, { refresh: { timeout: `${TIMEOUT_MS}ms` } }),
          ]),
        ),
      }),
    )
    const client = app.client()
    using pauses = new Pauses()
    const all = () =>
      Promise.all(
        apis.map(({ origin }) => client.request(`http://127.0.0.1:${origin.port}/`)),
      ).then((answers) => answers.map(({ status }) => status))
    const good = MODES.map(() => 200)
    expect(await all()).toEqual(good)
    for (const { auth, mode } of apis) {
      auth.fail(mode)
      // The first try is asked for, long before the token ends; all others come by themselves.
      void app.admin(`/api/pools/${mode}/credentials/a/refresh`, 'POST')
    }
    while (apis.some(({ auth }) => auth.calls.length < 4)) {
      expect(await all()).toEqual(good)
      await new Promise((resolve) => setTimeout(resolve, 20))
    }
    expect(await all()).toEqual(good)
    const shares: number[] = []
    const late = 2 * pauses.longest
    for (const { mode, auth } of apis) {
      const [, first, second, third] = auth.calls.map(({ at }) => at) as [number, ...number[]]
      const try_ = mode === 'hang' ? TIMEOUT_MS : 0
      for (const [base, gap] of [
        [1000, (second as number) - (first as number) - try_],
        [2000, (third as number) - (second as number) - try_],
      ] as const) {
        // Seen at the endpoint: a request that arrives late makes the gap before it longer and the one behind it shorter.
        expect((gap + late) / base).toBeGreaterThan(0.6)
        shares.push(gap / base)
      }
      const { credentials } = await app.admin(`/api/pools/${mode}`)
      expect(credentials[0]).toMatchObject({ state: 'active', lastError: expect.any(String) })
    }
    // Eight shares drawn from 0.75 to 1.
    expect(Math.min(...shares) - late / 1000).toBeLessThan(0.97)
    expect(Math.max(...shares) - Math.min(...shares)).toBeGreaterThan(0.02)

    for (const { auth } of apis) auth.fail(undefined)
    for (;;) {
      expect(await all()).toEqual(good)
      const states = await Promise.all(MODES.map((mode) => app.admin(`/api/pools/${mode}`)))
      if (states.every(({ credentials }) => credentials[0].generation === 2)) break
      await new Promise((resolve) => setTimeout(resolve, 50))
    }
    expect(apis.map(({ seen }) => seen.refusals)).toEqual(MODES.map(() => 0))
  }, 90_000)
})

describe('a background refresh that runs', () => {
  test('serves 1,000 staggered 401s, those that come after it too', async () => {
    const REQUESTS = 1000
    const auth = keep(await startAuthServer({ accessTokenTtlSeconds: 600 }))
    const held: (() => void)[] = []
    const { origin, seen } = await startApi(
      auth,
      () => new Promise<void>((release) => held.push(release)),
    )
    const app: TestApp = keep(await startApp({ pools: { api: pool(auth, origin) } }))
    const client = app.client()
    const url = `http://127.0.0.1:${origin.port}/`
    expect((await client.request(url)).status).toBe(200)

    // A refresh that no request has asked for begins and is not answered yet; meanwhile every token is revoked.
    let renew = () => {}
    auth.fail({
      after: new Promise((resolve) => {
        renew = resolve
      }),
    })
    const refreshed = app.admin('/api/pools/api/credentials/a/refresh', 'POST')
    await until(() => auth.calls.length >= 2)
    auth.revokeAccessTokens()
    const answers = Array.from({ length: REQUESTS }, () => client.request(url))
    await until(() => held.length >= REQUESTS)
    expect(auth.calls).toHaveLength(2)
    for (const release of held.splice(0, REQUESTS / 2)) {
      release()
      await new Promise((resolve) => setImmediate(resolve))
    }
    renew()
    expect((await answers[0])?.status).toBe(200)
    for (const release of held.splice(0)) {
      release()
      await new Promise((resolve) => setImmediate(resolve))
    }
    await refreshed
    const statuses = (await Promise.all(answers)).map(({ status }) => status)
    expect(statuses.filter((status) => status === 200)).toHaveLength(REQUESTS)
    expect(seen.refusals).toBe(REQUESTS)
    expect(auth.calls).toHaveLength(2)
  }, 90_000)
})
