import { expect, test } from 'vitest'
import { AuthThrottle } from '../../src/lib/throttle.ts'
import { ManualClock } from '../support/manual-clock.ts'

const ADDRESS = '192.0.2.1'

function setUp(maxEntries = 100) {
  const clock = new ManualClock()
  const throttle = new AuthThrottle(clock, { maxEntries })
  const fail = (count: number, address = ADDRESS) => {
    for (let i = 0; i < count; i++) throttle.failed(address)
  }
  return { clock, throttle, fail }
}

test('nine failures within a minute do not block an address', () => {
  const { throttle, fail } = setUp()
  fail(9)
  expect(throttle.check(ADDRESS)).toBeUndefined()
})

test('the tenth failure within a minute blocks the address for one second', () => {
  const { clock, throttle, fail } = setUp()
  fail(10)
  expect(throttle.check(ADDRESS)).toBe(1000)
  clock.advance(999)
  expect(throttle.check(ADDRESS)).toBe(1)
  clock.advance(1)
  expect(throttle.check(ADDRESS)).toBeUndefined()
})

test('ten failures spread over more than a minute do not block', () => {
  const { clock, throttle, fail } = setUp()
  for (let i = 0; i < 30; i++) {
    fail(1)
    clock.advance(7_000)
  }
  expect(throttle.check(ADDRESS)).toBeUndefined()
})

test('each failure after a block blocks for twice as long, up to a minute', () => {
  const { clock, throttle, fail } = setUp()
  fail(9)
  const blocks: (number | undefined)[] = []
  for (let i = 0; i < 8; i++) {
    fail(1)
    const block = throttle.check(ADDRESS)
    blocks.push(block)
    clock.advance(block ?? 0)
  }
  expect(blocks).toEqual([1e3, 2e3, 4e3, 8e3, 16e3, 32e3, 60e3, 60e3])
})

test('a minute without a failure after the block forgets the address', () => {
  const { clock, throttle, fail } = setUp()
  fail(10)
  clock.advance(1_000 + 60_000)
  fail(9)
  expect(throttle.check(ADDRESS)).toBeUndefined()
  fail(1)
  expect(throttle.check(ADDRESS)).toBe(1000)
})

test('a success starts the doubling anew but does not forgive the failures of the minute', () => {
  const { clock, throttle, fail } = setUp()
  fail(10)
  clock.advance(1_000)
  fail(1)
  expect(throttle.check(ADDRESS)).toBe(2000)
  clock.advance(2_000)
  throttle.succeeded(ADDRESS)
  fail(1)
  expect(throttle.check(ADDRESS)).toBe(1000)
})

test('one address does not block another, and IPv4 is the same address on a dual-stack listener', () => {
  const { throttle, fail } = setUp()
  fail(10)
  expect(throttle.check('192.0.2.2')).toBeUndefined()
  expect(throttle.check(`::ffff:${ADDRESS}`)).toBe(1000)
})

test('the table stays bounded and gives up the address that failed longest ago', () => {
  const { throttle, fail } = setUp(3)
  fail(10, 'a')
  fail(10, 'b')
  fail(1, 'a')
  for (const address of ['c', 'd']) fail(1, address)
  expect(throttle.size).toBe(3)
  expect(throttle.check('a')).toBeDefined()
  expect(throttle.check('b')).toBeUndefined()
})
