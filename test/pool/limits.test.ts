import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import type { Lease } from '../../src/pool/lease.ts'
import { MemoryStore } from '../../src/store/memory.ts'
import type { UsageRecord } from '../../src/store/store.ts'
import { ManualClock } from '../support/manual-clock.ts'
import { credential, fixed, poolConfig, TestPool } from '../support/pool.ts'

/** The most uses that any window of that length holds, its end excluded. */
function fullest(times: readonly number[], windowMs: number): number {
  let most = 0
  let first = 0
  for (let last = 0; last < times.length; last++) {
    while ((times[last] as number) - (times[first] as number) >= windowMs) first += 1
    most = Math.max(most, last - first + 1)
  }
  return most
}

/** Uses per credential, as time stamps. */
class Uses {
  readonly times = new Map<string, number[]>()

  note(lease: Lease, clock: ManualClock): void {
    const times = this.times.get(lease.credential) ?? []
    times.push(clock.monotonic())
    this.times.set(lease.credential, times)
  }

  check(rates: readonly (readonly [number, number])[]): void {
    for (const times of this.times.values()) {
      for (const [count, windowMs] of rates) {
        expect(fullest(times, windowMs)).toBeLessThanOrEqual(count)
      }
    }
  }
}

const step = fc.oneof(
  { weight: 4, arbitrary: fc.constant({ kind: 'lease' as const }) },
  { weight: 2, arbitrary: fc.constant({ kind: 'wait' as const }) },
  {
    weight: 4,
    arbitrary: fc.record({ kind: fc.constant('dispatch' as const), index: fc.nat(50) }),
  },
  {
    weight: 4,
    arbitrary: fc.record({
      kind: fc.constant('settle' as const),
      index: fc.nat(50),
      outcome: fc.constantFrom('ok', 'unknown', 'denied', 'egress-down', 'limited'),
    }),
  },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('abort' as const), index: fc.nat(50) }) },
  { weight: 3, arbitrary: fc.record({ kind: fc.constant('time' as const), ms: fc.nat(700) }) },
)

describe('properties', () => {
  test('no window ever holds more than its limit, and all counts return to zero', async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(step, { maxLength: 200, size: 'max' }), async (steps) => {
        const config = poolConfig([fixed('a'), fixed('b', { egress: 'x' })], {
          limits: { rate: ['3/s', '5/2s', '7/m'], concurrency: 6 },
          queue: { wait: '3s' },
        })
        await using t = await TestPool.open(config)
        const uses = new Uses()
        const held: Lease[] = []
        const aborts: AbortController[] = []
        const take = (lease: Lease | undefined) => lease && held.push(lease)
        for (const each of steps) {
          if (each.kind === 'lease') {
            try {
              take(t.pool.lease({}))
            } catch {}
          } else if (each.kind === 'wait') {
            const abort = new AbortController()
            aborts.push(abort)
            void t.wait({}, abort.signal).then(take, () => {})
          } else if (each.kind === 'abort') aborts[each.index % (aborts.length || 1)]?.abort()
          else if (each.kind === 'time') await t.clock.run(each.ms)
          else {
            const lease = held[each.index % (held.length || 1)]
            if (!lease) continue
            if (each.kind === 'dispatch') {
              const before = t.credential(lease.credential).limits[0]?.used
              lease.dispatched()
              expect(t.credential(lease.credential).limits[0]?.used).toBe(before)
              uses.note(lease, t.clock)
              held.splice(held.indexOf(lease), 1)
              t.pool.settle(lease, { kind: 'ok' })
            } else {
              held.splice(held.indexOf(lease), 1)
              t.pool.settle(lease, { kind: each.outcome, retryAfterMs: 100 } as never)
            }
          }
        }
        uses.check([
          [3, 1000],
          [5, 2000],
          [7, 60_000],
        ])
        for (const abort of aborts) abort.abort()
        await t.clock.run(0)
        for (const lease of held) t.pool.settle(lease, { kind: 'unknown' })
        await t.clock.run(61_000)
        const status = t.pool.status()
        expect(status.waiting).toBe(0)
        for (const { inFlight, limits } of status.credentials) {
          expect(inFlight).toBe(0)
          expect(limits.map(({ used }) => used)).toEqual([0, 0, 0, 0])
        }
      }),
      { numRuns: 50 },
    )
  })

  test('a window whose uses are merged is never exceeded, however they come', async () => {
    const bursts = fc.array(fc.record({ sends: fc.nat(150), gapMs: fc.nat(60) }), {
      minLength: 30,
      maxLength: 60,
    })
    await fc.assert(
      fc.asyncProperty(bursts, async (all) => {
        const config = poolConfig([fixed('a')], { limits: { rate: ['600/2s'] } })
        await using t = await TestPool.open(config)
        const uses = new Uses()
        for (const { sends, gapMs } of all) {
          for (let i = 0; i < sends; i++) {
            if (i % 10 === 0) t.clock.advance(1)
            const lease = t.pool.lease({})
            if (!lease) break
            lease.dispatched()
            uses.note(lease, t.clock)
            t.pool.settle(lease, { kind: 'ok' })
          }
          t.clock.advance(gapMs)
        }
        uses.check([[600, 2000]])
      }),
      { numRuns: 40 },
    )
  })

  test('no waiter starves: each is served within what its limits allow, in order per kind', async () => {
    const kind = fc.constantFrom('open', 'a', 'b', 'scoped')
    await fc.assert(
      fc.asyncProperty(fc.array(kind, { minLength: 1, maxLength: 60 }), async (kinds) => {
        const config = poolConfig([credential('a'), credential('b')], {
          limits: { rate: ['4/s'], concurrency: 2 },
          queue: { wait: '10m' },
        })
        await using t = await TestPool.open(config, {
          prepare: (source) => {
            source.scopes = source.name === 'a' ? ['write'] : []
          },
        })
        const served: { kind: string; n: number }[] = []
        const requests = {
          open: {},
          a: { credential: 'a' },
          b: { credential: 'b' },
          scoped: { scopes: ['write'] },
        }
        const all = kinds.map(async (each, n) => {
          const lease = await t.wait(requests[each])
          served.push({ kind: each, n })
          lease.dispatched()
          t.clock.schedule(30, () => t.pool.settle(lease, { kind: 'ok' }))
        })
        await t.clock.run(Math.ceil(kinds.length / 4) * 1010 + 100)
        expect(served).toHaveLength(kinds.length)
        await Promise.all(all)
        for (const each of Object.keys(requests)) {
          const order = served.filter((one) => one.kind === each).map(({ n }) => n)
          expect(order).toEqual(order.toSorted((x, y) => x - y))
        }
      }),
      { numRuns: 60 },
    )
  })

  test('the limits hold over crashes: what was used before counts after', async () => {
    const rounds = fc.array(
      fc.record({ sends: fc.nat(120), gapMs: fc.nat(400), downMs: fc.nat(30_000) }),
      { minLength: 1, maxLength: 6 },
    )
    await fc.assert(
      fc.asyncProperty(rounds, fc.constantFrom(5, 50, 300, 1000), async (lives, count) => {
        const config = poolConfig([fixed('a')], { limits: { rate: [`${count}/m`] } })
        const store = new MemoryStore()
        const clock = new ManualClock()
        const uses = new Uses()
        for (const { sends, gapMs, downMs } of lives) {
          await using t = await TestPool.open(config, { store, clock, crashes: true })
          for (let i = 0; i < sends * (count > 100 ? 4 : 1); i++) {
            const lease = t.pool.lease({})
            if (lease) {
              lease.dispatched()
              uses.note(lease, clock)
              t.pool.settle(lease, { kind: 'ok' })
            }
            if (i % 7 === 0) clock.advance(gapMs)
          }
          clock.advance(downMs)
        }
        uses.check([[count, 60_000]])
      }),
      { numRuns: 40 },
    )
  })
})

describe('several windows and much use', () => {
  test.each([
    ['10/s', 10, 1000],
    ['450/m', 450, 60_000],
    ['20000/m', 20_000, 60_000],
  ] as const)('of %s at least 95 % can be used while work waits', async (rate, count, windowMs) => {
    const config = poolConfig([fixed('a')], { limits: { rate: [rate] } })
    await using t = await TestPool.open(config)
    const times: number[] = []
    const every = windowMs / count / 2
    const end = windowMs * 5
    while (t.clock.monotonic() < end) {
      const lease = t.pool.lease({})
      if (lease) {
        lease.dispatched()
        times.push(t.clock.monotonic())
        t.pool.settle(lease, { kind: 'ok' })
      }
      t.clock.advance(every)
    }
    expect(fullest(times, windowMs)).toBeLessThanOrEqual(count)
    expect(times.length).toBeGreaterThan(5 * count * 0.95)
  })

  test('a large window keeps few entries', async () => {
    const records: UsageRecord[] = []
    class Watched extends MemoryStore {
      override saveUsage(pool: string, id: string, usage: UsageRecord): void {
        records.push(usage)
        super.saveUsage(pool, id, usage)
      }
    }
    const config = poolConfig([fixed('a')], { limits: { rate: ['50000/h'] } })
    await using t = await TestPool.open(config, { store: new Watched() })
    for (let i = 0; i < 50_000; i++) {
      t.send()
      t.clock.advance(70)
    }
    expect(records.length).toBeLessThan(110)
    const longest = Math.max(...records.map(({ windows }) => windows['50000/3600000']?.length ?? 0))
    expect(longest).toBeGreaterThan(200)
    expect(longest).toBeLessThan(262)
  })
})

describe('uses', () => {
  test('a token leaves after its uses, and the next one starts at zero', async () => {
    const config = poolConfig([credential('a')], { limits: { uses: 3 } })
    await using t = await TestPool.open(config)
    const leases = [t.lease(), t.lease(), t.lease()]
    expect(t.pool.lease({})).toBeUndefined()
    for (const lease of leases) {
      lease.dispatched()
      t.pool.settle(lease, { kind: 'ok' })
    }
    expect(t.state()).toBe('pending')
    await t.clock.run(0)
    expect(t.credential()).toMatchObject({ state: 'active', generation: 2, uses: 0 })
    t.send()
  })

  test('a token that cannot be renewed is revoked after its uses, also over a crash', async () => {
    const config = poolConfig([fixed('a')], { limits: { uses: 3 } })
    const store = new MemoryStore()
    await using first = await TestPool.open(config, { store, crashes: true })
    first.send()
    first.send()
    await using t = await TestPool.open(config, { store })
    t.send()
    expect(t.state()).toBe('revoked')
    expect(t.credential().lastError).toContain('uses')
  })
})
