import { describe, expect, test } from 'vitest'
import type { WireError } from '../../src/errors.ts'
import { credential, fixed, gate, poolConfig, TestPool } from '../support/pool.ts'

const code = (expected: string) =>
  expect.objectContaining({ code: expected }) as unknown as WireError

describe('selection', () => {
  test('least-used takes the credential with the fewest requests in flight, then the idle longest', async () => {
    await using t = await TestPool.open(poolConfig(['a', 'b', 'c'].map((id) => credential(id))))
    const [first, second] = [t.lease(), t.lease()]
    expect([first.credential, second.credential]).toEqual(['a', 'b'])
    t.pool.settle(first, { kind: 'ok' })
    expect(t.lease().credential).toBe('c')
    expect(t.lease().credential).toBe('a')
  })

  test('round-robin goes around whatever is in flight', async () => {
    const config = poolConfig(
      ['a', 'b'].map((id) => credential(id)),
      { select: 'round-robin' },
    )
    await using t = await TestPool.open(config)
    const leases = [t.lease(), t.lease(), t.lease()]
    t.pool.settle(leases[0] as never, { kind: 'ok' })
    t.pool.settle(leases[2] as never, { kind: 'ok' })
    expect(leases.map((lease) => lease.credential)).toEqual(['a', 'b', 'a'])
    expect(t.lease().credential).toBe('b')
  })

  test('fill-first takes the next credential only when the first is full', async () => {
    const config = poolConfig(
      ['a', 'b'].map((id) => credential(id)),
      { select: 'fill-first', limits: { concurrency: 2 } },
    )
    await using t = await TestPool.open(config)
    expect([t.lease(), t.lease(), t.lease()].map((lease) => lease.credential)).toEqual([
      'a',
      'a',
      'b',
    ])
  })

  test('a session keeps its credential, spreads with others, and moves when that is quarantined', async () => {
    const ids = ['a', 'b', 'c', 'd']
    await using t = await TestPool.open(
      poolConfig(
        ids.map((id) => credential(id)),
        { select: 'sticky' },
      ),
    )
    const homes = Array.from(
      { length: 40 },
      (_, i) => t.send(undefined, { session: `s${i}` }).credential,
    )
    expect(new Set(homes).size).toBe(4)
    const again = homes.map((_, i) => t.send(undefined, { session: `s${i}` }).credential)
    expect(again).toEqual(homes)
    const home = homes[0] as string
    t.pool.quarantine(home)
    const moved = t.send(undefined, { session: 's0' }).credential
    expect(moved).not.toBe(home)
    await t.pool.release(home)
    expect(t.send(undefined, { session: 's0' }).credential).toBe(moved)
  })

  test('a session waits for its credential when that is only rate-limited', async () => {
    const config = poolConfig(
      ['a', 'b'].map((id) => credential(id)),
      { limits: { rate: ['1/s'] } },
    )
    await using t = await TestPool.open(config)
    const home = t.send(undefined, { session: 's' }).credential
    expect(t.pool.lease({ session: 's' })).toBeUndefined()
    const waiting = t.wait({ session: 's' })
    await t.clock.run(1100)
    expect((await waiting).credential).toBe(home)
  })

  test('a hint takes that credential or none', async () => {
    await using t = await TestPool.open(poolConfig(['a', 'b'].map((id) => credential(id))))
    expect(t.send(undefined, { credential: 'b' }).credential).toBe('b')
    expect(() => t.pool.lease({ credential: 'x' })).toThrow(code('POOL_EXHAUSTED'))
  })

  test('scopes choose a token that has them or does not tell; none can ever is an error', async () => {
    const config = poolConfig(['a', 'b'].map((id) => credential(id)))
    await using t = await TestPool.open(config, {
      prepare: (source) => {
        source.scopes = source.name === 'a' ? ['read'] : ['read', 'write']
      },
    })
    for (let i = 0; i < 4; i++) {
      expect(t.send(undefined, { scopes: ['write'] }).credential).toBe('b')
    }
    expect(() => t.pool.lease({ scopes: ['admin'] })).toThrow(code('NO_TOKEN_WITH_SCOPE'))
  })

  test('a replay that has tried every credential fails at once', async () => {
    const config = poolConfig(
      ['a', 'b'].map((id) => credential(id)),
      { limits: { rate: ['1/s'] } },
    )
    await using t = await TestPool.open(config)
    expect(t.lease({ exclude: new Set(['a']) }).credential).toBe('b')
    expect(t.pool.lease({ exclude: new Set(['a']) })).toBeUndefined()
    expect(() => t.pool.lease({ exclude: new Set(['a', 'b']) })).toThrow(code('POOL_EXHAUSTED'))
    t.pool.quarantine('b')
    expect(() => t.pool.lease({ exclude: new Set(['a']) })).toThrow(code('POOL_EXHAUSTED'))
  })

  test('a replay does not wait for a credential that is out of reach', async () => {
    const config = poolConfig([
      credential('a'),
      credential('b', { limits: { rate: ['1/h'] } }),
      credential('c'),
    ])
    await using t = await TestPool.open(config)
    t.send(undefined, { credential: 'b' })
    t.send({ kind: 'limited', retryAfterMs: 1000 }, { credential: 'c' })
    expect(() => t.pool.lease({ exclude: new Set(['a']) })).toThrow(code('POOL_EXHAUSTED'))
  })

  test('a lease carries headers, egress and claims of its credential', async () => {
    const config = poolConfig(
      [credential('a', { egress: 'e2', headers: { 'user-agent': 'own' } })],
      { headers: { 'User-Agent': 'pool', 'accept-language': 'de' }, egress: ['e1'] },
    )
    await using t = await TestPool.open(config, {
      prepare: (source) => {
        source.script = async () => ({ claims: { sub: 'me', list: ['x', 'y'], deep: {} } })
      },
    })
    const lease = t.lease()
    expect(lease.egress).toBe('e2')
    expect(lease.headers).toEqual(['user-agent', 'own', 'accept-language', 'de'])
    expect([lease.claim('sub'), lease.claim('list'), lease.claim('deep')]).toEqual([
      'me',
      'x y',
      '',
    ])
    expect(lease.token.reveal()).toBe('a-1')
  })
})

describe('waiting', () => {
  const one = () => poolConfig([credential('a')], { limits: { concurrency: 1 } })

  test('waiters are served in order of arrival, and nobody overtakes them', async () => {
    await using t = await TestPool.open(one())
    const held = t.lease()
    const order: number[] = []
    const waiting = [1, 2, 3].map(async (n) => {
      const lease = await t.wait()
      order.push(n)
      return lease
    })
    t.pool.settle(held, { kind: 'ok' })
    expect(t.pool.lease({})).toBeUndefined()
    for (const each of waiting) t.pool.settle(await each, { kind: 'ok' })
    expect(order).toEqual([1, 2, 3])
    expect(t.pool.status().waiting).toBe(0)
  })

  test('a request bound to a busy credential does not hold up others', async () => {
    const config = poolConfig(
      ['a', 'b'].map((id) => credential(id)),
      { limits: { concurrency: 1 } },
    )
    await using t = await TestPool.open(config)
    const [a, b] = [t.lease(), t.lease()]
    const bound = t.wait({ credential: 'a' })
    const open = t.wait()
    t.pool.settle(b, { kind: 'ok' })
    expect((await open).credential).toBe('b')
    t.pool.settle(a, { kind: 'ok' })
    expect((await bound).credential).toBe('a')
  })

  test.each([
    ['bound', [{ credential: 'a' }, {}]],
    ['open', [{}, { credential: 'a' }]],
  ] as const)(
    'of a bound and an open request the earlier is served first: %s',
    async (_, requests) => {
      await using t = await TestPool.open(one())
      let held = t.lease()
      const order: number[] = []
      const waiting = requests.map(async (request, n) => {
        const lease = await t.wait(request)
        order.push(n)
        return lease
      })
      for (const each of waiting) {
        t.pool.settle(held, { kind: 'ok' })
        held = await each
      }
      expect(order).toEqual([0, 1])
    },
  )

  test('an aborted waiter leaves at once and the next is served', async () => {
    await using t = await TestPool.open(one())
    const held = t.lease()
    const abort = new AbortController()
    const left = t.wait({}, abort.signal)
    const next = t.wait()
    abort.abort(new Error('client gone'))
    await expect(left).rejects.toThrow('client gone')
    expect(t.pool.status().waiting).toBe(1)
    t.pool.settle(held, { kind: 'ok' })
    expect((await next).credential).toBe('a')
  })

  test('after queue.wait a waiter gets POOL_EXHAUSTED and when a token will be usable', async () => {
    const config = poolConfig([credential('a')], { limits: { rate: ['1/m'] } })
    await using t = await TestPool.open(config)
    t.send()
    const failed = t.wait().catch((error: WireError) => error)
    await t.clock.run(30_000)
    const error = (await failed) as WireError
    expect(error.code).toBe('POOL_EXHAUSTED')
    expect(error.retryAfterMs).toBeCloseTo(30_010, 0)
  })

  test('one waiter more than queue.max gets QUEUE_FULL at once', async () => {
    const config = poolConfig([credential('a')], { limits: { concurrency: 1 }, queue: { max: 1 } })
    await using t = await TestPool.open(config)
    const held = t.lease()
    const waiting = t.wait()
    await expect(t.wait()).rejects.toEqual(code('QUEUE_FULL'))
    t.pool.settle(held, { kind: 'ok' })
    await waiting
  })

  test('a cold pool holds requests until the first token is stored', async () => {
    const first = gate()
    await using t = await TestPool.open(poolConfig([credential('a')]), {
      prepare: (source) => {
        source.script = async () => {
          await first.promise
          return undefined
        }
      },
    })
    expect(t.state()).toBe('pending')
    const waiting = t.wait()
    first.open()
    expect((await waiting).token.reveal()).toBe('a-1')
    expect((await t.store.read('api', 'a'))?.token?.reveal()).toBe('a-1')
  })

  test('closing rejects waiters and leaves no timer', async () => {
    await using t = await TestPool.open(one())
    t.lease()
    const waiting = t.wait()
    const rejected = expect(waiting).rejects.toEqual(code('SHUTTING_DOWN'))
    await t.pool.close()
    await rejected
    expect(t.clock.pending).toBe(0)
    expect(() => t.pool.lease({})).toThrow(code('SHUTTING_DOWN'))
  })

  test('a waiting request fails when the last credential is revoked', async () => {
    const config = poolConfig([fixed('a')], { limits: { concurrency: 1 } })
    await using t = await TestPool.open(config, {
      prepare: (source) => {
        source.lifetimeMs = 5000
      },
    })
    const held = t.lease()
    const rejected = expect(t.wait()).rejects.toEqual(code('POOL_EXHAUSTED'))
    await t.clock.run(5000)
    await rejected
    expect(t.state()).toBe('revoked')
    t.pool.settle(held, { kind: 'ok' })
  })
})

describe('settling', () => {
  test('a second settle changes nothing', async () => {
    await using t = await TestPool.open(poolConfig([credential('a')]))
    const lease = t.lease()
    t.pool.settle(lease, { kind: 'ok' })
    t.pool.settle(lease, { kind: 'ok' })
    expect(t.credential().inFlight).toBe(0)
  })

  test('a lease that was never dispatched gives its place in the window back', async () => {
    await using t = await TestPool.open(
      poolConfig([credential('a')], { limits: { rate: ['1/m'] } }),
    )
    const lease = t.lease()
    expect(t.pool.lease({})).toBeUndefined()
    t.pool.settle(lease, { kind: 'unknown' })
    t.send()
    expect(t.pool.lease({})).toBeUndefined()
  })

  test('a settled lease cannot be dispatched', async () => {
    await using t = await TestPool.open(poolConfig([credential('a')]))
    const lease = t.send()
    expect(() => lease.dispatched()).toThrow()
  })

  test('status counts requests per token and minute, and refreshes per request', async () => {
    await using t = await TestPool.open(poolConfig(['a', 'b'].map((id) => credential(id))))
    for (let i = 0; i < 10; i++) t.send()
    expect(t.pool.status()).toMatchObject({
      status: 'healthy',
      tokens: { active: 2, pending: 0 },
      requestsPerTokenPerMinute: 5,
      authOverhead: 0.2,
      refreshSuccessRate: 1,
      avgTtlRemainingSeconds: 3600,
    })
    await t.clock.run(61_000)
    expect(t.pool.status().requestsPerTokenPerMinute).toBe(0)
  })

  test('a token that stands in the configuration is no refresh', async () => {
    await using t = await TestPool.open(poolConfig([fixed('a')]))
    t.send()
    expect(t.pool.status()).toMatchObject({ authOverhead: 0, refreshSuccessRate: undefined })
  })
})
