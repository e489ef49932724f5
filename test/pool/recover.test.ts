import { describe, expect, test } from 'vitest'
import { SourceError } from '../../src/errors.ts'
import { Secret } from '../../src/lib/secret.ts'
import { MemoryStore } from '../../src/store/memory.ts'
import { credential, fixed, gate, poolConfig, TestPool } from '../support/pool.ts'

const expired = { kind: 'expired' } as const

describe('after an expired answer', () => {
  test('500 at once cause one refresh, and stale ones none', async () => {
    await using t = await TestPool.open(poolConfig([credential('a')]))
    const leases = Array.from({ length: 500 }, () => t.send(expired))
    const results = await Promise.all(leases.map((lease) => t.pool.recover(lease)))
    expect(t.source('a').obtained).toBe(2)
    expect(results.filter(({ refresh }) => refresh?.role === 'led')).toHaveLength(1)
    expect(results.filter(({ result }) => result === 'renewed')).toHaveLength(500)
    const late = await t.pool.recover(leases[0] as never)
    expect(late).toMatchObject({ result: 'stale', refresh: undefined })
    expect(t.source('a').obtained).toBe(2)
  })

  test('a background refresh that runs is joined', async () => {
    await using t = await TestPool.open(poolConfig([credential('a')]))
    const leases = Array.from({ length: 1000 }, () => t.lease())
    const busy = gate()
    t.source('a').script = async () => {
      await busy.promise
      return undefined
    }
    await t.clock.run(3_240_000)
    expect(t.source('a').running).toBe(1)
    const recoveries = leases.map((lease) => t.pool.recover(lease))
    busy.open()
    for (const recovery of await Promise.all(recoveries)) {
      expect(recovery).toMatchObject({ result: 'renewed', refresh: { role: 'joined' } })
    }
    expect(t.source('a').obtained).toBe(2)
  })

  test('requests wait while the refused token is renewed', async () => {
    await using t = await TestPool.open(poolConfig([credential('a')]))
    const busy = gate()
    t.source('a').script = async () => {
      await busy.promise
      return undefined
    }
    const recovery = t.pool.recover(t.send(expired))
    expect(t.pool.lease({})).toBeUndefined()
    const waiting = t.wait()
    busy.open()
    expect((await waiting).token.reveal()).toBe('a-2')
    expect((await recovery).result).toBe('renewed')
  })

  test('a token refused right after it was renewed is quarantined without another refresh', async () => {
    await using t = await TestPool.open(poolConfig([credential('a')]))
    await t.pool.recover(t.send(expired))
    const again = await t.pool.recover(t.send(expired))
    expect(again).toMatchObject({ result: 'failed', quarantined: true, refresh: undefined })
    expect(t.state()).toBe('quarantined')
    expect(t.source('a').obtained).toBe(2)
  })

  test('the first fetch does not count as a forced refresh, and minInterval passes', async () => {
    await using t = await TestPool.open(poolConfig([credential('a')]))
    expect((await t.pool.recover(t.send(expired))).result).toBe('renewed')
    await t.clock.run(5000)
    expect((await t.pool.recover(t.send(expired))).result).toBe('renewed')
  })

  test('a token that cannot be renewed is quarantined', async () => {
    await using t = await TestPool.open(poolConfig([fixed('a')]))
    const recovery = await t.pool.recover(t.send(expired))
    expect(recovery).toMatchObject({ result: 'failed', quarantined: true })
    expect(t.source('a').obtained).toBe(1)
  })

  test('invalid_grant revokes for good, until the operator forgets it', async () => {
    await using t = await TestPool.open(poolConfig([credential('a'), credential('b')]))
    t.source('a').script = () => Promise.reject(new SourceError('revoked', 'invalid_grant'))
    const recovery = await t.pool.recover(t.send(expired, { credential: 'a' }))
    expect(recovery).toMatchObject({ result: 'failed', quarantined: true, reason: 'invalid_grant' })
    expect(t.state()).toBe('revoked')
    await t.clock.run(86_400_000)
    expect(t.state()).toBe('revoked')
    expect(t.send().credential).toBe('b')
    expect((await t.store.read('api', 'a'))?.revoked?.reason).toBe('invalid_grant')
    t.source('a').script = async () => undefined
    await t.pool.forget('a')
    await t.clock.run(0)
    expect(t.state()).toBe('active')
  })

  test('after invalid_grant a newer token in the store is taken instead', async () => {
    const store = new MemoryStore()
    await using t = await TestPool.open(poolConfig([credential('a')]), { store })
    const record = await store.read('api', 'a')
    t.source('a').script = async () => {
      await store.save('api', 'a', {
        ...(record as NonNullable<typeof record>),
        generation: 7,
        token: new Secret('from-elsewhere'),
      })
      throw new SourceError('revoked', 'invalid_grant')
    }
    expect((await t.pool.recover(t.send(expired))).result).toBe('renewed')
    expect(t.lease()).toMatchObject({ generation: 7 })
    expect(t.lease().token.reveal()).toBe('from-elsewhere')
  })

  test('another failure rests the refused token until a later refresh succeeds', async () => {
    await using t = await TestPool.open(poolConfig([credential('a')]))
    t.source('a').script = () => Promise.reject(new SourceError('transient', 'HTTP 503'))
    const recovery = await t.pool.recover(t.send(expired))
    expect(recovery).toMatchObject({ result: 'failed', quarantined: false, reason: 'HTTP 503' })
    expect(t.state()).toBe('cooling')
    expect(t.pool.lease({})).toBeUndefined()
    await t.clock.run(1000)
    expect(t.source('a').obtained).toBe(3)
    expect(t.state()).toBe('cooling')
    t.source('a').script = async () => undefined
    await t.clock.run(2000)
    expect(t.state()).toBe('active')
    expect(t.lease().token.reveal()).toBe('a-4')
  })

  test('of a token whose renewal has just failed says nothing new', async () => {
    await using t = await TestPool.open(poolConfig([credential('a')]))
    t.source('a').script = () => Promise.reject(new SourceError('transient', 'HTTP 503'))
    const [first, late] = [t.send(expired), t.send(expired)]
    await t.pool.recover(first)
    const recovery = await t.pool.recover(late)
    expect(recovery).toMatchObject({ result: 'failed', quarantined: false, reason: 'HTTP 503' })
    expect([t.state(), t.source('a').obtained]).toEqual(['cooling', 2])
    t.source('a').script = async () => undefined
    await t.clock.run(1000)
    expect(t.state()).toBe('active')
  })
})

describe('quarantine', () => {
  test('a canary: one request shows that the renewed credential works again', async () => {
    await using t = await TestPool.open(poolConfig([credential('a')]))
    await t.pool.recover(t.send(expired))
    await t.pool.recover(t.send(expired))
    await t.clock.run(29_999)
    expect(t.pool.lease({})).toBeUndefined()
    await t.clock.run(1)
    expect(t.refreshes.at(-1)).toMatchObject({ cause: 'canary', result: 'ok' })
    const canary = t.lease()
    expect(canary.token.reveal()).toBe('a-3')
    expect(t.pool.lease({})).toBeUndefined()
    canary.dispatched()
    t.pool.settle(canary, { kind: 'ok' })
    expect(t.state()).toBe('active')
    t.lease()
    t.lease()
  })

  test('a canary that is refused rests twice as long', async () => {
    await using t = await TestPool.open(poolConfig([fixed('a')]))
    await t.pool.recover(t.send(expired))
    await t.clock.run(30_000)
    const canary = t.send(expired)
    expect(await t.pool.recover(canary)).toMatchObject({ result: 'failed', quarantined: true })
    await t.clock.run(59_999)
    expect(t.pool.lease({})).toBeUndefined()
    await t.clock.run(1)
    t.send()
    expect(t.state()).toBe('active')
  })

  test('an older request that ends well does not end a quarantine', async () => {
    await using t = await TestPool.open(poolConfig([fixed('a')]))
    const old = t.lease()
    old.dispatched()
    await t.pool.recover(t.send(expired))
    await t.clock.run(30_000)
    t.pool.settle(old, { kind: 'ok' })
    expect(t.state()).toBe('quarantined')
  })

  test('a canary whose refresh fails rests longer', async () => {
    await using t = await TestPool.open(poolConfig([credential('a')]))
    t.pool.quarantine('a')
    t.source('a').script = () => Promise.reject(new SourceError('transient', 'HTTP 500'))
    await t.clock.run(30_000)
    t.source('a').script = async () => undefined
    await t.clock.run(59_999)
    expect(t.source('a').obtained).toBe(2)
    await t.clock.run(1)
    expect(t.source('a').obtained).toBe(3)
  })

  test('it is kept over a restart, as are revocation and token', async () => {
    const store = new MemoryStore()
    const config = poolConfig([fixed('a'), credential('b'), credential('c')])
    await using before = await TestPool.open(config, { store, crashes: true })
    before.pool.quarantine('a')
    before.source('b').script = () => Promise.reject(new SourceError('revoked', 'invalid_grant'))
    await before.pool.refresh('b').catch(() => {})
    await using t = await TestPool.open(config, { store, clock: before.clock })
    expect([t.state('a'), t.state('b'), t.state('c')]).toEqual(['quarantined', 'revoked', 'active'])
    expect(t.source('a').obtained).toBe(0)
    expect(t.lease().token.reveal()).toBe('c-1')
    await t.clock.run(30_000)
    expect(t.send(undefined, { credential: 'a' }).credential).toBe('a')
    expect(t.state('a')).toBe('active')
  })
})

describe('limited', () => {
  test('a credential cools for as long as upstream says, within quarantine.max', async () => {
    await using t = await TestPool.open(poolConfig([credential('a')]))
    t.send({ kind: 'limited', retryAfterMs: 7000 })
    expect(t.state()).toBe('cooling')
    await t.clock.run(6999)
    expect(t.pool.lease({})).toBeUndefined()
    await t.clock.run(1)
    t.send({ kind: 'limited', retryAfterMs: 1e12 })
    await t.clock.run(30 * 60_000)
    t.lease()
  })

  test('without a time it cools for 1 s, doubling; a burst counts once, an ok starts anew', async () => {
    await using t = await TestPool.open(poolConfig([credential('a')]))
    const until = () => (t.credential().cooldownUntil as number) - t.clock.now()
    const burst = Array.from({ length: 5 }, () => t.lease())
    for (const lease of burst) {
      lease.dispatched()
      t.pool.settle(lease, { kind: 'limited', retryAfterMs: undefined })
    }
    expect(until()).toBe(1000)
    await t.clock.run(1000)
    t.send({ kind: 'limited', retryAfterMs: undefined })
    expect(until()).toBe(2000)
    await t.clock.run(2000)
    t.send()
    t.send({ kind: 'limited', retryAfterMs: undefined })
    expect(until()).toBe(1000)
  })

  test('denied changes nothing; an egress that is limited rests its credentials', async () => {
    const config = poolConfig([
      credential('a', { egress: 'x' }),
      credential('b', { egress: 'x' }),
      credential('c', { egress: 'y' }),
    ])
    await using t = await TestPool.open(config)
    t.send({ kind: 'denied' })
    expect(t.state('a')).toBe('active')
    t.pool.coolEgress('x', 5000, 'two credentials were limited')
    expect([t.state('a'), t.state('b'), t.state('c')]).toEqual(['cooling', 'cooling', 'active'])
    await t.clock.run(5000)
    expect(t.state('a')).toBe('active')
  })
})
