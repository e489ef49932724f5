import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { pathReadings } from '../../src/route/path.ts'

describe('a path', () => {
  test.each(['/', '/v1/items', '/v1/items/', '/a.b/..c/.d', '/v1/items?x=/../;%2e'])(
    'that can be read in one way has one reading: %s',
    (path) => {
      expect(pathReadings(path)).toEqual([path.split('?')[0]])
    },
  )

  test.each([
    ['/v1/../admin', '/admin'],
    ['/v1/./x', '/v1/x'],
    ['/v1/%2e%2e/admin', '/admin'],
    ['/v1/%2E%2e/admin', '/admin'],
    ['/v1/..%2fadmin', '/admin'],
    ['/v1/..%5cadmin', '/admin'],
    ['/v1\\..\\admin', '/admin'],
    ['/v1/..;/admin', '/admin'],
    ['/v1/..;x=1/admin', '/admin'],
    ['/v1/%252e%252e/admin', '/admin'],
    ['//admin', '/admin'],
    ['/v1//../admin', '/admin'],
    ['/v1//../admin', '/v1/admin'],
    ['/v1/x;y', '/v1/x'],
    ['/v1/%78', '/v1/x'],
    ['/../../admin', '/admin'],
    ['/v1/x/..', '/v1/'],
  ])('%s may be read as %s', (path, reading) => {
    expect(pathReadings(path)).toContain(reading)
  })

  test('with no end of readings has one that no target covers', () => {
    expect(pathReadings(`/v1/%${'25'.repeat(4000)}2e`)).toContain('')
    expect(pathReadings(`/v1/${'%2e;\\\\//'.repeat(8)}`)).not.toContain('')
  })

  test('is always read as sent, too', () => {
    const piece = fc.constantFrom('a', '..', '.', '', '%2e', '%2f', '%5c', '\\', ';x', '%', '%zz')
    fc.assert(
      fc.property(fc.array(piece, { maxLength: 8 }), (pieces) => {
        const path = `/${pieces.join('/')}`
        expect(pathReadings(`${path}?q=1`)).toContain(path)
      }),
    )
  })
})
