import { createHash } from 'node:crypto'
import { once } from 'node:events'
import type { IncomingMessage, ServerResponse } from 'node:http'
import { createServer } from 'node:https'
import type { AddressInfo } from 'node:net'
import type { Duplex } from 'node:stream'
import { afterEach, describe, expect, test } from 'vitest'
import { LIMIT_MS, passUntil, startStage } from '../faults/stage.ts'
import { startApp, type TestApp } from '../support/app.ts'
import { testAuthority } from '../support/certificates.ts'
import { Http2Client } from '../support/http2-client.ts'
import {
  ACK,
  END_HEADERS,
  END_STREAM,
  FRAME,
  FrameClient,
  fields,
  frame,
  goaway,
  PADDED,
  PING,
  requestFrame,
  reset,
  setting,
  u32,
} from '../support/http2-frames.ts'
import { ManualClock } from '../support/manual-clock.ts'
import { type Origin, type OriginOptions, startOrigin } from '../support/origin.ts'
import { trusting } from '../support/protected-origin.ts'
import { settled, until } from '../support/until.ts'

/** Frames that cost next to nothing: so many are borne at once. While the clock stands still, no more are. */
const BURST = 1000
const ENHANCE_YOUR_CALM = 11

const open: AsyncDisposable[] = []
afterEach(async () => {
  for (const each of open.splice(0).reverse()) await each[Symbol.asyncDispose]()
})

interface Stage {
  readonly app: TestApp
  readonly origin: Origin
  readonly authority: string
  readonly attacker: FrameClient
}

/** For all of them time stands still: nothing is forgiven, and no limit of time hides what others miss. */
async function setUp(handler?: OriginOptions['handler']): Promise<Stage> {
  const origin = await startOrigin({ tls: true, ...(handler && { handler }) })
  open.push(origin)
  const authority = `api.test:${origin.port}`
  const clock = new ManualClock(Date.now())
  const app = await startApp(configOf(authority), undefined, clock)
  open.push(app)
  // The token is taken up when its time has come, which is at once.
  await clock.run(1)
  const attacker = await FrameClient.connect(app, authority)
  open.push(attacker)
  attacker.greet()
  return { app, origin, authority, attacker }
}

function configOf(authority: string, pool: object = {}): object {
  return {
    upstream: trusting(['api.test']),
    pools: {
      api: {
        targets: [authority],
        credentials: [{ id: 'a', source: { type: 'static', token: 'token-of-a' } }],
        ...pool,
      },
    },
  }
}

const repeat = (count: number, make: (i: number) => Buffer) =>
  Buffer.concat(Array.from({ length: count }, (_, i) => make(i)))
const post = (authority: string, id: number, ...more: (readonly [string, string])[]) =>
  requestFrame(authority, id, { method: 'POST', more })
const data = (id: number, length: number, flags = 0) =>
  frame(FRAME.data, flags, id, Buffer.alloc(length))
const widen = (id: number, size: number) => frame(FRAME.windowUpdate, 0, id, u32(size))
const countOf = ({ received }: FrameClient, type: number) =>
  received.filter((each) => each.type === type).length

/** All that was sent before has been read. */
async function readUpToHere(client: FrameClient): Promise<void> {
  const before = countOf(client, FRAME.ping)
  client.send(PING)
  await until(() => countOf(client, FRAME.ping) > before)
}

/** Somebody else is served meanwhile. */
async function servesOthers({ app, authority }: Stage): Promise<void> {
  const other = await Http2Client.connect(app, authority)
  open.push(other)
  expect((await other.get('/good')).status).toBe(200)
}

/** Answers all but bodies that never end. */
function answer(request: IncomingMessage, response: ServerResponse): void {
  request.on('error', () => {})
  if (request.method === 'GET') response.end('ok')
}

/** What opens stream 1, for the frames that need one. */
const opened = (authority: string) => post(authority, 1)
/** What the proxy itself resets. */
const refused = (authority: string) => post(authority, 1, ['X-Upper', '1'])

type Make = (i: number, authority: string) => Buffer

describe('a thousand frames that cost their sender next to nothing are borne, and no more', () => {
  test.each<[what: string, first: (authority: string) => Buffer, make: Make]>([
    ['PRIORITY', opened, () => frame(FRAME.priority, 0, 1, Buffer.from([0, 0, 0, 3, 1]))],
    ['of an unknown type', opened, () => frame(0x20, 0, 1, Buffer.from('x'))],
    ['empty DATA', opened, () => data(1, 0)],
    ['DATA of padding alone', opened, () => frame(FRAME.data, PADDED, 1, Buffer.from([2, 0, 0]))],
    ['SETTINGS', opened, (i) => setting(4, i)],
    ['acknowledgements of no SETTINGS', opened, () => frame(FRAME.settings, ACK)],
    ['GOAWAY', opened, () => goaway(0, 0)],
    ['PING while nothing is answered', opened, () => PING],
    ['WINDOW_UPDATE of a stream that has no answer', opened, () => widen(1, 1)],
    ['WINDOW_UPDATE of the connection', opened, () => widen(0, 1)],
    ['empty DATA of a stream that was refused', refused, () => data(1, 0)],
    [
      'trailers of a stream that was refused',
      refused,
      () => frame(FRAME.headers, END_HEADERS, 1, fields(['x', 'y'])),
    ],
    ['RST_STREAM of a stream that was refused', refused, () => reset(1, 8)],
    [
      'trailers of a stream that its client has reset',
      (authority) => Buffer.concat([opened(authority), reset(1, 8)]),
      () => frame(FRAME.headers, END_HEADERS, 1, fields(['x', 'y'])),
    ],
  ])('%s', async (_what, first, make) => {
    const stage = await setUp(answer)
    const { attacker, authority, origin } = stage
    attacker.send(
      first(authority),
      repeat(BURST - 100, (i) => make(i, authority)),
    )
    await readUpToHere(attacker)
    expect([undefined, 0]).toContain(attacker.goaway)
    attacker.send(repeat(BURST, (i) => make(i, authority)))
    await until(() => attacker.goaway === ENHANCE_YOUR_CALM)
    // None of them is answered by more than one, and not all of those are.
    expect(attacker.received.length).toBeLessThan(BURST + 20)
    await servesOthers(stage)
    expect(origin.requests.length).toBeLessThanOrEqual(2)
  })
})

describe('a client that makes the proxy reset its requests, as in MadeYouReset, does so a thousand times at most', () => {
  const begun = (i: number, authority: string) =>
    post(authority, 2 * i + 3, ['content-length', '5'])
  test.each<[what: string, make: (id: number) => Buffer]>([
    ['WINDOW_UPDATE by 0', (id) => widen(id, 0)],
    ['a window that overflows', (id) => widen(id, 2 ** 31 - 1)],
    ['more DATA than announced', (id) => data(id, 6)],
    ['an end before what was announced', (id) => data(id, 4, END_STREAM)],
    ['DATA after its end', (id) => Buffer.concat([data(id, 5, END_STREAM), data(id, 1)])],
    [
      'trailers that do not end it',
      (id) => frame(FRAME.headers, END_HEADERS, id, fields(['x', 'y'])),
    ],
    [
      'trailers that are malformed',
      (id) => frame(FRAME.headers, END_HEADERS | END_STREAM, id, fields([':path', '/'])),
    ],
  ])('by %s', async (_what, make) => {
    const stage = await setUp(answer)
    const { attacker, authority, origin } = stage
    const round = (from: number, count: number) =>
      repeat(count, (i) => Buffer.concat([begun(from + i, authority), make(2 * (from + i) + 3)]))
    attacker.send(round(0, BURST / 2))
    await readUpToHere(attacker)
    expect(countOf(attacker, FRAME.rstStream)).toBe(BURST / 2)
    expect(attacker.goaway).toBeUndefined()
    attacker.send(round(BURST / 2, BURST))
    await until(() => attacker.goaway === ENHANCE_YOUR_CALM)
    expect(countOf(attacker, FRAME.rstStream)).toBeLessThanOrEqual(BURST + 1)
    await servesOthers(stage)
    // What was reset in the turn in which it came never left.
    expect(origin.requests.length).toBe(1)
  })
})

describe('a client that takes its answers in its own way is served', () => {
  test('though it measures the path by a PING for each, as gRPC in Go does', async () => {
    const { attacker, authority } = await setUp(answer)
    const rounds = 30
    const batch = 50
    for (let round = 0; round < rounds; round++) {
      const from = round * batch
      const answers = countOf(attacker, FRAME.data)
      attacker.send(repeat(batch, (i) => requestFrame(authority, 2 * (from + i) + 1)))
      await until(() => countOf(attacker, FRAME.data) >= answers + batch)
      attacker.send(repeat(batch, () => Buffer.concat([PING, widen(0, 2)])))
    }
    await until(() => countOf(attacker, FRAME.ping) === rounds * batch)
    expect(attacker.goaway).toBeUndefined()
  })

  test('byte by byte: each costs the proxy no more frames than the client', async () => {
    const bytes = 3000
    const { attacker, authority } = await setUp((_request, response) => {
      response.end(Buffer.alloc(bytes, 'x'))
    })
    attacker.send(setting(4, 0), requestFrame(authority, 1))
    await until(() => countOf(attacker, FRAME.headers) === 1)
    for (let sent = 0; sent < bytes; sent += 300) {
      attacker.send(repeat(300, () => widen(1, 1)))
      await readUpToHere(attacker)
    }
    const pieces = attacker.received.filter(({ type }) => type === FRAME.data)
    expect(Buffer.concat(pieces.map(({ payload }) => payload)).length).toBe(bytes)
    expect(pieces.length).toBeLessThanOrEqual(bytes + 1)
    expect(pieces.at(-1)?.flags).toBe(END_STREAM)
    expect(attacker.goaway).toBeUndefined()
  })
})

test('windows that change many times in one SETTINGS change once', async () => {
  const streams = 100
  const stage = await setUp((_request, response) => {
    response.end('0123456789')
  })
  const { attacker, authority } = stage
  attacker.send(
    setting(4, 0),
    repeat(streams, (i) => requestFrame(authority, 2 * i + 1)),
  )
  await until(() => countOf(attacker, FRAME.headers) === streams)
  const values = (count: number) => repeat(count, (i) => setting(4, i % 2).subarray(9))
  attacker.send(frame(FRAME.settings, 0, 0, values(32)))
  await readUpToHere(attacker)
  expect(countOf(attacker, FRAME.data)).toBe(streams)
  // Thousands fit into one frame.
  attacker.send(frame(FRAME.settings, 0, 0, values(2730)))
  await until(() => attacker.goaway === ENHANCE_YOUR_CALM)
  expect(countOf(attacker, FRAME.data)).toBe(streams)
  await servesOthers(stage)
})

test('a field block that grows without an end is not held beyond what a request may have', async () => {
  const stage = await setUp(answer)
  const { attacker } = stage
  const piece = Buffer.alloc(16_384)
  attacker.send(
    frame(FRAME.headers, 0, 1, piece),
    repeat(2, () => frame(FRAME.continuation, 0, 1, piece)),
  )
  await until(() => attacker.goaway === ENHANCE_YOUR_CALM)
  await servesOthers(stage)
})

test('a field block of 30 KB that stands for 100 MB is refused, and holds no memory', async () => {
  const stage = await setUp(answer)
  const { attacker, authority } = stage
  // An entry as large as the table allows, and 30,000 references to it.
  const bomb = Buffer.concat([
    fields([':method', 'GET'], [':scheme', 'https'], [':path', '/'], [':authority', authority]),
    Buffer.from([0x40, 1, 0x78, 0x7f, 0x80 + ((3900 - 127) & 0x7f), (3900 - 127) >> 7]),
    Buffer.alloc(3900, 'y'),
    Buffer.alloc(26_000, 0xbe),
  ])
  const before = process.memoryUsage.rss()
  const times = 100
  for (let i = 0; i < times; i++) {
    const id = 2 * i + 1
    attacker.send(
      frame(FRAME.headers, END_STREAM, id, bomb.subarray(0, 16_384)),
      frame(FRAME.continuation, END_HEADERS, id, bomb.subarray(16_384)),
    )
  }
  await until(() => countOf(attacker, FRAME.headers) === times)
  expect(process.memoryUsage.rss() - before).toBeLessThan(150e6)
  expect(stage.origin.requests).toEqual([])
  expect(attacker.goaway).toBeUndefined()
  await servesOthers(stage)
})

test('who takes no answer is heard no further: what waits for him is bounded', async () => {
  const big = 'x'.repeat(8000)
  const stage = await setUp((request, response) => {
    if (request.url === '/big') response.setHeader('x-big', big)
    response.end()
  })
  const { attacker, authority, origin } = stage
  await readUpToHere(attacker)
  attacker.socket.pause()
  const batch = 100
  let sent = 0
  let isHeard = true
  while (isHeard && sent < 10_000) {
    attacker.send(
      repeat(batch, (i) => requestFrame(authority, 2 * (sent + i) + 1, { path: '/big' })),
    )
    sent += batch
    const count = await settled(() => origin.requests.length)
    isHeard = count === sent
  }
  // The two sockets' buffers are the system's.
  expect(origin.requests.length * big.length).toBeLessThan(32e6)
  expect(isHeard).toBe(false)
  await servesOthers(stage)
})

test('requests after the GOAWAY of a drain, and their bodies, end nothing that is under way', async () => {
  const held: ServerResponse[] = []
  const { attacker, authority, app, origin } = await setUp((_request, response) => {
    held.push(response)
  })
  attacker.send(requestFrame(authority, 1))
  await until(() => held.length === 1)
  const stopped = app.app.stop()
  await until(() => attacker.goaway === 0)
  const ids = Array.from({ length: 200 }, (_, i) => 2 * i + 3)
  attacker.send(...ids.map((id) => post(authority, id)))
  attacker.send(...ids.map((id) => data(id, 1000)), ...ids.map((id) => data(id, 0, END_STREAM)))
  await readUpToHere(attacker)
  expect(ids.map((id) => attacker.resetOf(id))).toEqual(ids.map(() => 7))
  held[0]?.end('served')
  await until(() => attacker.received.some(({ payload }) => payload.toString() === 'served'))
  expect(origin.requests).toHaveLength(1)
  attacker.socket.end()
  await stopped
})

test('who never takes that a request was refused loses the connection', async () => {
  const origin = await startOrigin({ tls: true })
  open.push(origin)
  const stage = await startStage(origin.port)
  open.push(stage)
  const attacker = await FrameClient.connect(stage.app, stage.authority)
  open.push(attacker)
  attacker.greet().send(setting(4, 0), requestFrame(stage.authority, 1, { method: 'get' }))
  await until(() => countOf(attacker, FRAME.headers) === 1)
  let isClosed = false
  void attacker.closed.then(() => {
    isClosed = true
  })
  expect(await passUntil(stage, () => isClosed)).toBeGreaterThan(LIMIT_MS)
})

test('RST_STREAM is never answered by another one, within a WebSocket neither', async () => {
  let closed = 0
  const server = createServer(testAuthority().issue(['api.test'])).on(
    'upgrade',
    (request, socket: Duplex) => {
      socket
        .on('error', () => {})
        .on('close', () => {
          closed += 1
        })
      const text = `${request.headers['sec-websocket-key']}258EAFA5-E914-47DA-95CA-C5AB0DC85B11`
      const accept = createHash('sha1').update(text).digest('base64')
      const head = ['101 Switching Protocols', 'Upgrade: websocket', 'Connection: Upgrade']
      socket.write(`HTTP/1.1 ${head.join('\r\n')}\r\nSec-WebSocket-Accept: ${accept}\r\n\r\n`)
      socket.resume()
    },
  )
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  open.push({ [Symbol.asyncDispose]: async () => void server.close() })
  const authority = `api.test:${(server.address() as AddressInfo).port}`
  const app = await startApp(configOf(authority))
  open.push(app)
  const client = await FrameClient.connect(app, authority)
  open.push(client)
  const head = fields(
    [':method', 'CONNECT'],
    [':protocol', 'websocket'],
    [':scheme', 'https'],
    [':path', '/'],
    [':authority', authority],
    ['sec-websocket-version', '13'],
  )
  client.greet().send(frame(FRAME.headers, END_HEADERS, 1, head))
  await until(() => countOf(client, FRAME.headers) === 1)
  client.send(reset(1, 8))
  await until(() => closed === 1)
  await readUpToHere(client)
  expect(client.resetOf(1)).toBeUndefined()
})
