import { once } from 'node:events'
import { createServer as createHttpServer, type IncomingMessage, type Server } from 'node:http'
import { createServer as createHttpsServer } from 'node:https'
import type { Duplex } from 'node:stream'
import { afterAll, afterEach, beforeAll, expect, test } from 'vitest'
import { WebSocket, WebSocketServer } from 'ws'
import { startApp, type TestApp } from '../support/app.ts'
import { type AuthServer, startAuthServer } from '../support/auth-server.ts'
import { testAuthority } from '../support/certificates.ts'
import { startHttpProxy } from '../support/http-proxy.ts'
import { Http2Client } from '../support/http2-client.ts'
import { Listener } from '../support/listener.ts'
import { PatientClock } from '../support/patient-clock.ts'
import { trusting } from '../support/protected-origin.ts'
import { startSocksProxy } from '../support/socks-proxy.ts'
import { settled, until } from '../support/until.ts'

interface Handshake {
  readonly headers: string[]
  readonly remoteAddress: string
  readonly live: boolean
}

let auth: AuthServer
let app: TestApp
let handshakes: Handshake[] = []
/** The origin's ends of the connections, newest last. */
let sockets: WebSocket[] = []
const open: AsyncDisposable[] = []
const ports: Partial<Record<'ws' | 'wss', number>> = {}
const listeners: Listener[] = []

const authority = (scheme: 'ws' | 'wss') => `api.test:${ports[scheme]}`

beforeAll(async () => {
  auth = await startAuthServer({ accessTokenTtlSeconds: 600 })
  const servers = {
    ws: createHttpServer(),
    wss: createHttpsServer(testAuthority().issue(['api.test'])),
  }
  for (const scheme of ['ws', 'wss'] as const) {
    serve(servers[scheme])
    const listener = new Listener(servers[scheme])
    listeners.push(listener)
    ports[scheme] = await listener.listen('0.0.0.0')
  }
})

afterEach(async () => {
  for (const socket of sockets) socket.terminate()
  for (const each of open.splice(0).reverse()) await each[Symbol.asyncDispose]()
  handshakes = []
  sockets = []
})

afterAll(async () => {
  for (const listener of listeners) await listener.close()
  await auth[Symbol.asyncDispose]()
})

/** WebSocket with subprotocols and permessage-deflate for who has a live token, else 401. */
function serve(server: Server): void {
  const websockets = new WebSocketServer({
    noServer: true,
    perMessageDeflate: { threshold: 0 },
    handleProtocols: (offered) => [...offered].at(-1) ?? false,
  })
  server.on('upgrade', async (request: IncomingMessage, socket: Duplex, head: Buffer) => {
    const token = /^Bearer (.+)$/.exec(request.headers.authorization ?? '')?.[1] ?? ''
    const live = await auth.isActive(token)
    const remoteAddress = request.socket.remoteAddress ?? ''
    handshakes.push({ headers: request.rawHeaders, remoteAddress, live })
    if (!live) {
      socket.end('HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\nConnection: close\r\n\r\n')
      return
    }
    websockets.handleUpgrade(request, socket, head, (accepted) => {
      sockets.push(accepted)
      accepted.on('message', (data, binary) => accepted.send(data, { binary }))
    })
  })
}

async function start(egress?: string, more: object = {}): Promise<void> {
  const config = {
    ...more,
    upstream: trusting(['api.test']),
    ...(egress !== undefined && { egress: { way: egress } }),
    pools: {
      api: {
        targets: [authority('wss'), `http://${authority('ws')}`],
        refresh: { minInterval: '50ms' },
        credentials: [
          {
            id: 'a',
            ...(egress !== undefined && { egress: 'way' }),
            source: {
              type: 'oauth2',
              grant: 'client_credentials',
              tokenUrl: auth.tokenUrl,
              clientId: auth.clientId,
              clientSecret: auth.clientSecret,
            },
          },
        ],
      },
    },
  }
  app = await startApp(config, undefined, new PatientClock())
  open.push(app)
}

async function connect(scheme: 'ws' | 'wss', protocols: string[] = []): Promise<WebSocket> {
  const to = authority(scheme)
  const socket =
    scheme === 'wss' ? await app.client().connect(to) : (await app.client().tunnel(to)).socket
  // The tunnel leaves it paused; nothing comes before the handshake.
  socket.resume()
  const websocket = new WebSocket(`${scheme}://${to}/chat?room=1`, protocols, {
    createConnection: () => socket as never,
    perMessageDeflate: { threshold: 0 },
    headers: { authorization: 'Bearer of-the-client' },
  })
  await once(websocket, 'open')
  return websocket
}

const inFlight = async () => (await app.admin('/api/pools/api')).credentials[0].inFlight

test.each(['ws', 'wss'] as const)(
  '%s: token on the handshake, subprotocol and compression as the two ends agree, messages both ways',
  async (scheme) => {
    await start()
    const websocket = await connect(scheme, ['v1', 'v2'])
    expect(websocket.protocol).toBe('v2')
    expect(websocket.extensions).toMatch(/^permessage-deflate/)
    const [{ headers, live }] = handshakes as [Handshake]
    expect(live).toBe(true)
    expect(headers.join()).not.toContain('of-the-client')
    for (const message of ['hello', 'x'.repeat(100_000)]) {
      websocket.send(message)
      const [data] = await once(websocket, 'message')
      expect(String(data)).toBe(message)
    }
    expect(await inFlight()).toBe(1)
    websocket.close(4001, 'enough')
    const [code, reason] = await once(sockets[0] as WebSocket, 'close')
    expect([code, String(reason)]).toEqual([4001, 'enough'])
    await until(async () => (await inFlight()) === 0)
  },
)

test('a 401 on the handshake is healed by one refresh, and the client sees only the 101', async () => {
  await start()
  ;(await connect('wss')).terminate()
  auth.revokeAccessTokens()
  const refreshes = auth.calls.length
  const websocket = await connect('wss')
  expect(handshakes.map(({ live }) => live)).toEqual([true, false, true])
  expect(auth.calls.length - refreshes).toBe(1)
  websocket.terminate()
})

test('a close from upstream keeps its code', async () => {
  await start()
  const websocket = await connect('wss')
  const closed = once(websocket, 'close')
  sockets[0]?.close(4002, 'done')
  const [code, reason] = await closed
  expect([code, String(reason)]).toEqual([4002, 'done'])
})

test('a client that stops reading holds upstream back', async () => {
  await start()
  const websocket = await connect('ws')
  const server = sockets[0] as WebSocket
  websocket.pause()
  const block = Buffer.alloc(1024 * 1024)
  for (let i = 0; i < 32; i++) server.send(block, { compress: false })
  const rest = await settled(() => server.bufferedAmount)
  // What lies in sockets on the way, and no more than that, has left.
  expect(rest).toBeGreaterThan(8 * 2 ** 20)
  let received = 0
  const whole = new Promise<void>((resolve) => {
    websocket.on('message', (data: Buffer) => {
      received += data.length
      if (received === 32 * block.length) resolve()
    })
  })
  websocket.resume()
  await whole
})

test.each([
  ['an HTTP proxy', startHttpProxy],
  ['a SOCKS proxy', startSocksProxy],
] as const)('leaves by its egress, %s, and fails closed without it', async (_what, startProxy) => {
  const proxy = await startProxy({ host: '127.0.0.2' })
  open.push(proxy)
  await start(proxy.url)
  const websocket = await connect('wss')
  expect(handshakes[0]?.remoteAddress).toBe('127.0.0.2')
  websocket.terminate()
  await proxy.close()
  await expect(connect('wss')).rejects.toThrow('502')
  expect(handshakes).toHaveLength(1)
})

test('goes on while the proxy drains, and ends with server.drainTimeout', async () => {
  await start(undefined, { server: { drainTimeout: '1s' } })
  const websocket = await connect('wss')
  const closed = once(websocket, 'close')
  const stopped = app.app.stop()
  websocket.send('still there')
  expect(String((await once(websocket, 'message'))[0])).toBe('still there')
  const [code] = await closed
  expect(code).toBe(1006)
  await stopped
})

test('over HTTP/2 it is an extended CONNECT, and upstream sees an ordinary handshake', async () => {
  await start()
  const client = await Http2Client.connect(app, authority('wss'))
  open.push(client)
  if (!client.session.remoteSettings?.enableConnectProtocol) {
    await once(client.session, 'remoteSettings')
  }
  const call = client.open(
    {
      ...{ ':method': 'CONNECT', ':protocol': 'websocket', ':scheme': 'https', ':path': '/chat' },
      ...{ 'sec-websocket-version': '13', 'sec-websocket-protocol': 'v1' },
    },
    { endStream: false },
  )
  const bytes: Buffer[] = []
  call.stream.on('data', (chunk: Buffer) => bytes.push(chunk))
  await call.begun
  expect(call.status).toBe(200)
  expect(call.headers).toContain('v1')
  expect(call.headers).not.toContain('sec-websocket-accept')
  expect(call.headers).not.toContain('upgrade')
  call.stream.write(masked(0x1, 'hello'))
  await until(() => Buffer.concat(bytes).toString('latin1') === '\x81\x05hello')
  // The same connection serves ordinary requests meanwhile, and each stream counts by itself.
  expect(await inFlight()).toBe(1)
  call.stream.write(masked(0x8, '\x0f\xa3'))
  const [code] = await once(sockets[0] as WebSocket, 'close')
  expect(code).toBe(4003)
  await until(async () => (await inFlight()) === 0)

  auth.revokeAccessTokens()
  const again = client.open(
    {
      ...{ ':method': 'CONNECT', ':protocol': 'websocket', ':scheme': 'https', ':path': '/chat' },
      'sec-websocket-version': '13',
    },
    { endStream: false },
  )
  expect((await again.begun).status).toBe(200)
  expect(handshakes.map(({ live }) => live)).toEqual([true, false, true])
  const gone = once(sockets[1] as WebSocket, 'close')
  again.stream.close(8)
  await gone
})

/** A frame as clients send it (RFC 6455 §5.2), short and final. */
function masked(opcode: number, text: string): Buffer {
  const payload = Buffer.from(text, 'latin1')
  return Buffer.concat([Buffer.from([0x80 | opcode, 0x80 | payload.length, 0, 0, 0, 0]), payload])
}
