import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import {
  askSearchable,
  codingOf,
  searchedHeaders,
  TokenScrubber,
} from '../../src/route/scrub-body.ts'

function scrub(token: string, pieces: readonly Buffer[]): Buffer {
  const scrubber = new TokenScrubber(token)
  return Buffer.concat([...pieces.map((piece) => scrubber.push(piece)), scrubber.end()])
}

/** The same bytes in pieces that end at these places. */
function cut(text: Buffer, places: readonly number[]): Buffer[] {
  const ends = [...places.map((place) => place % (text.length + 1)), text.length]
  let from = 0
  return ends
    .sort((a, b) => a - b)
    .map((end) => {
      const piece = text.subarray(from, end)
      from = end
      return piece
    })
}

const letters = (minLength: number, maxLength: number) =>
  fc.string({ unit: fc.constantFrom('a', 'b', '/', '=', '"'), minLength, maxLength })

test('however a body is cut, the same goes on, as long as it came and without the token', () => {
  fc.assert(
    fc.property(
      letters(3, 12),
      fc.array(letters(0, 20), { maxLength: 6 }),
      fc.array(fc.nat(), { maxLength: 12 }),
      (token, between, places) => {
        const body = Buffer.from(between.join(token))
        const whole = scrub(token, [body])
        expect(scrub(token, cut(body, places))).toEqual(whole)
        expect(whole.length).toBe(body.length)
        expect(whole.includes(token)).toBe(false)
      },
    ),
    { numRuns: 2000 },
  )
})

test.each([
  ['as it is', 'ab/c+d=ef-token', 'ab/c+d=ef-token'],
  ['as JSON writes it', 'ab"c\\d-token-x', 'ab\\"c\\\\d-token-x'],
  ['with slashes escaped', 'ab/c+d=ef-token', 'ab\\/c+d=ef-token'],
  ['as URLs write it', 'ab/c+d=ef-token', 'ab%2Fc%2Bd%3Def-token'],
  ['as URLs write it, in lower case', 'ab/c+d=ef-token', 'ab%2fc%2bd%3def-token'],
])('a token is found %s', (_how, token, written) => {
  const text = scrub(token, [Buffer.from(`<${written}>${written}`)]).toString()
  const redacted = '[redacted]'.padEnd(written.length, '*')
  expect(text).toBe(`<${redacted}>${redacted}`)
})

test('what stands in place of a short token makes no other with what follows', () => {
  expect(scrub('aa"=b', [Buffer.from('aa"=ba"=b')]).toString()).toBe('*****a"=b')
})

test('only what may begin a token is held back', () => {
  const scrubber = new TokenScrubber('secret-token')
  expect(scrubber.push(Buffer.from('data: 1\n\n')).toString()).toBe('data: 1\n\n')
  expect(scrubber.push(Buffer.from('a secret-')).toString()).toBe('a ')
  expect(scrubber.push(Buffer.from('s')).toString()).toBe('secret-')
  expect(scrubber.push(Buffer.from('ecret-token!')).toString()).toBe('[redacted]**!')
  expect(scrubber.push(Buffer.from('sec')).toString()).toBe('')
  expect(scrubber.end().toString()).toBe('sec')
})

test('the piece that was given stays as it is', () => {
  const piece = Buffer.from('a secret-token')
  scrub('secret-token', [piece])
  expect(piece.toString()).toBe('a secret-token')
})

describe('a request', () => {
  const asked = (...headers: string[]) => {
    askSearchable(headers)
    return headers
  }

  test('asks only for codings that can be searched', () => {
    expect(asked('Accept-Encoding', 'zstd, GZIP;q=0.5, br , *')).toEqual([
      'Accept-Encoding',
      'GZIP;q=0.5, br',
    ])
    expect(asked('accept-encoding', 'zstd')).toEqual(['accept-encoding', 'identity'])
    expect(asked('Accept', '*/*')).toEqual(['Accept', '*/*'])
  })

  test('asks for no part, which would part a token', () => {
    expect(asked('A', '1', 'Range', 'bytes=0-3', 'If-Range', '"x"', 'B', '2')).toEqual([
      'A',
      '1',
      'B',
      '2',
    ])
  })
})

describe('an answer', () => {
  test.each([
    [[], 'identity'],
    [['Content-Encoding', 'identity'], 'identity'],
    [['Content-Encoding', 'X-GZip'], 'gzip'],
    [['Content-Encoding', 'br'], 'br'],
    [['Content-Encoding', 'zstd'], undefined],
    [['Content-Encoding', 'gzip, br'], undefined],
    [['Content-Encoding', 'gzip', 'Content-Encoding', 'gzip'], undefined],
    [['Content-Encoding', 'toString'], undefined],
  ])('with %j is searched as %s', (headers, coding) => {
    expect(codingOf(headers)).toBe(coding)
  })

  test('keeps its length where that stays true, and no digest', () => {
    const headers = [
      'Content-Length',
      '5',
      'Content-Encoding',
      'gzip',
      'Repr-Digest',
      'x',
      'A',
      '1',
    ]
    expect(searchedHeaders(headers, 'gzip')).toEqual(['A', '1'])
    expect(searchedHeaders(['Content-Length', '5', 'A', '1'], 'identity')).toEqual([
      'Content-Length',
      '5',
      'A',
      '1',
    ])
  })
})
