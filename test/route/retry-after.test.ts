import { describe, expect, test } from 'vitest'
import { retryAfterMs } from '../../src/route/retry-after.ts'

const NOW = Date.parse('2030-01-01T00:00:00Z')
const SECONDS = NOW / 1000
const told = (...headers: string[]) => retryAfterMs(headers, NOW)

describe('Retry-After', () => {
  test.each([
    ['0', 0],
    ['7', 7000],
    [' 7 ', 7000],
    ['1.5', 1500],
    ['Tue, 01 Jan 2030 00:00:30 GMT', 30_000],
    ['Tuesday, 01-Jan-30 00:00:30 GMT', 30_000],
    ['Tue Jan  1 00:00:30 2030 GMT', 30_000],
    ['Mon, 31 Dec 2029 23:59:00 GMT', 0],
  ])('%s is %d ms', (value, ms) => {
    expect(told('Retry-After', value)).toBe(ms)
  })

  test.each(['soon', '-5', '5 seconds', 'later 9', ''])('%j says nothing', (value) => {
    expect(told('retry-after', value)).toBeUndefined()
  })

  test('goes before the RateLimit fields, which serve where it says nothing', () => {
    expect(told('x-ratelimit-reset', '9', 'retry-after', '2')).toBe(2000)
    expect(told('x-ratelimit-reset', '9', 'retry-after', 'soon')).toBe(9000)
  })
})

describe('RateLimit', () => {
  test.each([
    [['RateLimit', '"default";r=0;t=12'], 12_000],
    [['RateLimit', 'limit=10, remaining=0, reset=12'], 12_000],
    [['RateLimit-Reset', '12'], 12_000],
    [['X-RateLimit-Reset', '12'], 12_000],
    [['X-RateLimit-Reset', String(SECONDS + 12)], 12_000],
    [['X-RateLimit-Reset', String(NOW + 12_000)], 12_000],
    [['X-RateLimit-Reset', String(SECONDS - 12)], 0],
  ])('%j is %d ms', (headers, ms) => {
    expect(told(...headers)).toBe(ms)
  })

  test('that cannot be read says nothing', () => {
    expect(told('ratelimit', '"default";r=0')).toBeUndefined()
    expect(told('x-ratelimit-reset', 'tomorrow')).toBeUndefined()
    expect(told('content-type', 'text/plain')).toBeUndefined()
  })
})
