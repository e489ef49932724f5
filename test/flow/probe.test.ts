import { afterEach, beforeEach, expect, test } from 'vitest'
import { startApp, type TestApp } from '../support/app.ts'
import { type AuthServer, startAuthServer } from '../support/auth-server.ts'
import { type Origin, startOrigin } from '../support/origin.ts'
import { trusting } from '../support/protected-origin.ts'

const WATCHED = '127.0.0.7'
const OTHER = '127.0.0.8'

let origin: Origin
let service: Origin
let auth: AuthServer
let app: TestApp | undefined
/** What the probed service says of the watched egress. */
let seen: string

beforeEach(async () => {
  seen = WATCHED
  origin = await startOrigin({ tls: true })
  auth = await startAuthServer()
  service = await startOrigin({ handler: (_, response) => response.end(`{"ip":"${seen}"}`) })
})

afterEach(async () => {
  await app?.[Symbol.asyncDispose]()
  app = undefined
  await origin[Symbol.asyncDispose]()
  await auth[Symbol.asyncDispose]()
  await service[Symbol.asyncDispose]()
})

/** `both.example.test` has a credential on the watched egress and one beside it, `one.example.test` the former only. */
function config(more: object = {}, egress: object = { expect: WATCHED }): object {
  const fixed = (id: string, by: string) => ({
    id,
    egress: by,
    source: { type: 'static', token: `token-of-${id}` },
  })
  const { tokenUrl, clientId, clientSecret } = auth
  const grant = { grant: 'client_credentials', tokenUrl, clientId, clientSecret }
  return {
    egress: {
      watched: { url: `local://${WATCHED}`, probe: service.url, every: '50ms', ...egress },
      other: `local://${OTHER}`,
    },
    upstream: trusting(['both.example.test', 'one.example.test']),
    pools: {
      both: {
        targets: [`both.example.test:${origin.port}`],
        select: 'fill-first',
        credentials: [fixed('first', 'watched'), fixed('second', 'other')],
      },
      one: {
        targets: [`one.example.test:${origin.port}`],
        credentials: [{ id: 'alone', egress: 'watched', source: { type: 'oauth2', ...grant } }],
      },
    },
    ...more,
  }
}

const get = (host: string, running: TestApp) =>
  running.client().request(`https://${host}:${origin.port}/x`)

/** Of both pools: `[state, address]` of each credential. */
async function credentials(running: TestApp): Promise<unknown[]> {
  const { pools } = await running.admin('/api/pools')
  return pools.flatMap((pool: { credentials: { state: string; egressAddress: string }[] }) =>
    pool.credentials.map(({ state, egressAddress }) => [state, egressAddress]),
  )
}

async function gauge(running: TestApp, egress: string): Promise<number> {
  const text = await (await fetch(`${running.app.adminUrl}/metrics`)).text()
  return Number(
    new RegExp(`^cupbearer_egress_up\\{egress="${egress}"\\} (\\d)`, 'm').exec(text)?.[1],
  )
}

test('an egress with the expected address serves from the first request on', async () => {
  app = await startApp(config())
  expect((await get('both.example.test', app)).json()).toMatchObject({
    authorization: 'Bearer token-of-first',
    remoteAddress: WATCHED,
  })
  expect((await get('one.example.test', app)).json()).toMatchObject({ remoteAddress: WATCHED })
  expect(await credentials(app)).toEqual([
    ['active', WATCHED],
    ['active', null],
    ['active', WATCHED],
  ])
  expect(await gauge(app, 'watched')).toBe(1)
})

test('with another address its credentials rest, others carry on, and no token leaves or is got', async () => {
  seen = '203.0.113.9'
  app = await startApp(config())
  for (let i = 0; i < 3; i++) {
    const answer = await get('both.example.test', app)
    expect(answer.json()).toMatchObject({
      authorization: 'Bearer token-of-second',
      remoteAddress: OTHER,
    })
    const trace = await app.admin(`/api/traces/${answer.headers['cupbearer-trace']}`)
    expect(trace.attempts).toHaveLength(1)
  }
  const refused = await get('one.example.test', app)
  expect(refused.status).toBe(502)
  expect(refused.json()).toMatchObject({ error: { code: 'EGRESS_DOWN' } })
  expect(Number(refused.headers['retry-after'])).toBeGreaterThan(0)
  expect(await credentials(app)).toMatchObject([
    ['pending', '203.0.113.9'],
    ['active', null],
    ['pending', '203.0.113.9'],
  ])
  expect(await gauge(app, 'watched')).toBe(0)
  expect(await gauge(app, 'other')).toBe(1)
  expect(auth.remoteAddresses.size).toBe(0)
  expect(origin.requests.filter((each) => each.remoteAddress === WATCHED)).toEqual([])

  seen = WATCHED
  const running = app
  const states = async () => (await credentials(running)).map((each) => (each as string[])[0])
  await expect.poll(states).toEqual(['active', 'active', 'active'])
  expect((await get('both.example.test', app)).json()).toMatchObject({ remoteAddress: WATCHED })
  expect((await get('one.example.test', app)).status).toBe(200)
  expect([...auth.remoteAddresses]).toEqual([WATCHED])
  expect(await gauge(app, 'watched')).toBe(1)
})

test('an address that drifts away takes its credentials out while the proxy runs', async () => {
  app = await startApp(config())
  expect((await get('both.example.test', app)).json()).toMatchObject({ remoteAddress: WATCHED })
  seen = '203.0.113.9'
  const running = app
  await expect.poll(async () => (await credentials(running))[0]).toEqual(['cooling', seen])
  expect((await get('both.example.test', app)).json()).toMatchObject({ remoteAddress: OTHER })
  expect((await get('one.example.test', app)).json()).toMatchObject({
    error: { code: 'EGRESS_DOWN' },
  })
})

test('without an expected address a drift is shown and changes nothing', async () => {
  app = await startApp(config({}, {}))
  const running = app
  await expect.poll(async () => (await credentials(running))[0]).toEqual(['active', WATCHED])
  seen = '203.0.113.9'
  await expect.poll(async () => (await credentials(running))[0]).toEqual(['active', seen])
  expect((await get('both.example.test', app)).json()).toMatchObject({ remoteAddress: WATCHED })
})

test('a reload that expects an address holds the egress from that moment', async () => {
  app = await startApp(config({}, {}))
  expect((await get('one.example.test', app)).status).toBe(200)
  const { applied } = await app.reconfigure(config({}, { expect: '203.0.113.0/24' }))
  expect(applied).toBe(true)
  expect((await get('one.example.test', app)).json()).toMatchObject({
    error: { code: 'EGRESS_DOWN' },
  })
  await app.reconfigure(config({}, { expect: '127.0.0.0/8' }))
  expect((await get('one.example.test', app)).status).toBe(200)
  expect((await get('both.example.test', app)).json()).toMatchObject({ remoteAddress: WATCHED })
})
