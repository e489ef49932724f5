import { afterEach, expect, test } from 'vitest'
import { systemClock } from '../../src/lib/clock.ts'
import { Secret } from '../../src/lib/secret.ts'
import { openStore } from '../../src/store/open.ts'
import { parseRedisUrl } from '../../src/store/redis-url.ts'
import type { Store } from '../../src/store/store.ts'
import { freePort, RedisServer } from '../support/redis.ts'
import { skewedClock } from '../support/shared-pool.ts'
import { credentialRecord } from '../support/store-folder.ts'
import { until } from '../support/until.ts'

const KEY = new Secret(Buffer.alloc(32, 1).toString('base64'))
const stores: Store[] = []
async function closeStores(): Promise<void> {
  for (const store of stores.splice(0)) await store.close()
}
afterEach(closeStores)

async function open(url: string, key = KEY, skewMs = 0): Promise<Store> {
  const store = await openStore(url, { key, clock: skewedClock(skewMs) })
  stores.push(store)
  return store
}

test('nothing secret reaches Redis in the clear', async () => {
  await using redis = await RedisServer.start()
  const store = await open(redis.url)
  await store.save('pool', 'a', credentialRecord(1))
  const kept = JSON.stringify(await redis.command('HGETALL', '{cupbearer:pool}:records'))
  expect(kept).toContain('eyJ')
  expect(kept).not.toMatch(/token-1|refresh-1/)
})

test('all keys of a pool lie in one slot of a cluster', async () => {
  await using redis = await RedisServer.start()
  const store = await open(redis.url)
  const shared = store.shared?.join('p', {
    changed() {},
    freed() {},
    wanted() {},
    unclaimed() {},
    reached() {},
  })
  await store.load('p')
  await store.save('p', 'a{b}', credentialRecord(1))
  const ask = { want: 1, goodForMs: 10, slots: 0, idle: 0, uses: 5, generation: 1 }
  const rates = [{ count: 3, windowMs: 1000 }]
  await shared?.ask('a{b}', { ...ask, rates, concurrency: 2, made: [], returned: [] })
  await shared?.rest('a{b}', 60_000)
  await shared?.claim('a{b}', 1, false)
  await shared?.bindSession('s', 'a{b}')
  const keys = (await redis.command('KEYS', '*')) as string[]
  expect(keys.length).toBeGreaterThanOrEqual(9)
  for (const key of keys) expect(key).toMatch(/^\{cupbearer:p\}:/)
})

test('a second token of the same generation is refused, and a lower one', async () => {
  await using redis = await RedisServer.start()
  const [one, two] = [await open(redis.url), await open(redis.url)]
  await one.save('p', 'a', credentialRecord(2))
  const refused = { code: 'STORE_FAILED' }
  const other = credentialRecord(2, { token: new Secret('other') })
  await expect(two.save('p', 'a', other)).rejects.toMatchObject(refused)
  await expect(two.save('p', 'a', credentialRecord(1))).rejects.toMatchObject(refused)
  expect((await two.read('p', 'a'))?.token?.reveal()).toBe('token-2')
})

test('times mean the same to machines whose clocks differ', async () => {
  await using redis = await RedisServer.start()
  const [one, two] = [await open(redis.url), await open(redis.url, KEY, 3_600_000)]
  await Promise.all([one.load('p'), two.load('p')])
  const expiresAt = systemClock.now() + 60_000
  await one.save('p', 'a', credentialRecord(1, { expiresAt }))
  const seen = (await two.read('p', 'a'))?.expiresAt ?? 0
  expect(Math.abs(seen - expiresAt - 3_600_000)).toBeLessThan(60_000)
})

test('another key is refused before anything is written', async () => {
  await using redis = await RedisServer.start()
  await (await open(redis.url)).load('p')
  const wrong = await open(redis.url, new Secret(Buffer.alloc(32, 2).toString('base64')))
  await expect(wrong.load('p')).rejects.toMatchObject({ code: 'STORE_KEY_WRONG' })
})

test('a store without key, and one that nobody answers for, are refused without a password in the message', async () => {
  const url = `redis://:hunter2@127.0.0.1:${await freePort()}`
  await expect(openStore(url, { key: undefined, clock: systemClock })).rejects.toMatchObject({
    code: 'CONFIG_INVALID',
  })
  const refused = await openStore(url, { key: KEY, clock: systemClock }).catch((error) => error)
  expect(refused).toMatchObject({ code: 'STORE_FAILED' })
  expect(refused.message).toContain('ECONNREFUSED')
  expect(refused.message).not.toContain('hunter2')
})

test('every form of URL is read', () => {
  expect(parseRedisUrl('rediss://me:p%40ss@[::1]:7000/3?prefix=x')).toMatchObject({
    kind: 'single',
    nodes: [{ host: '::1', port: 7000 }],
    tls: true,
    username: 'me',
    database: 3,
    prefix: 'x',
  })
  expect(parseRedisUrl('redis+sentinel://a,b:1/main')).toMatchObject({
    kind: 'sentinel',
    nodes: [
      { host: 'a', port: 26379 },
      { host: 'b', port: 1 },
    ],
    group: 'main',
  })
  expect(parseRedisUrl('redis+cluster://a:1,b:2').kind).toBe('cluster')
  for (const url of [
    'redis://',
    'redis://a,b',
    'redis://a:99999',
    'redis+sentinel://a',
    'redis://a/x',
  ]) {
    expect(() => parseRedisUrl(url)).toThrow('store: expected')
  }
})

test('a failover by sentinels is followed within seconds, and nothing is lost', async () => {
  await using master = await RedisServer.start()
  await using replica = await RedisServer.start(['--replicaof', '127.0.0.1', String(master.port)])
  const watch = `sentinel monitor main 127.0.0.1 ${master.port} 1`
  await using sentinel = await RedisServer.start(
    ['--sentinel'],
    [watch, 'sentinel down-after-milliseconds main 500', 'sentinel failover-timeout main 2000'],
  )
  const store = await open(`redis+sentinel://127.0.0.1:${sentinel.port}/main`)
  await store.load('p')
  await store.save('p', 'a', credentialRecord(1))
  let replicated: unknown
  while (replicated !== 1) replicated = await replica.command('EXISTS', '{cupbearer:p}:records')
  await until(async () =>
    String(await sentinel.command('SENTINEL', 'REPLICAS', 'main')).includes('slave'),
  )
  await master.kill()
  let saved = false
  await until(() => {
    void store.save('p', 'a', credentialRecord(2)).then(
      () => {
        saved = true
      },
      () => {},
    )
    return saved
  })
  expect((await store.read('p', 'a'))?.generation).toBe(2)
  expect(await replica.command('ROLE')).toContain('master')
  await closeStores()
})

test('a cluster keeps each pool on one of its nodes', async () => {
  // The usual bus port, 10,000 higher, may be none at all.
  const bus = [await freePort(), await freePort(), await freePort()].map(String)
  const enabled = (port = '') => ['--cluster-enabled', 'yes', '--cluster-port', port]
  await using first = await RedisServer.start(enabled(bus[0]))
  await using second = await RedisServer.start(enabled(bus[1]))
  await using third = await RedisServer.start(enabled(bus[2]))
  const servers = [first, second, third]
  for (const [index, server] of servers.entries()) {
    const range = [index * 5461, index === 2 ? 16_383 : index * 5461 + 5460].map(String)
    await server.command('CLUSTER', 'ADDSLOTSRANGE', ...range)
    const at = ['127.0.0.1', String(first.port), bus[0] as string]
    if (server !== first) await server.command('CLUSTER', 'MEET', ...at)
  }
  for (const server of servers) {
    await until(async () =>
      /cluster_state:ok/.test(String(await server.command('CLUSTER', 'INFO'))),
    )
  }
  const url = `redis+cluster://127.0.0.1:${first.port}`
  const [one, two] = [await open(url), await open(url)]
  for (const pool of ['a', 'b', 'c', 'd', 'e', 'f']) {
    await one.save(pool, 'x', credentialRecord(3))
    expect((await two.load(pool)).get('x')?.record.generation).toBe(3)
  }
  const sizes = await Promise.all(servers.map((server) => server.command('DBSIZE')))
  expect(sizes.filter((size) => size === 0).length).toBeLessThan(2)
  await closeStores()
})
