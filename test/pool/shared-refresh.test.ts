import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest'
import type { Lease } from '../../src/pool/lease.ts'
import { credential, fixed, poolConfig } from '../support/pool.ts'
import { RedisServer } from '../support/redis.ts'
import { RotatingEndpoint, SharedInstance } from '../support/shared-pool.ts'
import { until } from '../support/until.ts'

let redis: RedisServer
beforeAll(async () => {
  redis = await RedisServer.start()
})
afterAll(() => redis[Symbol.asyncDispose]())

const open: SharedInstance[] = []
afterEach(async () => {
  for (const instance of open.splice(0)) await instance[Symbol.asyncDispose]()
  await redis.command('FLUSHALL')
})

async function instances(
  count: number,
  endpoint: RotatingEndpoint,
  credentials: object[] = [credential('a')],
  rest: Record<string, unknown> = {},
): Promise<SharedInstance[]> {
  const config = poolConfig(credentials, rest)
  const made = await Promise.all(
    Array.from({ length: count }, (_, index) =>
      SharedInstance.open(redis.url, config, endpoint, [0, 3_600_000, -3_600_000][index % 3]),
    ),
  )
  open.push(...made)
  return made
}

describe('several instances on one store', () => {
  test('fetch the first token once', async () => {
    const endpoint = new RotatingEndpoint()
    const all = await instances(3, endpoint)
    const leases = await Promise.all(all.map((each) => each.send()))
    expect(new Set(leases.map((each) => each.token.reveal()))).toEqual(new Set(['token-1']))
    expect(endpoint.asked).toBe(1)
  })

  test('renew once for 900 requests that were refused everywhere at the same time', async () => {
    const endpoint = new RotatingEndpoint()
    const all = await instances(3, endpoint)
    const refused: [SharedInstance, Lease][] = []
    for (const each of all) for (let i = 0; i < 300; i++) refused.push([each, await each.send()])
    const results = await Promise.all(refused.map(([each, lease]) => each.pool.recover(lease)))
    expect(endpoint.asked).toBe(2)
    expect(endpoint.reused).toBe(0)
    expect(results.every(({ result }) => result !== 'failed')).toBe(true)
    const leases = await Promise.all(all.map((each) => each.send()))
    expect(new Set(leases.map((each) => each.token.reveal()))).toEqual(new Set(['token-2']))
  })

  test('wait for the new token, whatever else they hear of the old one', async () => {
    const endpoint = new RotatingEndpoint()
    const [one, two] = (await instances(2, endpoint)) as [SharedInstance, SharedInstance]
    const leases = [await one.send(), await two.send(), await two.send()] as const
    let answer = () => {}
    const answered = new Promise<void>((resolve) => {
      answer = resolve
    })
    endpoint.script = () => answered
    const led = one.pool.recover(leases[0])
    await until(() => endpoint.asked === 2)
    const joined = two.pool.recover(leases[1]).then(({ result }) => ({
      result,
      generation: two.credential().generation,
    }))
    // The record of the old token is looked at once more, as with every message that may have been missed.
    await redis.command('PUBLISH', '{cupbearer:api}:events:0', 'r another a')
    await Promise.race([joined, new Promise((resolve) => setTimeout(resolve, 300))])
    answer()
    expect(await joined).toEqual({ result: 'renewed', generation: 2 })
    expect((await two.pool.recover(leases[2])).result).toBe('stale')
    await led
    expect(endpoint.asked).toBe(2)
  })

  test('take over a token that another one has renewed', async () => {
    const endpoint = new RotatingEndpoint()
    const [one, two] = (await instances(2, endpoint)) as [SharedInstance, SharedInstance]
    await Promise.all([one.send(), two.send()])
    await one.renew()
    await until(() => two.credential().generation === 2)
    expect((await two.send()).token.reveal()).toBe('token-2')
  })

  test('quarantine, release and forget together', async () => {
    const endpoint = new RotatingEndpoint()
    const [one, two] = (await instances(2, endpoint)) as [SharedInstance, SharedInstance]
    await Promise.all([one.send(), two.send()])
    one.pool.quarantine('a')
    await until(() => two.credential().state === 'quarantined')
    await one.pool.release('a')
    await until(() => two.credential().state === 'active')
    await two.pool.forget('a')
    await until(() => one.credential().generation >= 2 && two.credential().generation >= 2)
    expect((await one.send()).token.reveal()).toBe((await two.send()).token.reveal())
    expect(endpoint.asked).toBe(2)
  })

  test('leave a credential alone that upstream has limited for one of them', async () => {
    const endpoint = new RotatingEndpoint()
    const [one, two] = (await instances(2, endpoint)) as [SharedInstance, SharedInstance]
    await Promise.all([one.send(), two.send()])
    await one.send({ kind: 'limited', retryAfterMs: 60_000 })
    await until(() => two.credential().state === 'cooling')
  })

  test('bind a session to the same credential', async () => {
    const endpoint = new RotatingEndpoint()
    const [one, two] = (await instances(2, endpoint, [fixed('a'), fixed('b'), fixed('c')])) as [
      SharedInstance,
      SharedInstance,
    ]
    await one.get({ exclude: new Set() })
    one.pool.quarantine('a')
    one.pool.quarantine('b')
    const { credential: bound } = await one.send({ kind: 'ok' }, { session: 's' })
    expect(bound).toBe('c')
    await one.pool.release('a')
    await one.pool.release('b')
    await until(() => two.pool.status().tokens.active === 3)
    expect((await two.send({ kind: 'ok' }, { session: 's' })).credential).toBe('c')
  })
})
