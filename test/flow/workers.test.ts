import { setMaxListeners } from 'node:events'
import type { ServerResponse } from 'node:http'
import { afterEach, describe, expect, test } from 'vitest'
import { startApp, type TestApp } from '../support/app.ts'
import { startAuthServer } from '../support/auth-server.ts'
import { CaptureScene } from '../support/capture.ts'
import type { ClientResponse } from '../support/client.ts'
import { type Origin, startOrigin } from '../support/origin.ts'
import { startProtectedOrigin, trusting } from '../support/protected-origin.ts'
import { until } from '../support/until.ts'
import { isAlive, servedBy, workersOf } from '../support/workers.ts'

/** The primary runs in this process, the workers are processes of the build. */
const WORKERS = { workers: 2 }

const open: AsyncDisposable[] = []

afterEach(async () => {
  for (const each of open.splice(0).reverse()) await each[Symbol.asyncDispose]()
})

/** An API over plain HTTP that answers with the token that it got, but to `/hold` only when it is told to. */
async function startApi(): Promise<{ api: Origin; held: ServerResponse[] }> {
  const held: ServerResponse[] = []
  const api = await startOrigin({
    handler: (request, response) => {
      const token = request.headers.authorization ?? ''
      if (request.url?.startsWith('/hold')) held.push(response)
      else response.end(JSON.stringify({ token }))
    },
  })
  open.push(api)
  return { api, held }
}

function configFor(api: Origin, pool: object = {}, more: object = {}): object {
  return {
    ...WORKERS,
    ...more,
    pools: {
      api: {
        targets: [api.url],
        credentials: [{ id: 'a', source: { type: 'static', token: 'token-of-a' } }],
        ...pool,
      },
    },
  }
}

async function start(config: object): Promise<TestApp> {
  const app = await startApp(config)
  open.push(app)
  return app
}

const three = ['a', 'b', 'c'].map((id) => ({
  id,
  source: { type: 'static', token: `token-of-${id}` },
}))

/** One request by each of so many connections, which the workers share evenly. */
function ask(app: TestApp, url: string, count: number, headers = {}): Promise<ClientResponse[]> {
  const one = () => app.client().request(url, { headers })
  return Promise.all(Array.from({ length: count }, one))
}

test('both workers serve, and status, metrics and traces show the sum', async () => {
  const { api } = await startApi()
  const app = await start(configFor(api))
  const answers = await ask(app, `${api.url}/x`, 20)
  expect(answers.map(({ status }) => status)).toEqual(Array(20).fill(200))
  const processes = answers.map(servedBy)
  expect(new Set(processes).size).toBe(2)
  for (const name of new Set(processes)) {
    expect(processes.filter((each) => each === name)).toHaveLength(10)
  }
  const traces = async () => (await app.admin('/api/traces?pool=api&limit=100')).traces
  const exchanges = async () =>
    (await traces()).filter(({ kind }: { kind: string }) => kind === 'exchange')
  await until(async () => (await exchanges()).length === 20)
  const ids = (await exchanges()).map(({ id }: { id: string }) => id)
  expect(ids.toSorted()).toEqual(
    answers.map(({ headers }) => headers['cupbearer-trace']).toSorted(),
  )
  const { credentials, requestsPerTokenPerMinute } = await app.admin('/api/pools/api')
  expect(credentials[0]).toMatchObject({ uses: 20, inFlight: 0 })
  expect(requestsPerTokenPerMinute).toBe(20)
  const metrics = await (await fetch(`${app.app.adminUrl}/metrics`)).text()
  expect(metrics).toContain('cupbearer_requests_total{pool="api",verdict="ok"} 20')
})

test('a limit of 10/s under 200 clients of both is never passed in any second', async () => {
  const { api } = await startApi()
  const app = await start(configFor(api, { limits: { rate: ['10/s'] } }))
  const end = new AbortController()
  setMaxListeners(500, end.signal)
  let served = 0
  const processes = new Set<string>()
  const crowd = Array.from({ length: 200 }, async () => {
    while (!end.signal.aborted) {
      const asked = app.client().request(`${api.url}/x`, { signal: end.signal })
      const answer = await asked.catch(() => undefined)
      if (!answer) return
      processes.add(servedBy(answer))
      served += 1
      if (served === 35) end.abort()
    }
  })
  await Promise.all(crowd)
  expect(processes.size).toBe(2)
  const credential = async () => (await app.admin('/api/pools/api')).credentials[0]
  await until(async () => (await credential()).inFlight === 0)
  const { traces } = await app.admin('/api/traces?limit=500&pool=api')
  // As sent: when an arrival is seen depends on how busy this process is.
  const sent: number[] = traces.flatMap(
    ({ time, attempts }: { time: string; attempts: { startMs: number; sentMs: number }[] }) =>
      attempts.flatMap(({ startMs, sentMs }) => {
        const at = Date.parse(time) + startMs + sentMs
        return Number.isFinite(at) && sentMs !== null ? [at] : []
      }),
  )
  expect(sent.length).toBeGreaterThanOrEqual(35)
  sent.sort((a, b) => a - b)
  const most = sent.map((first) => sent.filter((at) => at >= first && at - first < 1000).length)
  expect(Math.max(...most)).toBe(10)
})

test('300 refused tokens at once lead to one refresh, and 300 good answers', async () => {
  const auth = await startAuthServer()
  const api = await startProtectedOrigin(auth)
  open.push(auth, api)
  const { tokenUrl, clientId, clientSecret } = auth
  const refreshToken = await auth.issueRefreshToken('alice')
  const grant = { grant: 'refresh_token', tokenUrl, clientId, clientSecret, refreshToken }
  const app = await start({
    ...WORKERS,
    upstream: trusting(['api.test']),
    pools: {
      api: {
        targets: [`api.test:${api.port}`],
        refresh: { minInterval: '50ms' },
        credentials: [{ id: 'alice', source: { type: 'oauth2', ...grant } }],
      },
    },
  })
  const url = `https://api.test:${api.port}`
  const client = app.client({ maxSockets: 40 })
  expect((await client.request(`${url}/warm`)).status).toBe(200)
  auth.revokeAccessTokens()
  const answers = await Promise.all(
    Array.from({ length: 300 }, (_, i) => client.request(`${url}/${i}`)),
  )
  expect(answers.filter(({ status }) => status === 200)).toHaveLength(300)
  expect(new Set(answers.map(servedBy)).size).toBe(2)
  expect(auth.calls).toHaveLength(2)
})

test('a session sticks to one credential, whichever worker serves it', async () => {
  const { api } = await startApi()
  const app = await start(configFor(api, { credentials: three }))
  const tokens = new Map<string, Set<string>>()
  for (const session of ['one', 'two', 'three', 'four']) {
    const answers = await ask(app, `${api.url}/x`, 6, { 'Cupbearer-Session': session })
    expect(new Set(answers.map(servedBy)).size).toBe(2)
    tokens.set(session, new Set(answers.map((answer) => answer.json<{ token: string }>().token)))
  }
  for (const held of tokens.values()) expect(held.size).toBe(1)
})

test('least-used spreads over the credentials what both workers have in flight', async () => {
  const { api, held } = await startApi()
  const app = await start(configFor(api, { credentials: three }))
  const asked = ask(app, `${api.url}/hold`, 12)
  await until(() => held.length === 12)
  const { credentials } = await app.admin('/api/pools/api')
  expect(credentials.map(({ inFlight }: { inFlight: number }) => inFlight)).toEqual([4, 4, 4])
  for (const response of held) response.end()
  await asked
})

test('a worker that is killed under load takes nothing with it but its own requests', async () => {
  const { api, held } = await startApi()
  const app = await start(configFor(api, { limits: { concurrency: 4 } }))
  const pool = () => app.admin('/api/pools/api')
  const first = workersOf(process.pid)
  expect(first).toHaveLength(2)
  const asked: Promise<number | 'cut'>[] = []
  const hold = () =>
    asked.push(
      app
        .client()
        .request(`${api.url}/hold`)
        .then(
          ({ status }) => status,
          () => 'cut',
        ),
    )
  // Each worker holds two of the four slots, and has four requests waiting for one.
  for (let count = 1; count <= 4; count++) {
    hold()
    await until(() => held.length === count)
  }
  for (let i = 0; i < 8; i++) hold()
  await until(async () => (await pool()).waiting === 8)
  process.kill(first[0] as number, 'SIGKILL')
  // What the other one has waiting takes the two places that come back.
  await until(() => held.length === 6)
  const { waiting, credentials } = await pool()
  expect([waiting, credentials[0].inFlight]).toEqual([2, 4])
  await until(async () => {
    for (const response of held.splice(0)) response.end()
    return (await pool()).credentials[0].inFlight === 0
  })
  const outcomes = await Promise.all(asked)
  expect(outcomes.filter((each) => each === 'cut')).toHaveLength(6)
  expect(outcomes.filter((each) => each === 200)).toHaveLength(6)
  // Another one takes its place, and half of what comes.
  const ready = async () => (await fetch(`${app.app.adminUrl}/readyz`)).status === 200
  await until(async () => workersOf(process.pid).length === 2 && (await ready()))
  expect(workersOf(process.pid)).not.toContain(first[0])
  const answers = await ask(app, `${api.url}/x`, 8)
  expect(answers.map(({ status }) => status)).toEqual(Array(8).fill(200))
  expect(new Set(answers.map(servedBy)).size).toBe(2)
})

describe('a reload', () => {
  test('reaches both workers before it counts as applied', async () => {
    const { api } = await startApi()
    const app = await start(configFor(api))
    expect(new Set((await ask(app, `${api.url}/x`, 4)).map(servedBy)).size).toBe(2)
    for (const round of [1, 2, 3]) {
      const inject = { header: 'authorization', value: `Round${round} {token}` }
      const credentials = three.slice(0, round)
      const { applied } = await app.reconfigure(configFor(api, { inject, credentials }))
      expect(applied).toBe(true)
      const answers = await ask(app, `${api.url}/x`, 8)
      expect(new Set(answers.map(servedBy)).size).toBe(2)
      const tokens = answers.map((answer) => answer.json<{ token: string }>().token)
      expect(tokens.every((token) => token.startsWith(`Round${round} token-of-`))).toBe(true)
      expect(new Set(tokens).size).toBe(round)
    }
  })

  test('that takes a pool away leaves its running requests alone', async () => {
    const { api, held } = await startApi()
    const app = await start(configFor(api))
    const running = app.client().request(`${api.url}/hold`)
    await until(() => held.length === 1)
    expect(await app.reconfigure({ ...WORKERS, pools: {} })).toMatchObject({ applied: true })
    held[0]?.end('done')
    expect((await running).body.toString()).toBe('done')
    const after = await app.client().request(`${api.url}/x`)
    expect(after.json<{ token: string }>().token).toBe('')
  })
})

test('failed authentications count together, for the admin API too', async () => {
  const { api } = await startApi()
  const clients = { crawler: { password: 'right', lease: true } }
  const app = await start(configFor(api, {}, { clients }))
  const guess = async (auth: string) => (await app.client({ auth }).request(`${api.url}/x`)).status
  expect(await guess('crawler:right')).toBe(200)
  for (let i = 0; i < 10; i++) expect(await guess('crawler:wrong')).toBe(407)
  // By whichever worker: what one has heard, the other has too.
  await until(async () => (await guess('crawler:right')) === 429)
  expect(await guess('crawler:right')).toBe(429)
})

test('a token that passes by one worker serves requests by the other', async () => {
  const scene = await CaptureScene.create()
  open.push(scene)
  const { issuer } = scene.server
  await scene.start({ targets: [scene.apiUrl, `${issuer}/elsewhere`] }, WORKERS)
  const { access } = await scene.logIn()
  for (let i = 0; i < 2; i++) expect(await scene.ask(access)).toBe(200)
  await until(async () => (await scene.status()).state === 'active')
  const asked = await Promise.all(Array.from({ length: 4 }, () => scene.ask()))
  expect(asked).toEqual([200, 200, 200, 200])
  // What was learned beside it renews it.
  scene.server.revokeAccessTokens()
  expect(await scene.ask()).toBe(200)
})

test('nothing leaves by an egress whose address is wrong, by either worker', async () => {
  const { api } = await startApi()
  let seen = '127.0.0.7'
  const service = await startOrigin({ handler: (_, response) => response.end(`{"ip":"${seen}"}`) })
  open.push(service)
  const url = 'local://127.0.0.7'
  const watched = { url, probe: service.url, every: '50ms', expect: '127.0.0.7' }
  const more = { egress: { watched }, passthrough: { egress: 'watched' } }
  const app = await start(configFor(api, { egress: ['watched'] }, more))
  const statuses = async (path: string) =>
    (await ask(app, `${api.url}${path}`, 4)).map(({ status }) => status)
  expect(await statuses('/x')).toEqual([200, 200, 200, 200])
  seen = '127.0.0.8'
  const metric = async () => (await fetch(`${app.app.adminUrl}/metrics`)).text()
  await until(async () => (await metric()).includes('cupbearer_egress_up{egress="watched"} 0'))
  const before = api.requests.length
  expect(await statuses('/y')).toEqual([502, 502, 502, 502])
  expect(api.requests).toHaveLength(before)
  seen = '127.0.0.7'
  await until(async () => (await metric()).includes('cupbearer_egress_up{egress="watched"} 1'))
  expect(await statuses('/z')).toEqual([200, 200, 200, 200])
})

test('stopping ends the workers too', async () => {
  const { api } = await startApi()
  const app = await start(configFor(api))
  const workers = workersOf(process.pid)
  expect(workers).toHaveLength(2)
  await app.app.stop()
  expect(workers.filter(isAlive)).toEqual([])
})
