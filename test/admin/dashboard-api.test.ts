import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import {
  ADMIN_TOKEN,
  sampleCredential,
  sampleExchange,
  samplePool,
  TestAdmin,
} from '../support/admin.ts'
import { startApp } from '../support/app.ts'

let admin: TestAdmin
beforeEach(async () => {
  admin = await TestAdmin.start()
})
afterEach(() => admin[Symbol.asyncDispose]())

const post = (path: string, token: string | null, body?: object) =>
  admin.ask(path, {
    method: 'POST',
    token,
    ...(body !== undefined && { body: JSON.stringify(body) }),
  })

/** The code in a fresh link. */
async function link(): Promise<string> {
  const { url } = (await post('/api/dashboard-links', ADMIN_TOKEN)).json()
  return new URL(url as string).hash.replace('#code=', '')
}

async function session(): Promise<string> {
  const answer = await post('/api/sessions', null, { code: await link() })
  expect(answer.status).toBe(201)
  return answer.json().session as string
}

describe('a link to the dashboard', () => {
  test('leads to this listener, its code where no server is sent it, and ends after five minutes', async () => {
    const answer = (await post('/api/dashboard-links', ADMIN_TOKEN)).json()
    expect(answer.url).toMatch(new RegExp(`^${admin.server.url}/#code=[\\w-]{32}$`))
    expect(answer.expiresAt).toBe('2030-01-01T00:05:00.000Z')
  })

  test('works once', async () => {
    const code = await link()
    expect((await post('/api/sessions', null, { code })).status).toBe(201)
    const again = await post('/api/sessions', null, { code })
    expect(again.status).toBe(401)
    expect(again.json()).toMatchObject({
      error: { code: 'UNAUTHENTICATED', message: 'the link was used already, or has ended' },
    })
  })

  test('works for five minutes', async () => {
    const code = await link()
    admin.clock.advance(5 * 60_000)
    expect((await post('/api/sessions', null, { code })).status).toBe(401)
  })

  test('is made for the holder of the admin token only', async () => {
    expect((await post('/api/dashboard-links', null)).status).toBe(401)
    expect((await post('/api/dashboard-links', await session())).status).toBe(401)
  })

  test('cannot be guessed: wrong codes are counted like wrong tokens', async () => {
    for (let i = 0; i < 10; i++) {
      expect((await post('/api/sessions', null, { code: `guess-${i}` })).status).toBe(401)
    }
    const code = 'right-or-not'
    expect((await post('/api/sessions', null, { code })).status).toBe(429)
  })

  test('is refused to a page of another origin', async () => {
    const answer = await admin.ask('/api/sessions', {
      method: 'POST',
      token: null,
      headers: { origin: 'https://evil.example' },
      body: JSON.stringify({ code: await link() }),
    })
    expect(answer.status).toBe(403)
  })

  test.each([{ code: 7 }, { code: null }, { code: ['x'] }])('is no %j', async (body) => {
    expect((await post('/api/sessions', null, body)).status).toBe(400)
  })
})

describe('a session', () => {
  test('reads and acts like the admin token', async () => {
    const token = await session()
    expect((await admin.ask('/api/pools', { token })).status).toBe(200)
    const acted = await post('/api/pools/supplier/credentials/alice/refresh', token)
    expect([acted.status, admin.actions]).toEqual([200, ['refresh supplier/alice']])
  })

  test('gets no token out of the proxy, and cannot prolong itself', async () => {
    const token = await session()
    expect((await post('/api/pools/supplier/leases', token)).status).toBe(401)
    expect((await post('/api/sessions', token)).status).toBe(401)
  })

  test('is had for the admin token, too, and for nothing else', async () => {
    const token = (await post('/api/sessions', ADMIN_TOKEN)).json().session as string
    expect((await admin.ask('/api/pools', { token })).status).toBe(200)
    expect((await post('/api/sessions', null)).status).toBe(401)
    expect((await post('/api/sessions', 'wrong')).status).toBe(401)
  })

  test('ends after twelve hours, which is no guess', async () => {
    const token = await session()
    admin.clock.advance(12 * 3_600_000)
    for (let i = 0; i < 12; i++) {
      const answer = await admin.ask('/api/pools', { token })
      expect([answer.status, answer.json()]).toMatchObject([
        401,
        { error: { message: 'the session has ended' } },
      ])
    }
    expect((await admin.ask('/api/pools')).status).toBe(200)
  })

  test('outlives a restart of the proxy', async () => {
    const token = await session()
    await using restarted = await TestAdmin.start()
    expect((await restarted.ask('/api/pools', { token })).status).toBe(200)
  })

  test('cannot be made by changing one', async () => {
    const token = await session()
    const [mark, end = '', ...rest] = token.split('.')
    const later = (Number.parseInt(end, 36) + 1000).toString(36)
    for (const forged of [
      [mark, later, ...rest].join('.'),
      `${token}x`,
      `${token}.x`,
      `${mark}.${end}`,
      token.slice(0, -1),
    ]) {
      expect([forged, (await admin.ask('/api/pools', { token: forged })).status]).toEqual([
        forged,
        401,
      ])
    }
  })
})

describe('a page of credentials', () => {
  const ask = async (query: string) =>
    (await admin.ask(`/api/pools/supplier/credentials${query}`)).json() as {
      total: number
      offset: number
      credentials: { id: string; egressAddress: string | null }[]
    }
  const ids = async (query: string) => (await ask(query)).credentials.map(({ id }) => id)

  beforeEach(() => {
    const end = Date.parse('2030-01-01T01:00:00Z')
    const credentials = [
      sampleCredential({ id: 'c', uses: 1, expiresAt: end + 2000 }),
      sampleCredential({ id: 'a', uses: 3, expiresAt: undefined, egress: 'two' }),
      sampleCredential({ id: 'b', uses: 2, state: 'revoked', lastError: 'invalid_GRANT' }),
      sampleCredential({ id: 'd', uses: 0, state: 'cooling', expiresAt: end - 1000 }),
    ]
    admin.pools = [samplePool({ credentials })]
  })

  test.each([
    ['', ['c', 'a', 'b', 'd']],
    ['?offset=1&limit=2', ['a', 'b']],
    ['?offset=9', []],
    ['?state=active', ['c', 'a']],
    ['?egress=two', ['a']],
    ['?search=Invalid_g', ['b']],
    ['?search=&state=', ['c', 'a', 'b', 'd']],
    ['?sort=id', ['a', 'b', 'c', 'd']],
    ['?sort=trouble', ['b', 'd', 'c', 'a']],
    ['?sort=expiry', ['d', 'b', 'c', 'a']],
    ['?sort=uses', ['a', 'b', 'c', 'd']],
  ])('%s holds %j', async (query, expected) => {
    expect(await ids(query)).toEqual(expected)
  })

  test('counts all that match, and shows the egress as targets see it', async () => {
    const page = await ask('?state=active&limit=1')
    expect(page).toMatchObject({
      total: 2,
      offset: 0,
      credentials: [{ egressAddress: '192.0.2.1' }],
    })
  })

  test.each(['?state=dead', '?sort=age', '?limit=0', '?limit=1001', '?offset=-1', '?page=2'])(
    '%s is refused',
    async (query) => {
      const answer = await admin.ask(`/api/pools/supplier/credentials${query}`)
      expect(answer.status).toBe(400)
    },
  )

  test('of a pool that is not there is a 404, and so is one credential of none', async () => {
    for (const path of ['none/credentials', 'none/credentials/a', 'supplier/credentials/none']) {
      expect((await admin.ask(`/api/pools/${path}`)).status).toBe(404)
    }
  })

  test('is described once in two seconds, and at once after something has happened', async () => {
    expect(await ids('?state=revoked')).toEqual(['b'])
    admin.pools = [samplePool()]
    expect(await ids('')).toHaveLength(4)
    admin.events.emit('credential', {
      time: 0,
      pool: 'supplier',
      credential: 'b',
      from: 'revoked',
      to: 'active',
      reason: 'released',
    })
    expect(await ids('')).toEqual(['alice'])
    admin.pools = []
    admin.clock.advance(2000)
    expect((await admin.ask('/api/pools/supplier/credentials')).status).toBe(404)
  })
})

test('pools without their credentials are asked for by credentials=false', async () => {
  const brief = (await admin.ask('/api/pools?credentials=false')).json() as { pools: object[] }
  expect(brief.pools[0]).toMatchObject({ name: 'supplier', authOverhead: 0.01 })
  expect(brief.pools[0]).not.toHaveProperty('credentials')
  expect((await admin.ask('/api/pools?credentials=no')).status).toBe(400)
})

test('egresses tell their address, its drift, why they are down, and who leaves by them', async () => {
  admin.egresses = [
    { name: 'one', up: true },
    { name: 'two', up: false },
  ]
  const time = Date.parse('2030-01-01T00:00:00Z')
  admin.events.emit('address', {
    time,
    egress: 'one',
    address: '192.0.2.1',
    previous: '192.0.2.9',
    reason: undefined,
  })
  admin.events.emit('egress', { time, egress: 'two', up: false, reason: 'refused' })
  const states = { active: 1, cooling: 0, quarantined: 0, pending: 0, revoked: 0 }
  expect((await admin.ask('/api/egresses')).json()).toEqual({
    egresses: [
      {
        name: 'one',
        up: true,
        address: '192.0.2.1',
        drift: { time: '2030-01-01T00:00:00.000Z', from: '192.0.2.9', to: '192.0.2.1' },
        reason: null,
        since: null,
        pools: [{ pool: 'supplier', ...states }],
      },
      {
        name: 'two',
        up: false,
        address: null,
        drift: null,
        reason: 'refused',
        since: '2030-01-01T00:00:00.000Z',
        pools: [],
      },
    ],
  })
})

describe('the last hour', () => {
  interface History {
    steps: number
    end: string
    pools: Record<string, Record<string, (number | null)[]>>
  }
  const history = async (query = '') =>
    (await admin.ask(`/api/history${query}`)).json() as unknown as History

  test('is counted in steps of ten seconds by verdict, with the average TTL at the end of each', async () => {
    for (const verdict of ['ok', 'ok', 'expired', 'limited', 'denied', 'UPSTREAM_RESET']) {
      admin.events.emit('exchange', sampleExchange({ verdict }))
    }
    admin.events.emit('exchange', sampleExchange({ kind: 'tunnel', pool: undefined }))
    admin.events.emit('exchange', sampleExchange({ kind: 'refresh' }))
    admin.events.emit('refresh', {
      time: 0,
      pool: 'supplier',
      credential: 'alice',
      cause: 'scheduled',
      result: 'ok',
      generation: 4,
      ms: 12,
      reason: undefined,
    })
    admin.historyClock.advance(10_000)
    admin.pools = [samplePool({ avgTtlRemainingSeconds: undefined })]
    admin.historyClock.advance(10_000)
    expect(await history()).toEqual({
      stepSeconds: 10,
      steps: 2,
      end: '2030-01-01T00:00:20.000Z',
      pools: {
        supplier: {
          ok: [2, 0],
          expired: [1, 0],
          limited: [1, 0],
          denied: [1, 0],
          failed: [1, 0],
          refreshes: [1, 0],
          ttlSeconds: [1800, null],
          active: [1, 1],
        },
      },
    })
  })

  test('is an hour long, and can be asked for since a time', async () => {
    for (let step = 0; step < 400; step++) {
      admin.events.emit('exchange', sampleExchange())
      if (step === 399) admin.events.emit('exchange', sampleExchange())
      admin.historyClock.advance(10_000)
    }
    const all = await history()
    expect(all.steps).toBe(360)
    expect(all.pools.supplier?.ok).toEqual([...Array(359).fill(1), 2])
    const last = await history('?since=2030-01-01T01:06:20Z')
    expect([last.end, last.pools.supplier?.ok]).toEqual(['2030-01-01T01:06:40.000Z', [1, 2]])
    expect((await history('?since=2031-01-01')).steps).toBe(0)
    expect((await admin.ask('/api/history?since=yesterday')).status).toBe(400)
  })

  test('forgets a pool that is gone, and shows nothing for the time that a machine slept', async () => {
    admin.events.emit('exchange', sampleExchange())
    admin.historyClock.advance(10_000)
    admin.historyClock.jump(30_000)
    admin.historyClock.advance(10_000)
    expect((await history()).pools.supplier?.ok).toEqual([1, 0, 0, 0, 0])
    admin.pools = []
    admin.historyClock.advance(10_000)
    expect((await history()).pools).toEqual({})
  })
})

test('the activity is the latest events, newest first, and never more than five hundred', async () => {
  const about = { pool: 'supplier', credential: 'alice', from: 'active', to: 'cooling' } as const
  for (let time = 0; time < 1200; time++) {
    admin.events.emit('credential', { ...about, time, reason: `${time}` })
  }
  admin.events.emit('config', { time: 1200, applied: true, problems: [] })
  const { activity } = (await admin.ask('/api/activity')).json() as { activity: object[] }
  expect(activity).toHaveLength(500)
  expect(activity.slice(0, 2)).toMatchObject([
    { seq: 1201, event: 'config', applied: true },
    { seq: 1200, event: 'credential', reason: '1199', time: '1970-01-01T00:00:01.199Z' },
  ])
})

test('a running proxy has all of it, and `cupbearer dashboard` leads into it', async () => {
  const credentials = [{ id: 'alice', source: { type: 'static', token: 'a-token' } }]
  await using app = await startApp({ pools: { api: { targets: ['api.test'], credentials } } })
  const { url } = await app.admin('/api/dashboard-links', 'POST')
  expect(url).toMatch(new RegExp(`^${app.app.adminUrl}/#code=`))
  await app.admin('/api/pools/api/credentials/alice/quarantine', 'POST')
  expect(await app.admin('/api/pools/api/credentials?state=quarantined')).toMatchObject({
    total: 1,
    credentials: [{ id: 'alice', lastError: 'by the operator' }],
  })
  expect((await app.admin('/api/activity')).activity[0]).toMatchObject({
    event: 'credential',
    credential: 'alice',
    to: 'quarantined',
  })
  expect((await app.admin('/api/egresses')).egresses).toMatchObject([
    { name: 'direct', up: true, pools: [{ pool: 'api', quarantined: 1 }] },
  ])
  expect(await app.admin('/api/history')).toMatchObject({ stepSeconds: 10 })
})
