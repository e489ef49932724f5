import { afterAll, beforeAll, expect, test } from 'vitest'
import type { ClientRequest, ProxyClient } from '../support/client.ts'
import { type FrameOrigin, startFrameOrigin } from '../support/http2-frame-origin.ts'
import {
  ACK,
  END_HEADERS,
  END_STREAM,
  FRAME,
  type Frame,
  type FramePeer,
  fields,
  frame,
  goaway,
  PING,
  reset,
} from '../support/http2-frames.ts'
import { passUntil, type Stage, startStage, underway } from './stage.ts'

const STATUS_200 = Buffer.from([0x88])
const whole = (stream: number) => frame(FRAME.headers, END_HEADERS | END_STREAM, stream, STATUS_200)
const head = (stream: number, flags = END_HEADERS) =>
  frame(FRAME.headers, flags, stream, STATUS_200)
const half = (stream: number) => frame(FRAME.data, 0, stream, Buffer.alloc(500, 'h'))

/** How far the origin gets with the first request on its first connection. */
interface Phase {
  /** Upon what it speaks: a connection, a request, a part of a body. */
  readonly on: 'connection' | 'head' | 'data'
  /** What it says then, before it ends in some way. */
  readonly say: (stream: number) => Buffer[]
  /** What the client has of it by that end. */
  readonly reaches: 'nothing' | 'head' | 'body' | 'end'
  /** Whether no other frame may come now (RFC 9113 §3.4, §6.10). */
  readonly closed?: true
}

const PHASES: Record<string, Phase> = {
  'before its SETTINGS': { on: 'connection', say: () => [], reaches: 'nothing', closed: true },
  'within a request body': { on: 'data', say: () => [], reaches: 'nothing' },
  'while a request waits': { on: 'head', say: () => [], reaches: 'nothing' },
  'within the field block of its answer': {
    on: 'head',
    say: (stream) => [head(stream, 0)],
    reaches: 'nothing',
    closed: true,
  },
  'after the head of its answer': {
    on: 'head',
    say: (stream) => [head(stream)],
    reaches: 'head',
  },
  'within its answer': {
    on: 'head',
    say: (stream) => [head(stream), half(stream)],
    reaches: 'body',
  },
  'within its trailers': {
    on: 'head',
    say: (stream) => [
      head(stream),
      half(stream),
      frame(FRAME.headers, END_STREAM, stream, fields(['x-end', '1'])),
    ],
    reaches: 'body',
    closed: true,
  },
  'between requests': { on: 'head', say: (stream) => [whole(stream)], reaches: 'end' },
}

const ENDS: Record<string, (peer: FramePeer, stream: number) => void> = {
  'resets the connection': (peer) => origin.reset(peer),
  'ends the connection': ({ socket }) => socket.end(),
  'resets the stream with NO_ERROR': (peer, stream) => peer.send(reset(stream, 0)),
  'resets the stream with INTERNAL_ERROR': (peer, stream) => peer.send(reset(stream, 2)),
  'resets the stream with REFUSED_STREAM': (peer, stream) => peer.send(reset(stream, 7)),
  'resets the stream with CANCEL': (peer, stream) => peer.send(reset(stream, 8)),
  'says GOAWAY for no stream': (peer) => peer.send(goaway(0, 0)),
  'says GOAWAY for all streams and ends the connection': (peer, stream) =>
    peer.send(goaway(stream, 0)).socket.end(),
  'speaks garbage': ({ socket }) => socket.write('HTTP/1.1 400 Bad Request\r\n\r\n'),
}

const CASES = Object.entries(PHASES).flatMap(([name, phase]) =>
  Object.keys(ENDS)
    .filter((end) => !(phase.on === 'connection' && end.includes('stream')))
    .flatMap((end) =>
      (phase.on === 'data' ? ['POST'] : ['GET', 'POST']).map(
        (method) => [end, name, method] as const,
      ),
    ),
)

/** Nothing that the proxy could hear any more. */
const isDead = (end: string, { closed }: Phase) =>
  end === 'speaks garbage' ||
  (closed === true && end !== 'resets the connection' && end !== 'ends the connection')

/** By which it says that it has not looked at the request (RFC 9113 §8.7). */
const isUnserved = (end: string, at: Phase) =>
  !isDead(end, at) && at.reaches === 'nothing' && /REFUSED|no stream/.test(end)

/** What a client may get, by the contract. */
function allowed(end: string, phase: Phase, method: string): string[] {
  // A reset may be on its way still when the next request leaves.
  const crossed = end === 'resets the connection' && method === 'POST'
  if (phase.reaches === 'end') return crossed ? ['200', '502 UPSTREAM_RESET'] : ['200']
  if (phase.reaches !== 'nothing') return ['200, then broken']
  if (method === 'GET' || isUnserved(end, phase)) return ['200']
  // Whether it had left by then.
  return phase.on === 'connection' ? ['200', '502 UPSTREAM_RESET'] : ['502 UPSTREAM_RESET']
}

let origin: FrameOrigin
let stage: Stage
let client: ProxyClient
let phase: Phase
let act: ((peer: FramePeer, stream: number) => void) | undefined
/** The connection on which things happen, and those of all requests that came. */
let first: FramePeer | undefined
let came: FramePeer[] = []

beforeAll(async () => {
  origin = await startFrameOrigin(react, (peer) => {
    first ??= peer
    if (first === peer && phase.on === 'connection') act?.(peer, 1)
    else peer.send(frame(FRAME.settings))
  })
  // A host of its own for each case: none finds a connection of another one's.
  const names = CASES.map((_, i) => hostOf(i))
  stage = await startStage(origin.port, () => ({}), names)
  client = stage.app.client()
})

afterAll(async () => {
  await stage[Symbol.asyncDispose]()
  await origin[Symbol.asyncDispose]()
})

const hostOf = (i: number) => `case-${i}.example.test`

function react({ type, flags, stream, payload }: Frame, peer: FramePeer): void {
  const acknowledged = (flags & ACK) !== 0
  if (type === FRAME.settings && !acknowledged) peer.send(frame(type, ACK))
  if (type === FRAME.ping && !acknowledged) peer.send(frame(type, ACK, 0, payload))
  if (type === FRAME.headers) came.push(peer)
  if (type !== FRAME.headers && type !== FRAME.data) return
  if (peer === first && came.length === 1) {
    if (type === (phase.on === 'data' ? FRAME.data : FRAME.headers)) act?.(peer, stream)
  } else if ((flags & END_STREAM) !== 0) peer.send(whole(stream))
}

test.each(CASES.map((each, i) => [...each, i] as const))(
  'an origin that %s %s: %s',
  async (end, name, method, i) => {
    const [reached, reach] = event()
    const [ended, tellEnded] = event()
    phase = PHASES[name] as Phase
    came = []
    first = undefined
    act = async (peer, stream) => {
      act = undefined
      peer.send(...phase.say(stream))
      if (phase.reaches !== 'nothing') await reached
      ENDS[end]?.(peer, stream)
      tellEnded()
    }
    let outcome = ''
    const ask = async (whenSeen: (what: string) => void) => {
      const body = phase.on === 'data' ? parts(ended) : 'body'
      const url = `https://${hostOf(i)}:${origin.port}/`
      outcome = await outcomeOf(client, url, method === 'POST' ? { method, body } : {}, whenSeen)
    }
    const asked = ask((what) => {
      if (what === phase.reaches) reach()
    })
    await ended
    if (phase.reaches === 'end') {
      await asked
      await heard(first as unknown as FramePeer)
      outcome = ''
      void ask(() => {})
    }
    if (isDead(end, phase)) await passUntil(stage, () => outcome !== '')
    else await expect.poll(() => outcome, { interval: 4 }).not.toBe('')
    expect(allowed(end, phase, method)).toContain(outcome)
    const again = method === 'GET' || phase.reaches === 'end' || isUnserved(end, phase)
    expect(came.length).toBeLessThanOrEqual(again ? 2 : 1)
    await expect.poll(() => underway(stage), { interval: 4 }).toBe(0)
  },
)

test('no connection is left after a while', async () => {
  await passUntil(stage, () => origin.openConnections === 0)
})

/** Until the proxy has heard what was said: it answers a ping, ends the connection or complains. */
async function heard(peer: FramePeer): Promise<void> {
  let closed = false
  void peer.closed.then(() => {
    closed = true
  })
  peer.send(PING)
  const done = () =>
    closed || peer.received.some(({ type }) => type === FRAME.ping || type === FRAME.goaway)
  await expect.poll(done, { interval: 4 }).toBe(true)
}

async function* parts(last: Promise<void>): AsyncGenerator<Buffer> {
  yield Buffer.alloc(500)
  await last
}

async function outcomeOf(
  client: ProxyClient,
  url: string,
  request: ClientRequest,
  whenSeen: (what: 'head' | 'body' | 'end') => void,
): Promise<string> {
  let status = ''
  let text = ''
  try {
    const response = await client.open(url, request)
    status = `${response.statusCode}`
    whenSeen('head')
    for await (const chunk of response) {
      text += chunk
      whenSeen('body')
    }
    whenSeen('end')
  } catch {
    return status === '' ? 'broken' : `${status}, then broken`
  }
  const code = /"code":"([A-Z_]+)"/.exec(text)?.[1]
  return code === undefined ? status : `${status} ${code}`
}

function event(): [happened: Promise<void>, tell: () => void] {
  let tell = () => {}
  const happened = new Promise<void>((resolve) => {
    tell = resolve
  })
  return [happened, tell]
}
