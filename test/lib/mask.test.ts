import fc from 'fast-check'
import { expect, test } from 'vitest'
import { maskUrl } from '../../src/lib/mask.ts'

test.each([
  'token',
  'access_token',
  'accessToken',
  'ACCESS-TOKEN',
  'key',
  'api_key',
  'apikey',
  'X-API-Key',
  'secret',
  'client_secret',
  'password',
  'code',
  'signature',
  'X-Amz-Signature',
  'sig',
  'auth',
  'jwt',
  'session',
  'sessionid',
  'client_assertion',
  'acc%65ss_token',
])('masks the value of the query parameter %s', (name) => {
  expect(maskUrl(`https://h.example/p?a=1&${name}=hunter2&b=2`)).toBe(
    `https://h.example/p?a=1&${name}=[redacted]&b=2`,
  )
})

test.each(['page', 'q', 'keyword', 'encoding', 'author', 'monkey', 'zipcode'])(
  'leaves the query parameter %s alone',
  (name) => {
    const url = `https://h.example/p?${name}=hunter2`
    expect(maskUrl(url)).toBe(url)
  },
)

test('masks userinfo, fragments and JWTs wherever they stand', () => {
  const jwt = 'eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhIn0.c2lnbmF0dXJl'
  expect(maskUrl('https://user:p%40ss@h.example/a@b')).toBe('https://[redacted]@h.example/a@b')
  expect(maskUrl('h.example:443')).toBe('h.example:443')
  expect(maskUrl('https://h.example/#access_token=abc&x=1')).toBe(
    'https://h.example/#access_token=[redacted]&x=1',
  )
  expect(maskUrl(`https://h.example/reset/${jwt}/go?next=${jwt}`)).toBe(
    'https://h.example/reset/[redacted]/go?next=[redacted]',
  )
})

test('masks every copy of a repeated parameter, with semicolons and broken escapes too', () => {
  expect(maskUrl('http://h.example/?token=a&token=b;token=c&%zz=1&%token=d')).toBe(
    'http://h.example/?token=[redacted]&token=[redacted];token=[redacted]&%zz=1&%token=[redacted]',
  )
})

test('never shows a secret, whatever stands around it', () => {
  fc.assert(
    fc.property(fc.string({ maxLength: 40 }), fc.webQueryParameters(), (noise, query) => {
      const url = `https://h.example/?${query}&access_token=S3CR3T-VALUE&x=${encodeURIComponent(noise)}`
      return !maskUrl(url).includes('S3CR3T-VALUE')
    }),
    { numRuns: 50 },
  )
})
