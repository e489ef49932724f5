import { once } from 'node:events'
import type { ServerResponse } from 'node:http'
import { constants, type ServerHttp2Stream } from 'node:http2'
import { afterEach, describe, expect, test } from 'vitest'
import { startApp, type TestApp } from '../support/app.ts'
import { Http2Client } from '../support/http2-client.ts'
import {
  END_HEADERS,
  END_STREAM,
  FRAME,
  FrameClient,
  frame,
  getHeaders,
} from '../support/http2-frames.ts'
import { bodyOf, startHttp2Origin } from '../support/http2-origin.ts'
import { type Origin, type OriginOptions, startOrigin } from '../support/origin.ts'
import { PatientClock } from '../support/patient-clock.ts'
import { trusting } from '../support/protected-origin.ts'
import { settled, until } from '../support/until.ts'

const open: AsyncDisposable[] = []
afterEach(async () => {
  for (const each of open.splice(0).reverse()) await each[Symbol.asyncDispose]()
})

interface Stage {
  readonly app: TestApp
  readonly origin: Origin
  readonly authority: string
  readonly client: Http2Client
}

/** A client that speaks HTTP/2 with the proxy, which speaks HTTP/1.1 with the origin. */
async function setUp(handler?: OriginOptions['handler'], more: object = {}): Promise<Stage> {
  const origin = await startOrigin({ tls: true, ...(handler && { handler }) })
  open.push(origin)
  const authority = `api.test:${origin.port}`
  const app = await startApp({ ...configOf(authority), ...more }, undefined, new PatientClock())
  open.push(app)
  const client = await Http2Client.connect(app, authority)
  open.push(client)
  return { app, origin, authority, client }
}

function configOf(authority: string): object {
  return {
    upstream: trusting(['api.test']),
    pools: {
      api: {
        targets: [authority],
        credentials: [{ id: 'a', source: { type: 'static', token: 'token-of-a' } }],
      },
    },
  }
}

const codeOf = (body: Buffer) => JSON.parse(body.toString()).error.code as string

describe('a request by HTTP/2', () => {
  test('that names another authority, scheme or Host gets 421, and upstream hears nothing', async () => {
    const { client, origin, authority } = await setUp()
    for (const headers of [
      { ':authority': 'other.test' },
      { ':authority': 'api.test:1' },
      { ':scheme': 'http' },
      { host: 'other.test' },
    ]) {
      const answer = await client.get('/', headers)
      expect([answer.status, codeOf(answer.body)]).toEqual([421, 'AUTHORITY_MISMATCH'])
    }
    expect(origin.requests).toEqual([])
    expect((await client.get('/', { host: authority.toUpperCase() })).status).toBe(200)
  })

  test('is refused as an HTTP/1 one is: same status, same fields, same body', async () => {
    const { client, app, authority } = await setUp()
    const h2 = await client.get('/', { ':method': 'TRACE' })
    const h1 = await app.client().request(`https://${authority}/`, { method: 'TRACE' })
    const fields = (raw: string[]) =>
      raw
        .map((text, i) => (i % 2 === 0 ? text.toLowerCase() : text))
        .filter(
          (_, i, all) => !/^(cupbearer-trace|connection|keep-alive)$/.test(all[i & ~1] as string),
        )
    expect(h2.status).toBe(405)
    expect(fields(h2.headers)).toEqual(fields(h1.rawHeaders))
    const same = (body: Buffer) => ({ ...JSON.parse(body.toString()).error, trace: '' })
    expect(same(h2.body)).toEqual(same(h1.body))
  })

  test.each([
    ['a lower-case method', { ':method': 'get' }, 400, 'BAD_REQUEST'],
    ['an unknown expectation', { expect: 'more' }, 417, 'EXPECTATION_FAILED'],
  ])('with %s is refused, and the connection goes on', async (_what, headers, status, code) => {
    const { client, origin } = await setUp()
    const answer = await client.get('/', headers)
    expect([answer.status, codeOf(answer.body)]).toEqual([status, code])
    expect(origin.requests).toEqual([])
    expect((await client.get('/')).status).toBe(200)
  })

  test('CONNECT without WebSocket is refused', async () => {
    const { client, authority, origin } = await setUp()
    const answer = await client.open({ ':method': 'CONNECT', ':authority': authority }).whole
    expect([answer.status, codeOf(answer.body)]).toEqual([400, 'BAD_REQUEST'])
    expect(origin.requests).toEqual([])
  })

  test('that waits for a 100 gets it when its body is wanted', async () => {
    const { client } = await setUp(async (request, response) => {
      response.end(await bodyOf(request))
    })
    for (const length of [5, 200_000]) {
      const call = client.open(
        { ':path': '/', ':method': 'POST', expect: '100-continue', 'content-length': length },
        { endStream: false },
      )
      await once(call.stream, 'continue')
      call.stream.end(Buffer.alloc(length, 'x'))
      expect((await call.whole).body).toHaveLength(length)
    }
  })

  test('that breaks off within its body is never whole upstream', async () => {
    const ends: string[] = []
    const { client } = await setUp((request) => {
      request.on('data', () => ends.push('data'))
      request.on('end', () => ends.push('end'))
      request.on('error', () => ends.push('error'))
    })
    for (const code of [constants.NGHTTP2_NO_ERROR, constants.NGHTTP2_CANCEL]) {
      ends.length = 0
      const call = client.open({ ':path': '/', ':method': 'POST' }, { endStream: false })
      call.stream.write(Buffer.alloc(1000))
      await until(() => ends.includes('data'))
      call.stream._final = (done) => done()
      call.stream.close(code)
      await until(() => ends.includes('error'))
      expect(ends).not.toContain('end')
    }
  })

  test('with more header bytes than server.maxHeaderSize is refused', async () => {
    const { client, origin } = await setUp()
    const headers = { 'x-long': 'x'.repeat(20_000) }
    for (const _ of [1, 2]) expect((await client.get('/', headers)).status).toBe(400)
    expect(origin.requests).toEqual([])
    expect((await client.get('/')).status).toBe(200)
  })

  test('is one of 300 at once, all of them served', async () => {
    const waiting: ServerHttp2Stream[] = []
    const origin = await startHttp2Origin({
      handler: (stream) => {
        waiting.push(stream)
      },
    })
    open.push(origin)
    const authority = `api.test:${origin.port}`
    const app = await startApp(configOf(authority))
    open.push(app)
    const client = await Http2Client.connect(app, authority)
    open.push(client)
    // As many as the proxy's settings allow are under way, the rest wait with the client.
    const answers = Array.from({ length: 300 }, (_, i) => client.get(`/${i}`))
    await until(() => waiting.length >= 256)
    let served = 0
    while (served < 300) {
      for (const stream of waiting.splice(0)) {
        stream.respond({ ':status': 200 }, { endStream: true })
        served += 1
      }
      await tick()
    }
    expect((await Promise.all(answers)).every(({ status }) => status === 200)).toBe(true)
  })
})

describe('an answer by HTTP/2', () => {
  test('has its names in lower case and nothing of the HTTP/1 connection', async () => {
    const { client } = await setUp((_request, response) => {
      response.writeHead(200, [
        ...[
          'Content-Type',
          'a/b',
          'X-Mixed-Case',
          'kept',
          'Connection',
          'x-private',
          'X-Private',
          '1',
        ],
        ...['Keep-Alive', 'timeout=9', 'Content-Type', 'c/d', 'Set-Cookie', 'a', 'Set-Cookie', 'b'],
      ])
      response.end('body')
    })
    const { headers } = await client.get('/')
    const trace = headers.indexOf('cupbearer-trace')
    headers.splice(trace, 2)
    expect(headers.filter((_, i, all) => all[i & ~1] !== 'date')).toEqual([
      ...['content-type', 'a/b', 'x-mixed-case', 'kept', 'content-type', 'c/d'],
      ...['set-cookie', 'a', 'set-cookie', 'b'],
    ])
  })

  test('that breaks off upstream is reset, and never looks whole', async () => {
    const { client, origin } = await setUp((request, response) => {
      response.writeHead(200, request.url === '/sized' ? { 'content-length': 1000 } : {})
      response.write('half', () => response.destroy())
    })
    for (const path of ['/sized', '/chunked']) {
      const call = client.open({ ':path': path })
      await expect(call.whole).rejects.toThrow(/reset|INTERNAL_ERROR/)
      expect(call.stream.rstCode).toBe(constants.NGHTTP2_INTERNAL_ERROR)
    }
    expect(origin.requests).toHaveLength(2)
  })

  test('keeps a status that only its origin knows', async () => {
    const { client } = await setUp((_request, response) => {
      response.writeHead(999)
      response.end('denied')
    })
    const answer = await client.get('/')
    expect([answer.status, answer.body.toString()]).toEqual([999, 'denied'])
  })

  test('passes at once, event by event', async () => {
    const streams: ServerResponse[] = []
    const { client } = await setUp((_request, response) => {
      response.writeHead(200, { 'content-type': 'text/event-stream' })
      response.flushHeaders()
      streams.push(response)
    })
    const call = await client.open({ ':path': '/' }).begun
    const events: string[] = []
    call.stream.on('data', (chunk: Buffer) => events.push(chunk.toString()))
    for (const event of ['data: 1\n\n', 'data: 2\n\n']) {
      streams[0]?.write(event)
      await until(() => events.join('').endsWith(event))
    }
    streams[0]?.end()
    await call.whole
  })

  test('that its client does not take holds upstream back, and its neighbours not', async () => {
    let written = 0
    const { client } = await setUp((request, response) => {
      if (request.url !== '/endless') return void response.end('small')
      const more = () => {
        do written += 65_536
        while (response.write(Buffer.alloc(65_536)))
        response.once('drain', more)
      }
      more()
    })
    const call = client.open({ ':path': '/endless' })
    call.stream.pause()
    await settled(() => written)
    expect(written).toBeLessThan(16 * 2 ** 20)
    expect((await client.get('/small')).body.toString()).toBe('small')
  })

  test('is given up upstream when its client resets it', async () => {
    let closed = 0
    const { client, app } = await setUp((_request, response) => {
      response.on('close', () => {
        closed += 1
      })
      response.write('begun')
    })
    const call = await client.open({ ':path': '/' }).begun
    call.stream.close(constants.NGHTTP2_CANCEL)
    await until(() => closed === 1)
    await until(async () => (await app.admin('/api/pools/api')).credentials[0].inFlight === 0)
  })
})

describe('an HTTP/2 connection', () => {
  test('serves what is under way while it drains, and ends then', async () => {
    const waiting: ServerResponse[] = []
    const { client, app } = await setUp((_request, response) => {
      waiting.push(response)
    })
    const answers = Array.from({ length: 200 }, (_, i) => client.get(`/${i}`))
    await until(() => waiting.length === 200)
    const goaway = once(client.session, 'goaway')
    const stopped = app.app.stop()
    await goaway
    for (const response of waiting) response.end('served')
    const bodies = (await Promise.all(answers)).map(({ body }) => body.toString())
    expect(bodies.every((body) => body === 'served')).toBe(true)
    await stopped
  })

  test('ends after server.idleTimeout without a request', async () => {
    const { client } = await setUp(undefined, { server: { idleTimeout: '600ms' } })
    await client.get('/')
    await once(client.session, 'goaway')
  })

  test('ends after server.headersTimeout where its client says nothing', async () => {
    const { app, authority } = await setUp(undefined, { server: { headersTimeout: '300ms' } })
    const silent = await FrameClient.connect(app, authority)
    await silent.closed
  })

  test('loses a stream whose client neither sends nor takes, and nothing else', async () => {
    const { client } = await setUp(
      async (request, response) => {
        if (request.url === '/download') response.end(Buffer.alloc(2 ** 22))
        else if (request.url === '/upload') await bodyOf(request).catch(() => {})
        else response.end('served')
      },
      {
        server: { idleTimeout: '400ms' },
        upstream: { ...trusting(['api.test']), headersTimeout: '1s', bodyTimeout: '1s' },
      },
    )
    const upload = client.open({ ':path': '/upload', ':method': 'POST' }, { endStream: false })
    upload.stream.write('half')
    const download = client.open({ ':path': '/download' })
    download.stream.pause()
    await expect(upload.whole).rejects.toThrow(`${constants.NGHTTP2_CANCEL}`)
    await once(download.stream, 'close')
    expect(download.stream.rstCode).toBe(constants.NGHTTP2_CANCEL)
    expect((await client.get('/')).body.toString()).toBe('served')
  })

  test.each([
    ['pings', () => frame(FRAME.ping, 0, 0, Buffer.alloc(8))],
    ['settings', () => frame(FRAME.settings)],
    [
      'empty continuations',
      (i: number) => frame(i === 0 ? FRAME.headers : FRAME.continuation, 0, 1),
    ],
    [
      'requests that are reset at once',
      (i: number, authority: string) =>
        Buffer.concat([
          frame(FRAME.headers, END_HEADERS | END_STREAM, 2 * i + 1, getHeaders(authority)),
          frame(FRAME.rstStream, 0, 2 * i + 1, Buffer.from([0, 0, 0, 8])),
        ]),
    ],
  ])('ends in a flood of %s', async (_what, make) => {
    const { app, authority, origin } = await setUp()
    const flood = await FrameClient.connect(app, authority)
    open.push(flood)
    flood.greet()
    let over = false
    void flood.closed.then(() => {
      over = true
    })
    for (let i = 0; !over && i < 100_000; ) {
      const frames = Array.from({ length: 200 }, () => make(i++, authority))
      flood.send(...frames)
      await tick()
    }
    await flood.closed
    // Its idle time alone would end it without an error; a word may be lost where the client's own bytes cross with it.
    const said = flood.received.filter(({ type }) => type === FRAME.goaway)
    expect(said.map(({ payload }) => payload.readUInt32BE(4))).not.toEqual([0])
    expect(origin.requests.length).toBeLessThan(3000)
    const other = await Http2Client.connect(app, authority)
    open.push(other)
    expect((await other.get('/')).status).toBe(200)
  })
})

const tick = () => new Promise<undefined>((resolve) => setImmediate(resolve, undefined))
