import { brotliCompressSync, deflateSync, gzipSync } from 'node:zlib'
import { describe, expect, test } from 'vitest'
import { configSchema, type MatcherConfig } from '../../src/config/schema.ts'
import { Judge, PEEK_BYTES, scopesAsked } from '../../src/route/verdict.ts'

const JSON_TYPE = ['Content-Type', 'application/json; charset=utf-8']

function judge(matchers: Partial<Record<'expired' | 'limited' | 'denied', MatcherConfig[]>> = {}) {
  return new Judge({ expired: [], limited: [], denied: [], ...matchers })
}

/** The defaults, as the schema has them. */
function defaults(): Judge {
  const { pools } = configSchema.parse({
    pools: {
      p: {
        targets: ['a.test'],
        credentials: [{ id: 'a', source: { type: 'static', token: 't' } }],
      },
    },
  })
  return new Judge(pools.p as NonNullable<typeof pools.p>)
}

describe('by default', () => {
  test.each([
    [200, [], 'ok'],
    [401, [], 'expired'],
    [429, [], 'limited'],
    [503, ['Retry-After', '3'], 'limited'],
    [503, [], 'upstream'],
    [500, [], 'upstream'],
    [403, ['WWW-Authenticate', 'Bearer error="insufficient_scope", scope="a"'], 'denied'],
    [403, ['WWW-Authenticate', 'Basic'], 'ok'],
    [403, [], 'ok'],
    [404, [], 'ok'],
  ])('%d with %j is %s', (status, headers, verdict) => {
    expect(defaults().judge(status, headers)).toBe(verdict)
  })
})

describe('matchers', () => {
  test('decide in the order expired, limited, denied', () => {
    const both = judge({ expired: [{ status: 403 }], denied: [{ status: [403, 404] }] })
    expect(both.judge(403, [])).toBe('expired')
    expect(both.judge(404, [])).toBe('denied')
  })

  test('by header look at every field of the name, in any case', () => {
    const by = judge({ expired: [{ header: { 'X-Reason': '^token-(old|gone)$' } }] })
    expect(by.judge(200, ['x-reason', 'other', 'X-REASON', 'Token-Gone'])).toBe('expired')
    expect(by.judge(200, ['x-reason', 'token-fresh'])).toBe('ok')
    expect(by.judge(200, [])).toBe('ok')
  })

  test('want all that they name', () => {
    const by = judge({ expired: [{ status: 400, header: { a: '1', b: '2' } }] })
    expect(by.judge(400, ['a', '1', 'b', '2'])).toBe('expired')
    expect(by.judge(400, ['a', '1'])).toBe('ok')
    expect(by.judge(401, ['a', '1', 'b', '2'])).toBe('ok')
  })
})

describe('a body matcher', () => {
  const by = judge({
    expired: [
      { status: 200, json: { '/error/code': 'TOKEN_EXPIRED' } },
      { status: 400, json: { '/a~1b/0/~0c': '/^(expired|stale)$/i', '/ok': false } },
      { status: 418, json: { '': 7 } },
    ],
  })
  const bytes = (value: unknown) => Buffer.from(JSON.stringify(value))
  const expired = bytes({ error: { code: 'TOKEN_EXPIRED' } })

  test('asks for the body only of JSON whose head fits', () => {
    expect(by.judge(200, JSON_TYPE)).toBe('peek')
    expect(by.judge(200, ['content-type', 'application/problem+json'])).toBe('peek')
    expect(by.judge(200, ['content-type', 'text/html'])).toBe('ok')
    expect(by.judge(200, [])).toBe('ok')
    expect(by.judge(404, JSON_TYPE)).toBe('ok')
  })

  test('follows JSON pointers, and compares values by kind', () => {
    expect(by.judgeBody(200, JSON_TYPE, expired)).toBe('expired')
    expect(by.judgeBody(200, JSON_TYPE, bytes({ error: 'TOKEN_EXPIRED' }))).toBe('ok')
    expect(by.judgeBody(200, JSON_TYPE, bytes({ error: null }))).toBe('ok')
    const deep = { 'a/b': [{ '~c': 'STALE' }], ok: false }
    expect(by.judgeBody(400, JSON_TYPE, bytes(deep))).toBe('expired')
    expect(by.judgeBody(400, JSON_TYPE, bytes({ ...deep, ok: 'false' }))).toBe('ok')
    expect(by.judgeBody(418, JSON_TYPE, bytes(7))).toBe('expired')
    expect(by.judgeBody(418, JSON_TYPE, bytes('7'))).toBe('ok')
  })

  test('reads gzip, br and deflate', () => {
    for (const [coding, body] of [
      ['gzip', gzipSync(expired)],
      ['x-gzip', gzipSync(expired)],
      ['BR', brotliCompressSync(expired)],
      ['deflate', deflateSync(expired)],
      ['identity', expired],
    ] as const) {
      const headers = [...JSON_TYPE, 'Content-Encoding', coding]
      expect([coding, by.judgeBody(200, headers, body)]).toEqual([coding, 'expired'])
    }
  })

  test('matches nothing that is too long, broken, bombed or coded otherwise', () => {
    const padded = bytes({ error: { code: 'TOKEN_EXPIRED' }, pad: 'x'.repeat(PEEK_BYTES) })
    const gzip = [...JSON_TYPE, 'Content-Encoding', 'gzip']
    expect(by.judgeBody(200, JSON_TYPE, undefined)).toBe('ok')
    expect(by.judgeBody(200, gzip, gzipSync(padded))).toBe('ok')
    expect(by.judgeBody(200, gzip, gzipSync(expired).subarray(0, 20))).toBe('ok')
    expect(by.judgeBody(200, gzip, expired)).toBe('ok')
    expect(by.judgeBody(200, [...JSON_TYPE, 'Content-Encoding', 'zstd'], expired)).toBe('ok')
    expect(by.judgeBody(200, JSON_TYPE, expired.subarray(0, 10))).toBe('ok')
    expect(by.judgeBody(200, JSON_TYPE, Buffer.alloc(0))).toBe('ok')
  })

  test('does not reach what objects inherit', () => {
    const inherited = judge({ expired: [{ status: 200, json: { '/constructor/name': '/./' } }] })
    expect(inherited.judgeBody(200, JSON_TYPE, bytes({}))).toBe('ok')
  })
})

test('scopes are read out of insufficient_scope', () => {
  const challenge = 'Bearer realm="x", error="insufficient_scope", scope="api:read  api:write"'
  expect(scopesAsked(['www-authenticate', 'Basic', 'WWW-Authenticate', challenge])).toEqual([
    'api:read',
    'api:write',
  ])
  expect(scopesAsked(['www-authenticate', 'Bearer error="insufficient_scope"'])).toEqual([])
})
