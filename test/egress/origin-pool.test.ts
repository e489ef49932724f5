import { createSecureServer } from 'node:http2'
import { connect, createServer } from 'node:net'
import { expect, test } from 'vitest'
import { OriginPool } from '../../src/egress/origin-pool.ts'
import type {
  ConnectionObserver,
  ResponseHandler,
  Sending,
  UpstreamConnection,
  UpstreamRequest,
} from '../../src/egress/upstream.ts'
import { UpstreamError } from '../../src/errors.ts'
import { testAuthority } from '../support/certificates.ts'
import { Listener } from '../support/listener.ts'
import { ManualClock } from '../support/manual-clock.ts'
import { failureOf, Harness } from './harness.ts'
import { answers, OK, startRawOrigin, until } from './raw-origin.ts'
import { Response } from './response.ts'

test('the most recently used connection serves first, so that the others can go', async () => {
  const clock = new ManualClock()
  await using origin = await startRawOrigin(answers(OK))
  await using harness = new Harness({ clock })
  const two = [harness.send('direct', origin.url), harness.send('direct', origin.url)]
  await Promise.all(two.map(({ whole }) => whole))
  expect(origin.peers).toHaveLength(2)
  for (let i = 0; i < 4; i++) {
    clock.advance(10_000)
    await harness.send('direct', origin.url).whole
  }
  await until(() => origin.peers.filter(({ closed }) => closed).length === 1)
  expect(origin.peers).toHaveLength(2)
  clock.advance(32_000)
  await until(() => origin.peers.every(({ closed }) => closed))
})

test('an origin’s own word on how long it keeps idle connections is kept, less a second', async () => {
  const clock = new ManualClock()
  const keep = 'HTTP/1.1 200 OK\r\nKeep-Alive: timeout=7\r\nContent-Length: 0\r\n\r\n'
  await using origin = await startRawOrigin(answers(keep))
  await using harness = new Harness({ clock })
  await harness.send('direct', origin.url).whole
  clock.advance(5_500)
  await harness.send('direct', origin.url).whole
  expect(origin.peers).toHaveLength(1)
  // Too late, though nobody has looked since.
  clock.advance(6_000)
  await harness.send('direct', origin.url).whole
  expect(origin.peers).toHaveLength(2)
  clock.advance(7_000)
  await until(() => origin.peers.every(({ closed }) => closed))
})

test('requests to an unknown origin wait for its choice, then each has an HTTP/1.1 connection', async () => {
  await using origin = await startRawOrigin(() => {}, { tls: true })
  await using harness = new Harness()
  const sent = Array.from({ length: 5 }, () => harness.send('direct', origin.url))
  await until(() => sent.every(({ departures }) => departures.length === 1))
  await until(() => origin.peers.length === 5)
  for (const { departures } of sent) expect(departures).toMatchObject([{ protocol: 'h1' }])
})

test('requests to an unknown origin share the session where it chooses HTTP/2; upgrades do not', async () => {
  let sockets = 0
  const secure = createSecureServer(
    { ...testAuthority().issue(['127.0.0.1']), allowHTTP1: true },
    (request, response) => {
      response.end(request.httpVersion)
    },
  )
  secure.on('connection', () => sockets++)
  await using listener = new Listener(secure)
  const url = `https://127.0.0.1:${await listener.listen('127.0.0.1')}`
  await using harness = new Harness()
  const sent = Array.from({ length: 20 }, () => harness.send('direct', url))
  await Promise.all(sent.map(({ whole }) => whole))
  expect(sent.map(({ text }) => text)).toEqual(Array(20).fill('2.0'))
  expect(sockets).toBe(1)
  const upgrade = await harness.send('direct', url, '', { upgrade: 'websocket' }).begun
  expect(upgrade.departures).toMatchObject([{ protocol: 'h1', reused: false }])
  expect(sockets).toBe(2)
  harness.apply({ upstream: { http2: false } })
  expect((await harness.send('direct', url).whole).text).toBe('1.1')
  expect(sockets).toBe(3)
})

test('where the first connection fails, only the first request does; the others try for themselves', async () => {
  let accepted = 0
  await using origin = await startRawOrigin(answers(OK), { tls: true })
  const port = Number(new URL(origin.url).port)
  const relay = createServer((socket) => {
    if (++accepted === 1) return socket.destroy()
    const onward = connect(port, '127.0.0.1')
    socket.pipe(onward).pipe(socket)
    socket.on('error', () => onward.destroy())
    onward.on('error', () => socket.destroy())
    return undefined
  })
  await using listener = new Listener(relay)
  const url = `https://127.0.0.1:${await listener.listen('127.0.0.1')}`
  await using harness = new Harness()
  const [first, ...others] = Array.from({ length: 4 }, () => harness.send('direct', url))
  expect(await failureOf(first?.whole as Promise<unknown>)).toMatchObject({
    code: 'UPSTREAM_TLS',
    sent: false,
  })
  await Promise.all(others.map(({ whole }) => whole))
})

/** A connection that does nothing by itself. */
class Fake implements UpstreamConnection {
  readonly protocol = 'http/1.1'
  readonly idleLimit = 1000
  readonly sent: string[] = []
  running = 0
  readonly #observer: ConnectionObserver

  constructor(observer: ConnectionObserver) {
    this.#observer = observer
  }

  get room(): number {
    return 1 - this.running
  }

  send({ path }: UpstreamRequest, handler: ResponseHandler): Sending {
    this.sent.push(path)
    this.running = 1
    handler.sent({ timings: undefined, reused: this.sent.length > 1, protocol: 'h1' })
    return { abort: () => {}, resume: () => {} }
  }

  answer(): void {
    this.running = 0
    this.#observer.free(this)
  }

  check(): void {}

  drain(): void {
    this.#observer.retired(this)
    if (this.running === 0) this.#observer.closed(this)
  }

  destroy(): void {
    this.#observer.retired(this)
    this.#observer.closed(this)
  }
}

function fakePool(open?: () => Promise<UpstreamConnection>) {
  const made: Fake[] = []
  const pool = new OriginPool({
    http2: false,
    now: () => 0,
    open: async (_http2, observer) => {
      if (open) return open()
      const connection = new Fake(observer)
      made.push(connection)
      return connection
    },
  })
  const send = (path: string) => new Response(pool, { origin: 'http://api.test', path })
  return { pool, made, send }
}

const turn = () => new Promise((resolve) => setImmediate(resolve))

test('beyond the bound, requests wait in order; those given up leave no gap', async () => {
  const { made, send } = fakePool()
  for (let i = 0; i < 1024; i++) send(`/${i}`)
  const late = ['/a', '/b', '/c'].map(send)
  await turn()
  expect(made).toHaveLength(1024)
  expect(late.map(({ departures }) => departures.length)).toEqual([0, 0, 0])
  late[0]?.sending.abort()
  expect(await failureOf(late[0]?.whole as Promise<unknown>)).toMatchObject({ sent: false })
  made[7]?.answer()
  made[7]?.answer()
  made[7]?.answer()
  expect(made[7]?.sent).toEqual(['/7', '/b', '/c'])
  expect(send('/d').departures).toMatchObject([{ reused: true }])
  made[3]?.destroy()
  send('/e')
  await turn()
  expect(made).toHaveLength(1025)
})

test('draining serves what has come, and nothing after', async () => {
  const { pool, made, send } = fakePool()
  const [first, second] = [send('/1'), send('/2')]
  await turn()
  made[0]?.answer()
  let drained = false
  const draining = pool.drain().then(() => {
    drained = true
  })
  expect(await failureOf(send('/3').whole)).toMatchObject({ sent: false })
  await turn()
  expect([first.departures.length, second.departures.length, drained]).toEqual([1, 1, false])
  made[1]?.answer()
  await draining
  expect(pool.empty).toBe(true)
})

test('requests that still wait for a connection are served by a draining pool', async () => {
  const { pool, made, send } = fakePool()
  const response = send('/1')
  const draining = pool.drain()
  await turn()
  expect(response.departures).toHaveLength(1)
  made[0]?.answer()
  await draining
})

test('destroying fails what waits', async () => {
  const { pool, made, send } = fakePool()
  const response = send('/1')
  pool.destroy()
  expect(await failureOf(response.whole)).toMatchObject({ code: 'SHUTTING_DOWN', sent: false })
  await turn()
  expect([made.length, pool.empty]).toEqual([1, true])
})

test('a connection that cannot be made fails the request that has waited longest', async () => {
  let refuse: (() => void) | undefined
  const { send } = fakePool(
    () =>
      new Promise((_resolve, reject) => {
        refuse ??= () => reject(new UpstreamError('UPSTREAM_UNREACHABLE', 'no', { sent: false }))
      }),
  )
  const [first, second] = [send('/1'), send('/2')]
  refuse?.()
  expect((await failureOf(first.whole)).code).toBe('UPSTREAM_UNREACHABLE')
  second.sending.abort()
  await failureOf(second.whole)
})
