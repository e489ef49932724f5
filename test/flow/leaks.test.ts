import { once } from 'node:events'
import { createServer, Socket } from 'node:net'
import { connect as tlsConnect } from 'node:tls'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { type Clock, systemClock } from '../../src/lib/clock.ts'
import { startApp, type TestApp } from '../support/app.ts'
import { type AuthServer, startAuthServer } from '../support/auth-server.ts'
import { Listener } from '../support/listener.ts'
import { type Origin, startOrigin } from '../support/origin.ts'
import { trusting } from '../support/protected-origin.ts'

/** The system's clock; it knows what is still scheduled. */
class CountingClock implements Clock {
  readonly pending = new Set<object>()

  now(): number {
    return systemClock.now()
  }
  monotonic(): number {
    return systemClock.monotonic()
  }
  schedule(delay: number, job: () => void): () => void {
    const entry = { delay, at: new Error('scheduled').stack }
    this.pending.add(entry)
    const cancel = systemClock.schedule(delay, () => {
      this.pending.delete(entry)
      job()
    })
    return () => {
      this.pending.delete(entry)
      cancel()
    }
  }
}

const HOST = 'api.test'
/** More than the sockets on the way can hold. */
const MORE_THAN_FITS = 64 * 1024 * 1024

let auth: AuthServer
let origin: Origin
let echo: Listener
let echoPort: number
let app: TestApp
let clock: CountingClock
let authority: string
/** Requests that the origin has in its hands, by path. */
let arrived: Map<string, () => void>
let before: string[]

function resources(): string[] {
  const counted = new Set(['TCPSocketWrap', 'TCPServerWrap', 'TLSWrap', 'Timeout', 'FSReqCallback'])
  return process
    .getActiveResourcesInfo()
    .filter((name) => counted.has(name))
    .sort()
}

/** Sockets of this process that clients have opened to the proxy. */
function frontSockets(): number {
  const port = Number(new URL(app.app.proxyUrl).port)
  const { _getActiveHandles } = process as unknown as { _getActiveHandles(): unknown[] }
  return _getActiveHandles().filter(
    (handle) => handle instanceof Socket && handle.localPort === port,
  ).length
}

/** The path says what the origin does. */
async function serve(origin: Parameters<typeof startOrigin>[0] = {}): Promise<Origin> {
  return startOrigin({
    ...origin,
    tls: true,
    handler: async (request, response) => {
      const path = request.url ?? ''
      arrived.get(path)?.()
      arrived.delete(path)
      const token = request.headers.authorization?.slice('Bearer '.length) ?? ''
      if (path === '/hold') return
      if (path === '/reset') return void request.socket.destroy()
      if (path === '/reset-within') {
        response.writeHead(200, { 'content-length': '100' }).write('only half')
        return void setImmediate(() => request.socket.destroy())
      }
      if (path === '/begin') return void response.write('only half')
      if (path === '/flood') return void response.end(Buffer.alloc(MORE_THAN_FITS))
      try {
        for await (const _ of request);
      } catch {
        return
      }
      const live = token === 'static' || (await auth.isActive(token))
      response.writeHead(live ? 200 : 401).end('done')
    },
  })
}

beforeAll(async () => {
  auth = await startAuthServer({ accessTokenTtlSeconds: 600 })
})
afterAll(() => auth.close())

beforeEach(async () => {
  arrived = new Map()
  before = resources()
  clock = new CountingClock()
  origin = await serve()
  echo = new Listener(createServer((socket) => socket.pipe(socket)))
  echoPort = await echo.listen('127.0.0.1')
  const oauth2 = {
    type: 'oauth2',
    grant: 'client_credentials',
    tokenUrl: auth.tokenUrl,
    clientId: auth.clientId,
    clientSecret: auth.clientSecret,
  }
  const config = {
    upstream: trusting([HOST, 'narrow.example.test']),
    pools: {
      api: {
        targets: [`${HOST}:${origin.port}`],
        refresh: { minInterval: '1ms' },
        credentials: [{ id: 'a', source: oauth2 }],
      },
      narrow: {
        targets: [`narrow.example.test:${origin.port}`],
        limits: { concurrency: 1 },
        credentials: [{ id: 'n', source: { type: 'static', token: 'static' } }],
      },
    },
  }
  app = await startApp(config, undefined, clock)
  authority = `${HOST}:${origin.port}`
})

/** With nobody left, nothing is held; and after the proxy has stopped nothing at all. */
afterEach(async () => {
  auth.fail(undefined)
  await expect.poll(held).toEqual({ front: 0, inFlight: 0, waiting: 0 })
  await app.app.stop()
  expect(clock.pending).toEqual(new Set())
  await expect.poll(() => origin.openConnections).toBe(0)
  await expect.poll(() => echo.openSockets).toBe(0)
  await app[Symbol.asyncDispose]()
  await origin.close()
  await echo.close()
  await expect.poll(resources).toEqual(before)
})

async function held() {
  const { pools } = await app.admin('/api/pools')
  let inFlight = 0
  let waiting = 0
  for (const pool of pools) {
    waiting += pool.waiting
    for (const credential of pool.credentials) inFlight += credential.inFlight
  }
  return { front: frontSockets(), inFlight, waiting }
}

/** Resolves once the origin has a request for this path. */
function arrival(path: string): Promise<void> {
  return new Promise((resolve) => arrived.set(path, resolve))
}

/** A client by hand: the TCP connection, and TLS within. */
async function secured(name = HOST) {
  const { socket } = await app.client().tunnel(`${name}:${origin.port}`)
  const secure = tlsConnect({ socket, ca: app.ca, servername: name })
  secure.on('error', () => {})
  socket.on('error', () => {})
  await once(secure, 'secureConnect')
  return { socket, secure }
}

function head(method: string, path: string, ...fields: string[]): string {
  return [`${method} ${path} HTTP/1.1`, `Host: ${authority}`, ...fields, '', ''].join('\r\n')
}

/** How far a client gets before it leaves; gives its TCP connection. */
const PHASES: Record<string, () => Promise<Socket>> = {
  'before a word': async () => {
    const socket = new Socket()
    socket.connect(Number(new URL(app.app.proxyUrl).port), '127.0.0.1')
    await once(socket, 'connect')
    return socket
  },
  'within CONNECT': async () => {
    const socket = await (PHASES['before a word'] as () => Promise<Socket>)()
    socket.write('CONNECT api.test:443 HTTP/1.1\r\nHos')
    await expect.poll(frontSockets).toBe(1)
    return socket
  },
  'after CONNECT': async () => (await app.client().tunnel(authority)).socket,
  'within the handshake': async () => {
    const { socket } = await app.client().tunnel(authority)
    // A TLS record header that promises a ClientHello of 512 bytes.
    await new Promise<unknown>((done) => socket.write(Buffer.from('160301020001', 'hex'), done))
    return socket
  },
  'after the handshake': async () => (await secured()).socket,
  'within the header': async () => {
    const { socket, secure } = await secured()
    await new Promise<unknown>((done) => secure.write('GET /x HTTP/1.1\r\nHo', done))
    return socket
  },
  'within a short body': async () => {
    const { socket, secure } = await secured()
    const text = `${head('POST', '/x', 'Content-Length: 100')}only half`
    await new Promise<unknown>((done) => secure.write(text, done))
    return socket
  },
  'within a long body': async () => {
    const { socket, secure } = await secured()
    const there = arrival('/upload')
    secure.write(head('POST', '/upload', 'Content-Length: 1000000') + 'x'.repeat(200_000))
    await there
    return socket
  },
  'within a chunked body beyond memory': async () => {
    const { socket, secure } = await secured()
    const there = arrival('/chunks')
    secure.write(head('PUT', '/chunks', 'Transfer-Encoding: chunked'))
    for (let i = 0; i < 30; i++) secure.write(`10000\r\n${'x'.repeat(0x10000)}\r\n`)
    await there
    return socket
  },
  'waiting for its turn': async () => {
    const first = await secured('narrow.example.test')
    const there = arrival('/hold')
    const narrow = (path: string) => head('GET', path).replace(HOST, 'narrow.example.test')
    first.secure.write(narrow('/hold'))
    await there
    const second = await secured('narrow.example.test')
    second.secure.write(narrow('/next'))
    await expect.poll(async () => (await app.admin('/api/pools/narrow')).waiting).toBe(1)
    second.socket.destroy()
    await expect.poll(async () => (await app.admin('/api/pools/narrow')).waiting).toBe(0)
    return first.socket
  },
  'while its token is renewed': async () => {
    await using client = app.client()
    await client.request(`https://${authority}/warm`)
    auth.revokeAccessTokens()
    auth.fail({ delayMs: 300 })
    const calls = auth.calls.length
    const { socket, secure } = await secured()
    secure.write(`${head('POST', '/x', 'Content-Length: 4')}body`)
    await expect.poll(() => auth.calls.length).toBe(calls + 1)
    return socket
  },
  'before the response': async () => {
    const { socket, secure } = await secured()
    const there = arrival('/hold')
    secure.write(head('GET', '/hold'))
    await there
    return socket
  },
  'within the response': async () => {
    const { socket, secure } = await secured()
    secure.write(head('GET', '/begin'))
    while (!String(await once(secure, 'data')).includes('only half'));
    return socket
  },
  'while the response is held up by itself': async () => {
    const { socket, secure } = await secured()
    secure.pause().write(head('GET', '/flood'))
    await once(secure, 'readable')
    return socket
  },
  'within a tunnel': async () => {
    const { socket } = await app.client().tunnel(`127.0.0.1:${echoPort}`)
    socket.write('hello')
    await once(socket.resume(), 'data')
    return socket
  },
}

describe.each(['leaves', 'resets'] as const)('a client that %s', (how) => {
  test.each(Object.keys(PHASES))('%s leaves nothing behind', async (phase) => {
    const socket = await (PHASES[phase] as () => Promise<Socket>)()
    socket.on('error', () => {})
    if (how === 'leaves') socket.destroy()
    else socket.resetAndDestroy()
  })
})

test('success, refusals and upstream resets leave nothing behind', async () => {
  const client = app.client({ maxSockets: 10 })
  const url = `https://${authority}`
  const ask = async (n: number) => {
    if (n === 60) auth.revokeAccessTokens()
    const path = ['/ok', '/reset', '/reset-within', '/ok'][n % 4] as string
    const method = n % 3 === 0 ? 'POST' : 'GET'
    const body = method === 'POST' ? { body: 'x'.repeat(n * 1000) } : {}
    try {
      return (await client.request(url + path, { method, ...body })).status
    } catch (error) {
      return (error as NodeJS.ErrnoException).code
    }
  }
  const outcomes = await Promise.all(Array.from({ length: 120 }, (_, n) => ask(n)))
  const answer = [200, 502, 'ECONNRESET', 200]
  expect(outcomes).toEqual(outcomes.map((_, n) => answer[n % 4]))
  await client[Symbol.asyncDispose]()
})

test('far ends that close tunnels leave nothing behind', async () => {
  const client = app.client()
  const { socket } = await client.tunnel(`127.0.0.1:${echoPort}`)
  socket.on('error', () => {}).resume()
  await expect.poll(() => echo.openSockets).toBe(1)
  await echo.close()
  await once(socket, 'close')
})
