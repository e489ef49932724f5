import { createHash } from 'node:crypto'
import type { IncomingMessage, ServerResponse } from 'node:http'
import { createServer, type Server } from 'node:https'
import { Socket } from 'node:net'
import type { Duplex } from 'node:stream'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { testAuthority } from '../support/certificates.ts'
import { Http2Client } from '../support/http2-client.ts'
import {
  END_HEADERS,
  END_STREAM,
  FRAME,
  FrameClient,
  fields,
  frame,
  goaway,
  requestFrame,
  reset,
  setting,
} from '../support/http2-frames.ts'
import { Listener } from '../support/listener.ts'
import { type ScriptedEndpoint, startScriptedEndpoint } from '../support/scripted-endpoint.ts'
import { passUntil, type Stage, startStage, underway } from './stage.ts'

const WEBSOCKET_GUID = '258EAFA5-E914-47DA-95CA-C5AB0DC85B11'

let server: Server
let origin: Listener
let endpoint: ScriptedEndpoint
let stage: Stage
/** Paths of the requests that have come to the origin, and how many of them it still holds. */
let came: string[] = []
let held = 0
/** Who has the only token, where another one waits for it. */
let hog: Http2Client | undefined

beforeAll(async () => {
  server = createServer(testAuthority().issue(['api.test']), answer)
  server.on('upgrade', accept)
  origin = new Listener(server)
  const port = await origin.listen('127.0.0.1')
  // It never answers: whoever wants a token of it waits.
  endpoint = await startScriptedEndpoint(() => {})
  stage = await startStage(port, (authority) => ({
    full: {
      targets: [`${authority}/full/*`],
      limits: { concurrency: 1 },
      credentials: [{ id: 'a', source: { type: 'static', token: 'token-of-a' } }],
    },
    fresh: {
      targets: [`${authority}/fresh/*`],
      credentials: [
        {
          id: 'a',
          source: {
            type: 'oauth2',
            grant: 'client_credentials',
            tokenUrl: `${endpoint.url}/token`,
            clientId: 'c',
            clientSecret: 's',
          },
        },
      ],
    },
  }))
})

afterAll(async () => {
  await stage[Symbol.asyncDispose]()
  await endpoint[Symbol.asyncDispose]()
  await origin.close()
})

function answer(request: IncomingMessage, response: ServerResponse): void {
  const path = request.url ?? ''
  came.push(path)
  held += 1
  response.on('close', () => {
    held -= 1
  })
  request.on('error', () => {})
  response.on('error', () => {})
  if (path.endsWith('/hold')) request.resume()
  else if (path === '/begin') response.write('begun')
  else if (path === '/trailers') {
    response.writeHead(200, { trailer: 'x-end' })
    response.write('begun')
    response.addTrailers({ 'x-end': '1' })
    response.end()
  } else if (path !== '/upload') response.end('ok')
}

function accept(request: IncomingMessage, socket: Duplex): void {
  came.push(request.url ?? '')
  held += 1
  socket.on('error', () => {})
  socket.on('close', () => {
    held -= 1
  })
  const key = createHash('sha1')
    .update(request.headers['sec-websocket-key'] + WEBSOCKET_GUID)
    .digest('base64')
  const head = ['101 Switching Protocols', 'Upgrade: websocket', 'Connection: Upgrade']
  socket.write(`HTTP/1.1 ${head.join('\r\n')}\r\nSec-WebSocket-Accept: ${key}\r\n\r\n`)
  socket.resume()
}

/** Of many cases, none of which should wait for the next look. */
const poll = <T>(figure: () => T) => expect.poll(figure, { interval: 4 })
const got = (client: FrameClient, type: number, stream = 1) =>
  client.received.some((each) => each.type === type && each.stream === stream)
const atOrigin = (path: string) => poll(() => came).toContain(path)
const get = (path: string) => requestFrame(stage.authority, 1, { path })

/** How far a client gets; it speaks of stream 1. */
const PHASES: Record<string, (client: FrameClient) => Promise<unknown>> = {
  'before the preface': async () => {},
  'after SETTINGS': async (client) => {
    client.greet()
    await poll(() => got(client, FRAME.settings, 0)).toBe(true)
  },
  'within a field block': async (client) => {
    client.greet().send(frame(FRAME.headers, END_STREAM, 1, fields([':method', 'GET'])))
    await poll(() => got(client, FRAME.settings, 0)).toBe(true)
  },
  'within a body that is awaited': async (client) => {
    const more = [['content-length', '1000']] as const
    const head = requestFrame(stage.authority, 1, { method: 'POST', path: '/hold', more })
    client.greet().send(head, frame(FRAME.data, 0, 1, Buffer.alloc(500)))
    await poll(() => got(client, FRAME.settings, 0)).toBe(true)
  },
  'within a body that streams': async (client) => {
    const head = requestFrame(stage.authority, 1, { method: 'POST', path: '/upload' })
    client.greet().send(head, frame(FRAME.data, 0, 1, Buffer.alloc(500)))
    await atOrigin('/upload')
  },
  'in the queue': async (client) => {
    hog = await Http2Client.connect(stage.app, stage.authority)
    hog.get('/full/hold').catch(() => {})
    await atOrigin('/full/hold')
    client.greet().send(get('/full/next'))
    await poll(() => underway(stage)).toBe(2)
  },
  'while a token is got': async (client) => {
    client.greet().send(get('/fresh/next'))
    await poll(() => underway(stage)).toBe(1)
  },
  'while upstream is silent': async (client) => {
    client.greet().send(get('/hold'))
    await atOrigin('/hold')
  },
  'within the answer': async (client) => {
    client.greet().send(get('/begin'))
    await poll(() => got(client, FRAME.data)).toBe(true)
  },
  'before trailers that it does not take': async (client) => {
    client.greet().send(setting(4, 0), get('/trailers'))
    await poll(() => got(client, FRAME.headers)).toBe(true)
  },
  'between requests': async (client) => {
    client.greet().send(get('/ok'))
    await poll(() => client.received.at(-1)?.flags === END_STREAM).toBe(true)
  },
  'within a WebSocket': async (client) => {
    const head = fields(
      [':method', 'CONNECT'],
      [':protocol', 'websocket'],
      [':scheme', 'https'],
      [':path', '/socket'],
      [':authority', stage.authority],
      ['sec-websocket-version', '13'],
    )
    client.greet().send(frame(FRAME.headers, END_HEADERS, 1, head))
    await poll(() => got(client, FRAME.headers)).toBe(true)
    client.send(frame(FRAME.data, 0, 1, Buffer.alloc(100)))
  },
}
/** No stream has begun that could be reset. */
const WITHOUT_STREAM = ['before the preface', 'after SETTINGS', 'within a field block']

const ENDS: Record<string, (client: FrameClient) => void> = {
  'resets the connection': (client) => client.reset(),
  'ends the connection': ({ socket }) => socket.end(),
  'resets the stream with NO_ERROR': (client) => client.send(reset(1, 0)),
  'resets the stream with INTERNAL_ERROR': (client) => client.send(reset(1, 2)),
  'resets the stream with REFUSED_STREAM': (client) => client.send(reset(1, 7)),
  'resets the stream with CANCEL': (client) => client.send(reset(1, 8)),
  'says GOAWAY and ends the connection': (client) => client.send(goaway(0, 0)).socket.end(),
  'speaks garbage': (client) => client.socket.write('HTTP/1.1 400 Bad Request\r\n\r\n'),
}

const CASES = Object.keys(PHASES).flatMap((phase) =>
  Object.keys(ENDS)
    .filter((end) => !end.includes('stream') || !WITHOUT_STREAM.includes(phase))
    .map((end) => [end, phase] as const),
)

test.each(CASES)('a client that %s %s leaves nothing behind', async (end, phase) => {
  came = []
  const client = await FrameClient.connect(stage.app, stage.authority)
  await (PHASES[phase] as (typeof PHASES)[string])(client)
  ENDS[end]?.(client)
  const garbled =
    end === 'speaks garbage' || (end.includes('GOAWAY') && phase === 'within a field block')
  if (hog) {
    if (!garbled) await poll(() => underway(stage)).toBe(1)
    await hog[Symbol.asyncDispose]()
    hog = undefined
  }
  if (garbled) {
    // Of such a connection node:http2 hears nothing more, not even its end.
    await passUntil(stage, async () => (await left()) === NOTHING)
  } else if (end.includes('stream')) {
    await poll(underwayAtAll).toBe('0 0')
    // The connection is as good as before.
    client.send(requestFrame(stage.authority, 3, { path: '/ok' }))
    await poll(() => got(client, FRAME.headers, 3)).toBe(true)
    await client[Symbol.asyncDispose]()
  }
  await poll(left).toBe(NOTHING)
  await client[Symbol.asyncDispose]()
  const paths = came.filter((path) => path !== '/ok')
  expect(new Set(paths).size).toBe(paths.length)
})

const NOTHING = '0 0 0'
const underwayAtAll = async () => `${await underway(stage)} ${held}`
const left = async () => `${await underwayAtAll()} ${frontSockets()}`

/** Connections that clients have to the proxy. */
function frontSockets(): number {
  const port = Number(new URL(stage.app.app.proxyUrl).port)
  const { _getActiveHandles } = process as unknown as { _getActiveHandles(): unknown[] }
  return _getActiveHandles().filter(
    (handle) => handle instanceof Socket && handle.localPort === port,
  ).length
}
