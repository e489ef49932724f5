import { once } from 'node:events'
import type { IncomingMessage } from 'node:http'
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import { expect, test } from 'vitest'
import { startApp } from '../support/app.ts'
import { END_STREAM, FRAME, FrameClient, frame, requestFrame } from '../support/http2-frames.ts'
import { startOrigin } from '../support/origin.ts'
import { trusting } from '../support/protected-origin.ts'

setFlagsFromString('--expose-gc')
const collectGarbage = runInNewContext('gc') as () => void

/** What is in use, in MB. */
function heap(): number {
  collectGarbage()
  return process.memoryUsage().heapUsed / 1e6
}

const STREAMS = 4
/** Within the window of a stream, and more than its reader takes ahead. */
const BYTES = 200_000
const PORTION = 1000

test('bodies that come a byte at a time cost no more memory than their bytes, and arrive whole', async () => {
  const held: IncomingMessage[] = []
  await using origin = await startOrigin({
    tls: true,
    handler: (request, response) => {
      request.pause()
      held.push(request)
      let bytes = 0
      request.on('data', (chunk: Buffer) => {
        bytes += chunk.length
      })
      request.pause()
      request.on('end', () => response.end(`${bytes}`))
    },
  })
  const authority = `api.test:${origin.port}`
  await using app = await startApp({
    upstream: trusting(['api.test']),
    pools: {
      api: {
        targets: [authority],
        replay: { memory: '1KiB', disk: '1KiB' },
        credentials: [{ id: 'a', source: { type: 'static', token: 'token-of-a' } }],
      },
    },
  })
  await using client = await FrameClient.connect(app, authority)
  const streams = Array.from({ length: STREAMS }, (_, index) => 2 * index + 1)
  client.greet()
  for (const id of streams) client.send(requestFrame(authority, id, { method: 'POST' }))
  await expect.poll(() => held.length).toBe(STREAMS)
  const portions = streams.map((id) =>
    Buffer.concat(
      Array.from({ length: PORTION }, () => frame(FRAME.data, 0, id, Buffer.from('x'))),
    ),
  )
  const before = heap()
  for (let sent = 0; sent < BYTES; sent += PORTION) {
    for (const portion of portions) {
      if (!client.socket.write(portion)) await once(client.socket, 'drain')
    }
  }
  // As a Buffer for each byte they would be some 20 MB.
  expect(heap() - before).toBeLessThan(11)
  for (const id of streams) client.send(frame(FRAME.data, END_STREAM, id))
  for (const request of held) request.resume()
  const answers = () => client.received.filter(({ type }) => type === FRAME.data)
  await expect.poll(() => answers().length).toBeGreaterThanOrEqual(STREAMS)
  const bodies = streams.map((id) =>
    Buffer.concat(
      answers()
        .filter(({ stream }) => stream === id)
        .map(({ payload }) => payload),
    ).toString(),
  )
  expect(bodies).toEqual(streams.map(() => `${BYTES}`))
})
