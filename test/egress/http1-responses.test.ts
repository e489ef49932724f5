import { Readable } from 'node:stream'
import { expect, test } from 'vitest'
import { ManualClock } from '../support/manual-clock.ts'
import { failureOf, Harness } from './harness.ts'
import { answers, OK, type Peer, startRawOrigin, until } from './raw-origin.ts'

test('passes a response’s head on as it came', async () => {
  await using origin = await startRawOrigin(
    answers(
      'HTTP/1.1 299 Sehr sch\xf6n\r\nB: 2\r\na: 1\r\nB:  3 \r\nSet-Cookie: x\r\nset-cookie: y\r\nCafe: \xe9\r\nContent-Length: 0\r\n\r\n',
    ),
  )
  await using harness = new Harness()
  const response = await harness.send('direct', origin.url).begun
  expect(response.status).toBe(299)
  expect(response.reason).toBe('Sehr sch\xf6n')
  expect(response.headers).toEqual([
    ...['B', '2', 'a', '1', 'B', '3', 'Set-Cookie', 'x', 'set-cookie', 'y', 'Cafe', '\xe9'],
    ...['Content-Length', '0'],
  ])
})

interface Exchange {
  readonly method?: string
  readonly response: string
  readonly body?: string
  /** Whether the connection serves the next request. */
  readonly reused: boolean
  /** Whether the origin closes after the response. */
  readonly closes?: boolean
}

const EXCHANGES: Record<string, Exchange> = {
  'of a length': { response: OK, body: 'ok', reused: true },
  'of length 0': { response: 'HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n', reused: true },
  'in chunks': {
    response:
      'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\nabc\r\n1\r\nd\r\n0\r\n\r\n',
    body: 'abcd',
    reused: true,
  },
  'to HEAD, with a length': {
    method: 'HEAD',
    response: 'HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n',
    reused: true,
  },
  'to HEAD, in chunks': {
    method: 'HEAD',
    response: 'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n',
    reused: true,
  },
  'to HEAD, without a length': {
    method: 'HEAD',
    response: 'HTTP/1.1 200 OK\r\n\r\n',
    reused: true,
  },
  'to HEAD, that closes': {
    method: 'HEAD',
    response: 'HTTP/1.1 200 OK\r\nConnection: x, Close\r\n\r\n',
    reused: false,
  },
  'to HEAD, with a body all the same': { method: 'HEAD', response: OK, reused: false },
  'with 204': { response: 'HTTP/1.1 204 No Content\r\n\r\n', reused: true },
  'with 204 and a length': {
    response: 'HTTP/1.1 204 No Content\r\nContent-Length: 2\r\n\r\n',
    reused: false,
  },
  'with 304 and a length': {
    response: 'HTTP/1.1 304 Not Modified\r\nContent-Length: 7\r\n\r\n',
    reused: true,
  },
  'until the end': {
    response: 'HTTP/1.1 200 OK\r\n\r\nto the end',
    body: 'to the end',
    reused: false,
    closes: true,
  },
  'that closes': {
    response: 'HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok',
    body: 'ok',
    reused: false,
  },
  'of HTTP/1.0': {
    response: 'HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok',
    body: 'ok',
    reused: false,
  },
  'of HTTP/1.0 that keeps': {
    response: 'HTTP/1.0 200 OK\r\nContent-Length: 2\r\nConnection: keep-alive\r\n\r\nok',
    body: 'ok',
    reused: true,
  },
  'with bytes behind it': { response: `${OK}HTTP/1.1 200`, body: 'ok', reused: false },
  'with a whole response behind it': {
    response: `${OK}${OK.replace('ok', 'no')}`,
    body: 'ok',
    reused: false,
  },
  'with an empty line behind it': { response: `${OK}\r\n`, body: 'ok', reused: false },
  'that is kept for a second': {
    response: 'HTTP/1.1 200 OK\r\nKeep-Alive: max=9, timeout=1\r\nContent-Length: 0\r\n\r\n',
    reused: false,
  },
}

for (const [what, { method = 'GET', response, body = '', reused, closes }] of Object.entries(
  EXCHANGES,
)) {
  test(`takes a response ${what}, and ${reused ? 'uses' : 'does not use'} the connection again`, async () => {
    await using origin = await startRawOrigin((peer) => {
      while (peer.take()) {
        peer.write(response)
        if (closes) peer.socket.end()
      }
    })
    await using harness = new Harness()
    for (let i = 0; i < 2; i++) {
      const sent = harness.send('direct', origin.url, '', { method })
      await sent.whole
      expect(sent.text).toBe(body)
      expect(sent.departures).toMatchObject([{ reused: reused && i > 0, protocol: 'h1' }])
    }
    expect(origin.peers).toHaveLength(reused ? 1 : 2)
    if (!reused) await until(() => origin.peers[0]?.closed === true)
  })
}

test('reads a response that comes byte by byte', async () => {
  const text =
    'HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabcde\r\n0\r\nX-Sum: 9\r\n\r\n'
  await using origin = await startRawOrigin(async (peer) => {
    if (!peer.take()) return
    for (const byte of text) {
      peer.write(byte)
      await new Promise((resolve) => setImmediate(resolve))
    }
  })
  await using harness = new Harness()
  const response = await harness.send('direct', origin.url).whole
  expect(response.text).toBe('abcde')
  expect(response.trailers).toEqual(['X-Sum', '9'])
  expect(response.interim).toEqual([
    { status: 103, reason: 'Early Hints', headers: ['Link', '</a>'] },
  ])
})

test('passes interim responses on, but for 100', async () => {
  const interim =
    'HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 103 H\r\nA: b\r\n\r\n'
  await using origin = await startRawOrigin(answers(interim + OK))
  await using harness = new Harness()
  for (let i = 0; i < 2; i++) {
    const { interim, text } = await harness.send('direct', origin.url).whole
    expect(interim.map(({ status }) => status)).toEqual([102, 103])
    expect(interim[1]?.headers).toEqual(['A', 'b'])
    expect(text).toBe('ok')
  }
  expect(origin.peers).toHaveLength(1)
})

test('a response that nobody asked for ends its connection, and answers no request', async () => {
  let peer: Peer | undefined
  await using origin = await startRawOrigin((from) => {
    peer = from
    if (from.take()) from.write(OK)
  })
  await using harness = new Harness()
  await harness.send('direct', origin.url).whole
  peer?.write(OK.replace('ok', 'no'))
  await until(() => peer?.closed === true)
  const next = await harness.send('direct', origin.url).whole
  expect(next.text).toBe('ok')
  expect(next.departures).toMatchObject([{ reused: false }])
  expect(origin.peers).toHaveLength(2)
})

test('an answer before the whole request is passed on, and the request goes no further', async () => {
  await using origin = await startRawOrigin((peer) => {
    if (peer.take()) peer.write('HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\n\r\nno')
  })
  await using harness = new Harness()
  const body = new Readable({ read: () => {} })
  body.push('abc')
  const response = harness.send('direct', origin.url, '', { method: 'POST', body })
  await response.whole
  expect([response.status, response.text]).toEqual([413, 'no'])
  await until(() => origin.peers[0]?.closed === true)
  // It belongs to whoever sent it.
  expect(body.destroyed).toBe(false)
  expect(body.listenerCount('data')).toBe(0)
  body.destroy(new Error('given up'))
  await harness.send('direct', origin.url).whole
  expect(origin.peers).toHaveLength(2)
})

test('a response may begin while the request still goes out', async () => {
  let uploading = false
  await using origin = await startRawOrigin((peer) => {
    if (!uploading && peer.take()) {
      peer.write('HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n')
      uploading = true
    }
    if (peer.take('3\r\nabc\r\n')) peer.write('3\r\nabc\r\n')
    if (uploading && peer.take('0\r\n\r\n')) {
      peer.write('0\r\n\r\n')
      uploading = false
    }
  })
  await using harness = new Harness()
  const body = new Readable({ read: () => {} })
  const response = harness.send('direct', origin.url, '', { method: 'POST', body })
  await response.begun
  body.push('abc')
  await until(() => response.text === 'abc')
  body.push(null)
  await response.whole
  await harness.send('direct', origin.url).begun
  expect(origin.peers).toHaveLength(1)
})

test('hands the connection over after 101, with the bytes that came along, and never back', async () => {
  await using origin = await startRawOrigin((peer) => {
    if (peer.take())
      peer.write('HTTP/1.1 101 Switching\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\nhello')
    if (peer.take('ping')) peer.write('pong')
  })
  await using harness = new Harness()
  const response = await harness.send('direct', origin.url, '', { upgrade: 'x' }).whole
  expect([response.status, response.reason]).toEqual([101, 'Switching'])
  const { stream } = response
  let got = ''
  stream?.on('data', (chunk) => {
    got += chunk
  })
  await until(() => got === 'hello')
  stream?.write('ping')
  await until(() => got === 'hellopong')
  void harness.send('direct', origin.url, '', { upgrade: 'x' })
  await until(() => origin.peers.length === 2)
  // It is its taker's: closing all connections leaves it.
  await harness.egresses.close()
  await until(() => origin.peers[1]?.closed === true)
  expect(origin.peers[0]?.closed).toBe(false)
  stream?.destroy()
})

test('any other answer to an upgrade is an ordinary one', async () => {
  await using origin = await startRawOrigin(
    answers('HTTP/1.1 401 No\r\nContent-Length: 2\r\n\r\nno', OK),
  )
  await using harness = new Harness()
  const response = await harness.send('direct', origin.url, '', { upgrade: 'websocket' }).whole
  expect([response.status, response.text, response.stream]).toEqual([401, 'no', undefined])
  await harness.send('direct', origin.url).whole
  expect(origin.peers).toHaveLength(1)
})

test('101 that nobody asked for is no HTTP', async () => {
  await using origin = await startRawOrigin(answers('HTTP/1.1 101 X\r\nUpgrade: x\r\n\r\n'))
  await using harness = new Harness()
  const failure = await failureOf(harness.send('direct', origin.url).whole)
  expect(failure).toMatchObject({ code: 'UPSTREAM_RESET', sent: true })
})

test('reads a response only as fast as it is taken, then all of it', async () => {
  const size = 64 * 1024 * 1024
  await using origin = await startRawOrigin((peer) => {
    if (!peer.take()) return
    peer.write(`HTTP/1.1 200 OK\r\nContent-Length: ${size}\r\n\r\n`)
    const piece = Buffer.alloc(size / 16, 'x')
    for (let i = 0; i < 16; i++) peer.socket.write(piece)
  })
  const clock = new ManualClock()
  await using harness = new Harness({ clock })
  const response = harness.send('direct', origin.url)
  response.chunks.push = () => 0
  response.wants = false
  await response.begun
  // Longer than the time-out: nobody but the reader is late.
  for (let i = 0; i < 100; i++) {
    clock.advance(10_000)
    await new Promise((resolve) => setImmediate(resolve))
  }
  expect(response.bytes).toBeLessThan(256 * 1024)
  response.wants = true
  response.sending.resume()
  await response.whole
  expect(response.bytes).toBe(size)
})
