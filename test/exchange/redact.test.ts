import { brotliCompressSync, deflateSync, gzipSync } from 'node:zlib'
import { describe, expect, test } from 'vitest'
import {
  isReadable,
  redactBody,
  redactHeaders,
  scrub,
  secretParameters,
  secretValues,
} from '../../src/exchange/redact.ts'

const TOKEN = 'tok+en/with="odd"='
const SECRETS = { headers: new Set(['x-account']), names: new Set(['acct']) }
const JSON_TYPE = ['content-type', 'application/json; charset=utf-8']

const shown = (text: string, cut = false, headers = JSON_TYPE, values = [TOKEN]) =>
  redactBody(headers, Buffer.from(text), cut, values, SECRETS)

test('headers keep name, case and order; what is secret by name or value is replaced', () => {
  const headers = [
    ...['Authorization', 'Bearer abc', 'authorization', 'of-no-scheme', 'Proxy-Authorization', 'x'],
    ...['X-Account', 'injected', 'X-Auth-Token', 'abc', 'Accept', '*/*', 'X-Note', `a ${TOKEN} b`],
    ...['Location', '/?code=abc&page=1', 'X-Jwt', 'eyJhbGciOiJub25lIn0.eyJhIjoxfQ.c2ln'],
  ]
  expect(redactHeaders(headers, [TOKEN], SECRETS)).toEqual([
    ...['Authorization', 'Bearer [redacted]', 'authorization', '[redacted]'],
    ...['Proxy-Authorization', '[redacted]', 'X-Account', '[redacted]'],
    ...['X-Auth-Token', '[redacted]', 'Accept', '*/*', 'X-Note', 'a [redacted] b'],
    ...['Location', '/?code=[redacted]&page=1', 'X-Jwt', '[redacted]'],
  ])
})

test('a value is found as it is, as a URL and as JSON write it', () => {
  const text = `${TOKEN} ${encodeURIComponent(TOKEN)} ${JSON.stringify(TOKEN)}`
  expect(scrub(text, [TOKEN])).toBe('[redacted] [redacted] "[redacted]"')
})

test('the secret values of a request are those of cookies, secret headers and parameters', () => {
  const headers = [
    ...['Cookie', 'sid=cookie-value-1; theme=dark', 'Authorization', 'Basic dXNlcjpwYXNz'],
    ...['X-Account', 'account-value', 'Accept', 'text/html-and-more'],
  ]
  expect(secretValues(headers, SECRETS)).toEqual([
    'cookie-value-1',
    'dXNlcjpwYXNz',
    'account-value',
  ])
  const url = 'https://h.example/?page=12345678&acct=a%2Bvalue%20x&key=short'
  expect(secretParameters(url, SECRETS)).toEqual(['a%2Bvalue%20x', 'a+value x'])
})

describe('a body', () => {
  test('of JSON loses the values of secret members: texts, lists and numbers', () => {
    expect(
      shown('{"a":1,"pass\\u0077ord":"x\\"y","tokens":["p","q"],"otp" : 1234,"acct":"z","k":[1]}'),
    ).toBe(
      '{"a":1,"pass\\u0077ord":"[redacted]","tokens":"[redacted]","otp" : "[redacted]","acct":"[redacted]","k":[1]}',
    )
  })

  test('keeps short codes and keys, which name errors and entries, but no long ones', () => {
    expect(shown('{"code":"RATE_LIMIT","key":"orders"}')).toBe(
      '{"code":"RATE_LIMIT","key":"orders"}',
    )
    expect(shown(`{"code":"${'x'.repeat(32)}"}`)).toBe('{"code":"[redacted]"}')
  })

  test('that was cut keeps no part of a secret at its end', () => {
    expect(shown('{"refresh_token":"abcdef', true)).toBe('{"refresh_token":"[redacted]"')
    expect(shown(`echo: ${TOKEN.slice(0, 9)}`, true)).toBe('echo: [redacted]')
    expect(shown('jwt: eyJhbGciOi', true)).toBe('jwt: [redacted]')
    expect(shown('plain', true)).toBe('plain')
  })

  test('of a form loses the values of its secret fields, the first one too', () => {
    const form = ['content-type', 'application/x-www-form-urlencoded']
    expect(shown('client_secret=abc&grant=x&acct=1', false, form)).toBe(
      'client_secret=[redacted]&grant=x&acct=[redacted]',
    )
  })

  test.each([
    ['gzip', gzipSync],
    ['deflate', deflateSync],
    ['br', brotliCompressSync],
  ])('that is compressed by %s is decoded first, its beginning alone, too', (coding, compress) => {
    const headers = [...JSON_TYPE, 'Content-Encoding', coding]
    expect(isReadable(headers)).toBe(true)
    const bytes = compress(Buffer.from(`{"token":"abc","n":"${TOKEN.slice(0, 3)}"}`))
    expect(redactBody(headers, bytes, false, [TOKEN], SECRETS)).toBe(
      '{"token":"[redacted]","n":"tok"}',
    )
    const long = compress(Buffer.from(`{"password":"abc","n":1}${'noise '.repeat(5000)}`))
    const part = redactBody(headers, long.subarray(0, long.length - 12), true, [], SECRETS)
    if (part !== undefined) expect(part.slice(0, 24)).not.toContain('abc')
  })

  test('is not read where its coding is broken, unknown, or a bomb', () => {
    const gzip = [...JSON_TYPE, 'content-encoding', 'gzip']
    expect(redactBody(gzip, Buffer.from('no gzip'), false, [], SECRETS)).toBeUndefined()
    const bomb = gzipSync(Buffer.alloc(10_000_000, 'a'))
    expect(redactBody(gzip, bomb, false, [], SECRETS)).toBeUndefined()
    expect(isReadable([...JSON_TYPE, 'content-encoding', 'zstd'])).toBe(false)
    expect(isReadable(['content-type', 'image/png'])).toBe(false)
    expect(isReadable([])).toBe(false)
  })
})
