import { expect, it } from 'vitest'
import { Secret } from '../../src/lib/secret.ts'
import { createSource } from '../../src/sources/table.ts'
import { clockAt, sourceContext } from '../support/source-context.ts'

it('gives the configured token and cannot be renewed', async () => {
  const source = createSource({
    type: 'static',
    token: new Secret('opaque'),
    expiresAt: '2030-01-01T00:00:00+01:00',
  })
  const token = await source.obtain(undefined, sourceContext({ clock: clockAt(1000) }))
  expect(source.renewable).toBe(false)
  expect(source.watch).toBeUndefined()
  expect(token.token.reveal()).toBe('opaque')
  expect(token.issuedAt).toBe(1000)
  expect(token.expiresAt).toBe(Date.UTC(2029, 11, 31, 23))
})
