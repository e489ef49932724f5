import { createServer } from 'node:net'
import { Readable } from 'node:stream'
import { expect, test } from 'vitest'
import { Listener } from '../support/listener.ts'
import { ManualClock } from '../support/manual-clock.ts'
import { failureOf, Harness } from './harness.ts'
import { answers, OK, type Peer, startRawOrigin, until } from './raw-origin.ts'

const HEAD = 'HTTP/1.1 200 OK\r\n'

/** What the origin says before it breaks off. */
const PHASES: Record<string, string> = {
  'before a byte': '',
  'within the status line': 'HTTP/1.1 2',
  'within the head': `${HEAD}Content-Le`,
  'after an interim response': 'HTTP/1.1 103 Early Hints\r\n\r\n',
  'before the body': `${HEAD}Content-Length: 2\r\n\r\n`,
  'within the body': `${HEAD}Content-Length: 2\r\n\r\no`,
  'within a chunk’s size': `${HEAD}Transfer-Encoding: chunked\r\n\r\n1`,
  'within a chunk': `${HEAD}Transfer-Encoding: chunked\r\n\r\n5\r\nab`,
  'between chunks': `${HEAD}Transfer-Encoding: chunked\r\n\r\n2\r\nab\r\n`,
  'within the trailers': `${HEAD}Transfer-Encoding: chunked\r\n\r\n0\r\nX-Sum: `,
}

for (const how of ['ends', 'resets'] as const) {
  for (const [phase, text] of Object.entries(PHASES)) {
    for (const reused of [false, true]) {
      test(`an origin that ${how} a ${reused ? 'reused' : 'fresh'} connection ${phase} is UPSTREAM_RESET, sent`, async () => {
        let last: Peer | undefined
        await using origin = await startRawOrigin((peer) => {
          if (!peer.take()) return
          if (reused && !last) {
            last = peer
            return peer.write(OK)
          }
          peer.socket.write(text, 'latin1', () => {
            if (how === 'ends') peer.socket.end()
            else peer.socket.resetAndDestroy()
          })
        })
        await using harness = new Harness()
        if (reused) await harness.send('direct', origin.url).whole
        const sent = harness.send('direct', origin.url)
        expect(await failureOf(sent.whole)).toMatchObject({ code: 'UPSTREAM_RESET', sent: true })
        expect(sent.departures).toMatchObject([{ reused }])
        await until(() => origin.peers.every(({ closed }) => closed))
        expect(origin.peers).toHaveLength(1)
        expect(harness.egresses.isUp('direct')).toBe(true)
      })
    }
  }
}

const MALFORMED: Record<string, string> = {
  'no HTTP': 'SSH-2.0-OpenSSH\r\n',
  'HTTP/2': 'HTTP/2.0 200 OK\r\n\r\n',
  'a status of two digits': 'HTTP/1.1 20 OK\r\n\r\n',
  'a bare line feed': 'HTTP/1.1 200 OK\nContent-Length: 0\n\n',
  'a folded line': `${HEAD}A: b\r\n c\r\n\r\n`,
  'a NUL': `${HEAD}A: \0\r\n\r\n`,
  'a space before the colon': `${HEAD}Content-Length : 2\r\n\r\nok`,
  'two lengths': `${HEAD}Content-Length: 2\r\nContent-Length: 2\r\n\r\nok`,
  'a signed length': `${HEAD}Content-Length: +2\r\n\r\nok`,
  'a length and a coding': `${HEAD}Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\nok`,
  'a coding that is not known': `${HEAD}Transfer-Encoding: gzip, chunked\r\n\r\n`,
  'a chunk of a signed size': `${HEAD}Transfer-Encoding: chunked\r\n\r\n-1\r\n`,
  'a chunk that is longer than said': `${HEAD}Transfer-Encoding: chunked\r\n\r\n1\r\nab\r\n`,
}

for (const [what, text] of Object.entries(MALFORMED)) {
  test(`an origin that sends ${what} does not speak HTTP`, async () => {
    await using origin = await startRawOrigin(answers(text))
    await using harness = new Harness()
    const failure = await failureOf(harness.send('direct', origin.url).whole)
    expect(failure).toMatchObject({
      code: 'UPSTREAM_RESET',
      sent: true,
      message: 'upstream did not speak HTTP',
    })
    await until(() => origin.peers[0]?.closed === true)
  })
}

test('a head beyond 64 KiB is given up', async () => {
  await using origin = await startRawOrigin(answers(`${HEAD}A: ${'x'.repeat(65 * 1024)}\r\n\r\n`))
  await using harness = new Harness()
  const failure = await failureOf(harness.send('direct', origin.url).whole)
  expect(failure).toMatchObject({
    code: 'UPSTREAM_RESET',
    message: 'upstream sent too many header bytes',
  })
})

const turn = () => new Promise((resolve) => setImmediate(resolve))

test('no response within headersTimeout is UPSTREAM_TIMEOUT; interim ones count as a sign', async () => {
  const clock = new ManualClock()
  await using origin = await startRawOrigin(() => {})
  await using harness = new Harness({ clock, upstream: { headersTimeout: '60s' } })
  const response = harness.send('direct', origin.url)
  await until(() => origin.peers[0]?.received.endsWith('\r\n\r\n') === true)
  for (let i = 1; i <= 3; i++) {
    clock.advance(55_000)
    origin.peers[0]?.write('HTTP/1.1 102 Processing\r\n\r\n')
    await until(() => response.interim.length === i)
  }
  clock.advance(62_000)
  const failure = await failureOf(response.whole)
  expect(failure).toMatchObject({ code: 'UPSTREAM_TIMEOUT', sent: true })
  expect(failure.message).toBe('upstream sent no response in time')
  await until(() => origin.peers[0]?.closed === true)
})

test('silence within the body for bodyTimeout is UPSTREAM_TIMEOUT', async () => {
  const clock = new ManualClock()
  await using origin = await startRawOrigin(answers(`${HEAD}Content-Length: 3\r\n\r\no`))
  await using harness = new Harness({ clock, upstream: { bodyTimeout: '5m' } })
  const response = await harness.send('direct', origin.url).begun
  clock.advance(295_000)
  origin.peers[0]?.write('h')
  await until(() => response.text === 'oh')
  clock.advance(295_000)
  clock.advance(7_000)
  const failure = await failureOf(response.whole)
  expect(failure).toMatchObject({ code: 'UPSTREAM_TIMEOUT', sent: true })
  expect(failure.message).toBe('upstream stalled within its response')
})

test('an origin that waits for the client’s own body is not late', async () => {
  const clock = new ManualClock()
  await using origin = await startRawOrigin((peer) => {
    if (peer.received.startsWith('POST') && !peer.received.endsWith('0\r\n\r\n')) return
    peer.write(OK)
  })
  await using harness = new Harness({ clock })
  const body = new Readable({ read: () => {} })
  const upload = harness.send('direct', origin.url, '', { method: 'POST', body })
  await until(() => origin.peers[0]?.received.endsWith('\r\n\r\n') === true)
  clock.advance(600_000)
  body.push(null)
  expect((await upload.whole).text).toBe('ok')
})

test('an origin that stops taking the body is late', async () => {
  const clock = new ManualClock()
  await using listener = new Listener(createServer((socket) => void socket.pause()))
  const port = await listener.listen('127.0.0.1')
  await using harness = new Harness({ clock })
  const piece = Buffer.alloc(64 * 1024)
  const body = new Readable({
    read() {
      this.push(piece)
    },
  })
  const url = `http://127.0.0.1:${port}`
  const upload = harness.send('direct', url, '', { method: 'POST', body })
  await until(() => upload.departures.length > 0)
  let over = false
  const failing = failureOf(upload.whole).finally(() => {
    over = true
  })
  while (!over) {
    clock.advance(1000)
    await turn()
  }
  expect(await failing).toMatchObject({ code: 'UPSTREAM_TIMEOUT', sent: true })
  body.destroy()
})

test('giving a request up ends its connection at once, wherever it stands', async () => {
  await using origin = await startRawOrigin((peer) => {
    if (peer.received.startsWith('GET /body')) peer.write(`${HEAD}Content-Length: 2\r\n\r\no`)
  })
  await using harness = new Harness()
  const waiting = harness.send('direct', `${origin.url}/head`)
  const reading = await harness.send('direct', `${origin.url}/body`).begun
  await until(() => origin.peers.every(({ received }) => received.endsWith('\r\n\r\n')))
  for (const response of [waiting, reading]) {
    response.sending.abort()
    expect((await failureOf(response.whole)).sent).toBe(true)
    // Late words are heard by nobody.
    response.sending.resume()
    response.sending.abort()
  }
  await until(() => origin.peers.every(({ closed }) => closed))
})

test('a late word on a request that is over does not touch the next one', async () => {
  await using origin = await startRawOrigin(answers(OK))
  await using harness = new Harness()
  const first = await harness.send('direct', origin.url).whole
  const second = harness.send('direct', origin.url)
  first.sending.abort()
  first.sending.resume()
  expect((await second.whole).text).toBe('ok')
  expect(origin.peers).toHaveLength(1)
})

test('a request that is given up while it waits for a connection is never sent', async () => {
  await using origin = await startRawOrigin(answers(OK))
  await using harness = new Harness()
  const given = harness.send('direct', origin.url, '', { headers: ['X', 'given-up'] })
  given.sending.abort()
  expect((await failureOf(given.whole)).sent).toBe(false)
  expect(given.departures).toEqual([])
  await harness.send('direct', origin.url).whole
  expect(origin.peers.map(({ received }) => received).join()).not.toContain('given-up')
})

test('a connection that the origin has closed while idle is not chosen', async () => {
  for (const how of ['end', 'resetAndDestroy'] as const) {
    await using origin = await startRawOrigin(answers(OK))
    await using harness = new Harness()
    await harness.send('direct', origin.url).whole
    origin.peers[0]?.socket[how]()
    await until(() => origin.peers[0]?.closed === true)
    const response = await harness.send('direct', origin.url).whole
    expect(response.departures).toMatchObject([{ reused: false }])
  }
})

test('an origin that closes as soon as it has accepted fails unsent requests as such or as sent', async () => {
  await using listener = new Listener(createServer((socket) => void socket.destroy()))
  const port = await listener.listen('127.0.0.1')
  await using harness = new Harness()
  for (let i = 0; i < 20; i++) {
    const sent = harness.send('direct', `http://127.0.0.1:${port}`)
    const failure = await failureOf(sent.whole)
    expect(failure.code).toBe('UPSTREAM_RESET')
    expect(failure.sent).toBe(sent.departures.length > 0)
  }
})
