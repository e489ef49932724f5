import { createServer, type Socket } from 'node:net'
import { Readable } from 'node:stream'
import { expect, test } from 'vitest'
import type { UpstreamRequest } from '../../src/egress/upstream.ts'
import { Listener } from '../support/listener.ts'
import { failureOf, Harness } from './harness.ts'
import { answers, OK, startRawOrigin, until } from './raw-origin.ts'

const HOST = ['Host', 'api.test']

type Sent = Partial<Omit<UpstreamRequest, 'origin'>>

/** What a request is on the wire. */
const FRAMES: [string, Sent, string][] = [
  [
    'header names in their case and order, Host where it stands, bytes beyond ASCII',
    { headers: ['X-First', '1', 'HOST', 'api.test', 'x-FIRST', 'caf\xe9', 'Accept', ''] },
    'GET / HTTP/1.1\r\nX-First: 1\r\nHOST: api.test\r\nx-FIRST: caf\xe9\r\nAccept: \r\n\r\n',
  ],
  ...['GET', 'HEAD', 'DELETE', 'OPTIONS', 'PROPFIND'].map((method): [string, Sent, string] => [
    `${method} without a body`,
    { method, path: '/a?b=%20' },
    `${method} /a?b=%20 HTTP/1.1\r\nHost: api.test\r\n\r\n`,
  ]),
  ...['POST', 'PUT', 'PATCH'].map((method): [string, Sent, string] => [
    `${method} without a body`,
    { method },
    `${method} / HTTP/1.1\r\nHost: api.test\r\nContent-Length: 0\r\n\r\n`,
  ]),
  [
    'a written length of nothing, once',
    { method: 'POST', headers: [...HOST, 'content-LENGTH', '0'] },
    'POST / HTTP/1.1\r\nHost: api.test\r\ncontent-LENGTH: 0\r\n\r\n',
  ],
  [
    'a whole body with its length',
    {
      method: 'PUT',
      headers: ['Content-Length', '4', ...HOST],
      body: Buffer.from('a\xe9\0b', 'latin1'),
    },
    'PUT / HTTP/1.1\r\nContent-Length: 4\r\nHost: api.test\r\n\r\na\xe9\0b',
  ],
  [
    'a whole body without a written length',
    { method: 'QUERY', body: Buffer.from('body'), trailers: () => [] },
    'QUERY / HTTP/1.1\r\nHost: api.test\r\nContent-Length: 4\r\n\r\nbody',
  ],
  [
    'a whole body with trailers',
    { method: 'POST', body: Buffer.from('0123456789abcdef'), trailers: () => ['X-Sum', '1'] },
    'POST / HTTP/1.1\r\nHost: api.test\r\nTransfer-Encoding: chunked\r\n\r\n10\r\n0123456789abcdef\r\n0\r\nX-Sum: 1\r\n\r\n',
  ],
  [
    'no body but trailers',
    { method: 'POST', body: Buffer.alloc(0), trailers: () => ['X-Sum', '1'] },
    'POST / HTTP/1.1\r\nHost: api.test\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX-Sum: 1\r\n\r\n',
  ],
  [
    'a long whole body',
    {
      method: 'POST',
      headers: [...HOST, 'Content-Length', '300000'],
      body: Buffer.alloc(300_000, 'x'),
    },
    `POST / HTTP/1.1\r\nHost: api.test\r\nContent-Length: 300000\r\n\r\n${'x'.repeat(300_000)}`,
  ],
  [
    'a stream with its length',
    { method: 'POST', headers: [...HOST, 'Content-Length', '6'], body: stream('abc', '', 'def') },
    'POST / HTTP/1.1\r\nHost: api.test\r\nContent-Length: 6\r\n\r\nabcdef',
  ],
  [
    'a stream without a length, with trailers',
    { method: 'POST', body: stream('abc', '', 'defghijklmn'), trailers: () => ['X-Sum', '2'] },
    'POST / HTTP/1.1\r\nHost: api.test\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\nb\r\ndefghijklmn\r\n0\r\nX-Sum: 2\r\n\r\n',
  ],
  [
    'an empty stream',
    { method: 'POST', body: stream() },
    'POST / HTTP/1.1\r\nHost: api.test\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n',
  ],
  [
    'an upgrade',
    { upgrade: 'websocket', headers: [...HOST, 'Sec-WebSocket-Key', 'x'] },
    'GET / HTTP/1.1\r\nHost: api.test\r\nSec-WebSocket-Key: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n',
  ],
]

for (const [what, request, bytes] of FRAMES) {
  test(`sends ${what}, byte for byte`, async () => {
    await using origin = await startRawOrigin((peer) => {
      if (peer.received.length === bytes.length) peer.write(OK)
    })
    await using harness = new Harness()
    const { headers = HOST } = request
    const response = await harness.send('direct', origin.url + (request.path ?? '/'), '', {
      ...request,
      headers,
    }).begun
    expect(origin.peers[0]?.received).toBe(bytes)
    expect(response.departures).toHaveLength(1)
  })
}

const UNSENDABLE: [string, Sent][] = [
  ['a line end in a value', { headers: [...HOST, 'X', 'a\r\nY: b'] }],
  ['a character beyond a byte', { headers: [...HOST, 'X', '\u{10a}'] }],
  ['a NUL in a value', { headers: [...HOST, 'X', 'a\0'] }],
  ['a space in a name', { headers: [...HOST, 'X ', 'a'] }],
  ['a space in the path', { path: '/a b' }],
  ['a line end in the method', { method: 'GET /\r\n' }],
  [
    'a length that is not the body’s',
    { headers: [...HOST, 'Content-Length', '5'], body: Buffer.from('abcd') },
  ],
  ['a length without a body', { headers: [...HOST, 'Content-Length', '5'] }],
  [
    'two lengths',
    { headers: [...HOST, 'Content-Length', '1', 'content-length', '1'], body: Buffer.from('a') },
  ],
  [
    'a length that is no number',
    { headers: [...HOST, 'Content-Length', '+1'], body: Buffer.from('a') },
  ],
  [
    'a transfer coding of the caller’s',
    { headers: [...HOST, 'Transfer-Encoding', 'chunked'], body: Buffer.from('a') },
  ],
  ['a line end in a trailer', { body: Buffer.from('a'), trailers: () => ['X', 'a\nb'] }],
  ['a line end in the protocol', { upgrade: 'websocket\r\nX: y' }],
]

for (const [what, request] of UNSENDABLE) {
  test(`refuses ${what}: nothing is sent, and the connection serves on`, async () => {
    await using origin = await startRawOrigin(answers(OK))
    await using harness = new Harness()
    await harness.send('direct', origin.url).whole
    const before = origin.peers[0]?.received
    const failing = harness.send('direct', origin.url, '', { headers: HOST, ...request })
    expect(await failureOf(failing.whole)).toMatchObject({ code: 'BAD_REQUEST', sent: false })
    expect(failing.departures).toEqual([])
    await harness.send('direct', origin.url, '', { headers: HOST }).whole
    expect(origin.peers).toHaveLength(1)
    expect(origin.peers[0]?.received).toBe(`${before}GET / HTTP/1.1\r\nHost: api.test\r\n\r\n`)
  })
}

for (const [what, body, seen] of [
  ['longer', stream('abc', 'def'), 'abc'],
  ['shorter', stream('ab'), 'ab'],
] as const) {
  test(`a stream that is ${what} than announced fails, and never runs into the next request`, async () => {
    await using origin = await startRawOrigin(() => {})
    await using harness = new Harness()
    const headers = [...HOST, 'Content-Length', what === 'longer' ? '5' : '3']
    const failing = harness.send('direct', origin.url, '', { method: 'POST', headers, body })
    expect(await failureOf(failing.whole)).toMatchObject({ code: 'BAD_REQUEST', sent: true })
    await until(() => origin.peers[0]?.closed === true)
    expect(origin.peers[0]?.received.split('\r\n\r\n')[1]).toBe(seen)
  })
}

for (const framing of ['chunked', 'of a length']) {
  test(`a stream ${framing} that breaks leaves the request incomplete`, async () => {
    await using origin = await startRawOrigin(() => {})
    await using harness = new Harness()
    const body = new Readable({ read: () => {} })
    body.push('abc')
    const headers = framing === 'chunked' ? HOST : [...HOST, 'Content-Length', '5']
    const failing = harness.send('direct', origin.url, '', { method: 'POST', headers, body })
    await until(() => origin.peers[0]?.received.includes('abc') === true)
    body.destroy(new Error('the client left'))
    expect((await failureOf(failing.whole)).sent).toBe(true)
    await until(() => origin.peers[0]?.closed === true)
    expect(origin.peers[0]?.received).not.toContain('0\r\n\r\n')
  })
}

test('reads a stream only as fast as the origin takes it, then sends all of it', async () => {
  const size = 48 * 1024 * 1024
  let taken = 0
  let accepted: Socket | undefined
  const server = createServer((socket) => {
    accepted = socket.pause()
    socket.on('error', () => {})
    socket.on('data', (chunk) => {
      taken += chunk.length
      if (taken > size) socket.write(OK)
    })
    socket.pause()
  })
  await using listener = new Listener(server)
  const port = await listener.listen('127.0.0.1')
  await using harness = new Harness()
  let produced = 0
  const piece = Buffer.alloc(64 * 1024, 'x')
  const body = new Readable({
    read() {
      produced += piece.length
      this.push(produced > size ? null : piece)
    },
  })
  const headers = ['X', 'y', ...HOST, 'Content-Length', String(size)]
  const upload = harness.send('direct', `http://127.0.0.1:${port}`, '', {
    method: 'POST',
    headers,
    body,
  })
  // Whatever the kernel takes is in flight; after that nothing moves.
  for (let last = -1, same = 0; same < 20; last = produced) {
    await new Promise((resolve) => setTimeout(resolve, 5))
    same = produced === last ? same + 1 : 0
  }
  expect(produced).toBeLessThan(24 * 1024 * 1024)
  accepted?.resume()
  await upload.whole
  expect(taken).toBeGreaterThan(size)
})

function stream(...pieces: string[]): Readable {
  return Readable.from(pieces.map((piece) => Buffer.from(piece)))
}
