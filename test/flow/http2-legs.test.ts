import { createHash, randomBytes } from 'node:crypto'
import { EventEmitter, once } from 'node:events'
import { request as httpRequest, type IncomingMessage, type ServerResponse } from 'node:http'
import {
  createSecureServer,
  type Http2SecureServer,
  type Http2ServerRequest,
  type Http2ServerResponse,
} from 'node:http2'
import type { Duplex } from 'node:stream'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { startApp, type TestApp } from '../support/app.ts'
import { testAuthority } from '../support/certificates.ts'
import { Http2Client } from '../support/http2-client.ts'
import { bodyOf } from '../support/http2-origin.ts'
import { Listener } from '../support/listener.ts'
import { trusting } from '../support/protected-origin.ts'
import { until } from '../support/until.ts'

/** Each leg speaks its protocol whatever the other one speaks. */
const LEGS = [
  { client: 'h1', upstream: 'h1' },
  { client: 'h1', upstream: 'h2' },
  { client: 'h2', upstream: 'h1' },
  { client: 'h2', upstream: 'h2' },
] as const

const BIG = randomBytes(3 * 2 ** 20)
const sha = (data: Buffer) => createHash('sha256').update(data).digest('hex')

let server: Http2SecureServer
let origin: Listener
let port: number
const apps: Partial<Record<'h1' | 'h2', TestApp>> = {}
/** Tells of each response to `/events`, whose headers are out and whose body the test writes. */
const events = new EventEmitter<{ stream: [Http2ServerResponse] }>()
/** Ways of requests that their client gave up. */
const aborted: string[] = []

beforeAll(async () => {
  server = createSecureServer({ ...testAuthority().issue(['api.test']), allowHTTP1: true }, answer)
  origin = new Listener(server)
  port = await origin.listen('127.0.0.1')
  for (const upstream of ['h1', 'h2'] as const) {
    apps[upstream] = await startApp({
      upstream: { ...trusting(['api.test']), http2: upstream === 'h2' },
      pools: {
        api: {
          targets: [`api.test:${port}`],
          select: 'fill-first',
          credentials: ['dead', 'live'].map((id) => ({
            id,
            source: { type: 'static', token: `token-${id}` },
          })),
        },
      },
    })
  }
})

afterAll(async () => {
  for (const app of Object.values(apps)) await app[Symbol.asyncDispose]()
  await origin?.[Symbol.asyncDispose]()
})

async function answer(request: Http2ServerRequest, response: Http2ServerResponse): Promise<void> {
  const way = request.httpVersionMajor === 2 ? 'h2' : 'h1'
  const { pathname } = new URL(request.url, 'https://api.test')
  const { authorization = '' } = request.headers
  request.on('aborted', () => aborted.push(way + pathname))
  if (pathname === '/events') {
    response.writeHead(200, { 'content-type': 'text/event-stream' })
    ;(response as unknown as ServerResponse).flushHeaders()
    events.emit('stream', response)
    return
  }
  if (pathname === '/hang') return void request.on('error', () => {})
  const body = await bodyOf(request)
  if (pathname === '/heal' && authorization !== 'Bearer token-live') {
    response.writeHead(401, { 'www-authenticate': 'Bearer error="invalid_token"' })
    response.end('no')
    return
  }
  switch (pathname) {
    case '/204':
    case '/304':
      response.writeHead(Number(pathname.slice(1)), { etag: '"x"' })
      response.end()
      break
    case '/103':
      response.writeEarlyHints({ link: '</a.css>; rel=preload' })
      response.end('hinted')
      break
    case '/trailers':
      response.writeHead(200, { trailer: 'x-sum' })
      response.write('with ')
      response.addTrailers({ 'x-sum': '42' })
      response.end('trailers')
      break
    case '/big':
      response.writeHead(200, { 'content-length': BIG.length })
      response.end(BIG)
      break
    default:
      response.writeHead(200, {
        'content-type': 'application/json',
        'set-cookie': ['a=1', 'b=2'],
        'x-text': 'caf\xe9',
      })
      response.end(
        JSON.stringify({
          way,
          method: request.method,
          host: request.headers[':authority'] ?? request.headers.host,
          length: body.length,
          hash: sha(body),
          cookie: request.headers.cookie,
          trailers: request.trailers,
          authorization,
        }),
      )
  }
}

interface Asked {
  readonly method?: string
  readonly headers?: Record<string, string | string[]>
  readonly body?: Buffer
  readonly trailers?: Record<string, string>
}

interface Answer {
  readonly status: number
  readonly headers: string[]
  readonly trailers: string[]
  readonly interim: { status: number; headers: string[] }[]
  readonly body: Buffer
}

interface Client extends AsyncDisposable {
  ask(path: string, asked?: Asked): Promise<Answer>
  /** The body of an answer while it comes. */
  read(path: string): Promise<AsyncIterator<Buffer>>
  /** Sends the head of a request and half of its body; the call gives it up. */
  begin(path: string): Promise<() => void>
}

async function h2Client(app: TestApp, authority: string): Promise<Client> {
  const client = await Http2Client.connect(app, authority)
  return {
    async ask(path, { method = 'GET', headers = {}, body, trailers } = {}) {
      const call = client.open(
        { ':path': path, ':method': method, ...headers },
        { endStream: body === undefined, waitForTrailers: trailers !== undefined },
      )
      if (trailers) call.stream.on('wantTrailers', () => call.stream.sendTrailers(trailers))
      if (body !== undefined) call.stream.end(body)
      return call.whole
    },
    async read(path) {
      const { stream } = await client.open({ ':path': path }).begun
      return stream[Symbol.asyncIterator]()
    },
    async begin(path) {
      const call = client.open({ ':path': path, ':method': 'POST' }, { endStream: false })
      call.stream.write('half')
      return () => call.stream.destroy(new Error('given up'))
    },
    [Symbol.asyncDispose]: () => client[Symbol.asyncDispose](),
  }
}

async function h1Client(app: TestApp, authority: string): Promise<Client> {
  const socket: Duplex = await app.client().connect(authority)
  const open = (path: string, { method = 'GET', headers = {} }: Asked) =>
    httpRequest({
      createConnection: () => socket,
      method,
      path,
      headers: { host: authority, ...headers },
    })
  return {
    async ask(path, asked = {}) {
      const { body, trailers } = asked
      const request = open(path, {
        ...asked,
        headers: {
          connection: 'keep-alive',
          ...asked.headers,
          ...(trailers && { trailer: 'x-in' }),
        },
      })
      const interim: Answer['interim'] = []
      request.on('information', (info) => {
        interim.push({ status: info.statusCode, headers: info.rawHeaders })
      })
      if (trailers) {
        request.write(body)
        request.addTrailers(trailers)
        request.end()
      } else request.end(body)
      const [message] = (await once(request, 'response')) as [IncomingMessage]
      const received = await bodyOf(message)
      return {
        status: message.statusCode ?? 0,
        headers: message.rawHeaders.map((text, i) => (i % 2 === 0 ? text.toLowerCase() : text)),
        trailers: message.rawTrailers,
        interim,
        body: received,
      }
    },
    async read(path) {
      const request = open(path, {})
      request.end()
      const [message] = (await once(request, 'response')) as [IncomingMessage]
      return message[Symbol.asyncIterator]()
    },
    async begin(path) {
      const request = open(path, { method: 'POST', headers: {} })
      request.on('error', () => {})
      request.write('half')
      return () => request.destroy()
    },
    async [Symbol.asyncDispose]() {
      socket.destroy()
    },
  }
}

const fieldOf = (headers: string[], name: string) => headers[headers.indexOf(name) + 1]

describe.each(LEGS)('$client client, $upstream upstream', ({ client, upstream }) => {
  const connect = () =>
    (client === 'h2' ? h2Client : h1Client)(apps[upstream] as TestApp, `api.test:${port}`)
  const json = (answer: Answer) => JSON.parse(answer.body.toString()) as Record<string, unknown>

  test('GET, with cookies in pieces, header bytes beyond ASCII and repeated fields', async () => {
    await using to = await connect()
    const answer = await to.ask('/echo?q=1', { headers: { cookie: ['a=1', 'b=2'] } })
    expect(json(answer)).toMatchObject({
      way: upstream,
      method: 'GET',
      host: `api.test:${port}`,
      cookie: 'a=1; b=2',
    })
    expect(json(answer).authorization).toMatch(/^Bearer token-/)
    expect(answer.headers.filter((_, i) => answer.headers[i - 1] === 'set-cookie')).toEqual([
      'a=1',
      'b=2',
    ])
    expect(fieldOf(answer.headers, 'x-text')).toBe('caf\xe9')
    expect(fieldOf(answer.headers, 'cupbearer-trace')).toMatch(/^\w+$/)
    if (client === 'h2') expect(answer.headers).not.toContain('transfer-encoding')
  })

  test('HEAD, 204 and 304 have no body, and the connection goes on', async () => {
    await using to = await connect()
    for (const [path, method, status] of [
      ['/big', 'HEAD', 200],
      ['/204', 'GET', 204],
      ['/304', 'GET', 304],
      ['/echo', 'GET', 200],
    ] as const) {
      const answer = await to.ask(path, { method })
      expect(answer.status).toBe(status)
      if (path !== '/echo') expect(answer.body).toHaveLength(0)
      if (method === 'HEAD') expect(fieldOf(answer.headers, 'content-length')).toBe(`${BIG.length}`)
    }
  })

  test('POST with a length, without one, and empty', async () => {
    await using to = await connect()
    const body = randomBytes(5000)
    const asked = { method: 'POST', body }
    const sized = await to.ask('/echo', { ...asked, headers: { 'content-length': '5000' } })
    const unsized = await to.ask('/echo', asked)
    const empty = await to.ask('/echo', { method: 'POST', headers: { 'content-length': '0' } })
    expect(json(sized)).toMatchObject({ length: 5000, hash: sha(body) })
    expect(json(unsized)).toMatchObject({ length: 5000, hash: sha(body) })
    expect(json(empty)).toMatchObject({ length: 0 })
  })

  test('trailers both ways', async () => {
    await using to = await connect()
    const there = await to.ask('/echo', {
      method: 'POST',
      body: Buffer.from('body'),
      trailers: { 'x-in': 'there' },
    })
    expect(json(there)).toMatchObject({ length: 4, trailers: { 'x-in': 'there' } })
    const back = await to.ask('/trailers')
    expect([back.body.toString(), back.trailers]).toEqual(['with trailers', ['x-sum', '42']])
  })

  test('103 comes before the answer', async () => {
    await using to = await connect()
    const answer = await to.ask('/103')
    expect(answer.body.toString()).toBe('hinted')
    expect(answer.interim.map(({ status }) => status)).toEqual([103])
    const [hint] = answer.interim
    expect(hint?.headers.join().toLowerCase()).toBe('link,</a.css>; rel=preload')
  })

  test('each event passes before the next is there', async () => {
    await using to = await connect()
    const given = once(events, 'stream')
    const body = await to.read('/events')
    const [response] = await given
    for (const event of ['data: 1\n\n', 'data: 2\n\n']) {
      response.write(event)
      expect((await body.next()).value.toString()).toBe(event)
    }
    response.end()
    expect((await body.next()).done).toBe(true)
  })

  test('3 MiB each way are the same at the other end', async () => {
    await using to = await connect()
    const answer = await to.ask('/big')
    expect(sha(answer.body)).toBe(sha(BIG))
    const there = await to.ask('/echo', { method: 'PUT', body: BIG })
    expect(json(there)).toMatchObject({ length: BIG.length, hash: sha(BIG) })
  })

  test('a 401 is healed, and the body sent again', async () => {
    await using to = await connect()
    const body = randomBytes(200_000)
    const answer = await to.ask('/heal', { method: 'POST', body })
    expect(answer.status).toBe(200)
    expect(json(answer)).toMatchObject({ hash: sha(body), authorization: 'Bearer token-live' })
    const app = apps[upstream] as TestApp
    await app.admin('/api/pools/api/credentials/dead/release', 'POST')
  })

  test('a client that gives up takes its request upstream with it', async () => {
    await using to = await connect()
    aborted.length = 0
    const given = once(server, 'request')
    const giveUp = await to.begin('/hang')
    await given
    giveUp()
    await until(() => aborted.length > 0)
    expect(aborted).toEqual([`${upstream}/hang`])
  })
})
