import { describe, expect, test } from 'vitest'
import { WireError } from '../../src/errors.ts'
import type { LeaseRequest } from '../../src/pool/lease.ts'
import type { TokenSet } from '../../src/token/token.ts'
import { credential, poolConfig, TestPool } from '../support/pool.ts'

/** A pool whose tokens have these facts, by credential. */
const poolOf = (
  facts: Record<string, Partial<TokenSet>>,
  credentials: object[] = Object.keys(facts).map((id) => credential(id)),
) =>
  TestPool.open(poolConfig(credentials), {
    prepare: (source) => {
      source.script = async () => facts[source.name]
    },
  })

const claims = (value: Record<string, unknown>): Partial<TokenSet> => ({ claims: value })

function refusal(t: TestPool, request: LeaseRequest): string {
  try {
    t.pool.lease(request)
  } catch (error) {
    if (error instanceof WireError) return `${error.code} ${error.status}: ${error.message}`
    throw error
  }
  throw new Error('a lease was given')
}

describe('a token is chosen', () => {
  test('that holds the scopes; one that does not tell comes after it', async () => {
    await using t = await poolOf({
      unknown: {},
      reads: { scopes: ['read'] },
      both: { scopes: ['read', 'write'] },
    })
    const chosen = Array.from({ length: 6 }, () => t.send({ kind: 'ok' }, { scopes: ['write'] }))
    expect(chosen.map((lease) => lease.credential)).toEqual(Array(6).fill('both'))
    t.pool.quarantine('both')
    expect(t.send({ kind: 'ok' }, { scopes: ['write'] }).credential).toBe('unknown')
  })

  test('whose claim equals the value or has it in its list', async () => {
    await using t = await poolOf({
      opaque: {},
      plain: claims({ tenant: 'acme', level: 3, roles: 'admin' }),
      list: claims({ tenant: ['acme', 'other'], level: '3', 'https://acme.test/roles': ['x'] }),
      deep: claims({ realm_access: { roles: ['offline', 'admin'] } }),
    })
    const choices = (...needed: [string, string | number | boolean][]) => {
      const ids = new Set<string>()
      for (let i = 0; i < 8; i++) ids.add(t.send({ kind: 'ok' }, { claims: needed }).credential)
      return [...ids].sort()
    }
    expect(choices(['tenant', 'acme'])).toEqual(['list', 'plain'])
    expect(choices(['level', 3])).toEqual(['plain'])
    expect(choices(['https://acme.test/roles', 'x'])).toEqual(['list'])
    expect(choices(['/realm_access/roles', 'admin'])).toEqual(['deep'])
    expect(choices(['tenant', 'acme'], ['roles', 'admin'])).toEqual(['plain'])
    // What objects inherit is no claim.
    expect(choices(['constructor', 'x'])).toEqual(['opaque'])
  })

  test('after waiting, in turn with those who need nothing', async () => {
    await using t = await poolOf(
      { a: { scopes: ['read'] }, b: { scopes: ['write'] } },
      [credential('a'), credential('b')].map((each) => ({ ...each, limits: { concurrency: 1 } })),
    )
    const held = [t.lease(), t.lease()]
    const writer = t.wait({ scopes: ['write'] })
    const anyone = t.wait()
    for (const lease of held) t.pool.settle(lease, { kind: 'ok' })
    expect([(await writer).credential, (await anyone).credential]).toEqual(['b', 'a'])
  })

  test('on the egress asked for where one is ready there, else on any', async () => {
    const config = poolConfig([
      credential('a', { egress: 'one' }),
      credential('b', { egress: 'two' }),
      credential('c', { egress: 'one' }),
    ])
    await using t = await TestPool.open(config)
    const next = (near: string, ...tried: string[]) =>
      t.send({ kind: 'ok' }, { near, exclude: new Set(tried) }).credential
    for (let i = 0; i < 3; i++) expect(next('one', 'a')).toBe('c')
    expect(next('one', 'a', 'c')).toBe('b')
    expect(next('two', 'a')).toBe('b')
  })
})

describe('when nobody has what is needed', () => {
  test('the answer lists what is missing, by name only', async () => {
    await using t = await poolOf({
      a: { scopes: ['read'], claims: { tenant: 'acme', sub: 'x' } },
      b: { scopes: ['read', 'write'], claims: { tenant: 'other' } },
    })
    const none = 'NO_TOKEN_WITH_SCOPE 403: no token of pool api has'
    expect(refusal(t, { scopes: ['admin', 'read'] })).toBe(`${none} the scope admin`)
    expect(refusal(t, { scopes: ['admin', 'audit'], claims: [['tenant', 'hush']] })).toBe(
      `${none} the scopes admin, audit and the claim tenant`,
    )
    expect(refusal(t, { scopes: ['write'], claims: [['tenant', 'acme']] })).toBe(
      `${none} all at once the scope write and the claim tenant`,
    )
  })

  test('but a revoked one has it, more may come of waiting: the pool is exhausted', async () => {
    await using t = await poolOf({ a: { scopes: ['read'] }, b: { scopes: ['write'] } })
    t.pool.quarantine('b')
    expect(t.pool.lease({ scopes: ['write'] })).toBeUndefined()
  })

  test('a credential that has no token yet may bring it', async () => {
    await using t = await TestPool.open(poolConfig([credential('a')]), { cold: true })
    expect(t.pool.lease({ scopes: ['write'] })).toBeUndefined()
  })
})
