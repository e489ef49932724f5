import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { Pauses } from '../support/pauses.ts'
import { credential, fixed, poolConfig } from '../support/pool.ts'
import { RedisServer } from '../support/redis.ts'
import { RotatingEndpoint, SharedInstance } from '../support/shared-pool.ts'
import { until } from '../support/until.ts'

let redis: RedisServer
const open: SharedInstance[] = []
beforeEach(async () => {
  redis = await RedisServer.start()
})
afterEach(async () => {
  redis.thaw()
  for (const instance of open.splice(0)) await instance[Symbol.asyncDispose]()
  await redis[Symbol.asyncDispose]()
})

async function instances(
  count: number,
  endpoint: RotatingEndpoint,
  credentials: object[],
  rest: Record<string, unknown> = {},
): Promise<SharedInstance[]> {
  const config = poolConfig(credentials, rest)
  const made = await Promise.all(
    Array.from({ length: count }, () => SharedInstance.open(redis.url, config, endpoint)),
  )
  open.push(...made)
  return made
}

const INSTANCES = '{cupbearer:api}:instances'

/** Resolves once each instance has asked who else there is since the last one came. */
async function acquainted(count: number): Promise<void> {
  const heard = async () => {
    const told = (await redis.command('ZRANGE', INSTANCES, '0', '-1', 'WITHSCORES')) as string[]
    return told.filter((_, index) => index % 2 === 1).map(Number)
  }
  let all: number[] = []
  while (all.length < count) all = await heard()
  const last = Math.max(...all)
  while (Math.min(...(await heard())) <= last);
  // What it was told arrives.
  await new Promise((resolve) => setTimeout(resolve, 100))
}

const away = (instance: SharedInstance) =>
  instance.logged.some((line) => /shared store is away/.test(line))
const back = (instance: SharedInstance) => instance.logged.includes('the shared store answers')

/** How the store goes, and how it comes back. */
const FAULTS: Record<string, [() => Promise<unknown>, () => Promise<unknown>]> = {
  'was killed and comes back empty': [() => redis.kill(), () => redis.start()],
  'says nothing any more': [async () => redis.freeze(), async () => redis.thaw()],
  'takes no more writes': [
    () => redis.command('REPLICAOF', '127.0.0.1', '1'),
    () => redis.command('REPLICAOF', 'NO', 'ONE'),
  ],
  'is out of memory': [
    () => redis.command('CONFIG', 'SET', 'maxmemory', '1'),
    () => redis.command('CONFIG', 'SET', 'maxmemory', '0'),
  ],
}

describe.each(Object.entries(FAULTS))('while the store %s', (_name, [fail, heal]) => {
  test('tokens serve on, no refresh token is sent, and all is well within 5 s of its return', async () => {
    const endpoint = new RotatingEndpoint()
    const [one, two] = (await instances(2, endpoint, [credential('a')])) as [
      SharedInstance,
      SharedInstance,
    ]
    await Promise.all([one.send(), two.send()])
    await fail()
    await until(() => away(one) && away(two))
    expect((await one.send()).token.reveal()).toBe('token-1')
    await expect(one.pool.refresh('a')).rejects.toMatchObject({
      message: expect.stringContaining('shared store'),
    })
    // A request that was refused waits for the store a while, then for another token.
    const recovery = two.pool.recover(await two.send())
    expect(endpoint.asked).toBe(1)
    await expect(two.get({ waitMs: 50 })).rejects.toMatchObject({
      code: 'POOL_EXHAUSTED',
      message: expect.stringContaining('shared store'),
    })
    await heal()
    const returned = performance.now()
    using pauses = new Pauses()
    await until(() => back(one) && back(two))
    expect((await two.get()).token.reveal()).toBe('token-2')
    await recovery
    expect(performance.now() - returned - pauses.lost).toBeLessThan(5000)
    await until(() => one.credential().generation === 2)
    expect(endpoint).toMatchObject({ asked: 2, reused: 0 })
  })
})

describe('a store that lost all it knew', () => {
  test('gets back the newest that any instance holds, never an older one', async () => {
    const endpoint = new RotatingEndpoint()
    const [one, two] = (await instances(2, endpoint, [credential('a')])) as [
      SharedInstance,
      SharedInstance,
    ]
    await Promise.all([one.send(), two.send()])
    await one.renew()
    await until(() => two.credential().generation === 2)
    await redis.command('FLUSHALL')
    await until(() => back(one))
    const fresh = await instances(1, endpoint, [credential('a')])
    expect((await (fresh[0] as SharedInstance).send()).token.reveal()).toBe('token-2')
    expect(endpoint).toMatchObject({ asked: 2, reused: 0 })
  })

  test('keeps limits: what was used before still counts', async () => {
    const limits = { rate: ['12/3s'] }
    const all = await instances(2, new RotatingEndpoint(), [fixed('a')], { limits })
    const used: number[] = []
    const send = async (instance: SharedInstance) => {
      await instance.send()
      used.push(performance.now())
    }
    for (const instance of all) for (let i = 0; i < 6; i++) await send(instance)
    await redis.command('FLUSHALL')
    await Promise.all(all.map(send))
    const [first, second] = used as [number, number]
    const [thirteenth, last] = used.slice(12) as [number, number]
    expect(thirteenth - first).toBeGreaterThan(2900)
    expect(last - second).toBeGreaterThan(2900)
  })
})

describe('limits while the store is away', () => {
  test('are shared out, and hold together with what was used before', async () => {
    const limits = { rate: ['12/s'] }
    const all = await instances(3, new RotatingEndpoint(), [fixed('a')], { limits })
    const sent: number[] = []
    let killedAt = Number.POSITIVE_INFINITY
    // The last of them came by shares alone.
    const alone = () => sent.filter((at) => at > killedAt + 1300).length
    const drive = async (instance: SharedInstance) => {
      while (alone() < 8) {
        const lease = await instance.get({ waitMs: 50 }).catch(() => undefined)
        if (!lease) continue
        lease.dispatched()
        sent.push(performance.now())
        instance.pool.settle(lease, { kind: 'ok' })
      }
    }
    await Promise.all(all.map((each) => each.send()))
    await acquainted(3)
    setTimeout(() => {
      killedAt = performance.now()
      void redis.kill()
    }, 700)
    await Promise.all(all.map(drive))
    sent.sort((a, b) => a - b)
    for (const [index, at] of sent.entries()) {
      const twelfth = sent[index + 12]
      if (twelfth !== undefined) expect(twelfth - at).toBeGreaterThanOrEqual(1000)
    }
  })

  test('of a day go on with a part of what was left', async () => {
    const limits = { rate: ['100/d'] }
    const all = await instances(2, new RotatingEndpoint(), [fixed('a')], { limits })
    for (const each of all) for (let i = 0; i < 10; i++) await each.send()
    await acquainted(2)
    await redis.kill()
    await until(() => all.every(away))
    let served = 0
    for (const each of all) {
      while (await each.send({ kind: 'ok' }, { waitMs: 0 }).catch(() => undefined)) served += 1
    }
    expect(served).toBeGreaterThanOrEqual(70)
    expect(served).toBeLessThanOrEqual(90)
  })
})

test('the slots of an instance that has died come back', async () => {
  const limits = { concurrency: 2 }
  const [one] = (await instances(1, new RotatingEndpoint(), [fixed('a')], { limits })) as [
    SharedInstance,
  ]
  const heard = (at: number) => redis.command('ZADD', INSTANCES, String(at), 'dead')
  await heard(Date.now() + 60_000)
  await redis.command('HSET', '{cupbearer:api}:slots:a', 'dead', '2')
  await expect(one.get({ waitMs: 300 })).rejects.toMatchObject({ code: 'POOL_EXHAUSTED' })
  // With all slots in its hands.
  await heard(Date.now() - 5001)
  one.pool.settle(await one.get(), { kind: 'unknown' })
})

test('an instance that leaves gives its slots to the others at once', async () => {
  const limits = { concurrency: 1 }
  const [one, two] = (await instances(2, new RotatingEndpoint(), [fixed('a')], { limits })) as [
    SharedInstance,
    SharedInstance,
  ]
  await one.get()
  await expect(two.get({ waitMs: 100 })).rejects.toMatchObject({ code: 'POOL_EXHAUSTED' })
  await one[Symbol.asyncDispose]()
  open.splice(open.indexOf(one), 1)
  const left = performance.now()
  using pauses = new Pauses()
  two.pool.settle(await two.get(), { kind: 'unknown' })
  // Far sooner than it would be taken for dead.
  expect(performance.now() - left - pauses.lost).toBeLessThan(3000)
})
