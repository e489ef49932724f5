import { randomFillSync } from 'node:crypto'
import { once } from 'node:events'
import type { IncomingMessage, ServerResponse } from 'node:http'
import fc from 'fast-check'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { startApp, type TestApp } from '../support/app.ts'
import { type Origin, startOrigin } from '../support/origin.ts'
import { trusting } from '../support/protected-origin.ts'
import { FlowClient, type FlowStream } from './flow-client.ts'

/** All bodies are pieces of it. */
const BYTES = randomFillSync(Buffer.alloc(400_000))
const MOST = 300_000
const ENDLESS = Buffer.alloc(65_536, 'e')

let origin: Origin
let app: TestApp
let authority: string

beforeAll(async () => {
  origin = await startOrigin({ tls: true, handler: answer })
  authority = `api.test:${origin.port}`
  app = await startApp({
    upstream: trusting(['api.test']),
    pools: {
      api: {
        targets: [authority],
        credentials: [{ id: 'a', source: { type: 'static', token: 'token-of-a' } }],
      },
    },
  })
})

afterAll(async () => {
  await app[Symbol.asyncDispose]()
  await origin.close()
})

/** `/KIND/SIZE/OFFSET`. */
async function answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
  response.on('error', () => {})
  const [, kind, size, offset] = (request.url ?? '').split('/')
  const body = bodyOf(Number(size), Number(offset))
  if (kind === 'endless') {
    while (!response.destroyed) {
      if (!response.write(ENDLESS)) await Promise.race([once(response, 'drain'), once(response, 'close')])
    }
  } else if (kind === 'pieces' || kind === 'trailers') {
    if (kind === 'trailers') response.setHeader('trailer', 'x-sum')
    response.flushHeaders()
    const step = 1 + (Number(offset) % 5000) + (body.length >> 6)
    for (let at = 0; at < body.length; at += step) {
      response.write(body.subarray(at, at + step))
      if (at % 3 === 0) await turn()
    }
    if (kind === 'trailers') response.addTrailers({ 'x-sum': `${size}` })
    response.end()
  } else if (kind === '204' || kind === '304') {
    response.writeHead(Number(kind)).end()
  } else {
    response.writeHead(200, { 'content-length': body.length }).end(body)
  }
}

const turn = () => new Promise((resolve) => setImmediate(resolve))
const bodyOf = (size: number, offset: number) => BYTES.subarray(offset, offset + size)

type Step =
  | { readonly do: 'open' | 'wait' }
  | { readonly do: 'grant'; readonly on: number; readonly size: number }
  | { readonly do: 'widen'; readonly size: number }
  | { readonly do: 'initial'; readonly size: number }

const size = fc.oneof(
  fc.constantFrom(0, 1, 16_383, 16_384, 16_385, 65_535, 65_536),
  fc.nat({ max: 3000 }),
  fc.nat({ max: MOST }),
)
const initial = fc.oneof(
  fc.constantFrom(0, 1, 2, 16_384, 65_535, 10_000_000),
  fc.nat({ max: 300 }),
  fc.nat({ max: 200_000 }),
)
const portion = fc.oneof(
  fc.integer({ min: 1, max: 50 }),
  fc.integer({ min: 1, max: 20_000 }),
  fc.integer({ min: 1, max: 100_000 }),
)
const step: fc.Arbitrary<Step> = fc.oneof(
  { weight: 2, arbitrary: fc.record({ do: fc.constant('open' as const) }) },
  { weight: 3, arbitrary: fc.record({ do: fc.constant('wait' as const) }) },
  {
    weight: 6,
    arbitrary: fc.record({ do: fc.constant('grant' as const), on: fc.nat(), size: portion }),
  },
  { weight: 4, arbitrary: fc.record({ do: fc.constant('widen' as const), size: portion }) },
  { weight: 2, arbitrary: fc.record({ do: fc.constant('initial' as const), size: initial }) },
)

const cuts = fc.array(
  fc.oneof(fc.integer({ min: 1, max: 12 }), fc.integer({ min: 1, max: 300 })),
  { minLength: 1, maxLength: 20 },
)

/** The rest of all, in two portions each. */
async function grantAll(client: FlowClient): Promise<void> {
  const missing = (stream: FlowStream) => (stream.ended ? 0 : MOST - stream.received - stream.takes)
  await client.barrier()
  for (const share of [0.4, 1]) {
    for (const stream of client.streams) {
      const more = Math.ceil(missing(stream) * share)
      if (more > 0) client.grant(stream, more)
    }
    const all = client.streams.reduce((sum, { received }) => sum + MOST - received, 0)
    const more = Math.ceil((all - client.takes) * share)
    if (more > 0) client.widen(more)
    await client.barrier()
  }
}

describe('answers at once on one connection, whatever its client lets through', () => {
  /** What is asked for, and whether the answer has a body. */
  const kinds = fc.constantFrom('sized', 'sized', 'pieces', 'trailers', 'head', '204', '304')

  type Wanted = { kind: string; size: number; offset: number }
  /** A stream that waits for the connection loses its window: to less than nothing, and to nothing. */
  const examples = [0, 65_535].map((size): [Wanted[], number, Step[], number[]] => [
    [{ kind: 'sized', size: 200_000, offset: 0 }],
    100_000,
    [{ do: 'wait' }, { do: 'initial', size }, { do: 'wait' }, { do: 'widen', size: 1 }],
    [1000],
  ])

  test('arrive byte for byte, within every window, and end once', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.record({ kind: kinds, size, offset: fc.nat({ max: 90_000 }) }), {
          minLength: 1,
          maxLength: 12,
        }),
        initial,
        fc.array(step, { maxLength: 60 }),
        cuts,
        async (wanted, initial, steps, cuts) => {
          await using client = await FlowClient.connect(app, authority, { initial, cuts })
          const left = [...wanted]
          const openNext = () => {
            const next = left.shift()
            if (!next) return
            const method = next.kind === 'head' ? 'HEAD' : 'GET'
            client.open(`/${next.kind}/${next.size}/${next.offset}`, method)
          }
          openNext()
          for (const each of steps) {
            const stream = each.do === 'grant' && client.streams[each.on % client.streams.length]
            if (each.do === 'open') openNext()
            else if (each.do === 'wait') await client.quiet()
            else if (each.do === 'widen') client.widen(each.size)
            else if (each.do === 'initial') client.initialWindow(each.size)
            else if (stream) client.grant(stream, each.size)
          }
          while (left.length > 0) openNext()
          await grantAll(client)
          await client.until(() => client.streams.every(({ ended }) => ended))
          await client.barrier()
          expect(client.faults).toEqual([])
          for (const [i, { kind, size, offset }] of wanted.entries()) {
            const { parts, blocks } = client.streams[i] as FlowStream
            const hasBody = kind === 'sized' || kind === 'pieces' || kind === 'trailers'
            expect(Buffer.concat(parts).equals(hasBody ? bodyOf(size, offset) : BYTES.subarray(0, 0))).toBe(true)
            expect(blocks[0]?.slice(0, 2)).toEqual([':status', /\d/.test(kind) ? kind : '200'])
            expect(blocks.slice(1)).toEqual(kind === 'trailers' ? [['x-sum', `${size}`]] : [])
          }
        },
      ),
      { numRuns: 60, examples },
    )
  })
})

describe('a short answer beside two endless ones', () => {
  test('comes within a few frames of a connection that lets one through at a time', async () => {
    await using client = await FlowClient.connect(app, authority, { initial: 2 ** 30 })
    const endless = [client.open('/endless'), client.open('/endless')]
    await client.quiet()
    const short = client.open('/sized/100/0')
    await client.until(() => short.blocks.length > 0)
    let granted = 0
    for (; !short.ended && client.faults.length === 0; granted++) {
      client.widen(16_384)
      await client.quiet()
    }
    expect(client.faults).toEqual([])
    expect(Buffer.concat(short.parts).equals(bodyOf(100, 0))).toBe(true)
    // Streams take turns; its body may come behind its head.
    expect(granted).toBeLessThan(20)
    for (const each of endless) expect(each.ended).toBe(false)
  })

  test('comes though their client reads slowly what it has let through all at once', async () => {
    await using client = await FlowClient.connect(app, authority, { initial: 2 ** 30 })
    client.widen(2 ** 30)
    const { socket } = client
    const endless = [client.open('/endless'), client.open('/endless')]
    await client.until(() => endless.every(({ received }) => received > 0))
    socket.pause()
    const short = client.open('/sized/100/0')
    const before = client.takes
    while (!short.ended && before - client.takes < 2 ** 26 && client.faults.length === 0) {
      socket.resume()
      await client.moved()
      socket.pause()
      await turn()
    }
    expect(client.faults).toEqual([])
    expect(short.ended).toBe(true)
    for (const each of endless) expect(each.ended).toBe(false)
    socket.resume()
  })
})
