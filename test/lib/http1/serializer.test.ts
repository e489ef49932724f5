import { expect, test } from 'vitest'
import {
  chunkHead,
  formatFields,
  formatRequestHead,
  formatResponseHead,
  lastChunk,
} from '../../../src/lib/http1/serializer.ts'

test('writes heads as they were given, with lines of its own last', () => {
  expect(formatRequestHead('GET', '/caf\xe9', ['hOst', 'a', 'X', 'caf\xe9', 'X', ''])).toBe(
    'GET /caf\xe9 HTTP/1.1\r\nhOst: a\r\nX: caf\xe9\r\nX: \r\n\r\n',
  )
  expect(formatResponseHead(207, 'Very Fine', ['A', '1'], 'Connection: close\r\n')).toBe(
    'HTTP/1.1 207 Very Fine\r\nA: 1\r\nConnection: close\r\n\r\n',
  )
})

test('writes chunks and trailers', () => {
  expect(chunkHead(255)).toBe('ff\r\n')
  expect(lastChunk([])).toBe('0\r\n\r\n')
  expect(lastChunk(['X-Sum', '1'])).toBe('0\r\nX-Sum: 1\r\n\r\n')
})

test.each(['a\rb', 'a\nb', 'a\0b', 'a\u010ab', '\u2028'])(
  'refuses %j wherever it would stand',
  (bad) => {
    expect(() => formatFields(['X', bad])).toThrow(TypeError)
    expect(() => formatFields([bad, '1'])).toThrow(TypeError)
    expect(() => lastChunk(['X', bad])).toThrow(TypeError)
    expect(() => formatResponseHead(200, bad, [])).toThrow(TypeError)
    expect(() => formatRequestHead('GET', `/${bad}`, [])).toThrow(TypeError)
    expect(() => formatRequestHead(bad, '/', [])).toThrow(TypeError)
  },
)

test('refuses a space in a target and a colon in a name', () => {
  expect(() => formatRequestHead('GET', '/a b', [])).toThrow(TypeError)
  expect(() => formatFields(['X:Y', '1'])).toThrow(TypeError)
})
