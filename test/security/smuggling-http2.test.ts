import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { Http2Client } from '../support/http2-client.ts'
import { END_HEADERS, END_STREAM, FRAME, FrameClient, frame } from '../support/http2-frames.ts'
import { Stage, TOKEN } from './stage.ts'

let stage: Stage

beforeAll(async () => {
  stage = await Stage.start()
})
afterAll(() => stage[Symbol.asyncDispose]())
beforeEach(() => stage.origin.forget())

/** A field without indexing, and without Huffman coding: any bytes at all (RFC 7541 §6.2.2). */
function field(name: string, value: string): Buffer {
  const text = (bytes: Buffer) => {
    const { length } = bytes
    if (length < 127) return Buffer.concat([Buffer.from([length]), bytes])
    const rest = length - 127
    if (rest < 128) return Buffer.concat([Buffer.from([127, rest]), bytes])
    return Buffer.concat([Buffer.from([127, (rest & 0x7f) | 0x80, rest >> 7]), bytes])
  }
  return Buffer.concat([
    Buffer.from([0]),
    text(Buffer.from(name, 'latin1')),
    text(Buffer.from(value, 'latin1')),
  ])
}

type Fields = [string, string][]
const request = (more: Fields = [], pseudo: Record<string, string> = {}): Fields => [
  ...Object.entries({
    ':method': 'GET',
    ':scheme': 'https',
    ':path': '/outer',
    ':authority': stage.authority,
    ...pseudo,
  }),
  ...more,
]
const block = (fields: Fields) => Buffer.concat(fields.map(([name, value]) => field(name, value)))

/**
 * Says one request, and an ordinary one behind it on the next stream. Tells how the first ended: its status, `reset`,
 * or `closed` with the connection.
 */
async function fate(fields: Fields, body?: string): Promise<string> {
  await using client = await FrameClient.connect(stage.app, stage.authority)
  const flags = body === undefined ? END_HEADERS | END_STREAM : END_HEADERS
  client.greet().send(frame(FRAME.headers, flags, 1, block(fields)))
  if (body !== undefined) client.send(frame(FRAME.data, END_STREAM, 1, Buffer.from(body)))
  for (;;) {
    const of = (kind: number, stream: number) =>
      client.received.find((each) => each.type === kind && each.stream === stream)
    const head = of(FRAME.headers, 1)
    if (head) return statusOf(head.payload)
    if (of(FRAME.rstStream, 1)) return 'reset'
    if (of(FRAME.goaway, 0) || client.socket.destroyed) return 'closed'
    await new Promise((resolve) => setImmediate(resolve))
  }
}

/** `:status` as node:http2 writes it: by the static table, or as a literal with its index (RFC 7541 §6). */
function statusOf(payload: Buffer): string {
  const known = { 136: '200', 140: '400', 141: '404', 142: '500' }[payload[0] as number]
  if (known) return known
  const text = payload.subarray(2, 2 + ((payload[1] as number) & 0x7f))
  return (payload[1] as number) & 0x80 ? `huffman ${text.toString('hex')}` : text.toString()
}

const INNER = '\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n'

const REFUSED: Record<string, () => [fields: Fields, body?: string]> = {
  'a large letter in a name': () => [request([['X-A', 'b']])],
  'transfer-encoding': () => [
    request([['transfer-encoding', 'chunked']], { ':method': 'POST' }),
    '0\r\n\r\n',
  ],
  connection: () => [request([['connection', 'close']])],
  upgrade: () => [request([['upgrade', 'h2c']])],
  'te beyond trailers': () => [request([['te', 'chunked']])],
  'a length shorter than its body': () => [
    request([['content-length', '1']], { ':method': 'POST' }),
    `x${INNER}`,
  ],
  'a length longer than its body': () => [
    request([['content-length', '9']], { ':method': 'POST' }),
    'x',
  ],
  'a length and no body': () => [request([['content-length', '9']], { ':method': 'POST' })],
  'two lengths': () => [
    request(
      [
        ['content-length', '1'],
        ['content-length', '1'],
      ],
      { ':method': 'POST' },
    ),
    'x',
  ],
  'a signed length': () => [request([['content-length', '+1']], { ':method': 'POST' }), 'x'],
  'an empty length': () => [request([['content-length', '']], { ':method': 'POST' }), 'x'],
  'a list of lengths': () => [request([['content-length', '1,1']], { ':method': 'POST' }), 'x'],
  'CR LF in its path': () => [request([], { ':path': `/ HTTP/1.1${INNER}` })],
  'a space in its path': () => [request([], { ':path': '/a HTTP/1.1' })],
  'a tab in its path': () => [request([], { ':path': '/a\tb' })],
  'a NUL in its path': () => [request([], { ':path': '/a\0b' })],
  'a high byte in its path': () => [request([], { ':path': '/\xff' })],
  'a fragment in its path': () => [request([], { ':path': '/a#b' })],
  'an empty path': () => [request([], { ':path': '' })],
  'a path that is none': () => [request([], { ':path': 'a' })],
  'a path in absolute form': () => [request([], { ':path': 'https://other.test/' })],
  'an asterisk for a path': () => [request([], { ':path': '*' })],
  'CR LF in its method': () => [request([], { ':method': `GET / HTTP/1.1${INNER}` })],
  'a space in its method': () => [request([], { ':method': 'GET /smuggled' })],
  'an empty method': () => [request([], { ':method': '' })],
  'a second method': () => [[...request(), [':method', 'POST']]],
  'a second path': () => [[...request(), [':path', '/b']]],
  'a second authority': () => [[...request(), [':authority', 'other.test']]],
  'a pseudo field behind others': () => [[['x-a', 'b'], ...request()]],
  'a pseudo field that is none': () => [[...request(), [':host', 'other.test']]],
  'a status': () => [[...request(), [':status', '200']]],
  'no path': () => [request().filter(([name]) => name !== ':path')],
  'another Host': () => [request([['host', 'other.test']])],
  'a second Host': () => [
    request([
      ['host', stage.authority],
      ['host', 'other.test'],
    ]),
  ],
  'another authority': () => [request([], { ':authority': 'other.test' })],
  'user information in its authority': () => [
    request([], { ':authority': `a@${stage.authority}` }),
  ],
  'a path in its authority': () => [request([], { ':authority': `${stage.authority}/x` })],
  'a space in its authority': () => [request([], { ':authority': `${stage.authority} x` })],
  'CR LF in its authority': () => [request([], { ':authority': `${stage.authority}${INNER}` })],
  'another scheme': () => [request([], { ':scheme': 'http' })],
  'CR LF in its scheme': () => [request([], { ':scheme': `https${INNER}` })],
  'CR LF in a value': () => [request([['x-a', `b${INNER}`]])],
  'a bare LF in a value': () => [request([['x-a', 'b\nc: d']])],
  'a bare CR in a value': () => [request([['x-a', 'b\rc: d']])],
  'a NUL in a value': () => [request([['x-a', 'b\0c']])],
  'CR LF in a name': () => [request([['x-a: b\r\nc', 'd']])],
  'a colon in a name': () => [request([['x-a:b', 'c']])],
  'a space in a name': () => [request([['transfer-encoding ', 'chunked']])],
}

describe('a request by HTTP/2 is refused, and nothing reaches the origin, with', () => {
  test.each(Object.entries(REFUSED))('%s', async (_, make) => {
    const [fields, body] = make()
    expect(await fate(fields, body)).not.toBe('200')
    expect(stage.heard(true)).toEqual([])
  })
})

test('a request by HTTP/2 is one HTTP/1 request, whatever its values and its body look like', async () => {
  const values: Fields = [
    ['x-a', 'GET /smuggled HTTP/1.1'],
    ['x-b', '\xe9\xff\t"'],
    ['x-c', ''],
    ['x-http-method-override', 'DELETE'],
  ]
  const body = INNER.trimStart()
  expect(await fate(request(values, { ':method': 'POST' }), body)).toBe('200')
  expect(
    await fate(request([['content-length', String(body.length)]], { ':method': 'PUT' }), body),
  ).toBe('200')
  expect(await fate(request([['te', 'trailers']]))).toBe('200')
  const heard = stage.heard()
  expect(heard.map(({ method, target, body }) => [method, target, body])).toEqual([
    ['POST', '/outer', body],
    ['PUT', '/outer', body],
    ['GET', '/outer', ''],
  ])
  for (const [name, value] of values) {
    const at = heard[0]?.headers.indexOf(name) ?? -1
    expect(heard[0]?.headers[at + 1]).toBe(value)
  }
  for (const { headers } of heard) expect(headers).toContain(`Bearer ${TOKEN}`)
})

test('trailers by HTTP/2 bring neither a credential nor a frame nor a host', async () => {
  await using client = await Http2Client.connect(stage.app, stage.authority)
  const trailers = {
    authorization: 'Bearer mine',
    host: 'other.test',
    'content-length': '3',
    dpop: 'mine',
    'cupbearer-credential': 'mine',
    'x-kept': 'yes',
  }
  for (const [name, value] of Object.entries(trailers)) {
    const call = client.open(
      { ':method': 'POST', ':path': '/outer' },
      { endStream: false, waitForTrailers: true },
    )
    call.stream.on('wantTrailers', () => call.stream.sendTrailers({ [name]: value }))
    call.stream.end('x')
    // nghttp2 holds the body to the length, too.
    const status = await call.whole.then(
      (answer) => answer.status,
      () => 0,
    )
    expect(status).toBe(name === 'content-length' ? 0 : 200)
  }
  const sent = stage.origin.connections.map((each) => each.sent).join('')
  expect(sent).toContain('x-kept: yes')
  expect(sent).not.toMatch(/mine|other\.test|: 3/)
})
