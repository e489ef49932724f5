import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { LearnedLifetime, refreshAt } from '../../src/token/lifetime.ts'

const policy = { ahead: 0.1, floorMs: 30_000 }
const at = (lifetimeSeconds: number, jitter = 0) =>
  refreshAt({ issuedAt: 0, expiresAt: lifetimeSeconds * 1000 }, policy, jitter)

describe('a token is renewed', () => {
  it.each([
    ['at the share of its lifetime', 3600, 3240],
    ['at the floor, when the share is less', 120, 90],
    ['at half its lifetime, when the floor is more', 15, 7.5],
  ])('%s', (_what, lifetime, expected) => {
    expect(at(lifetime)).toBe(expected * 1000)
  })

  it('earlier by at most a quarter of the lead with jitter', () => {
    expect(at(3600, 1)).toBe((3240 - 90) * 1000)
    expect(at(3600, 0.5)).toBe((3240 - 45) * 1000)
  })

  it('never before half its lifetime, jitter included', () => {
    expect(at(15, 1)).toBe(7500)
  })

  it('at no known time when its end is unknown', () => {
    expect(refreshAt({ issuedAt: 0, expiresAt: undefined }, policy, 0)).toBeUndefined()
  })

  it('at once when it was over before it came', () => {
    expect(refreshAt({ issuedAt: 5000, expiresAt: 1000 }, policy, 1)).toBe(1000)
  })

  it('within the bounds of the policy, whatever the figures', () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 0, max: 4e12 }),
        fc.integer({ min: 0, max: 1e10 }),
        fc.double({ min: 0.001, max: 0.999, noNaN: true }),
        fc.integer({ min: 0, max: 1e8 }),
        fc.double({ min: 0, max: 1, noNaN: true }),
        (issuedAt, lifetime, ahead, floorMs, jitter) => {
          const token = { issuedAt, expiresAt: issuedAt + lifetime }
          const calm = refreshAt(token, { ahead, floorMs }, 0) as number
          const jittered = refreshAt(token, { ahead, floorMs }, jitter) as number
          const lead = token.expiresAt - calm
          const slack = 1e-2 // of a millisecond: doubles near 4e12
          expect(lead).toBeLessThanOrEqual(lifetime / 2 + slack)
          expect(lead).toBeGreaterThanOrEqual(
            Math.min(Math.max(ahead * lifetime, floorMs), lifetime / 2) - slack,
          )
          expect(jittered).toBeLessThanOrEqual(calm)
          expect(calm - jittered).toBeLessThanOrEqual(lead / 4 + slack)
          expect(jittered).toBeGreaterThanOrEqual(issuedAt + lifetime / 2 - slack)
        },
      ),
    )
  })
})

describe('what early refusals teach', () => {
  const opaque = { issuedAt: 1000, expiresAt: undefined }
  const told = { issuedAt: 1000, expiresAt: 61_000 }
  const taught = (...ages: number[]) => {
    const learned = new LearnedLifetime()
    for (const age of ages) {
      learned.refused(age)
      learned.proven()
    }
    return learned
  }

  it('one is enough where no end was told, two where one was', () => {
    expect(taught().endOf(opaque)).toBeUndefined()
    expect(taught(30_000).endOf(opaque)).toBe(31_000)
    expect(taught(30_000).endOf(told)).toBe(61_000)
    expect(taught(30_000, 40_000).endOf(told)).toBe(31_000)
    expect(taught(90_000, 90_000).endOf(told)).toBe(61_000)
  })

  it('the shortest of the last three counts', () => {
    expect(taught(10, 30, 20).endOf(opaque)).toBe(1010)
    expect(taught(10, 30, 20, 40).endOf(opaque)).toBe(1020)
  })

  it('nothing counts before the next token is accepted', () => {
    const learned = taught()
    learned.refused(30_000)
    expect(learned.endOf(opaque)).toBeUndefined()
    learned.refused(undefined)
    learned.proven()
    expect(learned.endOf(opaque)).toBeUndefined()
  })

  it('twenty tokens that live through it stretch it by half', () => {
    const learned = taught(10_000)
    for (let i = 0; i < 19; i++) learned.outlived(9000)
    expect(learned.lessons).toEqual([10_000])
    learned.outlived(4000)
    expect(learned.lessons).toEqual([10_000])
    learned.outlived(9000)
    expect(learned.lessons).toEqual([15_000])
  })
})
