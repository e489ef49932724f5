import { createHash, randomBytes } from 'node:crypto'
import { constants, type ServerHttp2Stream } from 'node:http2'
import { Readable } from 'node:stream'
import { afterEach, describe, expect, test } from 'vitest'
import { resetStream } from '../../src/egress/http2-fields.ts'
import type { Http2Request } from '../support/http2-origin.ts'
import { bodyOf, type Http2Origin, startHttp2Origin } from '../support/http2-origin.ts'
import { PatientClock } from '../support/patient-clock.ts'
import { settled, until } from '../support/until.ts'
import { failureOf, Harness, type HarnessOptions } from './harness.ts'

type Handler = (stream: ServerHttp2Stream, request: Http2Request) => void | Promise<void>

const open: AsyncDisposable[] = []
afterEach(async () => {
  for (const each of open.splice(0).reverse()) await each[Symbol.asyncDispose]()
})

async function setUp(
  handler: Handler,
  settings = {},
  options: HarnessOptions = {},
): Promise<{ origin: Http2Origin; harness: Harness }> {
  const origin = await startHttp2Origin({ handler, settings })
  const harness = new Harness(options)
  open.push(origin, harness)
  return { origin, harness }
}

const sha = (data: Buffer) => createHash('sha256').update(data).digest('hex')

describe('a request over HTTP/2', () => {
  test('has its pseudo fields, and its own in lower case and order, without those of one connection', async () => {
    const { origin, harness } = await setUp((stream) => {
      stream.respond({ ':status': 200 }, { endStream: true })
    })
    await harness.send('direct', `${origin.url}/path?q=1`, 'k', {
      headers: [
        ...['X-First', 'a', 'Host', `api.test:${origin.port}`, 'x-caf\xe9'.slice(0, 5), '\xe9\xff'],
        ...['Connection', 'close', 'Keep-Alive', '5', 'Transfer-Encoding', 'chunked'],
        ...['TE', 'trailers', 'X-Twice', 'one', 'x-twice', 'two', 'Content-Type', 'a/b'],
        ...['Content-Type', 'c/d', '__proto__', 'own'],
      ],
    }).whole
    const { raw } = origin.requests[0] as Http2Request
    expect(raw).toEqual([
      ...[':method', 'GET', ':scheme', 'https', ':authority', `api.test:${origin.port}`],
      ...[':path', '/path?q=1', 'x-first', 'a', 'x-caf', '\xe9\xff', 'te', 'trailers'],
      ...['x-twice', 'one', 'x-twice', 'two', 'content-type', 'a/b, c/d', '__proto__', 'own'],
    ])
  })

  test('shares the connection with others, and tells so', async () => {
    const { origin, harness } = await setUp((stream) => {
      stream.respond({ ':status': 200 })
      stream.end('x')
    })
    const url = `${origin.url}/`
    const first = await harness.send('direct', url, 'k').whole
    const more = await Promise.all(
      Array.from({ length: 20 }, () => harness.send('direct', url, 'k').whole),
    )
    expect(origin.sessions).toHaveLength(1)
    expect(first.departures).toMatchObject([{ reused: false }])
    expect(more.every((each) => each.departures[0]?.reused)).toBe(true)
    expect(origin.openStreams).toBe(0)
  })

  test('never shares it with another key', async () => {
    const { origin, harness } = await setUp((stream) => {
      stream.respond({ ':status': 200 }, { endStream: true })
    })
    await Promise.all(['a', 'b'].map((key) => harness.send('direct', `${origin.url}/`, key).whole))
    expect(origin.sessions).toHaveLength(2)
  })

  test('goes by a further connection where the peer allows no more streams', async () => {
    const waiting: ServerHttp2Stream[] = []
    const { origin, harness } = await setUp(
      (stream, { headers }) => {
        if (headers[':path'] === '/wait') waiting.push(stream)
        else stream.respond({ ':status': 200 }, { endStream: true })
      },
      { maxConcurrentStreams: 2 },
    )
    // With its answer the peer's settings are there.
    await harness.send('direct', `${origin.url}/`, 'k').whole
    const answers = [1, 2, 3].map(() => harness.send('direct', `${origin.url}/wait`, 'k').whole)
    await until(() => waiting.length === 3)
    for (const stream of waiting) stream.respond({ ':status': 200 }, { endStream: true })
    await Promise.all(answers)
    expect(origin.sessions).toHaveLength(2)
  })

  test('streams its body and its trailers, as fast as upstream takes them', async () => {
    let read: (() => Promise<Buffer>) | undefined
    let trailers: unknown
    const { origin, harness } = await setUp((stream) => {
      stream.on('trailers', (fields: object) => {
        trailers = fields
      })
      read = () => bodyOf(stream)
      stream.respond({ ':status': 200 })
    })
    const block = randomBytes(64 * 1024)
    let made = 0
    const body = new Readable({
      highWaterMark: 1,
      read() {
        made += 1
        this.push(made > 256 ? null : block)
      },
    })
    const response = harness.send('direct', `${origin.url}/`, 'k', {
      method: 'POST',
      body,
      trailers: () => ['X-Sum', '42'],
    })
    await response.begun
    await settled(() => made)
    // The peer's window and what lies between, far less than the 16 MiB.
    expect(made * block.length).toBeLessThan(4 * 2 ** 20)
    const received = await (read as () => Promise<Buffer>)()
    expect(received.length).toBe(256 * block.length)
    expect(trailers).toMatchObject({ 'x-sum': '42' })
    response.sending.abort()
  })

  test('ends when its own body breaks off, and upstream sees no whole request', async () => {
    const ended: string[] = []
    const { origin, harness } = await setUp((stream) => {
      stream.on('aborted', () => ended.push('aborted'))
      stream.on('end', () => ended.push('end'))
      stream.resume()
    })
    const body = new Readable({ read() {} })
    body.push('begun')
    const response = harness.send('direct', `${origin.url}/`, 'k', { method: 'POST', body })
    await until(() => origin.requests.length === 1)
    body.destroy(new Error('the client left'))
    await expect(response.whole).rejects.toThrow()
    await until(() => origin.openStreams === 0)
    expect(ended[0]).toBe('aborted')
  })

  test('that cannot stand in a field block harms nobody else', async () => {
    const { origin, harness } = await setUp((stream) => {
      stream.respond({ ':status': 200 }, { endStream: true })
    })
    await harness.send('direct', `${origin.url}/`, 'k').whole
    for (const headers of [
      ['host', 'x', 'x-bad', 'a\0b'],
      ['host', 'x', 'x-bad', 'a\r\nb: c'],
    ]) {
      const failure = await failureOf(
        harness.send('direct', `${origin.url}/`, 'k', { headers }).whole,
      )
      expect(failure).toMatchObject({ code: 'BAD_REQUEST', sent: false })
    }
    await harness.send('direct', `${origin.url}/`, 'k').whole
    expect(origin.sessions).toHaveLength(1)
  })
})

describe('a response over HTTP/2', () => {
  test('comes with its fields in order, without pseudo fields, and its trailers', async () => {
    const { origin, harness } = await setUp((stream) => {
      stream.additionalHeaders({ ':status': 103, link: '</style.css>' })
      stream.on('wantTrailers', () =>
        stream.sendTrailers({ 'grpc-status': '0', 'set-cookie': 'no' }),
      )
      stream.respond({ ':status': 202, 'x-b': 'caf\xe9', 'set-cookie': ['a=1', 'b=2'] }, {
        waitForTrailers: true,
        sendDate: false,
      } as object)
      stream.end('body')
    })
    const response = await harness.send('direct', `${origin.url}/`, 'k').whole
    expect(response.status).toBe(202)
    expect(response.reason).toBe('')
    expect(response.headers).toEqual(['x-b', 'caf\xe9', 'set-cookie', 'a=1', 'set-cookie', 'b=2'])
    expect(response.interim).toEqual([
      { status: 103, reason: '', headers: ['link', '</style.css>'] },
    ])
    expect(response.text).toBe('body')
    expect(response.trailers).toEqual(['grpc-status', '0'])
  })

  test('that nobody takes is held back, and comes whole though its connection has gone meanwhile', async () => {
    const data = randomBytes(300 * 1024)
    let stream: ServerHttp2Stream | undefined
    const { origin, harness } = await setUp((opened, { session }) => {
      stream = opened
      opened.respond({ ':status': 200 })
      opened.end(data)
      opened.once('close', () => session.destroy())
    })
    const response = harness.send('direct', `${origin.url}/`, 'k')
    response.wants = false
    await response.begun
    await until(() => stream?.destroyed === true && origin.openConnections === 0)
    expect(response.bytes).toBeLessThan(data.length)
    response.wants = true
    response.sending.resume()
    await response.whole
    expect(sha(Buffer.concat(response.chunks))).toBe(sha(data))
  })

  test('is not whole where upstream resets it, with an error or without', async () => {
    for (const code of [
      constants.NGHTTP2_NO_ERROR,
      constants.NGHTTP2_CANCEL,
      constants.NGHTTP2_INTERNAL_ERROR,
    ]) {
      const { origin, harness } = await setUp((stream) => {
        stream.respond({ ':status': 200 })
        stream.write('half', () => resetStream(stream, code))
      })
      const failure = await failureOf(harness.send('direct', `${origin.url}/`, 'k').whole)
      expect(failure).toMatchObject({ code: 'UPSTREAM_RESET', sent: true })
    }
  })

  test('that comes before the request has ended stops the request', async () => {
    const { origin, harness } = await setUp((stream) => {
      stream.respond({ ':status': 413 })
      stream.end('too large')
    })
    const body = new Readable({ read() {} })
    body.push('begun')
    const response = await harness.send('direct', `${origin.url}/`, 'k', { method: 'POST', body })
      .whole
    expect([response.status, response.text]).toEqual([413, 'too large'])
    await until(() => origin.openStreams === 0)
    expect(body.destroyed).toBe(false)
    expect((await harness.send('direct', `${origin.url}/`, 'k').whole).status).toBe(413)
    expect(origin.sessions).toHaveLength(1)
  })
})

describe('a stream that fails', () => {
  test('counts as not sent where upstream refused it or never looked at it', async () => {
    const { origin, harness } = await setUp((stream) => {
      stream.close(constants.NGHTTP2_REFUSED_STREAM)
    })
    const failure = await failureOf(harness.send('direct', `${origin.url}/`, 'k').whole)
    expect(failure).toMatchObject({ code: 'UPSTREAM_RESET', sent: false })
  })

  test('counts as not sent where it lies above the last one of a GOAWAY', async () => {
    const { origin, harness } = await setUp((stream, { session, headers }) => {
      if (headers[':path'] === '/first') return
      // As a server would that had not come to the second one.
      session.goaway(constants.NGHTTP2_NO_ERROR, (stream.id as number) - 2)
    })
    const first = harness.send('direct', `${origin.url}/first`, 'k')
    await until(() => origin.requests.length === 1)
    const second = harness.send('direct', `${origin.url}/second`, 'k')
    expect(await failureOf(second.whole)).toMatchObject({ code: 'UPSTREAM_RESET', sent: false })
    // The connection takes no more, and serves what it had begun.
    const third = harness.send('direct', `${origin.url}/first`, 'k')
    await until(() => origin.requests.length === 3)
    expect(origin.requests[2]?.connection).toBe(2)
    first.sending.abort()
    third.sending.abort()
    await failureOf(first.whole)
    await failureOf(third.whole)
  })

  test('counts as sent where the connection broke', async () => {
    const { origin, harness } = await setUp((_stream, { session }) => session.destroy())
    const failure = await failureOf(harness.send('direct', `${origin.url}/`, 'k').whole)
    expect(failure).toMatchObject({ code: 'UPSTREAM_RESET', sent: true })
    expect(origin.requests).toHaveLength(1)
  })

  test('times out by phase, and the connection goes on', async () => {
    const { origin, harness } = await setUp(
      (stream, { headers }) => {
        if (headers[':path'] === '/head') return
        stream.respond({ ':status': 200 })
        if (headers[':path'] === '/body') stream.write('half')
        else stream.end('whole')
      },
      {},
      {
        upstream: { headersTimeout: '200ms', bodyTimeout: '200ms' },
        clock: new PatientClock(),
      },
    )
    const failures = await Promise.all(
      ['/head', '/body'].map((path) =>
        failureOf(harness.send('direct', origin.url + path, 'k').whole),
      ),
    )
    expect(failures.map(({ code, message }) => [code, message])).toEqual([
      ['UPSTREAM_TIMEOUT', 'upstream sent no response in time'],
      ['UPSTREAM_TIMEOUT', 'upstream stalled within its response'],
    ])
    await until(() => origin.openStreams === 0)
    expect((await harness.send('direct', `${origin.url}/fine`, 'k').whole).text).toBe('whole')
  })

  test('is reset when its request is given up', async () => {
    const codes: number[] = []
    const { origin, harness } = await setUp((stream) => {
      stream.on('close', () => codes.push(stream.rstCode))
    })
    const response = harness.send('direct', `${origin.url}/`, 'k')
    await until(() => origin.requests.length === 1)
    response.sending.abort()
    await failureOf(response.whole)
    await until(() => codes.length === 1)
    expect(codes).toEqual([constants.NGHTTP2_CANCEL])
  })
})

describe('a connection', () => {
  test('serves what has begun while it drains, and closes then', async () => {
    let stream: ServerHttp2Stream | undefined
    const { origin, harness } = await setUp((opened) => {
      stream = opened
    })
    const response = harness.send('direct', `${origin.url}/`, 'k')
    await until(() => stream !== undefined)
    harness.apply({ upstream: { headersTimeout: '59s' } })
    stream?.respond({ ':status': 200 })
    stream?.end('served')
    expect((await response.whole).text).toBe('served')
    await until(() => origin.openConnections === 0)
  })

  test('ends with all its streams when everything closes', async () => {
    const { origin, harness } = await setUp(() => {})
    const response = harness.send('direct', `${origin.url}/`, 'k')
    await until(() => origin.requests.length === 1)
    await harness.egresses.close()
    expect((await failureOf(response.whole)).sent).toBe(true)
    await until(() => origin.openConnections === 0)
  })
})
