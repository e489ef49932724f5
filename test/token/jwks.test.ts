import { beforeAll, describe, expect, test } from 'vitest'
import { SourceError } from '../../src/errors.ts'
import { KeyWatch, type KeyWatchOptions } from '../../src/token/jwks.ts'
import { makeKey, type SigningKey } from '../support/key-issuer.ts'
import { ManualClock } from '../support/manual-clock.ts'

let keys: SigningKey[]
beforeAll(async () => {
  keys = await Promise.all(['one', 'two'].map(makeKey))
})

interface Scripted {
  readonly status?: number
  readonly headers?: Record<string, string>
  readonly body?: unknown
}

/** A watch on the test's clock over a server that answers by URL. */
function setUp(
  answers: Record<string, Scripted | undefined>,
  options: Partial<KeyWatchOptions> = {},
) {
  const clock = new ManualClock()
  const asked: { url: string; headers: Record<string, string>; at: number }[] = []
  const failures: string[] = []
  let fetched = 0
  const watch = new KeyWatch({
    issuer: undefined,
    jwks: 'https://issuer.test/keys',
    clock,
    random: () => 0,
    fetched: () => {
      fetched += 1
    },
    failed: (reason) => failures.push(reason),
    async read(url, headers) {
      asked.push({ url, headers, at: clock.monotonic() })
      const answer = answers[url] ?? { status: 404, body: {} }
      if (answer.status === 0) throw new SourceError('transient', 'it is down')
      const body = typeof answer.body === 'string' ? answer.body : JSON.stringify(answer.body)
      return { status: answer.status ?? 200, headers: new Headers(answer.headers), body }
    },
    ...options,
  })
  return { clock, watch, asked, failures, fetched: () => fetched, answers }
}

const set = (...members: SigningKey[]) => ({ keys: members.map(({ jwk }) => jwk) })
const URL_ = 'https://issuer.test/keys'

describe('the key set is asked for again', () => {
  test.each([
    ['after five minutes by default', {}, 300_000],
    ['after max-age', { 'cache-control': 'public, max-age=600' }, 600_000],
    ['after what max-age leaves', { 'cache-control': 'max-age=600', age: '500' }, 100_000],
    ['not sooner than after 30 seconds', { 'cache-control': 'max-age=1' }, 30_000],
    ['not later than after an hour', { 'cache-control': 'max-age=86400' }, 3_600_000],
    ['after 30 seconds when it must not be kept', { 'cache-control': 'no-store' }, 30_000],
    [
      'after Expires',
      { date: 'Tue, 01 Jan 2030 00:00:00 GMT', expires: 'Tue, 01 Jan 2030 00:02:00 GMT' },
      120_000,
    ],
  ] as [string, Record<string, string>, number][])('%s', async (_when, headers, delay) => {
    const t = setUp({ [URL_]: { headers, body: set(keys[0] as SigningKey) } })
    await t.watch.poll()
    await t.clock.run(delay - 1)
    expect(t.asked).toHaveLength(1)
    await t.clock.run(1)
    expect(t.asked).toHaveLength(2)
    t.watch.stop()
    expect(t.clock.pending).toBe(0)
  })

  test('a little sooner by chance, so that many do not ask together', async () => {
    const t = setUp({ [URL_]: { body: set(keys[0] as SigningKey) } }, { random: () => 1 })
    await t.watch.poll()
    await t.clock.run(270_000)
    expect(t.asked).toHaveLength(2)
    t.watch.stop()
  })

  test('with its ETag, and a 304 keeps the keys', async () => {
    const t = setUp({ [URL_]: { headers: { etag: '"a"' }, body: set(keys[0] as SigningKey) } })
    await t.watch.poll()
    t.answers[URL_] = { status: 304, headers: { 'cache-control': 'max-age=60' } }
    await t.watch.poll()
    expect(t.asked[1]?.headers['if-none-match']).toBe('"a"')
    expect(t.watch.has('one')).toBe(true)
    await t.clock.run(60_000)
    expect(t.asked).toHaveLength(3)
    t.watch.stop()
  })

  test('on demand at once, but then not for 30 seconds', async () => {
    const t = setUp({ [URL_]: { body: set(keys[0] as SigningKey) } })
    await t.watch.poll()
    await Promise.all([t.watch.demand(), t.watch.demand(), t.watch.demand()])
    await t.watch.demand()
    expect(t.asked).toHaveLength(2)
    await t.clock.run(30_000)
    await t.watch.demand()
    expect(t.asked).toHaveLength(3)
    t.watch.stop()
  })
})

describe('what is no key set', () => {
  test.each([
    ['an empty set', { body: { keys: [] } }, 'key set of issuer.test holds no keys'],
    ['no set', { body: { error: 'x' } }, 'key set of issuer.test holds no keys'],
    ['HTML', { body: '<h1>Sign in</h1>' }, 'answered with something other than JSON'],
    ['an error', { status: 500, body: '' }, 'key set of issuer.test answered 500'],
    ['an odd set', { body: { keys: [7] } }, 'key set of issuer.test cannot be read'],
    ['too many keys', { body: { keys: Array(201).fill({}) } }, 'holds no keys'],
    ['silence', { status: 0 }, 'it is down'],
  ] as [string, Scripted, string][])(
    '%s leaves the old keys, is reported once and retried with back-off',
    async (_what, answer, reason) => {
      const t = setUp({ [URL_]: { body: set(keys[0] as SigningKey) } })
      await t.watch.poll()
      t.answers[URL_] = answer
      await t.clock.run(300_000)
      expect(t.watch.has('one')).toBe(true)
      expect(t.watch.keySet).toBeDefined()
      await t.clock.run(30_000 + 60_000 + 120_000)
      expect(t.asked.map(({ at }) => at)).toEqual([0, 300_000, 330_000, 390_000, 510_000])
      expect(t.failures).toEqual([expect.stringContaining(reason)])
      expect(t.fetched()).toBe(1)
      t.watch.stop()
    },
  )
})

describe('an issuer', () => {
  const issuer = 'https://issuer.test/tenant'
  const openid = `${issuer}/.well-known/openid-configuration`
  const options = { issuer, jwks: undefined }

  test('is asked for its metadata once, and for its keys from then on', async () => {
    const t = setUp(
      {
        [openid]: { body: { issuer, jwks_uri: URL_ } },
        [URL_]: { body: set(...keys) },
      },
      options,
    )
    await t.watch.poll()
    await t.watch.poll()
    expect(t.asked.map(({ url }) => url)).toEqual([openid, URL_, URL_])
    expect([t.watch.has('one'), t.watch.has('two'), t.watch.has('x')]).toEqual([true, true, false])
    t.watch.stop()
  })

  test('without OpenID is asked as RFC 8414 has it', async () => {
    const oauth = 'https://issuer.test/.well-known/oauth-authorization-server/tenant'
    const t = setUp(
      { [oauth]: { body: { issuer, jwks_uri: URL_ } }, [URL_]: { body: set(...keys) } },
      options,
    )
    await t.watch.poll()
    expect(t.asked.map(({ url }) => url)).toEqual([openid, oauth, URL_])
    t.watch.stop()
  })

  test('that moves its keys is asked again after they are gone', async () => {
    const moved = 'https://keys.test/v2'
    const t = setUp(
      { [openid]: { body: { issuer, jwks_uri: URL_ } }, [URL_]: { body: set(...keys) } },
      options,
    )
    await t.watch.poll()
    t.answers[URL_] = { status: 404, body: {} }
    t.answers[openid] = { body: { issuer, jwks_uri: moved } }
    t.answers[moved] = { body: set(keys[1] as SigningKey) }
    await t.watch.poll()
    await t.watch.poll()
    expect(t.watch.has('one')).toBe(false)
    t.watch.stop()
  })

  test.each([
    [
      { issuer: 'https://other.test', jwks_uri: URL_ },
      'issuer issuer.test describes another issuer',
    ],
    [{ issuer }, 'issuer issuer.test names no key set'],
    [{ issuer, jwks_uri: 'http://issuer.test/keys' }, 'names a key set that is not under https://'],
  ])('that says %j is not followed', async (body, reason) => {
    const t = setUp({ [openid]: { body }, [URL_]: { body: set(...keys) } }, options)
    await t.watch.poll()
    expect(t.watch.keySet).toBeUndefined()
    expect(t.watch.reason).toContain(reason)
    expect(t.asked).toHaveLength(1)
    t.watch.stop()
  })
})
