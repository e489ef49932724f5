import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { systemClock } from '../../src/lib/clock.ts'
import { Secret } from '../../src/lib/secret.ts'
import { openStore } from '../../src/store/open.ts'
import type { Store } from '../../src/store/store.ts'
import { RedisServer } from '../support/redis.ts'
import { credentialRecord, StoreFolder } from '../support/store-folder.ts'

const usage = {
  windows: { '10/1000': [[1_700_000_000_000, 3]] as [number, number][] },
  uses: 3,
  generation: 1,
}

const KEY = new Secret(Buffer.alloc(32, 1).toString('base64'))
let redis: RedisServer
beforeAll(async () => {
  redis = await RedisServer.start()
})
afterAll(() => redis[Symbol.asyncDispose]())

async function opened(kind: string): Promise<{ store: Store } & AsyncDisposable> {
  if (kind === 'redis:') {
    await redis.command('FLUSHALL')
    const store = await openStore(redis.url, { key: KEY, clock: systemClock })
    return { store, [Symbol.asyncDispose]: () => store.close() }
  }
  if (kind === 'file:') {
    const folder = new StoreFolder()
    return {
      store: await folder.open(),
      [Symbol.asyncDispose]: () => folder[Symbol.asyncDispose](),
    }
  }
  const store = await openStore(kind, { key: undefined, clock: systemClock })
  return { store, [Symbol.asyncDispose]: () => store.close() }
}

describe.each(['memory:', 'file:', 'redis:'])('a store at %s', (kind) => {
  test('gives back every field of a credential', async () => {
    await using scope = await opened(kind)
    const record = credentialRecord(1, {
      quarantine: { until: 5, failures: 2, reason: 'down' },
      revoked: { at: 7, reason: 'invalid_grant' },
    })
    await scope.store.save('pool', 'a', record)
    const read = await scope.store.read('pool', 'a')
    expect(read?.token?.reveal()).toBe('token-1')
    expect(read?.refreshToken?.reveal()).toBe('refresh-1')
    const { token: _token, refreshToken: _refreshToken, ...rest } = record
    expect(read).toMatchObject(rest)
  })

  test('gives back a credential that never had a token', async () => {
    await using scope = await opened(kind)
    await scope.store.save('pool', 'a', { generation: 0, fingerprint: 'f', egress: 'direct' })
    expect(await scope.store.read('pool', 'a')).toStrictEqual({
      generation: 0,
      fingerprint: 'f',
      egress: 'direct',
    })
    expect(await scope.store.read('pool', 'b')).toBeUndefined()
  })

  test('keeps pools and credentials apart', async () => {
    await using scope = await opened(kind)
    await scope.store.save('one', 'a', credentialRecord(1))
    await scope.store.save('one', 'é/ 🍷', credentialRecord(2))
    await scope.store.save('two', 'a', credentialRecord(3))
    const one = await scope.store.load('one')
    expect([...one].map(([id, { record }]) => [id, record.generation])).toEqual([
      ['a', 1],
      ['é/ 🍷', 2],
    ])
    expect((await scope.store.load('none')).size).toBe(0)
  })

  test('refuses a lower generation and takes the same one again', async () => {
    await using scope = await opened(kind)
    await scope.store.save('pool', 'a', credentialRecord(2))
    await expect(scope.store.save('pool', 'a', credentialRecord(1))).rejects.toMatchObject({
      code: 'STORE_FAILED',
    })
    await scope.store.save('pool', 'a', credentialRecord(2, { subject: 'other' }))
    expect(await scope.store.read('pool', 'a')).toMatchObject({ generation: 2, subject: 'other' })
  })

  test('lands saves that run at once in the order of the calls', async () => {
    await using scope = await opened(kind)
    // The first is by far the longest to seal.
    const first = scope.store.save('pool', 'a', credentialRecord(1, { subject: 'x'.repeat(2e6) }))
    const rest = Array.from({ length: 300 }, (_, n) =>
      scope.store.save('pool', 'a', credentialRecord(1, { subject: `s${n}` })),
    )
    const gone = scope.store.remove('pool', 'b')
    await Promise.all([first, ...rest, gone])
    expect((await scope.store.read('pool', 'a'))?.subject).toBe('s299')
  })

  test('refuses one save of a batch without harm to its neighbours', async () => {
    await using scope = await opened(kind)
    await scope.store.save('pool', 'b', credentialRecord(5))
    const results = await Promise.allSettled([
      scope.store.save('pool', 'a', credentialRecord(1)),
      scope.store.save('pool', 'b', credentialRecord(4)),
      scope.store.save('pool', 'c', credentialRecord(1)),
    ])
    expect(results.map(({ status }) => status)).toEqual(['fulfilled', 'rejected', 'fulfilled'])
    expect((await scope.store.load('pool')).size).toBe(3)
  })

  test('takes a save from whoever just learned that another one ended', async () => {
    await using scope = await opened(kind)
    for (let generation = 1; generation <= 20; generation++) {
      await scope.store.save('pool', 'a', credentialRecord(generation))
    }
    expect((await scope.store.read('pool', 'a'))?.generation).toBe(20)
  })

  test('keeps usage apart from the credential', async () => {
    await using scope = await opened(kind)
    scope.store.saveUsage('pool', 'a', usage)
    expect((await scope.store.load('pool')).size).toBe(0)
    await scope.store.save('pool', 'a', credentialRecord(4))
    scope.store.saveUsage('pool', 'a', { ...usage, uses: 9 })
    const entry = (await scope.store.load('pool')).get('a')
    // A shared store counts the uses itself.
    expect(entry?.usage).toStrictEqual(kind === 'redis:' ? undefined : { ...usage, uses: 9 })
    expect(entry?.record.generation).toBe(4)
    expect(entry?.record.token?.reveal()).toBe('token-4')
  })

  test('forgets a removed credential with its usage', async () => {
    await using scope = await opened(kind)
    await scope.store.save('pool', 'a', credentialRecord(4))
    scope.store.saveUsage('pool', 'a', usage)
    await scope.store.remove('pool', 'a')
    expect(await scope.store.read('pool', 'a')).toBeUndefined()
    await scope.store.save('pool', 'a', credentialRecord(1))
    expect((await scope.store.load('pool')).get('a')?.usage).toBeUndefined()
  })

  test('hands out copies', async () => {
    await using scope = await opened(kind)
    const record = credentialRecord(1, { scopes: ['read'] })
    const log = structuredClone(usage)
    await scope.store.save('pool', 'a', record)
    scope.store.saveUsage('pool', 'a', log)
    record.egress = 'changed'
    log.uses = 99
    const entry = (await scope.store.load('pool')).get('a')
    expect(entry?.record.egress).toBe('direct')
    expect(entry?.usage?.uses).toBe(kind === 'redis:' ? undefined : 3)
  })

  test('refuses everything once closed, and closes twice without complaint', async () => {
    await using scope = await opened(kind)
    const { store } = scope
    await store.save('pool', 'a', credentialRecord(1))
    await Promise.all([store.close(), store.close()])
    const failed = { code: 'STORE_FAILED' }
    await expect(store.save('pool', 'a', credentialRecord(2))).rejects.toMatchObject(failed)
    await expect(store.remove('pool', 'a')).rejects.toMatchObject(failed)
    await expect(store.read('pool', 'a')).rejects.toMatchObject(failed)
    await expect(store.load('pool')).rejects.toMatchObject(failed)
    expect(() => store.saveUsage('pool', 'a', usage)).toThrow('closed')
  })
})

test('refuses a URL that names no store', async () => {
  for (const url of ['', 'file:', 'redis://', 'mysql://localhost', '/tmp/x.db']) {
    await expect(openStore(url, { key: new Secret(''), clock: systemClock })).rejects.toMatchObject(
      { code: 'CONFIG_INVALID' },
    )
  }
})
