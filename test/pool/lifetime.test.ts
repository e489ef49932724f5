import { describe, expect, test } from 'vitest'
import { MemoryStore } from '../../src/store/memory.ts'
import { readToken } from '../../src/token/jwt.ts'
import { ManualClock } from '../support/manual-clock.ts'
import { credential, fixed, poolConfig, type ScriptedSource, TestPool } from '../support/pool.ts'

const expired = { kind: 'expired' } as const
const MINUTE = 60_000

/** A pool of one credential whose tokens do not tell their end. */
const opaque = (options: { store?: MemoryStore; clock?: ManualClock } = {}) =>
  TestPool.open(poolConfig([credential('a')]), {
    ...options,
    prepare: (source) => {
      source.lifetimeMs = undefined
    },
  })

/** Upstream refuses the token after that time, and accepts the next. */
async function refuseAfter(t: TestPool, ms: number, then: 'ok' | 'expired' = 'ok'): Promise<void> {
  await t.clock.run(ms)
  expect((await t.pool.recover(t.send(expired))).result).toBe('renewed')
  t.send({ kind: then })
}

describe('a token of unknown end', () => {
  test('is renewed ahead of the age at which the one before was refused', async () => {
    await using t = await opaque()
    expect(t.credential()).toMatchObject({ lifetime: 'unknown', expiresAt: undefined })
    await refuseAfter(t, 10 * MINUTE)
    const learnedAt = t.clock.now()
    expect(t.credential()).toMatchObject({
      lifetime: 'learned',
      expiresAt: learnedAt + 10 * MINUTE,
      refreshAt: learnedAt + 9 * MINUTE,
    })
    await t.clock.run(9 * MINUTE)
    expect(t.source('a').obtained).toBe(3)
    await t.clock.run(90 * MINUTE)
    expect(t.source('a').obtained).toBe(13)
    expect(t.refreshes.slice(2).every(({ cause }) => cause === 'scheduled')).toBe(true)
  })

  test('goes on being used past that age when it cannot be renewed', async () => {
    await using t = await opaque()
    await refuseAfter(t, 10 * MINUTE)
    t.source('a').script = () => Promise.reject(new Error('down'))
    await t.clock.run(60 * MINUTE)
    expect(t.state()).toBe('active')
    t.send()
  })

  test('teaches nothing when its successor is refused too, or when it was just got', async () => {
    await using t = await opaque()
    await refuseAfter(t, 10 * MINUTE, 'expired')
    expect(t.credential().lifetime).toBe('unknown')
    await using other = await opaque()
    await refuseAfter(other, 4000)
    expect(other.credential().lifetime).toBe('unknown')
  })

  test('a request that was accepted beside the refused one proves nothing', async () => {
    await using t = await opaque()
    await t.clock.run(10 * MINUTE)
    const slow = t.lease()
    slow.dispatched()
    const recovery = t.pool.recover(t.send(expired))
    t.pool.settle(slow, { kind: 'ok' })
    expect(t.credential().lifetime).toBe('unknown')
    await recovery
    t.send()
    expect(t.credential().lifetime).toBe('learned')
  })

  test('keeps what was learned over a restart', async () => {
    const store = new MemoryStore()
    const clock = new ManualClock()
    const first = await opaque({ store, clock })
    await refuseAfter(first, 10 * MINUTE)
    await first[Symbol.asyncDispose]()
    await using t = await opaque({ store, clock })
    expect(t.credential().lifetime).toBe('learned')
    await clock.run(9 * MINUTE)
    expect(t.source('a').obtained).toBe(1)
  })

  test('forgets it when the operator forgets the credential', async () => {
    await using t = await opaque()
    await refuseAfter(t, 10 * MINUTE)
    await t.pool.forget('a')
    await t.clock.run(0)
    expect(t.credential().lifetime).toBe('unknown')
  })
})

describe('a told end that proves too late', () => {
  test('is believed after one refusal, and shortened after two', async () => {
    await using t = await TestPool.open(poolConfig([credential('a')]))
    await refuseAfter(t, 10 * MINUTE)
    expect(t.credential()).toMatchObject({
      lifetime: 'expires_in',
      expiresAt: t.clock.now() + 60 * MINUTE,
    })
    await refuseAfter(t, 12 * MINUTE)
    const { lifetime, expiresAt } = t.credential()
    expect([lifetime, expiresAt]).toEqual(['learned', t.clock.now() + 10 * MINUTE])
    await t.clock.run(9 * MINUTE)
    expect(t.source('a').obtained).toBe(4)
  })
})

/** A source of JWTs by a clock that is ahead of the pool's, and whose answers say so. */
function jwtSource(source: ScriptedSource, aheadMs: number, claims: (now: number) => object) {
  source.script = async ({ fetch, clock }) => {
    await fetch('https://issuer.test/token')
    const body = claims(Math.floor((clock.now() + aheadMs) / 1000))
    const part = (value: object) => Buffer.from(JSON.stringify(value)).toString('base64url')
    const text = `${part({ alg: 'ES256', kid: 'k' })}.${part(body)}.${part({})}`
    return readToken(text, { receivedAt: clock.now() })
  }
}

async function jwtPool(aheadMs: number, claims: (now: number) => object, kind = credential) {
  const clock = new ManualClock()
  return TestPool.open(poolConfig([kind('a')]), {
    clock,
    prepare: (source) => jwtSource(source, aheadMs, claims),
    fetch: async () => {
      const date = new Date(clock.now() + aheadMs).toUTCString()
      return new Response('{}', { headers: { date } })
    },
  })
}

describe('an issuer whose clock is off', () => {
  test.each([30 * MINUTE, -30 * MINUTE])(
    'by %d ms has its exp judged by its own clock',
    async (ahead) => {
      await using t = await jwtPool(ahead, (now) => ({ iat: now, exp: now + 3600 }))
      const { lifetime, expiresAt, issuedAt, refreshAt } = t.credential()
      expect(lifetime).toBe('jwt')
      // Half a second is what a Date in whole seconds leaves open.
      expect(Math.abs((expiresAt as number) - t.clock.now() - 60 * MINUTE)).toBeLessThanOrEqual(500)
      expect(Math.abs((issuedAt as number) - t.clock.now())).toBeLessThanOrEqual(500)
      expect(Math.abs((refreshAt as number) - t.clock.now() - 54 * MINUTE)).toBeLessThanOrEqual(500)
      t.send()
    },
  )

  test('by a second is taken to be right', async () => {
    await using t = await jwtPool(1000, (now) => ({ iat: now, exp: now + 3600 }))
    expect((t.credential().expiresAt as number) - t.clock.now()).toBe(60 * MINUTE + 1000)
  })
})

describe('a token with nbf', () => {
  test('is not leased before it, and is at once then', async () => {
    await using t = await jwtPool(0, (now) => ({ iat: now, nbf: now + 10, exp: now + 3600 }))
    expect(t.state()).toBe('pending')
    expect(t.pool.lease({})).toBeUndefined()
    const waiting = t.wait()
    let granted = false
    void waiting.then(() => {
      granted = true
    })
    await t.clock.run(9999)
    expect(granted).toBe(false)
    await t.clock.run(1)
    expect(granted).toBe(true)
    expect(t.state()).toBe('active')
    expect(t.source('a').obtained).toBe(1)
  })

  test('by the issuer’s clock', async () => {
    await using t = await jwtPool(30 * MINUTE, (now) => ({ nbf: now - 5, exp: now + 3600 }))
    expect(t.state()).toBe('active')
  })

  test('from a source that gives no other is waited for too', async () => {
    await using t = await jwtPool(0, (now) => ({ nbf: now + 10, exp: now + 3600 }), fixed)
    expect(t.state()).toBe('pending')
    await t.clock.run(10_000)
    expect(t.state()).toBe('active')
  })

  test('leaves the work to others meanwhile', async () => {
    await using t = await TestPool.open(poolConfig([credential('a'), credential('b')]), {
      prepare: (source) => {
        if (source.name === 'b') return
        source.script = async ({ clock }) => ({ notBefore: clock.now() + MINUTE })
      },
    })
    for (let i = 0; i < 5; i++) expect(t.send().credential).toBe('b')
    await t.clock.run(MINUTE)
    expect(t.send().credential).toBe('a')
  })
})
