import { once } from 'node:events'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { startApp, type TestApp } from '../support/app.ts'
import { Http2Client } from '../support/http2-client.ts'
import { FRAME, FrameClient, frame, PING, PREFACE } from '../support/http2-frames.ts'
import { type Origin, startOrigin } from '../support/origin.ts'
import { trusting } from '../support/protected-origin.ts'
import { AUTHORITY, CASES } from './frame-cases.ts'

/** RFC 9113 §7. */
const CODES = [
  ...['NO_ERROR', 'PROTOCOL_ERROR', 'INTERNAL_ERROR', 'FLOW_CONTROL_ERROR', 'SETTINGS_TIMEOUT'],
  ...['STREAM_CLOSED', 'FRAME_SIZE_ERROR', 'REFUSED_STREAM', 'CANCEL', 'COMPRESSION_ERROR'],
]

let origin: Origin
let app: TestApp
let good: Http2Client
let authority: string

beforeAll(async () => {
  origin = await startOrigin({ tls: true })
  authority = `${AUTHORITY}:${origin.port}`
  app = await startApp({
    upstream: trusting(['api.test']),
    pools: {
      api: {
        targets: [authority],
        credentials: [{ id: 'a', source: { type: 'static', token: 'token-of-a' } }],
      },
    },
  })
  good = await Http2Client.connect(app, authority)
})

afterAll(async () => {
  await good[Symbol.asyncDispose]()
  await app[Symbol.asyncDispose]()
  await origin.close()
})

test.each(CASES)('%s', async (_name, frames, outcome) => {
  const before = origin.requests.length
  await using client = await FrameClient.connect(app, authority)
  client.greet().send(...frames())
  expect(await outcomeOf(client)).toBe(outcome)
  // By the connection of another client all goes on.
  expect((await good.get('/good')).status).toBe(200)
  // The one whole request in the table is as good as any other.
  const came = origin.requests.slice(before).filter(({ url }) => url !== '/whole')
  expect(came.map(({ url }) => url)).toEqual(['/good'])
})

test.each([
  ['another preface', Buffer.from('GET / HTTP/1.1\r\n\r\n')],
  ['a preface without SETTINGS', Buffer.concat([Buffer.from(PREFACE, 'latin1'), PING])],
])('%s', async (_name, bytes) => {
  const before = origin.requests.length
  await using client = await FrameClient.connect(app, authority)
  client.socket.write(bytes)
  await client.closed
  expect(origin.requests).toHaveLength(before)
})

/** What has become of the connection, or of stream 1, by the time that the client hears back of two pings. */
async function outcomeOf(client: FrameClient): Promise<string> {
  let closed = false
  void client.closed.then(() => {
    closed = true
  })
  const answers = () =>
    client.received.filter(({ type, payload }) => type === FRAME.ping && payload[0] === MARK).length
  // The answer to a first ping may overtake what came of the frames before it.
  for (let pings = 1; pings <= 2; pings++) {
    client.send(frame(FRAME.ping, 0, 0, Buffer.alloc(8, MARK)))
    while (answers() < pings && !closed && client.goaway === undefined) await moved(client)
  }
  if (client.goaway !== undefined) return `connection ${CODES[client.goaway]}`
  if (closed) return 'closed'
  const code = client.resetOf(1)
  if (code !== undefined) return `stream ${CODES[code]}`
  const answer = client.received.find(({ type, stream }) => type === FRAME.headers && stream === 1)
  return answer ? `status ${statusOf(answer.payload)}` : 'nothing'
}

const MARK = 0x5a

/** Until more has come. */
function moved(client: FrameClient): Promise<unknown> {
  return Promise.race([once(client.socket, 'data').catch(() => {}), client.closed])
}

/** `:status` as it is written: from the static table, or as a literal without Huffman coding (RFC 7541 §6). */
function statusOf(block: Buffer): string {
  const hex = block.toString('hex', 0, 1)
  return hex === '8c' ? '400' : block.toString('latin1', 2, 5)
}
