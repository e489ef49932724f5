import { once } from 'node:events'
import type { ServerResponse } from 'node:http'
import { afterEach, describe, expect, test } from 'vitest'
import { startFrameOrigin } from '../support/http2-frame-origin.ts'
import {
  ACK,
  END_HEADERS,
  END_STREAM,
  FRAME,
  FrameClient,
  type FramePeer,
  frame,
  requestFrame,
  setting,
} from '../support/http2-frames.ts'
import { type OriginOptions, startOrigin } from '../support/origin.ts'
import { LIMIT_MS, passUntil, type Stage, startStage, underway } from './stage.ts'

const open: AsyncDisposable[] = []
afterEach(async () => {
  for (const each of open.splice(0).reverse()) await each[Symbol.asyncDispose]()
})

describe('a client by HTTP/2', () => {
  async function setUp(handler: OriginOptions['handler']): Promise<Stage & { peer: FrameClient }> {
    const origin = await startOrigin({ tls: true, ...(handler && { handler }) })
    open.push(origin)
    const stage = await startStage(origin.port)
    open.push(stage)
    const peer = await FrameClient.connect(stage.app, stage.authority)
    open.push(peer)
    return { ...stage, peer }
  }

  /** An origin that only takes, and tells by whom it was left. */
  function holding(): { handler: OriginOptions['handler']; held: ServerResponse[]; left: number } {
    const state = {
      held: [] as ServerResponse[],
      left: 0,
      handler: (_request: unknown, response: ServerResponse) => {
        state.held.push(response)
        response.on('close', () => {
          state.left += 1
        })
      },
    }
    return state
  }

  test('that ends its side while it waits has gone: its request is given up, its connection closed', async () => {
    const origin = holding()
    const stage = await setUp(origin.handler)
    const { peer, authority } = stage
    peer.greet().send(requestFrame(authority, 1))
    await expect.poll(() => origin.held.length).toBe(1)
    peer.socket.end()
    await peer.closed
    await expect.poll(() => origin.left).toBe(1)
    await expect.poll(() => underway(stage)).toBe(0)
  })

  test.each([
    ['waits for an answer', true],
    ['sends a body', false],
  ])(
    'that breaks the protocol while it %s keeps neither token nor connection',
    async (_what, whole) => {
      const origin = holding()
      const stage = await setUp(origin.handler)
      const { peer, authority } = stage
      peer.greet().send(requestFrame(authority, 1, whole ? {} : { method: 'POST' }))
      await expect.poll(() => origin.held.length).toBe(1)
      // Of a stream that was never opened.
      peer.send(frame(FRAME.data, 0, 99, Buffer.alloc(5)))
      await expect.poll(() => peer.goaway).toBe(1)
      let closed = false
      void peer.closed.then(() => {
        closed = true
      })
      await passUntil(stage, () => closed)
      expect(await underway(stage)).toBe(0)
    },
  )

  test.each([
    ['whole', () => {}],
    ['in pieces', (response: ServerResponse) => response.write('begun')],
  ])(
    'that never takes an answer that comes %s loses the stream, then the connection',
    async (_how, begin) => {
      const held: ServerResponse[] = []
      const stage = await setUp((_request, response) => {
        held.push(response)
      })
      const { peer, authority } = stage
      peer.greet().send(setting(4, 0), requestFrame(authority, 1))
      await expect.poll(() => held.length).toBe(1)
      const response = held[0] as ServerResponse
      begin(response)
      response.end('an answer')
      await expect.poll(() => peer.received.some(({ type }) => type === FRAME.headers)).toBe(true)
      expect(await passUntil(stage, () => peer.resetOf(1) !== undefined)).toBeGreaterThan(
        LIMIT_MS - 2,
      )
      expect(peer.resetOf(1)).toBe(8)
      let closed = false
      void peer.closed.then(() => {
        closed = true
      })
      await passUntil(stage, () => closed)
      expect(await underway(stage)).toBe(0)
    },
  )

  test.each([
    ['a field block', () => frame(FRAME.headers, END_STREAM, 1, Buffer.from([0x82]))],
    ['a HEADERS frame', (whole: Buffer) => whole.subarray(0, -1)],
  ])('that stops within %s is cut after server.headersTimeout', async (_where, part) => {
    const stage = await setUp(() => {})
    const { peer, authority } = stage
    peer.greet().send(part(requestFrame(authority, 1)))
    await expect.poll(() => peer.received.some(({ flags }) => flags === ACK)).toBe(true)
    let closed = false
    void peer.closed.then(() => {
      closed = true
    })
    expect(await passUntil(stage, () => closed)).toBeLessThan(LIMIT_MS)
  })

  test('that is slow within a body, whatever the frame, is served', async () => {
    let body = 0
    const stage = await setUp((request, response) => {
      request.on('data', (chunk: Buffer) => {
        body += chunk.length
      })
      request.on('end', () => response.end('taken'))
    })
    const { peer, authority, clock } = stage
    const pieces = 8
    const data = frame(FRAME.data, END_STREAM, 1, Buffer.alloc(1000 * pieces - 9))
    peer.greet().send(requestFrame(authority, 1, { method: 'POST' }))
    for (let piece = 0; piece < pieces; piece++) {
      peer.send(data.subarray(1000 * piece, 1000 * (piece + 1)))
      await clock.run(LIMIT_MS / pieces - 1000)
    }
    await expect.poll(() => peer.received.at(-1)?.flags).toBe(END_STREAM)
    expect(body).toBe(data.length - 9)
  })

  test('that is silent while events come is pinged, and kept though it answers no ping', async () => {
    const held: ServerResponse[] = []
    const stage = await setUp((_request, response) => {
      held.push(response)
    })
    const { peer, authority, clock } = stage
    peer.greet().send(requestFrame(authority, 1))
    await expect.poll(() => held.length).toBe(1)
    const events = () => peer.received.filter(({ type }) => type === FRAME.data).length
    for (let sent = 1; sent <= 10; sent++) {
      held[0]?.write('an event')
      await expect.poll(events).toBe(sent)
      await clock.run(LIMIT_MS / 2)
    }
    held[0]?.end()
    await expect.poll(() => peer.received.at(-1)?.flags).toBe(END_STREAM)
    expect(peer.received.filter(({ type }) => type === FRAME.ping)).toHaveLength(1)
    expect(peer.resetOf(1)).toBeUndefined()
  })
})

describe('an origin by HTTP/2', () => {
  interface Scene extends Stage {
    readonly peers: readonly FramePeer[]
    /** Requests that came, as connection and path. */
    readonly came: { readonly peer: FramePeer; readonly stream: number }[]
    send(method: 'GET' | 'POST', body?: Buffer): Promise<string>
  }

  const ok = (stream: number) => frame(FRAME.headers, END_HEADERS | END_STREAM, stream, STATUS_200)
  const STATUS_200 = Buffer.from([0x88])

  /** An origin that answers requests with 200 on all connections but the first, where `first` is asked. */
  async function setUp(first: (peer: FramePeer, stream: number) => void): Promise<Scene> {
    const came: Scene['came'] = []
    const origin = await startFrameOrigin(
      ({ type, stream, flags, payload }, peer) => {
        if (type === FRAME.settings && (flags & ACK) === 0) peer.send(frame(type, ACK))
        if (type === FRAME.ping && (flags & ACK) === 0) peer.send(frame(type, ACK, 0, payload))
        if (type !== FRAME.headers) return
        came.push({ peer, stream })
        if (peer === origin.peers[0]) first(peer, stream)
        else peer.send(ok(stream))
      },
      (peer) => peer.send(frame(FRAME.settings)),
    )
    open.push(origin)
    const stage = await startStage(origin.port)
    open.push(stage)
    const client = stage.app.client()
    return {
      ...stage,
      came,
      peers: origin.peers,
      async send(method, body) {
        const response = await client.request(`https://${stage.authority}/`, {
          method,
          ...(body && { body }),
        })
        const { error } =
          response.body.length > 0 ? response.json<{ error?: { code: string } }>() : {}
        return error ? `${response.status} ${error.code}` : `${response.status}`
      },
    }
  }

  test('that ends an idle connection without GOAWAY gets the next request on another', async () => {
    const stage = await setUp((peer, stream) => peer.send(ok(stream)))
    expect(await stage.send('GET')).toBe('200')
    const [first] = stage.peers
    first?.socket.end()
    await first?.closed
    expect(await stage.send('POST')).toBe('200')
    expect(stage.peers).toHaveLength(2)
    expect(await underway(stage)).toBe(0)
  })

  test.each([
    ['GET', '200', 2],
    ['POST', '502 UPSTREAM_RESET', 1],
  ] as const)('that ends its side while a %s waits: %s', async (method, outcome, times) => {
    const stage = await setUp((peer) => peer.socket.end())
    expect(await stage.send(method)).toBe(outcome)
    expect(stage.came).toHaveLength(times)
    expect(await underway(stage)).toBe(0)
    await stage.peers[0]?.closed
  })

  test('that broke the protocol on an idle connection gets the next request on another, once', async () => {
    const stage = await setUp((peer, stream) => peer.send(ok(stream)))
    expect(await stage.send('GET')).toBe('200')
    const [first] = stage.peers
    first?.send(frame(FRAME.data, 0, 99, Buffer.alloc(5)))
    await expect.poll(() => first?.goaway).toBe(1)
    let outcome = ''
    void stage.send('POST', Buffer.from('body')).then((seen) => {
      outcome = seen
    })
    expect(await passUntil(stage, () => outcome !== '')).toBeLessThan(10_000)
    expect(outcome).toBe('200')
    expect(stage.came.map(({ peer }) => stage.peers.indexOf(peer))).toEqual([0, 1])
    expect(await underway(stage)).toBe(0)
    // The connection that is dead does not stay.
    let closed = false
    void first?.closed.then(() => {
      closed = true
    })
    await passUntil(stage, () => closed)
  })

  test.each([
    ['GET', '200', 2],
    ['POST', '502 UPSTREAM_RESET', 1],
  ] as const)('that breaks the protocol while a %s waits: %s', async (method, expected, times) => {
    const stage = await setUp((peer) => peer.send(frame(FRAME.data, 0, 99, Buffer.alloc(5))))
    let outcome = ''
    void stage.send(method).then((seen) => {
      outcome = seen
    })
    await expect.poll(() => stage.peers[0]?.goaway).toBe(1)
    expect(await passUntil(stage, () => outcome !== '')).toBeLessThan(LIMIT_MS)
    expect(outcome).toBe(expected)
    expect(stage.came).toHaveLength(times)
    expect(await underway(stage)).toBe(0)
  })

  test('that never opens its window is given up as silent, and the upload with it', async () => {
    const stage = await setUp(() => {})
    let outcome = ''
    void stage.send('POST', Buffer.alloc(1_000_000)).then((seen) => {
      outcome = seen
    })
    await expect.poll(() => stage.came.length).toBe(1)
    expect(await passUntil(stage, () => outcome !== '')).toBeGreaterThan(LIMIT_MS - 2)
    expect(outcome).toBe('504 UPSTREAM_TIMEOUT')
    await expect.poll(() => stage.peers[0]?.resetOf(1)).toBe(8)
    expect(await underway(stage)).toBe(0)
  })

  test('that stops within its answer is given up as stalled, and the answer never looks whole', async () => {
    const stage = await setUp((peer, stream) => {
      const head = frame(FRAME.headers, END_HEADERS, stream, STATUS_200)
      peer.send(head, frame(FRAME.data, 0, stream, Buffer.from('half')))
    })
    const response = await stage.app.client().open(`https://${stage.authority}/`)
    expect(`${(await once(response, 'data'))[0]}`).toBe('half')
    let outcome = ''
    response.on('end', () => {
      outcome = 'whole'
    })
    response.on('error', () => {
      outcome = 'broken'
    })
    expect(await passUntil(stage, () => outcome !== '')).toBeGreaterThan(LIMIT_MS - 2)
    expect(outcome).toBe('broken')
    await expect.poll(() => stage.peers[0]?.resetOf(1)).toBe(8)
    expect(await underway(stage)).toBe(0)
  })
})
