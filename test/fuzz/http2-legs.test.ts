import { readdirSync } from 'node:fs'
import { expect, test } from 'vitest'
import { startApp } from '../support/app.ts'
import { startFrameOrigin } from '../support/http2-frame-origin.ts'
import {
  ACK,
  END_HEADERS,
  END_STREAM,
  FRAME,
  FrameClient,
  type FramePeer,
  frame,
  goaway,
  PING,
  requestFrame,
  reset,
  setting,
  u32,
} from '../support/http2-frames.ts'
import { startHttp2Origin } from '../support/http2-origin.ts'
import { startOrigin } from '../support/origin.ts'
import { trusting } from '../support/protected-origin.ts'

const SEED = Number(process.env.SEED ?? 1)
const ROUNDS = Number(process.env.ROUNDS ?? 8)
const LANES = 4
/** Of every limit: what a round leaves half done is over by then. */
const LIMIT = '1s'
const PATHS = ['/ok', '/hold', '/big', '/reset', '/early', '/half']
const CODES = [0, 2, 5, 7, 8, 11]

/** Numbers below n, the same ones in each run. */
type Random = (n: number) => number

function randomOf(seed: number): Random {
  let state = seed
  return (n) => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0
    return Math.floor((state / 2 ** 32) * n)
  }
}

const pick = <T>(random: Random, all: readonly T[]) => all[random(all.length)] as T

/** What a client may say that is in order each for itself. */
function conversation(random: Random, authority: string): Buffer[] {
  const frames: Buffer[] = []
  let next = 1
  const any = () => 1 + 2 * random(Math.max(1, (next - 1) / 2))
  for (let left = 20 + random(150); left > 0; left--) {
    const kind = random(20)
    if (next === 1 || kind < 7) {
      const to = random(12) === 0 ? 'other.test' : authority
      const method = pick(random, ['GET', 'POST'])
      const more = random(8) === 0 ? ([['expect', '100-continue']] as const) : []
      frames.push(requestFrame(to, next, { method, path: pick(random, PATHS), more }))
      next += 2
    } else if (kind < 12) frames.push(reset(any(), pick(random, CODES)))
    else if (kind < 16) frames.push(frame(FRAME.data, 0, next - 2, Buffer.alloc(random(4000))))
    else if (kind < 17) frames.push(frame(FRAME.data, END_STREAM, next - 2, Buffer.alloc(9)))
    else if (kind < 18) frames.push(frame(FRAME.windowUpdate, 0, any(), u32(1 + random(70_000))))
    else if (kind < 19) frames.push(setting(4, random(200_000)))
    else frames.push(PING)
  }
  if (random(6) === 0) frames.push(goaway(0, 0))
  return frames
}

/** What an origin may say to a request, sense or nonsense; undefined where it resets the connection. */
function response(random: Random, stream: number): Buffer[] | undefined {
  const frames: Buffer[] = []
  for (let left = random(6); left >= 0; left--) {
    const kind = random(12)
    const end = pick(random, [0, END_STREAM])
    // 200, 404 or 400.
    const head = Buffer.from([pick(random, [0x88, 0x88, 0x8d, 0x8c])])
    if (kind < 4) frames.push(frame(FRAME.headers, END_HEADERS | end, stream, head))
    else if (kind < 6) frames.push(frame(FRAME.data, end, stream, Buffer.alloc(random(3000))))
    else if (kind < 9) frames.push(reset(1 + 2 * random((stream + 1) / 2), pick(random, CODES)))
    else if (kind < 10) frames.push(frame(FRAME.windowUpdate, 0, stream, u32(1 + random(70_000))))
    else if (kind < 11) frames.push(goaway(random(stream + 1), pick(random, CODES)))
    else if (random(4) === 0) return undefined
  }
  return frames
}

const tick = () => new Promise<void>((resolve) => setImmediate(resolve))

/** In pieces of any size. */
async function say(random: Random, peer: FramePeer, frames: readonly Buffer[]): Promise<void> {
  let bytes = Buffer.concat(frames)
  while (bytes.length > 0 && !peer.socket.destroyed) {
    const size = random(3) === 0 ? bytes.length : 1 + random(3000)
    peer.socket.write(bytes.subarray(0, size))
    bytes = bytes.subarray(size)
    for (let turns = random(3); turns > 0; turns--) await tick()
  }
}

type OriginOf = (
  random: Random,
) => Promise<AsyncDisposable & { readonly port: number; readonly openConnections: number }>

const ORIGINS: Record<string, OriginOf> = {
  'by HTTP/1.1': () =>
    startOrigin({
      tls: true,
      handler: (request, answer) => {
        request.on('error', () => {})
        answer.on('error', () => {})
        if (request.url === '/hold') return
        if (request.url === '/big') answer.end(Buffer.alloc(400_000))
        else if (request.url === '/reset') request.socket.destroy()
        else if (request.url === '/early') answer.writeHead(413).end('no')
        else if (request.url === '/half') {
          answer.write('half')
          setImmediate(() => request.socket.destroy())
        } else request.resume().on('end', () => answer.end('ok'))
      },
    }),
  'by HTTP/2': (random) =>
    startHttp2Origin({
      handler: (stream, { headers: { ':path': path } }) => {
        if (path === '/hold' || stream.destroyed) return
        if (path === '/reset') return stream.close(pick(random, CODES))
        stream.respond({ ':status': 200 })
        if (path === '/big') stream.end(Buffer.alloc(400_000))
        else if (path === '/early') stream.end('no')
        else if (path === '/half') {
          stream.write('half')
          setImmediate(() => {
            if (!stream.destroyed) stream.close(pick(random, CODES))
          })
        } else
          stream.resume().on('end', () => {
            if (!stream.destroyed) stream.end('ok')
          })
      },
    }),
  'by HTTP/2 of any kind': (random) =>
    startFrameOrigin(
      ({ type, flags, stream }, peer) => {
        if (type === FRAME.settings && (flags & ACK) === 0) peer.send(frame(type, ACK))
        if (type !== FRAME.headers) return
        const frames = response(random, stream)
        if (frames) void say(random, peer, frames)
        else peer.socket.destroy()
      },
      (peer) => peer.send(frame(FRAME.settings)),
    ),
}

/** But for the connections to the origin, which stay for a while; both ends of them are in this process. */
const descriptors = ({ openConnections }: { openConnections: number }) =>
  readdirSync('/proc/self/fd').length - 2 * openConnections

test.each(Object.entries(ORIGINS))(
  'frames of any kind, with an origin %s, leave nothing behind',
  async (_how, startOriginOf) => {
    const random = randomOf(SEED)
    await using origin = await startOriginOf(random)
    const authority = `api.test:${origin.port}`
    await using app = await startApp({
      server: { idleTimeout: LIMIT },
      upstream: { ...trusting(['api.test']), headersTimeout: LIMIT, bodyTimeout: LIMIT },
      pools: {
        api: {
          targets: [authority],
          queue: { wait: LIMIT },
          credentials: [{ id: 'a', source: { type: 'static', token: 'token-of-a' } }],
        },
      },
    })
    const inFlight = async () => (await app.admin('/api/pools/api')).credentials[0].inFlight
    expect(await inFlight()).toBe(0)
    const before = descriptors(origin)
    const lane = async () => {
      for (let round = 0; round < ROUNDS; round++) {
        await using client = await FrameClient.connect(app, authority)
        client.greet()
        await say(random, client, conversation(random, authority))
        for (let turns = random(20); turns > 0; turns--) await tick()
        if (random(2) === 0) client.reset()
      }
    }
    await Promise.all(Array.from({ length: LANES }, lane))
    await expect.poll(inFlight).toBe(0)
    // A connection to the admin API, both ends of it, and what the system opens on its own.
    await expect.poll(() => descriptors(origin)).toBeLessThan(before + 8)
  },
)
