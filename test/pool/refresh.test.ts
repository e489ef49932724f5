import { describe, expect, test } from 'vitest'
import { CupbearerError, SourceError } from '../../src/errors.ts'
import { MemoryStore } from '../../src/store/memory.ts'
import type { CredentialRecord } from '../../src/store/store.ts'
import { credential, fixed, gate, poolConfig, TestPool } from '../support/pool.ts'

/** A store whose writes the test can hold or refuse. */
class ShakyStore extends MemoryStore {
  hold: Promise<void> = Promise.resolve()
  broken = false

  override async save(pool: string, id: string, record: CredentialRecord): Promise<void> {
    await this.hold
    if (this.broken) throw new CupbearerError('STORE_FAILED', 'disk full')
    return super.save(pool, id, record)
  }
}

describe('in the background', () => {
  test('a token is renewed at 0.9 of its lifetime, and requests notice nothing', async () => {
    await using t = await TestPool.open(poolConfig([credential('a')]))
    await t.clock.run(3_239_999)
    expect(t.source('a').obtained).toBe(1)
    const old = t.lease()
    await t.clock.run(1)
    expect(t.lease()).toMatchObject({ generation: 2 })
    expect(t.changes.map(({ to }) => to)).toEqual(['active'])
    t.pool.settle(old, { kind: 'ok' })
    expect(t.refreshes.map(({ cause }) => cause)).toEqual(['startup', 'scheduled'])
  })

  test('a credential that is found revoked serves no more while that is being stored', async () => {
    const store = new ShakyStore()
    await using t = await TestPool.open(poolConfig([credential('a')]), { store })
    const disk = gate()
    store.hold = disk.promise
    t.source('a').script = async () => {
      throw new SourceError('revoked', 'invalid_grant')
    }
    await t.clock.run(3_240_000)
    let given: unknown
    try {
      given = t.pool.lease({})
    } catch (error) {
      given = error
    }
    disk.open()
    expect(given).toMatchObject({ code: 'POOL_EXHAUSTED' })
  })

  test('a token serves only when it is stored', async () => {
    const store = new ShakyStore()
    const disk = gate()
    store.hold = disk.promise
    await using t = await TestPool.open(poolConfig([credential('a')]), { store })
    expect(t.source('a').running).toBe(0)
    expect(t.pool.lease({})).toBeUndefined()
    const waiting = t.wait()
    disk.open()
    expect((await waiting).token.reveal()).toBe('a-1')
  })

  test('a token that cannot be stored is used from memory and stored later', async () => {
    const store = new ShakyStore()
    store.broken = true
    await using t = await TestPool.open(poolConfig([credential('a')]), { store })
    expect(t.lease().token.reveal()).toBe('a-1')
    expect(t.logged).toHaveLength(1)
    await t.clock.run(1000)
    expect(await store.read('api', 'a')).toBeUndefined()
    store.broken = false
    await t.clock.run(2000)
    expect((await store.read('api', 'a'))?.token?.reveal()).toBe('a-1')
  })

  test('failures leave a living token in use, back off, and quarantine when it ends', async () => {
    await using t = await TestPool.open(poolConfig([credential('a')]))
    t.source('a').script = () => Promise.reject(new SourceError('transient', 'HTTP 503'))
    await t.clock.run(3_240_000)
    expect(t.source('a').obtained).toBe(2)
    await t.clock.run(999)
    expect(t.source('a').obtained).toBe(2)
    await t.clock.run(1 + 2000 + 4000)
    expect(t.source('a').obtained).toBe(5)
    t.send()
    await t.clock.run(360_000)
    expect(t.state()).toBe('quarantined')
    expect(t.pool.lease({})).toBeUndefined()
    t.source('a').script = async () => undefined
    await t.clock.run(30 * 60_000)
    expect(t.state()).toBe('active')
  })

  test('Retry-After of the token endpoint is honoured', async () => {
    await using t = await TestPool.open(poolConfig([credential('a')]), {
      prepare: (source) => {
        source.script = () =>
          Promise.reject(new SourceError('transient', 'HTTP 429', { retryAfterMs: 20_000 }))
      },
    })
    await t.clock.run(19_999)
    expect(t.source('a').obtained).toBe(1)
    await t.clock.run(1)
    expect(t.source('a').obtained).toBe(2)
  })

  test('a try that hangs is cut after refresh.timeout; what it brings late is kept', async () => {
    const late = gate()
    await using t = await TestPool.open(poolConfig([credential('a')]), {
      prepare: (source) => {
        source.script = async () => {
          await late.promise
          return undefined
        }
      },
    })
    await t.clock.run(30_000)
    expect(t.refreshes).toMatchObject([{ result: 'failed' }])
    late.open()
    await t.clock.run(0)
    expect(t.lease().token.reveal()).toBe('a-1')
  })

  test('at most 8 run at a time, at start and after a jump of the clock', async () => {
    const ids = Array.from({ length: 50 }, (_, i) => `c${i}`)
    let running = 0
    let most = 0
    await using t = await TestPool.open(poolConfig(ids.map((id) => credential(id))), {
      prepare: (source) => {
        source.script = async ({ clock }) => {
          running += 1
          most = Math.max(most, running)
          await new Promise<void>((resolve) => clock.schedule(10, resolve))
          running -= 1
          return undefined
        }
      },
    })
    await t.clock.run(1000)
    expect(t.pool.status().tokens.active).toBe(50)
    expect(most).toBe(8)
    t.clock.jump(86_400_000)
    expect(t.pool.lease({})).toBeUndefined()
    await t.clock.run(31_000)
    expect(t.pool.status().tokens.active).toBe(50)
    expect(t.refreshes).toHaveLength(100)
    expect(most).toBe(8)
  })

  test('a token without known end is never renewed by itself', async () => {
    await using t = await TestPool.open(poolConfig([credential('a')]), {
      prepare: (source) => {
        source.lifetimeMs = undefined
      },
    })
    await t.clock.run(30 * 86_400_000)
    expect(t.source('a').obtained).toBe(1)
    t.send()
  })

  test('a source that keeps giving a token that is nearly over is not asked in a loop', async () => {
    await using t = await TestPool.open(poolConfig([credential('a')]))
    const first = t.source('a').last
    t.source('a').script = async () => first
    await t.clock.run(3_600_000)
    expect(t.source('a').obtained).toBeLessThan(25)
  })

  test('an expired token is never leased, even when the wall clock runs ahead', async () => {
    await using t = await TestPool.open(poolConfig([credential('a')]))
    t.source('a').script = () => Promise.reject(new SourceError('transient', 'HTTP 503'))
    t.clock.jump(3_600_000)
    expect(t.pool.lease({})).toBeUndefined()
  })

  test('a source that is watched renews when it says so', async () => {
    await using t = await TestPool.open(poolConfig([credential('a')]), {
      prepare: (source) => source.beWatched(),
    })
    t.source('a').changed?.()
    await t.clock.run(0)
    expect(t.lease().generation).toBe(2)
  })

  test('a refresh token that the answer leaves out is kept', async () => {
    await using t = await TestPool.open(poolConfig([credential('a')]))
    t.source('a').script = async () => ({ refreshToken: undefined })
    await t.pool.refresh('a')
    expect((await t.store.read('api', 'a'))?.refreshToken?.reveal()).toBe('refresh-a-1')
  })

  test('closing waits for a refresh that runs and stores what it brings', async () => {
    await using t = await TestPool.open(poolConfig([credential('a')]))
    const busy = gate()
    t.source('a').script = async () => {
      await busy.promise
      return undefined
    }
    void t.pool.refresh('a').catch(() => {})
    const closed = t.pool.close()
    busy.open()
    await closed
    expect((await t.store.read('api', 'a'))?.token?.reveal()).toBe('a-2')
    expect(t.clock.pending).toBe(0)
  })
})

describe('egress', () => {
  const config = () =>
    poolConfig([
      credential('a', { egress: 'x' }),
      credential('b', { egress: 'x' }),
      credential('c', { egress: 'y' }),
    ])

  test('credentials of a dead egress rest, and one request at a time tries it again', async () => {
    await using t = await TestPool.open(config())
    const burst = [t.lease({ credential: 'a' }), t.lease({ credential: 'b' })]
    for (const lease of burst) t.pool.settle(lease, { kind: 'egress-down' })
    for (let i = 0; i < 5; i++) expect(t.send().credential).toBe('c')
    expect([t.state('a'), t.state('b')]).toEqual(['cooling', 'cooling'])
    await t.clock.run(1000)
    const trial = t.lease()
    expect(trial.egress).toBe('x')
    expect([t.lease().egress, t.lease().egress]).toEqual(['y', 'y'])
    t.pool.settle(trial, { kind: 'egress-down' })
    await t.clock.run(1999)
    expect(t.lease().egress).toBe('y')
    await t.clock.run(1)
    const second = t.lease()
    expect(second.egress).toBe('x')
    second.dispatched()
    t.pool.settle(second, { kind: 'ok' })
    expect([t.state('a'), t.state('b')]).toEqual(['active', 'active'])
  })

  test('when nothing else is left one request tries at once and others get EGRESS_DOWN', async () => {
    await using t = await TestPool.open(poolConfig([credential('a'), credential('b')]))
    t.pool.settle(t.lease(), { kind: 'egress-down' })
    const trial = t.lease()
    const down = expect.objectContaining({ code: 'EGRESS_DOWN' })
    expect(() => t.pool.lease({})).toThrow(down as unknown as Error)
    await expect(t.wait()).rejects.toEqual(down)
    t.pool.settle(trial, { kind: 'egress-down' })
    const next = t.lease()
    next.dispatched()
    t.pool.settle(next, { kind: 'unknown' })
    t.lease()
    t.lease()
  })

  test('a quarantined credential that comes back in time is waited for, a dead egress is not', async () => {
    const pair = [credential('a', { egress: 'x' }), credential('b', { egress: 'y' })]
    const quarantine = { base: '1s', max: '1s' }
    await using t = await TestPool.open(poolConfig(pair, { quarantine }))
    t.pool.settle(t.lease({ credential: 'a' }), { kind: 'egress-down' })
    const trial = t.lease({ credential: 'a' })
    t.pool.quarantine('b')
    const waiting = t.wait()
    await t.clock.run(2000)
    expect((await waiting).credential).toBe('b')
    t.pool.settle(trial, { kind: 'egress-down' })
  })

  test('waiters fail with EGRESS_DOWN when the last egress goes down', async () => {
    const one = poolConfig([credential('a')], { limits: { concurrency: 2 } })
    await using t = await TestPool.open(one)
    const leases = [t.lease(), t.lease()]
    const waiting = [t.wait(), t.wait()]
    const settled = Promise.allSettled(waiting)
    t.pool.settle(leases[0] as never, { kind: 'egress-down' })
    const [first, second] = await settled
    expect(first).toMatchObject({ status: 'fulfilled' })
    expect(second).toMatchObject({ reason: { code: 'EGRESS_DOWN' } })
  })

  test('a source whose egress is down is not blamed and tried again within 15 s', async () => {
    await using t = await TestPool.open(poolConfig([credential('a')]), {
      prepare: (source) => {
        source.script = () => Promise.reject(new SourceError('egress', 'egress is down'))
      },
    })
    expect(t.state()).toBe('pending')
    expect(() => t.pool.lease({})).toThrow(
      expect.objectContaining({ code: 'EGRESS_DOWN' }) as unknown as Error,
    )
    await t.clock.run(120_000)
    const before = t.source('a').obtained
    t.source('a').script = async () => undefined
    await t.clock.run(15_000)
    expect(t.source('a').obtained).toBe(before + 1)
    expect(t.state()).toBe('active')
  })

  test('a pin outlives a restart and a longer list; credentials spread over the list', async () => {
    const store = new MemoryStore()
    const ids = Array.from({ length: 40 }, (_, i) => `c${i}`)
    const list = (egress: string[]) =>
      poolConfig(
        ids.map((id) => fixed(id)),
        { egress },
      )
    const pins = (t: TestPool) => t.pool.status().credentials.map(({ egress }) => egress)
    await using first = await TestPool.open(list(['x', 'y']), { store, crashes: true })
    expect(new Set(pins(first)).size).toBe(2)
    await using second = await TestPool.open(list(['p', 'q', 'x', 'y']), { store })
    expect(pins(second)).toEqual(pins(first))
  })
})

describe('reload', () => {
  test('unchanged credentials keep token, counts and state; others leave, come or start afresh', async () => {
    const limits = { rate: ['2/m'] }
    const before = poolConfig([credential('a'), credential('b'), credential('c')], { limits })
    await using t = await TestPool.open(before)
    t.send(undefined, { credential: 'a' })
    t.pool.quarantine('b')
    const running = t.lease({ credential: 'c' })
    await t.pool.apply(poolConfig([credential('a'), credential('b'), fixed('d')], { limits }))
    await t.clock.run(0)
    expect(t.source('a').obtained).toBe(1)
    expect(t.credential('a').limits).toEqual([{ limit: '2/m', used: 1, max: 2 }])
    expect(t.state('b')).toBe('quarantined')
    expect(t.lease({ credential: 'd' }).token.reveal()).toBe('d-1')
    running.dispatched()
    t.pool.settle(running, { kind: 'ok' })
    expect(t.pool.has('c')).toBe(false)
    await t.pool.apply(before)
    expect(t.lease({ credential: 'c' }).token.reveal()).toBe('c-1')
  })

  test('a lower limit holds at once, and waiters see a new credential', async () => {
    await using t = await TestPool.open(
      poolConfig([credential('a')], { limits: { rate: ['5/s'] } }),
    )
    for (let i = 0; i < 3; i++) t.send()
    await t.pool.apply(poolConfig([credential('a')], { limits: { rate: ['3/s'] } }))
    const waiting = t.wait()
    expect(t.pool.status().waiting).toBe(1)
    const more = poolConfig([credential('a'), fixed('b')], { limits: { rate: ['3/s'] } })
    await t.pool.apply(more)
    await t.clock.run(0)
    expect((await waiting).credential).toBe('b')
  })

  test('a changed source starts afresh with a higher generation', async () => {
    await using t = await TestPool.open(poolConfig([credential('a')]))
    await t.pool.refresh('a')
    const source = { type: 'static', token: 'other' }
    await t.pool.apply(poolConfig([{ id: 'a', source }]))
    await t.clock.run(0)
    expect(t.lease()).toMatchObject({ generation: 3 })
    expect(t.lease().token.reveal()).toBe('other-1')
  })
})
