import { expect, it } from 'vitest'
import { readExpiry } from '../../src/sources/expiry.ts'

const NOON = Date.UTC(2030, 0, 31, 12)

it.each<[string, object]>([
  ['3600', { expiresIn: 3600 }],
  [' 59.5 ', { expiresIn: 59.5 }],
  ['900000ms', { expiresIn: 900 }],
  ['15m', { expiresIn: 900 }],
  ['2 h', { expiresIn: 7200 }],
  ['30d', { expiresIn: 2_592_000 }],
  [String(NOON / 1000), { expiresAt: NOON }],
  [String(NOON), { expiresAt: NOON }],
  ['2030-01-31T12:00:00Z', { expiresAt: NOON }],
  ['2030-01-31T13:00:00.000+01:00', { expiresAt: NOON }],
  ['2030-01-31T12:00:00', { expiresAt: NOON }],
  ['2030-01-31 12:00', { expiresAt: NOON }],
  ['2030-01-31T12:00:00,5Z', { expiresAt: NOON + 500 }],
  ['2030-01-31', { expiresAt: Date.UTC(2030, 0, 31) }],
  ['Thu, 31 Jan 2030 12:00:00 GMT', { expiresAt: NOON }],
  ['', {}],
  ['s', {}],
  ['ms', {}],
  ['never', {}],
  ['-1', {}],
  ['1e3', {}],
  ['2030-99-99', {}],
  ['31.01.2030', {}],
])('the end %j is read as %j', (text, expected) => {
  expect(readExpiry(text)).toEqual(expected)
})
