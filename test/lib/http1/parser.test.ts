import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import type { RequestHead, ResponseHead } from '../../../src/lib/http1/message.ts'
import { latin1, MAX_HEADER_BYTES, readRequests, readResponse } from './support.ts'

const request = (text: string, sizes?: number[]) => readRequests(latin1(text), sizes)
const response = (text: string, method?: string) => readResponse(latin1(text), [], method)

describe('a request', () => {
  test('keeps the case, order, duplicates and high bytes of its fields', () => {
    const { messages } = request(
      'GET /a?b=c HTTP/1.1\r\nhOsT: api.test\r\nX-A: 1\r\nx-a:2\r\nX-Latin: \t caf\xe9 \t\r\nX-Empty:\r\n\r\n',
    )
    expect(messages).toEqual([
      {
        start: 'GET /a?b=c 1.1',
        headers: ['hOsT', 'api.test', 'X-A', '1', 'x-a', '2', 'X-Latin', 'caf\xe9', 'X-Empty', ''],
        body: '',
        trailers: [],
      },
    ])
  })

  test('follows another in the same bytes, each with its own body', () => {
    const { messages, fault } = request(
      'POST /1 HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello\r\nPUT /2 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\nA;x="y"\r\n0123456789\r\n0\r\nX-Sum: 1\r\nHost: evil\r\n\r\nGET /3 HTTP/1.0\r\n\r\n',
    )
    expect(fault).toBeUndefined()
    expect(messages.map(({ start, body, trailers }) => [start, body, trailers])).toEqual([
      ['POST /1 1.1', 'hello', []],
      ['PUT /2 1.1', 'abc0123456789', ['X-Sum', '1']],
      ['GET /3 1.0', '', []],
    ])
  })

  test.each([
    ['HTTP/1.1', '', true],
    ['HTTP/1.1', 'Connection: Close\r\n', false],
    ['HTTP/1.1', 'Connection: x, close\r\n', false],
    ['HTTP/1.0', '', false],
    ['HTTP/1.0', 'Connection: keep-alive\r\n', true],
    ['HTTP/1.0', 'Connection: keep-alive, close\r\n', false],
  ])('%s with "%s" keeps its connection: %s', (version, fields, keeps) => {
    const { heads } = request(`GET / ${version}\r\nHost: a\r\n${fields}\r\n`)
    expect(heads[0]?.keepAlive).toBe(keeps)
  })

  test('names the protocol it would change to only where Connection lists it', () => {
    const upgrade = (fields: string) =>
      request(`GET / HTTP/1.1\r\nHost: a\r\n${fields}\r\n`).heads[0]?.upgrade
    expect(upgrade('Connection: keep-alive, Upgrade\r\nUpgrade: WebSocket\r\n')).toBe('websocket')
    expect(upgrade('Upgrade: websocket\r\n')).toBeUndefined()
    expect(upgrade('Connection: upgrade\r\n')).toBeUndefined()
  })

  test('tells what it expects', () => {
    const { heads } = request('PUT / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\n\r\n')
    expect((heads[0] as RequestHead).expect).toBe('100-continue')
  })

  test.each([
    ['no HTTP', 'hello there\r\n\r\n', 'start-line'],
    ['a lower-case method', 'get / HTTP/1.1\r\nHost: a\r\n\r\n', 'start-line'],
    ['a space too many', 'GET  / HTTP/1.1\r\nHost: a\r\n\r\n', 'start-line'],
    ['a space in its target', 'GET /a b HTTP/1.1\r\nHost: a\r\n\r\n', 'version'],
    ['a tab in its target', 'GET /\t HTTP/1.1\r\nHost: a\r\n\r\n', 'start-line'],
    ['no target', 'GET HTTP/1.1\r\nHost: a\r\n\r\n', 'start-line'],
    ['another version', 'GET / HTTP/1.2\r\nHost: a\r\n\r\n', 'version'],
    ['the preface of HTTP/2', 'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n', 'version'],
    ['a lower-case protocol', 'GET / http/1.1\r\nHost: a\r\n\r\n', 'version'],
    ['bytes behind its version', 'GET / HTTP/1.1 \r\nHost: a\r\n\r\n', 'start-line'],
    ['no Host', 'GET / HTTP/1.1\r\n\r\n', 'header'],
    ['two Hosts', 'GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n', 'header'],
    ['a bare LF', 'GET / HTTP/1.1\nHost: a\n\n', 'start-line'],
    ['a bare LF in its fields', 'GET / HTTP/1.1\r\nHost: a\nX: b\r\n\r\n', 'header'],
    ['a bare CR in a value', 'GET / HTTP/1.1\r\nHost: a\r\nX: b\rc\r\n\r\n', 'header'],
    ['a NUL', 'GET / HTTP/1.1\r\nHost: a\r\nX: \0\r\n\r\n', 'header'],
    ['a folded field', 'GET / HTTP/1.1\r\nHost: a\r\nX: 1\r\n 2\r\n\r\n', 'header'],
    ['a space before the colon', 'GET / HTTP/1.1\r\nHost: a\r\nX : 1\r\n\r\n', 'header'],
    ['a field without colon', 'GET / HTTP/1.1\r\nHost: a\r\nX\r\n\r\n', 'header'],
    ['a field without name', 'GET / HTTP/1.1\r\nHost: a\r\n: x\r\n\r\n', 'header'],
    ['a name that is no token', 'GET / HTTP/1.1\r\nHost: a\r\nX(: x\r\n\r\n', 'header'],
    ['a high byte in a name', 'GET / HTTP/1.1\r\nHost: a\r\nX\xe9: x\r\n\r\n', 'header'],
    ['white space first', 'GET / HTTP/1.1\r\n Host: a\r\n\r\n', 'header'],
    [
      'many empty lines first',
      `${'\r\n'.repeat(5)}GET / HTTP/1.1\r\nHost: a\r\n\r\n`,
      'start-line',
    ],
    [
      'a large head',
      `GET / HTTP/1.1\r\nHost: a\r\nX: ${'x'.repeat(MAX_HEADER_BYTES)}\r\n\r\n`,
      'too-large',
    ],
    ['a head without end', `GET / HTTP/1.1\r\nX: ${'x'.repeat(MAX_HEADER_BYTES)}`, 'too-large'],
    [
      'a thousand fields',
      `GET / HTTP/1.1\r\nHost: a\r\n${'a:b\r\n'.repeat(1000)}\r\n`,
      'too-large',
    ],
    ['an end within its head', 'GET / HTTP/1.1\r\nHost:', 'incomplete'],
    [
      'an end within its body',
      'PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nabc',
      'incomplete',
    ],
  ])('with %s is refused', (_, text, fault) => {
    expect(request(text)).toMatchObject({ messages: [], fault })
  })

  test.each([
    ['both framings', 'Content-Length: 5\r\nTransfer-Encoding: chunked'],
    ['two lengths', 'Content-Length: 5\r\nContent-Length: 5'],
    ['a list of lengths', 'Content-Length: 5, 5'],
    ['a signed length', 'Content-Length: +5'],
    ['a negative length', 'Content-Length: -5'],
    ['a length in hexadecimal', 'Content-Length: 0x5'],
    ['an empty length', 'Content-Length:'],
    ['a length past 2^53', 'Content-Length: 9007199254740993'],
    ['another coding', 'Transfer-Encoding: gzip'],
    ['a coding before chunked', 'Transfer-Encoding: gzip, chunked'],
    ['chunked twice', 'Transfer-Encoding: chunked, chunked'],
    ['chunked in two fields', 'Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked'],
    ['identity', 'Transfer-Encoding: identity'],
    ['a vertical tab before chunked', 'Transfer-Encoding: \x0bchunked'],
  ])('with %s is refused before its body', (_, fields) => {
    const { heads, fault } = request(`POST / HTTP/1.1\r\nHost: a\r\n${fields}\r\n\r\n0\r\n\r\n`)
    expect(heads).toEqual([])
    expect(fault).toMatch(/framing|header/)
  })

  test('of HTTP/1.0 cannot be chunked, nor can CONNECT have a body', () => {
    expect(request('POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n').fault).toBe('framing')
    expect(request('CONNECT a:1 HTTP/1.1\r\nContent-Length: 5\r\n\r\n').fault).toBe('framing')
  })

  test.each([
    ['no size', '\r\n'],
    ['no hexadecimal size', 'zz\r\n'],
    ['a sign', '+5\r\nhello\r\n'],
    ['0x', '0x5\r\nhello\r\n'],
    ['a space behind the size', '5 \r\nhello\r\n'],
    ['a space before the extension', '5 ;a\r\nhello\r\n'],
    ['a size past 2^53', '20000000000001\r\n'],
    ['many zeros', `${'0'.repeat(20)}5\r\nhello\r\n`],
    ['a bare LF', '5\nhello\r\n'],
    ['a bare CR', '5\rhello\r\n'],
    ['a bare LF in the extension', '5;a\nb\r\nhello\r\n'],
    ['more than its size', '5\r\nhello!\r\n'],
    ['a long extension', `5;${'x'.repeat(2000)}\r\nhello\r\n`],
    ['many extensions', `1;${'x'.repeat(1000)}\r\na\r\n`.repeat(20)],
  ])('whose chunk has %s is refused', (_, chunk) => {
    const { messages, fault } = request(
      `POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n${chunk}`,
    )
    expect([messages, fault]).toEqual([[], 'chunk'])
  })

  test.each([
    ['a folded one', 'X: 1\r\n 2\r\n\r\n', 'trailer'],
    ['no field', 'hello\r\n\r\n', 'trailer'],
    ['too much', `X: ${'x'.repeat(MAX_HEADER_BYTES)}\r\n\r\n`, 'too-large'],
    ['a bare CR', '\rX\n', 'trailer'],
  ])('whose trailers have %s is refused', (_, trailers, fault) => {
    const { messages, fault: found } = request(
      `POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n${trailers}`,
    )
    expect([messages, found]).toEqual([[], fault])
  })
})

describe('a response', () => {
  test.each([
    ['HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc', 'abc', '', true],
    ['HTTP/1.1 200 OK\r\nContent-Length: 3\r\nConnection: close\r\n\r\nabc', 'abc', '', false],
    ['HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n', 'abc', '', true],
    ['HTTP/1.1 200 OK\r\n\r\nabc', 'abc', '', false],
    ['HTTP/1.0 200 OK\r\nContent-Length: 3\r\n\r\nabc', 'abc', '', false],
    ['HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 3\r\n\r\nabc', 'abc', '', true],
    ['HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\nabc', '', 'abc', true],
    ['HTTP/1.1 204 No Content\r\n\r\nabc', '', 'abc', true],
    ['HTTP/1.1 204 No Content\r\nContent-Length: 3\r\n\r\nabc', '', 'abc', false],
    ['HTTP/1.1 304 Not Modified\r\nContent-Length: 3\r\n\r\n', '', '', true],
  ])('ends where its framing says: %j', (text, body, rest, keepAlive) => {
    const found = response(text)
    expect(found.fault).toBeUndefined()
    expect(found.messages.map((each) => each.body)).toEqual([body])
    expect([found.rest, found.heads[0]?.keepAlive]).toEqual([rest, keepAlive])
  })

  test('to HEAD has no body whatever it announces', () => {
    const { messages, heads } = response('HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n', 'HEAD')
    expect(messages[0]?.headers).toEqual(['Content-Length', '3'])
    expect([messages[0]?.body, heads[0]?.keepAlive]).toEqual(['', true])
  })

  test('may come after interim ones', () => {
    const { messages, heads } = response(
      'HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok',
    )
    expect(heads.map((head) => (head as ResponseHead).status)).toEqual([100, 103, 200])
    expect(messages.map(({ body }) => body)).toEqual(['ok'])
  })

  test('with 101 leaves what follows to another protocol', () => {
    const { messages, rest } = response(
      'HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n\x81\x00',
    )
    expect([messages, rest]).toEqual([[], '\x81\x00'])
  })

  test('may lack its reason, with and without the space', () => {
    for (const line of ['HTTP/1.1 200', 'HTTP/1.1 200 ']) {
      expect(response(`${line}\r\nContent-Length: 0\r\n\r\n`).messages[0]?.start).toBe('1.1 200 ')
    }
  })

  test.each([
    ['no HTTP', 'SSH-2.0-x\r\n\r\n'],
    ['a short status', 'HTTP/1.1 20 OK\r\n\r\n'],
    ['a long status', 'HTTP/1.1 2000 OK\r\n\r\n'],
    ['a status below 100', 'HTTP/1.1 099 OK\r\n\r\n'],
    ['another version', 'HTTP/2.0 200 OK\r\n\r\n'],
    ['an empty line first', '\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n'],
    ['a control in its reason', 'HTTP/1.1 200 O\x01K\r\nContent-Length: 0\r\n\r\n'],
    ['both framings', 'HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n'],
    ['another coding', 'HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n'],
    ['an end too early', 'HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nab'],
    [
      'an end within its chunks',
      'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n',
    ],
  ])('with %s is refused', (_, text) => {
    const { messages, fault } = response(text)
    expect(messages).toEqual([])
    expect(fault).toBeDefined()
  })
})

test('reads the same from whatever pieces the bytes come in', () => {
  const requests = latin1(
    '\r\nPOST /1 HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhelloPUT /2 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3;ext=1\r\nabc\r\n10\r\n0123456789abcdef\r\n0\r\nX-Sum: 1\r\nX-More: 2\r\n\r\nGET /3 HTTP/1.1\r\nHost: a\r\n\r\n',
  )
  const whole = readRequests(requests)
  expect(whole.messages).toHaveLength(3)
  fc.assert(
    fc.property(fc.array(fc.integer({ min: 1, max: 40 }), { minLength: 1 }), (sizes) => {
      expect(readRequests(requests, sizes)).toEqual(whole)
    }),
    { numRuns: 500 },
  )
})
