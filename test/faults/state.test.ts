import { execFileSync } from 'node:child_process'
import { once } from 'node:events'
import { text } from 'node:stream/consumers'
import { afterAll, expect, test } from 'vitest'
import { type Clock, systemClock } from '../../src/lib/clock.ts'
import { openStore } from '../../src/store/open.ts'
import { startApp } from '../support/app.ts'
import { type AuthServer, startAuthServer } from '../support/auth-server.ts'
import { ChildFolder } from '../support/child-app.ts'
import { startProtectedOrigin, trusting } from '../support/protected-origin.ts'
import { expectOnPage, type Row } from './table.ts'

/** One for each test that has passed. */
const rows: Row[] = []
afterAll(() => expectOnPage('state', ['fault', 'what is seen', 'afterwards'], rows))

async function setting(auth: AuthServer, port: number, store: string) {
  const { tokenUrl, clientId, clientSecret } = auth
  const refreshToken = await auth.issueRefreshToken()
  const source = { type: 'oauth2', grant: 'refresh_token', refreshToken, tokenUrl }
  return {
    store,
    upstream: trusting(['api.test']),
    pools: {
      api: {
        targets: [`https://api.test:${port}`],
        credentials: [{ id: 'a', source: { ...source, clientId, clientSecret } }],
      },
    },
  }
}

test('with a full disk a rotated refresh token works from memory, an alarm is raised, and it is stored once there is room', async () => {
  await using auth = await startAuthServer()
  await using origin = await startProtectedOrigin(auth)
  using folder = new ChildFolder(await setting(auth, origin.port, 'file:data/store.db'))
  const url = `https://api.test:${origin.port}/`
  const answered = async (app: Awaited<ReturnType<ChildFolder['start']>>) => {
    const { status } = await app.client().request(url)
    return status
  }
  {
    await using app = await folder.start()
    let log = ''
    app.child.stderr.on('data', (chunk) => {
      log += chunk
    })
    expect(await answered(app)).toBe(200)
    const { pid } = app.child
    const limit = (size: string) => execFileSync('prlimit', ['--pid', `${pid}`, `--fsize=${size}:`])
    limit('1')
    // Refused once only: from two early ends it learns how long tokens live, and would be renewing when it is killed.
    auth.revokeAccessTokens()
    expect(await answered(app)).toBe(200)
    await app.admin('/api/pools/api/credentials/a/refresh', 'POST')
    expect(await answered(app)).toBe(200)
    expect(auth.calls).toHaveLength(3)
    const pool = await app.admin('/api/pools/api')
    expect(pool.status).toBe('degraded')
    // Tokens serve on: degraded, and ready all the same.
    const reason = 'the store cannot be written: 1 credential is held in memory only'
    expect(await app.admin('/readyz')).toEqual({ ready: true, reasons: [reason] })
    await expect.poll(() => log).toMatch(/"level":50.*could not be stored; it is used from/)
    limit('unlimited')
    await expect.poll(async () => (await app.admin('/api/pools/api')).status).toBe('healthy')
  }
  // Killed: what counts now is what lies on the disk.
  await using again = await folder.start()
  auth.revokeAccessTokens()
  expect(await answered(again)).toBe(200)
  expect(auth.reuseDetected).toBe(0)
  rows.push([
    'the disk is full while refresh tokens rotate',
    '200: the new refresh token works from memory; the log has an error, the pool is `degraded`, `/readyz` says why',
    'written once there is room; after `kill -9` the next renewal works, no refresh token was used twice',
  ])
}, 90_000)

test('a second proxy on the same store file ends with 1 and says why', async () => {
  await using auth = await startAuthServer()
  using folder = new ChildFolder(await setting(auth, 9, 'file:data/store.db'))
  await using _first = await folder.start()
  const second = folder.spawn()
  const [said, [code]] = await Promise.all([text(second.stderr), once(second, 'exit')])
  expect(code).toBe(1)
  expect(said).toMatch(/store\.db is in use: a store file serves one process at a time/)
  rows.push([
    'a second proxy on the same store file',
    'it ends with exit code 1 and names the file',
    'the first one is not touched',
  ])
})

test('a store in a folder that cannot be written is refused, by name', async () => {
  // Nobody makes files there, root neither.
  const opening = openStore('file:/sys/cupbearer/store.db', { key: undefined, clock: systemClock })
  await expect(opening).rejects.toMatchObject({
    code: 'STORE_FAILED',
    message: expect.stringContaining('/sys/cupbearer/store.db cannot be read or written'),
  })
  rows.push([
    'the folder of the store cannot be written',
    'start is refused with `STORE_FAILED` and the path',
    'nothing was changed',
  ])
})

test.each([1, -1])(
  'a clock that jumps by %i h costs at most one renewal and no 401',
  async (hours) => {
    let jumped = 0
    const clock: Clock = { ...systemClock, now: () => systemClock.now() + jumped }
    await using auth = await startAuthServer({ accessTokenTtlSeconds: 600 })
    await using origin = await startProtectedOrigin(auth)
    const config = await setting(auth, origin.port, 'memory:')
    await using app = await startApp(config, undefined, clock)
    const client = app.client()
    const ask = async () => (await client.request(`https://api.test:${origin.port}/`)).status
    expect(await ask()).toBe(200)
    jumped = hours * 3_600_000
    for (let request = 0; request < 20; request++) expect(await ask()).toBe(200)
    expect(auth.calls.length).toBeLessThanOrEqual(2)
    // What comes under the wrong clock is used, and not renewed again and again.
    const before = auth.calls.length
    auth.revokeAccessTokens()
    for (let request = 0; request < 20; request++) expect(await ask()).toBe(200)
    expect(auth.calls.length).toBeLessThanOrEqual(before + 2)
    expect(auth.reuseDetected).toBe(0)
    rows.push([
      `the clock jumps by ${hours} h`,
      '200, at most one renewal',
      'a token that comes under the wrong clock is used, not renewed again and again',
    ])
  },
)
