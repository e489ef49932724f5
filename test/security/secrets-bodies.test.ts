import { once } from 'node:events'
import type { IncomingMessage, ServerResponse } from 'node:http'
import {
  brotliCompressSync,
  constants,
  createGzip,
  deflateRawSync,
  deflateSync,
  gzipSync,
} from 'node:zlib'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { startApp, type TestApp } from '../support/app.ts'
import type { ProxyClient } from '../support/client.ts'
import { type Origin, startOrigin } from '../support/origin.ts'
import { trusting } from '../support/protected-origin.ts'

const TOKEN = 'tok-0123456789/abcdef+ghijkl=end'
const REPLACED = '[redacted]'.padEnd(TOKEN.length, '*')
const TEXT = `{"seen":"${TOKEN}","and":"${TOKEN}"}`

let origin: Origin
let app: TestApp
let scrubbed: ProxyClient
let answer: (request: IncomingMessage, response: ServerResponse) => void = () => {}

beforeAll(async () => {
  origin = await startOrigin({ tls: true, handler: (...args) => answer(args[0], args[1]) })
  const pool = (host: string, more: object) => ({
    targets: [`${host}:${origin.port}`],
    ...more,
    credentials: [{ id: 'one', source: { type: 'static', token: TOKEN } }],
  })
  app = await startApp({
    upstream: { ...trusting(['api.test', 'raw.example.test']), bodyTimeout: '5s' },
    pools: {
      scrubbed: pool('api.test', { scrubBody: true }),
      raw: pool('raw.example.test', {}),
    },
  })
  scrubbed = app.client()
})
afterAll(async () => {
  await app?.[Symbol.asyncDispose]()
  await origin?.close()
})

const url = () => `https://api.test:${origin.port}/`

test('without the option a body passes as it came', async () => {
  answer = (_request, response) => response.end(TEXT)
  const { body } = await scrubbed.request(`https://raw.example.test:${origin.port}/`)
  expect(body.toString()).toBe(TEXT)
})

test('a plain body keeps its length', async () => {
  answer = (_request, response) => {
    response.writeHead(200, { 'content-length': TEXT.length, digest: 'sha-256=x' }).end(TEXT)
  }
  const { body, headers } = await scrubbed.request(url())
  expect(body.toString()).toBe(TEXT.replaceAll(TOKEN, REPLACED))
  expect(headers['content-length']).toBe(String(TEXT.length))
  expect(headers.digest).toBeUndefined()
})

test.each([
  ['gzip', gzipSync],
  ['deflate', deflateSync],
  ['deflate', deflateRawSync],
  ['br', brotliCompressSync],
] as const)('a body in %s is searched, and leaves as it is meant', async (coding, encode) => {
  const bytes = encode(TEXT)
  answer = (_request, response) => {
    response.writeHead(200, { 'content-encoding': coding, 'content-length': bytes.length })
    // One byte in each chunk.
    for (const byte of bytes) response.write(Buffer.of(byte))
    response.end()
  }
  const { body, headers } = await scrubbed.request(url(), {
    headers: { 'accept-encoding': `${coding}, zstd`, range: 'bytes=0-9' },
  })
  expect(body.toString()).toBe(TEXT.replaceAll(TOKEN, REPLACED))
  expect(headers['content-encoding']).toBeUndefined()
  expect(headers['content-length']).toBeUndefined()
  const asked = (origin.requests.at(-1)?.headers ?? []).map((text) => text.toLowerCase())
  expect(asked).not.toContain('range')
  expect(asked[asked.indexOf('accept-encoding') + 1]).toBe(coding)
})

test('a token that comes in pieces is found, and what precedes it need not wait', async () => {
  let more = (): unknown => undefined
  answer = (_request, response) => {
    response.writeHead(200, { 'content-type': 'text/event-stream' })
    response.write(`data: 1\n\n${TOKEN.slice(0, 9)}`)
    more = () => response.end(`${TOKEN.slice(9)}!`)
  }
  const message = await scrubbed.open(url())
  const [first] = (await once(message, 'data')) as [Buffer]
  expect('data: 1\n\n'.startsWith(first.toString())).toBe(true)
  let rest = first.toString()
  message.on('data', (chunk: Buffer) => {
    rest += chunk.toString()
  })
  more()
  await once(message, 'end')
  expect(rest).toBe(`data: 1\n\n${REPLACED}!`)
})

test('events in gzip arrive while the stream is open', async () => {
  let response: ServerResponse | undefined
  const gzip = createGzip({ flush: constants.Z_SYNC_FLUSH })
  answer = (_request, to) => {
    response = to
    to.writeHead(200, { 'content-encoding': 'gzip' })
    gzip.pipe(to)
    gzip.write(`data: ${TOKEN}\n\n`)
  }
  const message = await scrubbed.open(url())
  let text = ''
  for await (const chunk of message) {
    text += String(chunk)
    if (text.endsWith('\n\n') && !gzip.writableEnded) gzip.end('end')
  }
  expect(response?.writableFinished).toBe(true)
  expect(text).toBe(`data: ${REPLACED}\n\nend`)
})

test('8 MiB in gzip reach a reader who pauses, whole', async () => {
  const plain = Buffer.alloc(8 * 1024 * 1024, `${'x'.repeat(1000)}${TOKEN}`)
  const bytes = gzipSync(plain)
  answer = (_request, response) =>
    response.writeHead(200, { 'content-encoding': 'gzip' }).end(bytes)
  const message = await scrubbed.open(url())
  let size = 0
  let paused = 0
  for await (const chunk of message) {
    size += (chunk as Buffer).length
    expect((chunk as Buffer).includes(TOKEN)).toBe(false)
    if (paused++ < 5) await new Promise(setImmediate)
  }
  expect(size).toBe(plain.length)
})

describe('an answer that cannot be searched', () => {
  test('is refused when its coding is unknown', async () => {
    answer = (_request, response) => {
      response.writeHead(200, { 'content-encoding': 'zstd' }).end(TEXT)
    }
    const refused = await scrubbed.request(url())
    expect(refused.status).toBe(502)
    expect(refused.json()).toMatchObject({ error: { code: 'UPSTREAM_RESET' } })
    expect(refused.body.includes(TOKEN)).toBe(false)
  })

  test.each([
    ['is no gzip', Buffer.from(TEXT)],
    ['ends early', gzipSync(TEXT).subarray(0, 30)],
  ])('is cut when it %s', async (_how, bytes) => {
    answer = (_request, response) => {
      response.writeHead(200, { 'content-encoding': 'gzip' }).end(bytes)
    }
    await expect(scrubbed.request(url())).rejects.toThrow()
  })
})

test.each([
  ['HEAD', 200],
  ['GET', 204],
  ['GET', 304],
] as const)('the answer to %s with %i has no body to search', async (method, status) => {
  answer = (_request, response) => {
    response.writeHead(status, { 'content-encoding': 'zstd', 'x-seen': TOKEN }).end()
  }
  const { status: got, headers } = await scrubbed.request(url(), { method })
  expect(got).toBe(status)
  expect(headers['x-seen']).toBe('[redacted]')
})

const quick = { params: { [constants.BROTLI_PARAM_QUALITY]: 1 } }

test.each([
  ['gzip', 'still comes', gzipSync(Buffer.alloc(32 * 1024 * 1024))],
  // A few hundred bytes.
  ['br', 'has come', brotliCompressSync(Buffer.alloc(64 * 1024 * 1024), quick)],
])(
  'a client that goes amid a body in %s that %s leaves nothing behind',
  async (coding, _which, bytes) => {
    answer = (_request, response) =>
      response.writeHead(200, { 'content-encoding': coding }).end(bytes)
    const path = `gone-${coding}`
    const message = await scrubbed.open(url() + path)
    await once(message, 'data')
    message.destroy()
    // Its trace is there once the exchange has ended.
    await expect
      .poll(async () => (await app.admin('/api/traces?limit=1')).traces[0]?.url)
      .toContain(path)
  },
)
