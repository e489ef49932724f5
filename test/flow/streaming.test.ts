import { createHash, randomFillSync } from 'node:crypto'
import { EventEmitter, once } from 'node:events'
import { request as httpRequest, type IncomingMessage, type ServerResponse } from 'node:http'
import { Readable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { type ChildApp, ChildFolder } from '../support/child-app.ts'
import { type Origin, startOrigin } from '../support/origin.ts'
import { trusting } from '../support/protected-origin.ts'
import { settled } from '../support/until.ts'

const MIB = 2 ** 20
const PIECES = 1024
/** Growth of the proxy's memory that a gigabyte may cost. */
const MAX_GROWTH_MIB = 64
const STALLS = 4

/** A piece of a gigabyte; none is like another. */
const block = randomFillSync(Buffer.alloc(MIB))
function piece(index: number): Buffer {
  const copy = Buffer.from(block)
  copy.writeUInt32BE(index)
  return copy
}
let expected = ''

/** How many pieces the sending side is rid of: it stands still when the proxy holds it back. */
let sent = 0
let seen: { hash: string; bytes: number; headers: string[] } | undefined
/** Tells of each response to `/events`, whose headers are out and whose body the test writes. */
const events = new EventEmitter<{ stream: [ServerResponse] }>()
let secure: Origin
let plain: Origin
let folder: ChildFolder
let app: ChildApp

beforeAll(async () => {
  const hash = createHash('sha1')
  for (let index = 0; index < PIECES; index++) hash.update(piece(index))
  expected = hash.digest('hex')
  secure = await startOrigin({ tls: true, handler })
  plain = await startOrigin({ handler })
  folder = new ChildFolder({
    upstream: trusting(['api.test']),
    pools: {
      api: {
        targets: [`api.test:${secure.port}`],
        replay: { memory: '256KiB', disk: '1MiB' },
        credentials: [{ id: 'a', source: { type: 'static', token: 'token-of-a' } }],
      },
    },
  })
  app = await folder.start()
})

afterAll(async () => {
  await app?.[Symbol.asyncDispose]()
  folder?.[Symbol.dispose]()
  await secure?.[Symbol.asyncDispose]()
  await plain?.[Symbol.asyncDispose]()
})

async function handler(request: IncomingMessage, response: ServerResponse): Promise<void> {
  if (request.method === 'POST') {
    seen = { ...(await consume(request)), headers: request.rawHeaders }
    response.end()
  } else if (request.url === '/gigabyte') {
    response.writeHead(200, { 'content-length': PIECES * MIB })
    await pipeline(Readable.from(gigabyte()), response)
  } else if (request.url === '/events') {
    response.writeHead(200, { 'content-type': 'text/event-stream' }).flushHeaders()
    events.emit('stream', response)
  } else {
    response.end('small')
  }
}

async function* gigabyte(): AsyncGenerator<Buffer> {
  for (sent = 0; sent < PIECES; sent++) yield piece(sent)
}

/** Reads to the end, and a few times not until the sender has been held back. */
async function consume(from: AsyncIterable<Buffer>): Promise<{ hash: string; bytes: number }> {
  const hash = createHash('sha1')
  let bytes = 0
  let stalls = 0
  for await (const chunk of from) {
    hash.update(chunk)
    bytes += chunk.length
    if (stalls < STALLS && bytes > (stalls * PIECES * MIB) / STALLS) {
      stalls += 1
      await senderHeldBack()
    }
  }
  return { hash: hash.digest('hex'), bytes }
}

const senderHeldBack = () => settled(() => sent)

/** Runs a transfer; the growth of the proxy's memory over it, in MiB, at its worst. */
async function growthOver(transfer: () => Promise<void>): Promise<number> {
  seen = undefined
  const before = app.residentMiB()
  let most = before
  const sampler = setInterval(() => {
    most = Math.max(most, app.residentMiB())
  }, 20)
  try {
    await transfer()
  } finally {
    clearInterval(sampler)
  }
  return most - before
}

/** A request through a blind tunnel: plain HTTP, which the proxy has no business to understand. */
async function inTunnel(method: string, path: string) {
  const { socket, status } = await app.client().tunnel(`127.0.0.1:${plain.port}`)
  expect(status).toBe(200)
  const request = httpRequest({
    method,
    path,
    headers: { host: 'tunnelled.test', connection: 'close' },
    createConnection: () => socket,
  })
  request.once('socket', () => socket.resume())
  const response = once(request, 'response') as Promise<[IncomingMessage]>
  return { request, response: response.then(([message]) => message) }
}

describe('a gigabyte costs the proxy no memory', () => {
  beforeAll(async () => {
    const { request, response } = await inTunnel('GET', '/small')
    request.end()
    ;(await response).resume()
    await app.client().request(`https://api.test:${secure.port}/small`)
  })

  test('downloaded from a mapped host by a reader that stalls', async () => {
    const growth = await growthOver(async () => {
      const message = await app.client().open(`https://api.test:${secure.port}/gigabyte`)
      expect(await consume(message)).toEqual({ hash: expected, bytes: PIECES * MIB })
    })
    expect(growth).toBeLessThan(MAX_GROWTH_MIB)
  }, 120_000)

  test('uploaded in chunks to a mapped host that is slow to read', async () => {
    const growth = await growthOver(async () => {
      const answer = await app.client().request(`https://api.test:${secure.port}/`, {
        method: 'POST',
        body: gigabyte(),
      })
      expect(answer.status).toBe(200)
    })
    expect(seen).toMatchObject({ hash: expected, bytes: PIECES * MIB })
    expect(seen?.headers).toContain('Bearer token-of-a')
    expect(seen?.headers.map((text) => text.toLowerCase())).toContain('chunked')
    expect(growth).toBeLessThan(MAX_GROWTH_MIB)
  }, 120_000)

  test('downloaded through a blind tunnel by a reader that stalls', async () => {
    const growth = await growthOver(async () => {
      const { request, response } = await inTunnel('GET', '/gigabyte')
      request.end()
      expect(await consume(await response)).toEqual({ hash: expected, bytes: PIECES * MIB })
    })
    expect(growth).toBeLessThan(MAX_GROWTH_MIB)
  }, 120_000)

  test('uploaded through a blind tunnel to a reader that stalls', async () => {
    const growth = await growthOver(async () => {
      const { request, response } = await inTunnel('POST', '/')
      await pipeline(Readable.from(gigabyte()), request)
      expect((await response).statusCode).toBe(200)
    })
    expect(seen).toMatchObject({ hash: expected, bytes: PIECES * MIB })
    expect(growth).toBeLessThan(MAX_GROWTH_MIB)
  }, 120_000)
})

describe('a stream of events', () => {
  async function subscribe(): Promise<{ stream: ServerResponse; message: IncomingMessage }> {
    const opened = once(events, 'stream') as Promise<[ServerResponse]>
    const message = await app.client().open(`https://api.test:${secure.port}/events`)
    return { stream: (await opened)[0], message }
  }

  test('begins for the client before upstream has sent an event, and each passes at once', async () => {
    const { stream, message } = await subscribe()
    expect(message.headers['content-type']).toBe('text/event-stream')
    const chunks = message[Symbol.asyncIterator]() as AsyncIterator<Buffer>
    for (const event of ['data: one\n\n', 'data: two\n\n']) {
      stream.write(event)
      expect((await chunks.next()).value?.toString()).toBe(event)
    }
    stream.end()
    expect((await chunks.next()).done).toBe(true)
  })

  test('is cut upstream when the client leaves', async () => {
    const { stream, message } = await subscribe()
    const closed = once(stream, 'close')
    message.destroy()
    await closed
    expect(stream.writableFinished).toBe(false)
  })
})
