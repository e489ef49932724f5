import { describe, expect, test } from 'vitest'
import { SourceError } from '../../src/errors.ts'
import { Turns } from '../../src/pool/turns.ts'
import { MemoryStore } from '../../src/store/memory.ts'
import { ManualClock } from '../support/manual-clock.ts'
import {
  credential,
  fixed,
  gate,
  poolConfig,
  type ScriptedSource,
  TestPool,
} from '../support/pool.ts'

const HOUR = 3_600_000

const many = (count: number, rest: object = {}) =>
  Array.from({ length: count }, (_, i) => credential(`c${i}`, rest as Record<string, unknown>))

/** Sources that take 50 ms, and how many of them run: now, at most, and in which order they began. */
class Traffic {
  running = 0
  most = 0
  readonly began: string[] = []
  /** When each began, on the steady clock. */
  readonly times: number[] = []

  readonly prepare = (source: ScriptedSource): void => {
    source.script = async ({ clock }) => {
      this.began.push(source.name)
      this.times.push(clock.monotonic())
      this.running += 1
      this.most = Math.max(this.most, this.running)
      await new Promise<void>((resolve) => clock.schedule(50, resolve))
      this.running -= 1
      return undefined
    }
  }

  /** Most that began within any span of that long. */
  peak(spanMs: number): number {
    let peak = 0
    for (const [index, start] of this.times.entries()) {
      let end = index
      while ((this.times[end] ?? Number.POSITIVE_INFINITY) < start + spanMs) end += 1
      peak = Math.max(peak, end - index)
    }
    return peak
  }

  forget(): void {
    this.most = 0
    this.began.length = 0
    this.times.length = 0
  }
}

describe('at start', () => {
  test('ten thousand tokens are got 8 at a time, and one timer serves all of them', async () => {
    const traffic = new Traffic()
    const { prepare } = traffic
    await using t = await TestPool.open(poolConfig(many(10_000)), { prepare, cold: true })
    expect(t.clock.pending).toBeLessThanOrEqual(3)
    await t.clock.run((10_000 / 8) * 50 + 100)
    expect(t.pool.status().tokens.active).toBe(10_000)
    expect(traffic.began).toHaveLength(10_000)
    expect(traffic.most).toBe(8)
    expect(t.clock.pending).toBeLessThanOrEqual(3)
  }, 120_000)

  test('refresh.parallel says how many at a time, also after a reload', async () => {
    const traffic = new Traffic()
    const parallel = (count: number) => poolConfig(many(40), { refresh: { parallel: count } })
    await using t = await TestPool.open(parallel(3), { prepare: traffic.prepare })
    await t.clock.run(100)
    expect(traffic.most).toBe(3)
    await t.pool.apply(parallel(20))
    await t.clock.run(1000)
    expect(traffic.most).toBe(20)
    expect(traffic.began).toHaveLength(40)
  })

  test('tokens that were got together are renewed apart', async () => {
    const traffic = new Traffic()
    let seed = 1
    const test = await TestPool.open(poolConfig(many(800)), {
      prepare: traffic.prepare,
      cold: true,
    })
    await using t = test
    t.random = () => {
      seed = (seed * 16_807) % 2_147_483_647
      return seed / 2_147_483_647
    }
    await t.clock.run(6000)
    expect(t.pool.status().tokens.active).toBe(800)
    traffic.forget()
    await t.clock.run(HOUR - 6000)
    expect(traffic.began).toHaveLength(800)
    // By a quarter of the lead of 6 minutes, so 9 a second on average.
    expect(traffic.peak(1000)).toBeLessThan(40)
  })

  test('a restart takes up what is stored and renews each token when it is due', async () => {
    const store = new MemoryStore()
    const clock = new ManualClock()
    const first = await TestPool.open(poolConfig(many(100)), { store, clock })
    await clock.run(1000)
    await first.pool.close()
    await clock.run(HOUR / 2)
    const traffic = new Traffic()
    const { prepare } = traffic
    await using t = await TestPool.open(poolConfig(many(100)), { store, clock, prepare })
    expect(t.pool.status().tokens.active).toBe(100)
    expect(traffic.began).toEqual([])
    await clock.run(HOUR * 0.5)
    expect(new Set(traffic.began).size).toBe(100)
    expect(traffic.most).toBeLessThanOrEqual(8)
  })
})

describe('after a jump of the clock on the wall', () => {
  test('of an hour ahead the tokens that have ended are renewed, 8 at a time', async () => {
    const traffic = new Traffic()
    await using t = await TestPool.open(poolConfig(many(400)), { prepare: traffic.prepare })
    await t.clock.run(5000)
    traffic.forget()
    t.clock.jump(HOUR)
    expect(t.pool.lease({})).toBeUndefined()
    await t.clock.run(30_000 + 400 * 10)
    expect(t.pool.status().tokens.active).toBe(400)
    expect(traffic.began).toHaveLength(400)
    expect(traffic.most).toBe(8)
  })

  test('of an hour ahead longer lives only get shorter, and stay spread', async () => {
    const traffic = new Traffic()
    const prepare = (source: ScriptedSource) => {
      source.lifetimeMs = 10 * HOUR
      traffic.prepare(source)
    }
    await using t = await TestPool.open(poolConfig(many(100)), { prepare })
    await t.clock.run(2000)
    traffic.forget()
    t.clock.jump(HOUR)
    await t.clock.run(7.9 * HOUR)
    expect(traffic.began).toEqual([])
    await t.clock.run(0.2 * HOUR)
    expect(traffic.began).toHaveLength(100)
  })

  test('of an hour back tokens live no longer for it, whatever is reloaded', async () => {
    const config = poolConfig([credential('a')])
    await using t = await TestPool.open(config)
    await t.clock.run(1000)
    t.clock.jump(-HOUR)
    await t.clock.run(60_000)
    await t.pool.apply(poolConfig([credential('a')], { limits: { concurrency: 5 } }))
    expect(t.source('a').obtained).toBe(1)
    expect(t.state()).toBe('active')
    await t.clock.run(0.9 * HOUR - 61_001)
    expect(t.source('a').obtained).toBe(1)
    await t.clock.run(1)
    expect(t.source('a').obtained).toBe(2)
    // The new token was placed by the clock that is right now.
    await t.clock.run(0.9 * HOUR - 1)
    expect(t.source('a').obtained).toBe(2)
    await t.clock.run(1)
    expect(t.source('a').obtained).toBe(3)
  })

  test('there and back nothing is renewed twice', async () => {
    const traffic = new Traffic()
    await using t = await TestPool.open(poolConfig(many(50)), { prepare: traffic.prepare })
    await t.clock.run(2000)
    traffic.forget()
    t.clock.jump(-HOUR)
    await t.clock.run(40_000)
    t.clock.jump(HOUR)
    await t.clock.run(40_000)
    expect(traffic.began).toEqual([])
    expect(t.pool.status().tokens.active).toBe(50)
  })
})

describe('one token endpoint host', () => {
  /** Two pools that share turns; the hosts are those of the sources. */
  async function pools(limit: number, counts: number[], parallel = 8, hosts = 1) {
    const clock = new ManualClock()
    const traffic = new Traffic()
    const turns = new Turns(limit)
    const opened: TestPool[] = []
    for (const [index, count] of counts.entries()) {
      const ids = Array.from({ length: count }, (_, i) =>
        credential(`${'ab'[index]}${i}`, { labels: {} }),
      )
      opened.push(
        await TestPool.open(poolConfig(ids, { refresh: { parallel } }), {
          clock,
          turns,
          hostOf: ({ type, ...rest }) => {
            const { clientId = '' } = rest as { clientId?: string }
            return type === 'oauth2' ? `host-${Number(clientId.slice(1)) % hosts}` : undefined
          },
          prepare: traffic.prepare,
        }),
      )
    }
    return { clock, traffic, turns, opened }
  }

  const close = async (opened: TestPool[]) => {
    const closed = Promise.all(opened.map((each) => each[Symbol.asyncDispose]()))
    await opened[0]?.clock.run(10_000)
    await closed
  }

  test('takes so many renewals at a time over all pools, and serves both pools', async () => {
    const { clock, traffic, opened } = await pools(5, [40, 40])
    await clock.run(200)
    expect(traffic.most).toBe(5)
    const early = traffic.began.slice(0, 20).join(' ')
    expect(early).toContain('a')
    expect(early).toContain('b')
    await clock.run(1000)
    expect(new Set(traffic.began).size).toBe(80)
    expect(traffic.most).toBe(5)
    await close(opened)
  })

  test('that is busy holds up only those who ask it', async () => {
    const { clock, traffic, opened } = await pools(2, [40], 8, 2)
    await clock.run(40)
    expect(traffic.running).toBe(4)
    expect(traffic.began.map((name) => Number(name.slice(1)) % 2).toSorted()).toEqual([0, 0, 1, 1])
    await clock.run(2000)
    expect(traffic.began).toHaveLength(40)
    await close(opened)
  })

  test('gives the next turn to whom a request waits for', async () => {
    const { clock, traffic, opened } = await pools(1, [30])
    await clock.run(20 * 50)
    const [t] = opened as [TestPool]
    const lease = t.lease({ credential: 'a0' })
    lease.dispatched()
    t.pool.settle(lease, { kind: 'expired' })
    const before = traffic.began.length
    const recovery = t.pool.recover(lease)
    await clock.run(100)
    expect(await recovery).toMatchObject({ result: 'renewed' })
    expect(traffic.began.slice(before, before + 2)).toContain('a0')
    expect(traffic.most).toBe(1)
    await close(opened)
  })

  test('that hangs is waited for no longer than refresh.timeout', async () => {
    const clock = new ManualClock()
    const turns = new Turns(1)
    const stuck = gate()
    await using t = await TestPool.open(poolConfig([credential('a'), credential('b')]), {
      clock,
      turns,
      hostOf: () => 'host',
    })
    await clock.run(10)
    t.source('a').script = async () => {
      await stuck.promise
      return undefined
    }
    const hanging = t.pool.refresh('a')
    const waiting = t.pool.refresh('b')
    const ends = Promise.allSettled([hanging, waiting])
    await clock.run(30_000)
    expect(await ends).toMatchObject([{ status: 'rejected' }, { status: 'rejected' }])
    expect(t.source('b').obtained).toBe(1)
    // No turn is lost.
    await t.pool.refresh('b')
    expect(t.source('b').obtained).toBe(2)
    stuck.open()
  })

  test('takes over another limit at once', async () => {
    const { clock, traffic, turns, opened } = await pools(1, [40])
    await clock.run(100)
    expect(traffic.most).toBe(1)
    turns.configure(6)
    await clock.run(100)
    expect(traffic.most).toBe(6)
    await close(opened)
  })
})

describe('an egress that is down', () => {
  test('is tried by a few renewals at a time, not by each of its credentials', async () => {
    let down = true
    let tries = 0
    const config = poolConfig([...many(500, { egress: 'x' }), credential('y', { egress: 'y' })])
    await using t = await TestPool.open(config, {
      prepare: (source) => {
        source.script = async () => {
          if (source.name === 'y' || !down) return undefined
          tries += 1
          throw new SourceError('egress', 'egress is down')
        }
      },
    })
    await t.clock.run(10 * 60_000)
    expect(t.state('y')).toBe('active')
    expect(tries).toBeLessThan(8 * 60)
    down = false
    await t.clock.run(15_000)
    expect(t.pool.status().tokens.active).toBe(501)
  })

  test('is not tried at all while it is held, and its credentials come back at once', async () => {
    let held = true
    const config = poolConfig([
      credential('a', { egress: 'x' }),
      fixed('b', { egress: 'x' }),
      credential('c', { egress: 'y' }),
    ])
    await using t = await TestPool.open(config, { held: (egress) => held && egress === 'x' })
    await t.clock.run(HOUR / 4)
    expect(t.source('a').obtained).toBe(0)
    expect(t.state('c')).toBe('active')
    expect(() => t.pool.lease({ credential: 'a' })).toThrow(
      expect.objectContaining({ code: 'EGRESS_DOWN', retryAfterMs: 5000 }) as unknown as Error,
    )
    held = false
    t.pool.egressChanged('x')
    await t.clock.run(0)
    expect(['a', 'b'].map((id) => t.state(id))).toEqual(['active', 'active'])
    const waiting = [t.lease({ credential: 'a' })]

    held = true
    t.pool.egressChanged('x')
    expect(['a', 'b', 'c'].map((id) => t.state(id))).toEqual(['cooling', 'cooling', 'active'])
    for (let i = 0; i < 5; i++) expect(t.send().credential).toBe('c')
    // An answer that comes in late says nothing of the address.
    for (const lease of waiting) t.pool.settle(lease, { kind: 'ok' })
    expect(t.state('a')).toBe('cooling')
    await t.clock.run(HOUR)
    expect(t.source('a').obtained).toBe(1)
    held = false
    t.pool.egressChanged('x')
    await t.clock.run(0)
    expect(t.source('a').obtained).toBe(2)
    expect(t.state('a')).toBe('active')
  })
})

describe('pins', () => {
  const list = (egress: string[], count = 200) =>
    poolConfig(
      Array.from({ length: count }, (_, i) => fixed(`c${i}`)),
      { egress },
    )
  const pins = (t: TestPool) => t.pool.status().credentials.map(({ egress }) => egress)
  const counts = (names: string[]) => {
    const count = new Map<string, number>()
    for (const name of names) count.set(name, (count.get(name) ?? 0) + 1)
    return count
  }

  test('spread evenly over the egresses', async () => {
    const egress = ['a', 'b', 'c', 'd', 'e', 'f', 'g']
    await using t = await TestPool.open(list(egress, 7000))
    const shares = counts(pins(t))
    for (const name of egress) {
      expect(shares.get(name)).toBeGreaterThan(850)
      expect(shares.get(name)).toBeLessThan(1150)
    }
  })

  test('stay through restarts and longer lists; those of an egress that goes move, and stay there', async () => {
    const store = new MemoryStore()
    const restart = async (egress: string[]) => {
      await using t = await TestPool.open(list(egress), { store })
      return pins(t)
    }
    const first = await restart(['x', 'y'])
    expect(await restart(['new', 'y', 'x', 'more'])).toEqual(first)
    const moved = await restart(['y', 'z'])
    for (const [index, egress] of moved.entries()) {
      if (first[index] === 'y') expect(egress).toBe('y')
    }
    expect(counts(moved).get('z')).toBeGreaterThan(20)
    expect(await restart(['x', 'y', 'z'])).toEqual(moved)
  })

  test('that a reload moved stay moved after a restart', async () => {
    const store = new MemoryStore()
    let moved: string[]
    {
      await using t = await TestPool.open(list(['x', 'y']), { store })
      await t.pool.apply(list(['y', 'z']))
      moved = pins(t)
      await t.pool.apply(list(['x', 'y', 'z']))
      expect(pins(t)).toEqual(moved)
    }
    await using t = await TestPool.open(list(['x', 'y', 'z']), { store })
    expect(pins(t)).toEqual(moved)
  })
})

test('a reload asks the store only for credentials that are new or changed', async () => {
  const asked: (readonly string[])[] = []
  class Counting extends MemoryStore {
    override load(pool: string, ids?: ReadonlySet<string>) {
      asked.push([...(ids ?? [])])
      return super.load(pool, ids)
    }
  }
  const store = new Counting()
  await using t = await TestPool.open(poolConfig([fixed('a'), fixed('b')]), { store })
  await t.pool.apply(poolConfig([fixed('a'), credential('b'), fixed('c')]))
  await t.pool.apply(poolConfig([fixed('a'), credential('b'), fixed('c')]))
  expect(asked).toEqual([['a', 'b'], ['b', 'c'], []])
})
