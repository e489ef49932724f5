import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { SourceError } from '../../src/errors.ts'
import { Secret } from '../../src/lib/secret.ts'
import { adjustForSkew, readToken } from '../../src/token/jwt.ts'

const NOW = 1_800_000_000_000
const SECONDS = NOW / 1000

const base64url = (value: unknown) =>
  Buffer.from(typeof value === 'string' ? value : JSON.stringify(value)).toString('base64url')
const jwt = (claims: unknown) =>
  `${base64url({ alg: 'ES256', typ: 'at+jwt' })}.${base64url(claims)}.${base64url('signature')}`
const read = (raw: string, known: Partial<Parameters<typeof readToken>[1]> = {}) =>
  readToken(raw, { receivedAt: NOW, ...known })

describe('a JWT', () => {
  it('tells its lifetime, subject and scopes', () => {
    const token = read(
      jwt({ iat: SECONDS - 10, nbf: SECONDS - 20, exp: SECONDS + 50, sub: 'alice', scope: 'a b' }),
    )
    expect(token).toMatchObject({
      issuedAt: NOW - 10_000,
      expiresAt: NOW + 50_000,
      subject: 'alice',
      scopes: ['a', 'b'],
    })
    expect(token.claims?.nbf).toBe(SECONDS - 20)
  })

  it.each([
    [{ scope: ['a', 'b'] }, ['a', 'b']],
    [{ scp: 'a b' }, ['a', 'b']],
    [{ scp: ['a', 7, 'b', 'a'] }, ['a', 'b']],
    [{ scope: 'a', scp: 'b' }, ['a']],
    [{ scope: 7, scp: ['b'] }, ['b']],
    [{ scope: '' }, []],
    [{}, ['granted']],
  ])('reads the scopes of %j', (claims, scopes) => {
    expect(read(jwt(claims), { scope: 'granted' }).scopes).toEqual(scopes)
  })

  it('is believed before expires_in, and that before expiresAt', () => {
    const known = { expiresIn: 60, expiresAt: NOW + 1 }
    expect(read(jwt({ exp: SECONDS + 5 }), known).expiresAt).toBe(NOW + 5000)
    expect(read(jwt({}), known).expiresAt).toBe(NOW + 60_000)
    expect(read(jwt({}), { expiresAt: NOW + 1 }).expiresAt).toBe(NOW + 1)
    expect(read(jwt({})).expiresAt).toBeUndefined()
  })

  it.each([
    ['a float', SECONDS + 0.5, NOW + 500],
    ['a numeric string', String(SECONDS + 5), NOW + 5000],
    ['in the past', SECONDS - 5, NOW - 5000],
    ['negative', -5, undefined],
    ['zero', 0, undefined],
    ['milliseconds', NOW + 5000, undefined],
    ['too large for a date', 1e300, undefined],
    ['a word', 'never', undefined],
    ['an object', { at: 5 }, undefined],
    ['null', null, undefined],
  ])('with an exp that is %s ends accordingly', (_what, exp, expected) => {
    expect(read(jwt({ exp })).expiresAt).toBe(expected)
  })

  it.each([
    ['missing', undefined],
    ['in the future', SECONDS + 1],
    ['behind its exp', SECONDS - 1],
    ['of another age', 5],
    ['no date', 'yesterday'],
  ])('with an iat that is %s counts from its receipt', (_what, iat) => {
    expect(read(jwt({ iat, exp: SECONDS - 2 })).issuedAt).toBe(NOW)
  })

  it('of an issuer whose clock is ahead is put into our time', () => {
    const token = read(jwt({ iat: SECONDS + 30, exp: SECONDS + 90 }), { clockSkewMs: 30_000 })
    expect(token).toMatchObject({ issuedAt: NOW, expiresAt: NOW + 60_000 })
  })
})

describe('any token', () => {
  it('is trimmed', () => {
    expect(read(' \r\n\t opaque-token \n').token.reveal()).toBe('opaque-token')
  })

  it.each([
    ['empty', ' \n '],
    ['CR', 'a\rb'],
    ['LF', 'a\nb'],
    ['NUL', 'a\0b'],
    ['tab', 'a\tb'],
    ['DEL', 'a\x7fb'],
    ['C1', 'a\x85b'],
    ['beyond latin1', 'a\u{1f600}b'],
  ])('with %s is refused without being quoted', (_what, raw) => {
    expect(() => read(raw)).toThrow(SourceError)
    try {
      read(raw)
    } catch (error) {
      expect(error).toMatchObject({ kind: 'transient', code: 'SOURCE_FAILED' })
      if (raw.trim()) expect((error as Error).message).not.toContain(raw)
    }
  })

  it.each([
    ['opaque', 'abc'],
    ['a JWE', `${base64url({ alg: 'dir', enc: 'A256GCM' })}..aXY.Y2lwaGVy.dGFn`],
    ['garbled', 'a.%%%.c'],
    ['not JSON inside', `a.${base64url('{"exp":')}.c`],
    ['not UTF-8 inside', `a.${Buffer.from([0x7b, 0xff, 0x7d]).toString('base64url')}.c`],
    ['a list inside', jwt([1])],
    ['null inside', jwt(null)],
    ['deeply nested inside', `a.${base64url('['.repeat(40_000))}.c`],
    ['huge', jwt({ exp: SECONDS + 5, pad: 'x'.repeat(200_000) })],
  ])('that is %s is usable with expires_in', (_what, raw) => {
    const token = read(raw, { expiresIn: 60, scope: 'a' })
    expect(token).toMatchObject({ issuedAt: NOW, expiresAt: NOW + 60_000, scopes: ['a'] })
    expect(token.claims).toBeUndefined()
    expect(token.token.reveal()).toBe(raw)
  })

  it.each([0, -1, Number.NaN, Number.POSITIVE_INFINITY, 1e300])(
    'with expires_in %s has no known end',
    (expiresIn) => {
      expect(read('opaque', { expiresIn }).expiresAt).toBeUndefined()
    },
  )

  it('keeps its refresh token and shows neither', () => {
    const token = read('opaque-token', { refreshToken: new Secret('refresh-token') })
    expect(token.refreshToken?.reveal()).toBe('refresh-token')
    expect(JSON.stringify(token)).not.toMatch(/opaque-token|refresh-token/)
  })

  it('never fails but by a SourceError, and has a finite end or none', () => {
    const odd = fc.oneof(
      fc.anything({ maxDepth: 1 }),
      fc.double(),
      fc.bigInt().map(String),
      fc.integer({ min: SECONDS - 1000, max: SECONDS + 1000 }),
    )
    const claims = fc.record(
      { exp: odd, iat: odd, nbf: odd, sub: odd, scope: odd, scp: odd },
      { requiredKeys: [] },
    )
    const payload = fc.oneof(claims, fc.jsonValue()).map((value) => {
      try {
        return jwt(value)
      } catch {
        return 'a.b.c' // bigint and cycles have no JSON
      }
    })
    const parts = fc.array(fc.string(), { maxLength: 6 }).map((list) => list.join('.'))
    const raw = fc.oneof(payload, parts, fc.string({ unit: 'binary' }))
    fc.assert(
      fc.property(raw, fc.option(fc.double(), { nil: undefined }), (text, expiresIn) => {
        try {
          const token = read(text, { expiresIn })
          expect(Number.isFinite(token.issuedAt)).toBe(true)
          expect(token.issuedAt).toBeLessThanOrEqual(NOW)
          if (token.expiresAt !== undefined) expect(Number.isFinite(token.expiresAt)).toBe(true)
        } catch (error) {
          if (!(error instanceof SourceError)) throw error
        }
      }),
      { numRuns: 1000 },
    )
  })
})

describe('a token that comes before its time', () => {
  it.each([
    [{ nbf: SECONDS + 60, exp: SECONDS + 600 }, NOW + 60_000],
    [{ iat: SECONDS, nbf: SECONDS + 60, exp: SECONDS + 600 }, NOW + 60_000],
    // Valid when it was made: only the clocks differ.
    [{ iat: SECONDS + 1, nbf: SECONDS + 1, exp: SECONDS + 600 }, undefined],
    [{ nbf: SECONDS - 1, exp: SECONDS + 600 }, undefined],
    // Never valid: upstream may say so.
    [{ nbf: SECONDS + 700, exp: SECONDS + 600 }, undefined],
    [{ nbf: 'soon' }, undefined],
  ])('%j', (claims, notBefore) => {
    expect(read(jwt(claims)).notBefore).toBe(notBefore)
  })
})

it('a token tells how its end is known, and which key signed it', () => {
  expect(read(jwt({ exp: SECONDS + 60 }), { expiresIn: 10 }).lifetime).toBe('jwt')
  expect(read(jwt({ iat: SECONDS }), { expiresIn: 10 }).lifetime).toBe('expires_in')
  expect(read('opaque', { expiresAt: NOW + 1 }).lifetime).toBe('expires_in')
  expect(read('opaque').lifetime).toBeUndefined()
  const header = (fields: object) =>
    read(`${base64url({ alg: 'ES256', ...fields })}.${base64url({})}.${base64url('s')}`).keyId
  expect(header({ kid: 'k1' })).toBe('k1')
  expect(header({})).toBeUndefined()
  expect(header({ kid: 7 })).toBeUndefined()
  expect(header({ kid: 'k'.repeat(2000) })).toBeUndefined()
})

describe('adjusted for a clock that is ahead', () => {
  const AHEAD = 600_000
  const issuersNow = (NOW + AHEAD) / 1000

  it('its own times move, and what was told beside it does not', () => {
    const fresh = read(jwt({ iat: issuersNow, nbf: issuersNow + 5, exp: issuersNow + 60 }))
    expect(adjustForSkew(fresh, AHEAD, NOW)).toMatchObject({
      issuedAt: NOW,
      notBefore: NOW + 5000,
      expiresAt: NOW + 60_000,
      lifetime: 'jwt',
    })
    const told = read(jwt({ iat: issuersNow }), { expiresIn: 60 })
    expect(adjustForSkew(told, AHEAD, NOW)).toMatchObject({
      issuedAt: NOW,
      expiresAt: NOW + 60_000,
      lifetime: 'expires_in',
    })
    const opaque = read('opaque', { expiresIn: 60 })
    expect(adjustForSkew(opaque, AHEAD, NOW)).toBe(opaque)
  })
})
