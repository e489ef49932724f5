import type { Browser } from 'playwright-core'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test, vi } from 'vitest'
import { CupbearerError } from '../../src/errors.ts'
import {
  ADMIN_TOKEN,
  sampleCredential,
  sampleExchange,
  samplePool,
  TestAdmin,
} from '../support/admin.ts'
import { Dashboard, launchChromium, linkOf } from '../support/dashboard.ts'

let browser: Browser
let admin: TestAdmin
beforeAll(async () => {
  browser = await launchChromium()
})
afterAll(() => browser.close())
beforeEach(async () => {
  admin = await TestAdmin.start()
})
afterEach(() => admin[Symbol.asyncDispose]())

const open = (at?: string) => Dashboard.open(browser, admin, at)
const about = { pool: 'supplier', credential: 'alice' }

describe('signing in', () => {
  test('by a link works once, and the link leaves the address', async () => {
    await using first = await Dashboard.blank(browser, admin)
    const link = await linkOf(admin)
    await first.page.goto(link)
    await first.page.getByText('live', { exact: true }).waitFor()
    expect(first.page.url()).toBe(`${admin.server.url}/`)
    await using second = await Dashboard.blank(browser, admin)
    await second.page.goto(link)
    await second.page.getByRole('alert').getByText('the link was used already').waitFor()
    expect(await second.page.getByRole('navigation').count()).toBe(0)
  })

  test('by the admin token keeps a session in the tab, not the token', async () => {
    await using dashboard = await Dashboard.blank(browser, admin)
    const { page } = dashboard
    await page.goto(`${admin.server.url}/`)
    await page.getByLabel('admin token').fill('wrong')
    await page.getByRole('button', { name: 'Sign in' }).click()
    await page.getByRole('alert').getByText('the admin token is wrong').waitFor()
    await page.getByLabel('admin token').fill(ADMIN_TOKEN)
    await page.keyboard.press('Enter')
    await page.getByText('live', { exact: true }).waitFor()
    const kept = await page.evaluate('JSON.stringify([{ ...sessionStorage }, { ...localStorage }])')
    expect(kept).toContain('cbs.')
    expect(kept).not.toContain(ADMIN_TOKEN)
    expect(await page.context().cookies()).toEqual([])
    await page.reload()
    await page.getByText('live', { exact: true }).waitFor()
    await page.getByRole('button', { name: 'Sign out' }).click()
    await page.getByRole('button', { name: 'Sign in' }).waitFor()
    expect(await page.evaluate('sessionStorage.length')).toBe(0)
  })

  test('is asked for again when the session has ended', async () => {
    await using dashboard = await open('#/credentials')
    admin.clock.advance(12 * 3_600_000)
    await dashboard.page.reload()
    await dashboard.page.getByRole('alert').getByText('the session has ended').waitFor()
  })
})

describe('the pools', () => {
  test('show every figure, with the overhead held against its target', async () => {
    admin.pools = [
      samplePool({
        refreshSuccessRate: 0.5,
        status: 'degraded',
        trouble: 'not stored',
        waiting: 7,
      }),
      samplePool({ name: 'prices', authOverhead: 0.2, avgTtlRemainingSeconds: undefined }),
    ]
    await using dashboard = await open()
    const row = (name: string) =>
      dashboard.page.getByRole('row').filter({ has: dashboard.page.getByRole('link', { name }) })
    const cells = async (name: string) =>
      (await row(name).getByRole('cell').allTextContents()).map((text) => text.trim())
    await row('prices').waitFor()
    const rest = ['', '1 of 1', '0', '30 min', '50 %', '4.5', '0.010 ✓', '7']
    expect(await cells('supplier')).toEqual(['degradednot stored', ...rest])
    expect((await cells('prices')).slice(4)).toEqual(['–', '100 %', '4.5', '0.200 ▲ over', '0'])
    await row('supplier').getByRole('img', { name: 'Tokens: 1 active' }).waitFor()
  })

  test('change as the proxy tells, without being asked for', async () => {
    await using dashboard = await open()
    await dashboard.page.getByText('healthy').waitFor()
    const requests: string[] = []
    dashboard.page.on('request', (request) => requests.push(request.url()))
    admin.pools = [samplePool({ status: 'exhausted' })]
    admin.clock.advance(1000)
    await dashboard.page.getByText('exhausted').waitFor()
    admin.pools = []
    admin.clock.advance(1000)
    await dashboard.page.getByText('The configuration has no pool.').waitFor()
    expect(requests).toEqual([])
  })

  test('are drawn over the last hour', async () => {
    for (let i = 0; i < 50; i++) admin.events.emit('exchange', sampleExchange())
    admin.events.emit('exchange', sampleExchange({ verdict: 'limited' }))
    admin.historyClock.advance(10_000)
    admin.historyClock.advance(10_000)
    await using dashboard = await open()
    const latest = (title: string) =>
      dashboard.page.getByRole('list', { name: `${title}, latest` }).textContent()
    await dashboard.page.locator('.uplot canvas').nth(3).waitFor()
    expect(await latest('Requests')).toBe('requests 0')
    expect(await latest('Average TTL')).toBe('TTL 30 min')
    for (let i = 0; i < 100; i++) admin.events.emit('exchange', sampleExchange())
    // The page asks when its own clock says that a step has ended; the test's clock is years ahead.
    admin.historyClock.advance(10_000)
    await dashboard.page.reload()
    await dashboard.page.locator('.uplot canvas').nth(3).waitFor()
    expect(await latest('Requests')).toBe('requests 10')
    expect(await latest('Auth overhead')).toBe('overhead 0.0 %')
  })
})

describe('the credentials', () => {
  beforeEach(() => {
    const now = Date.now()
    admin.pools = [
      samplePool({
        tokens: { active: 1, cooling: 1, quarantined: 1, pending: 0, revoked: 1 },
        credentials: [
          sampleCredential({ issuedAt: now - 900_000, expiresAt: now + 2_700_000 }),
          sampleCredential({
            id: 'bob',
            state: 'quarantined',
            subject: undefined,
            lastError: 'the token endpoint <b>timed out</b>',
            cooldownUntil: now + 90_000,
          }),
          sampleCredential({ id: 'carol', state: 'revoked', egress: 'two', limits: [] }),
          sampleCredential({ id: 'dave', state: 'cooling', expiresAt: undefined }),
        ],
      }),
    ]
  })

  test('show state, lifetime, headroom, egress and error in words', async () => {
    await using dashboard = await open('#/credentials')
    await dashboard.page.getByText('4 credentials').waitFor()
    const [alice, bob, carol, dave] = await dashboard.rows()
    expect(alice?.slice(0, 5)).toEqual([
      'alice alice@example.com',
      'active',
      '45 min left',
      '80 % of 10/s',
      'one 192.0.2.1',
    ])
    expect(bob?.[6]).toBe('the token endpoint <b>timed out</b>')
    expect(carol?.[3]).toBe('no limit')
    expect(dave?.[2]).toBe('no known end')
    const bar = dashboard.page.getByRole('meter', { name: 'Lifetime left of alice' })
    expect(await bar.getAttribute('aria-valuenow')).toBe('75')
  })

  test('are searched, filtered and ordered by the proxy', async () => {
    await using dashboard = await open('#/credentials')
    const { page } = dashboard
    const shows = (names: string[]) =>
      vi.waitFor(
        async () =>
          expect((await dashboard.rows()).map(([name]) => name?.split(' ')[0])).toEqual(names),
        20_000,
      )
    await shows(['alice', 'bob', 'carol', 'dave'])
    await page.getByLabel('Order').selectOption('trouble first')
    await shows(['carol', 'bob', 'dave', 'alice'])
    await page.getByLabel('State').selectOption('quarantined (1)')
    await shows(['bob'])
    await page.getByLabel('State').selectOption('any (4)')
    await page.getByRole('searchbox').fill('TIMED OUT')
    await shows(['bob'])
    await page.getByRole('searchbox').fill('nobody')
    await page.getByText('No credential matches.').waitFor()
  })

  test('are refreshed, and quarantined only after a question', async () => {
    await using dashboard = await open('#/credentials')
    const { page } = dashboard
    await page.getByRole('gridcell', { name: 'alice alice@' }).click()
    const panel = page.getByRole('complementary', { name: 'Credential alice' })
    await panel.getByRole('button', { name: 'Refresh' }).click()
    await panel.getByText('alice has a new token.').waitFor()
    await panel.getByRole('button', { name: 'Quarantine' }).click()
    await page.getByRole('dialog').getByText('It is the last active one of supplier').waitFor()
    await page.keyboard.press('Escape')
    await page.getByRole('dialog').waitFor({ state: 'detached' })
    expect(admin.actions).toEqual(['refresh supplier/alice'])
    await panel.getByRole('button', { name: 'Quarantine' }).click()
    await page.getByRole('dialog').getByRole('button', { name: 'Quarantine' }).click()
    await panel.getByText('alice is quarantined.').waitFor()
    expect(admin.actions).toEqual(['refresh supplier/alice', 'quarantine supplier/alice'])
    expect(await panel.getByRole('button', { name: 'Release' }).isDisabled()).toBe(true)
  })

  test('are released: at once from quarantine, after a question when revoked', async () => {
    await using dashboard = await open('#/credentials/supplier/bob')
    const { page } = dashboard
    const bob = page.getByRole('complementary', { name: 'Credential bob' })
    await bob.getByText(/It is out of the pool. It is tried again in \d+ s/).waitFor()
    await bob.getByText('the token endpoint <b>timed out</b>').waitFor()
    await bob.getByRole('button', { name: 'Release' }).click()
    await bob.getByText('bob is released.').waitFor()
    await dashboard.go('#/credentials/supplier/carol')
    const carol = page.getByRole('complementary', { name: 'Credential carol' })
    await carol.getByText('cupbearer login supplier/carol').waitFor()
    expect(await carol.getByRole('button', { name: 'Refresh' }).isDisabled()).toBe(true)
    await carol.getByRole('button', { name: 'Release' }).click()
    await page.getByRole('dialog').getByRole('button', { name: 'Cancel' }).click()
    expect(admin.actions).toEqual(['release supplier/bob'])
    await carol.getByRole('button', { name: 'Release' }).click()
    await page.getByRole('dialog').getByRole('button', { name: 'Release' }).click()
    await carol.getByText('carol is released.').waitFor()
    expect(admin.actions).toEqual(['release supplier/bob', 'release supplier/carol'])
  })

  test('say why an action failed', async () => {
    await using dashboard = await open('#/credentials/supplier/alice')
    admin.failure = new CupbearerError('SOURCE_FAILED', 'supplier/alice: the issuer is asleep')
    await dashboard.page.getByRole('button', { name: 'Refresh' }).click()
    await dashboard.page
      .getByText('Could not refresh alice: supplier/alice: the issuer is asleep')
      .waitFor()
  })
})

describe('the traces', () => {
  const healed = sampleExchange({
    id: 'healed00001',
    url: 'https://api.example.com/v1/<img src=x onerror=alert(1)>?token=secret',
    status: 200,
    durationMs: 200,
    waitMs: 20,
    skipped: [{ credential: 'bob', why: 'cooling' }],
    attempts: [
      {
        ...(sampleExchange().attempts[0] as ReturnType<typeof sampleExchange>['attempts'][0]),
        status: 401,
        verdict: 'expired',
        startMs: 20,
        dnsMs: 5,
        connectMs: 15,
        tlsMs: 25,
        sentMs: 41,
        firstByteMs: 60,
        totalMs: 62,
        reused: false,
      },
      {
        ...(sampleExchange().attempts[0] as ReturnType<typeof sampleExchange>['attempts'][0]),
        generation: 4,
        startMs: 150,
        firstByteMs: 30,
        totalMs: 50,
      },
    ],
    refresh: { role: 'led', ms: 66, result: 'renewed', startMs: 84 },
    replay: { done: true, why: 'a newer token' },
  })

  test('come by themselves, are searched and filtered, and lead to older ones by their id', async () => {
    admin.events.emit('exchange', sampleExchange({ id: 'aaaaa000001' }))
    await using dashboard = await open('#/traces')
    const { page } = dashboard
    const shows = (answers: string[]) =>
      vi.waitFor(
        async () => expect((await dashboard.rows()).map((cells) => cells[1])).toEqual(answers),
        20_000,
      )
    await shows(['200'])
    const error = { code: 'UPSTREAM_RESET', message: 'broke off' }
    const reset = { status: 502, verdict: 'UPSTREAM_RESET', error }
    admin.events.emit('exchange', sampleExchange({ id: 'b', ...reset, pool: 'other' }))
    admin.events.emit('exchange', sampleExchange({ id: 'c', kind: 'tunnel', verdict: 'tunnel' }))
    await shows(['tunnel', '502', '200'])
    await page.getByLabel('Outcome').selectOption('not ok')
    await shows(['502'])
    await page.getByLabel('Outcome').selectOption('any')
    await page.getByRole('searchbox').fill('upstream_reset other')
    await shows(['502'])
    await page.getByRole('searchbox').fill('aaaaa000001')
    await shows(['200'])
  })

  test('are held while one is looked at, and followed again', async () => {
    admin.events.emit('exchange', sampleExchange({ id: 'one' }))
    await using dashboard = await open('#/traces')
    const { page } = dashboard
    await page.getByRole('gridcell', { name: '200' }).click()
    await page.getByRole('complementary', { name: 'Request' }).waitFor()
    for (let i = 0; i < 3; i++) admin.events.emit('exchange', sampleExchange({ id: `more-${i}` }))
    await page.getByRole('button', { name: 'Follow (3 new)' }).click()
    await page.getByText('4 traces').waitFor()
  })

  test('tell the story of one in words, and draw it to scale', async () => {
    admin.events.emit('exchange', healed)
    await using dashboard = await open('#/traces/healed00001')
    const { page } = dashboard
    const story = page.getByRole('list', { name: 'What happened' })
    await story.waitFor()
    const { story: told } = (await admin.ask('/api/traces/healed00001')).json() as {
      story: string[]
    }
    expect(await story.getByRole('listitem').allTextContents()).toEqual(
      told.slice(1).map((line) => line.trim()),
    )
    expect(told.join('\n')).toContain('with the token of alice (generation 4)')
    const lanes = page.getByRole('list', { name: 'Waterfall' }).getByRole('img')
    expect(
      await lanes.evaluateAll((all) => all.map((lane) => lane.getAttribute('aria-label'))),
    ).toEqual([
      'waiting for a token 20 ms',
      'DNS 5.0 ms, connect 10 ms, TLS 25 ms, sending 1.0 ms, first byte 19 ms, body 2.0 ms',
      'refresh 66 ms',
      'first byte 30 ms, body 20 ms',
    ])
    const places = await lanes
      .locator('span:first-child')
      .evaluateAll((spans) => spans.map((span) => span.getAttribute('style')?.split(';')[0]))
    expect(places).toEqual(['left: 0%', 'left: 10%', 'left: 42%', 'left: 75%'])
    // What a client sent is text, whatever it looks like, and its secrets are masked.
    await page.getByText('<img src=x onerror=alert(1)>?token=[redacted]').last().waitFor()
    expect(await page.locator('img').count()).toBe(0)
  })

  test('are downloaded as an HTTP archive', async () => {
    await using dashboard = await open('#/traces')
    const saved = dashboard.page.waitForEvent('download')
    await dashboard.page.getByRole('button', { name: 'HAR' }).click()
    expect((await saved).suggestedFilename()).toBe('cupbearer.har')
  })
})

test('the egress map shows who leaves by what, what is seen of it, and when that drifted', async () => {
  const time = Date.now() - 10 * 60_000
  const seen = { time, address: '192.0.2.1', reason: undefined }
  admin.egresses = [
    { name: 'direct', up: true },
    { name: 'one', up: true },
    { name: 'two', up: false },
  ]
  admin.pools = [
    samplePool({
      credentials: [sampleCredential(), sampleCredential({ id: 'b', state: 'cooling' })],
    }),
  ]
  admin.events.emit('address', { ...seen, egress: 'one', previous: '192.0.2.9' })
  admin.events.emit('egress', { time, egress: 'two', up: false, reason: 'refused the connection' })
  await using dashboard = await open('#/egress')
  const { page } = dashboard
  const row = (name: string) => page.locator('.egress-row', { hasText: name })
  await row('one').getByText('drifted 10 min ago: 192.0.2.9 → 192.0.2.1').waitFor()
  expect(await row('one').locator('.node').nth(2).textContent()).toContain(
    'supplier 2 credentials (1 cooling)',
  )
  await row('two').getByText('refused the connection').waitFor()
  expect(await page.locator('.egress-row').count()).toBe(2)
  await row('one').getByRole('link', { name: 'supplier' }).click()
  await page.getByText('egress one').waitFor()
  await page.getByText('2 credentials').waitFor()
})

test('the events tell what happened to credentials, egresses and the configuration', async () => {
  await using dashboard = await open('#/events')
  const { page } = dashboard
  await page.getByText('Nothing has happened yet.').waitFor()
  const time = Date.now()
  const refresh = { time, ...about, cause: 'scheduled', generation: 4, ms: 12 } as const
  admin.events.emit('refresh', { ...refresh, result: 'ok', reason: undefined })
  admin.events.emit('refresh', { ...refresh, result: 'failed', reason: 'asleep' })
  const rest = { from: 'active', to: 'quarantined', reason: 'by the operator' } as const
  admin.events.emit('credential', { time, ...about, ...rest })
  admin.events.emit('egress', { time, egress: 'one', up: false, reason: 'refused' })
  admin.events.emit('config', { time, applied: false, problems: ['pools: expected an object'] })
  await page.getByText('5 events').waitFor()
  expect((await dashboard.rows()).map((cells) => cells.slice(1))).toEqual([
    ['config', 'configuration', 'refused, the old one stays in force; pools: expected an object'],
    ['down', 'one', 'refused'],
    ['quarantined', 'supplier/alice', 'active → quarantined: by the operator'],
    ['refresh failed', 'supplier/alice', 'failed (ahead of its end) after 12 ms: asleep'],
    ['refresh', 'supplier/alice', 'new token ahead of its end: generation 4, took 12 ms'],
  ])
  await page.getByLabel('Kind').selectOption('trouble')
  await page.getByText('4 events').waitFor()
  await page.getByRole('gridcell', { name: 'quarantined' }).first().click()
  await page.getByRole('complementary', { name: 'Credential alice' }).waitFor()
  await page.goBack()
  await page.getByText('5 events').waitFor()
})
