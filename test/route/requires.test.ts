import { describe, expect, test } from 'vitest'
import type { RequirementConfig } from '../../src/config/schema.ts'
import { Requirements } from '../../src/route/requires.ts'

const requires = (...rules: Partial<RequirementConfig>[]) =>
  Requirements.of(rules.map((rule) => ({ scopes: [], claims: {}, ...rule }))) as Requirements

test('a pool without requires has none to ask', () => {
  expect(Requirements.of([])).toBeUndefined()
})

test('rules hold by method and path, and all that cover a request hold at once', () => {
  const rules = requires(
    { scopes: ['read'], claims: { tenant: 'acme' } },
    { methods: ['POST', 'PUT'], scopes: ['write', 'read'] },
    { path: '/admin/*', scopes: ['admin'], claims: { mfa: true } },
    { methods: ['DELETE'], path: '/admin/users/*', scopes: ['delete'] },
  )
  expect(rules.for('GET', '/items?admin=/admin/')).toEqual({
    scopes: ['read'],
    claims: [['tenant', 'acme']],
  })
  expect(rules.for('POST', '/items')?.scopes).toEqual(['read', 'write'])
  expect(rules.for('PUT', '/admin/x')).toEqual({
    scopes: ['read', 'write', 'admin'],
    claims: [
      ['tenant', 'acme'],
      ['mfa', true],
    ],
  })
  expect(rules.for('DELETE', '/admin/users/7')?.scopes).toEqual(['read', 'admin', 'delete'])
})

test('what no rule covers needs nothing, and GET covers HEAD', () => {
  const rules = requires({ methods: ['GET'], path: '/private/*', scopes: ['read'] })
  expect(rules.for('GET', '/public')).toBeUndefined()
  expect(rules.for('POST', '/private/x')).toBeUndefined()
  expect(rules.for('HEAD', '/private/x')?.scopes).toEqual(['read'])
})

test('the same rules give the same object: nothing is made anew for each request', () => {
  const rules = requires({ path: '/a/*', scopes: ['a'] })
  expect(rules.for('GET', '/a/1')).toBe(rules.for('POST', '/a/2'))
})

describe('where servers read a path differently, the stricter reading counts', () => {
  const rules = requires(
    { path: '/public/*', scopes: ['read'] },
    { path: '/admin/*', scopes: ['admin'] },
  )
  test.each([
    '/public/../admin/users',
    '/public/%2e%2e/admin/users',
    '/public/..%2fadmin/users',
    '/public/..;/admin/users',
    '/public/..\\admin/users',
    '/public/%252e%252e/admin/users',
  ])('%s', (path) => {
    expect(rules.for('GET', path)?.scopes).toEqual(['read', 'admin'])
  })

  test('and a doubled slash', () => {
    expect(rules.for('GET', '//admin/users')?.scopes).toEqual(['admin'])
  })

  test('and where there is no end of readings, everything counts', () => {
    const deep = `/v1/%${'25'.repeat(4000)}2e`
    expect(rules.for('GET', deep)?.scopes).toEqual(['read', 'admin'])
  })
})
