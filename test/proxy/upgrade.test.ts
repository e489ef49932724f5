import { afterAll, afterEach, beforeAll, expect, test } from 'vitest'
import { type Peer, type RawOrigin, startRawOrigin, until } from '../egress/raw-origin.ts'
import { startApp, type TestApp } from '../support/app.ts'
import { PatientClock } from '../support/patient-clock.ts'
import { trusting } from '../support/protected-origin.ts'
import { RawClient } from './raw-client.ts'

const SWITCH =
  'HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: x\r\nX-Echo: token-of-a\r\n\r\n'

let origin: RawOrigin
let authority: string
let app: TestApp
let react: (peer: Peer, head: string) => void
let heads: string[]

beforeAll(async () => {
  origin = await startRawOrigin((peer) => {
    const head = peer.take()
    if (head === undefined) return
    heads.push(head)
    react(peer, head)
  })
  authority = `plain.test:${new URL(origin.url).port}`
})
afterAll(() => origin[Symbol.asyncDispose]())
afterEach(() => app[Symbol.asyncDispose]())

async function start(server: object = {}): Promise<RawClient> {
  heads = []
  react = (peer) => peer.write(SWITCH)
  app = await startApp(
    {
      server,
      upstream: trusting(['plain.test']),
      pools: {
        api: {
          targets: [`http://${authority}`],
          limits: { concurrency: 1 },
          credentials: [{ id: 'a', source: { type: 'static', token: 'token-of-a' } }],
        },
      },
    },
    undefined,
    new PatientClock(),
  )
  return RawClient.inside(app, authority)
}

function handshake(...fields: string[]): string {
  return [
    'GET /socket HTTP/1.1',
    `Host: ${authority}`,
    'Connection: keep-alive, Upgrade',
    'Upgrade: websocket',
    'Sec-WebSocket-Key: k',
    'Sec-WebSocket-Protocol: a, b',
    'Sec-WebSocket-Extensions: permessage-deflate',
    ...fields,
    '',
    '',
  ].join('\r\n')
}
const inFlight = async () => (await app.admin('/api/pools/api')).credentials[0].inFlight
const last = () => origin.peers.at(-1) as Peer

test('a handshake gets its token, and then both sides are a pipe that counts as in flight', async () => {
  const peer = await start()
  const answer = await peer.say(`${handshake()}early`).hears('\r\n\r\n')
  expect(answer).toMatch(/^HTTP\/1\.1 101 Switching Protocols\r\n/)
  expect(answer).toMatch(/\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n/)
  expect(answer).toContain('X-Echo: [redacted]\r\n')
  expect(heads[0]).toMatch(/\r\nconnection: upgrade\r\n/i)
  expect(heads[0]).toMatch(/\r\nupgrade: websocket\r\n/i)
  expect(heads[0]).toContain('Bearer token-of-a')
  expect(heads[0]).toContain('Sec-WebSocket-Protocol: a, b')
  expect(heads[0]).toContain('Sec-WebSocket-Extensions: permessage-deflate')
  await until(() => last().received.endsWith('early'))
  expect(await inFlight()).toBe(1)
  last().write('\x81\x02hi')
  expect(await peer.hears('hi')).toBe('\x81\x02hi')
  peer.say('\xff\x00')
  await until(() => last().received.endsWith('\xff\x00'))
  peer.socket.end()
  await until(() => last().closed)
  await expect.poll(inFlight).toBe(0)
  const { traces } = await app.admin('/api/traces')
  expect(traces[0]).toMatchObject({ status: 101, verdict: 'ok', bytes: { in: 7, out: 4 } })
})

test('what the client says early stays here until upstream has agreed', async () => {
  const peer = await start()
  react = () => {}
  peer.say(`${handshake()}early`)
  await until(() => heads.length === 1)
  expect(last().received).not.toContain('early')
  last().write(SWITCH)
  await until(() => last().received.endsWith('early'))
})

test('any other answer passes as it is, and the connection serves on', async () => {
  const peer = await start()
  react = (upstream) => upstream.write('HTTP/1.1 403 No\r\nContent-Length: 2\r\n\r\nno')
  expect(await peer.say(handshake()).hears('no')).toMatch(/^HTTP\/1\.1 403 No\r\n/)
  expect(await peer.say(handshake()).hears('no')).toMatch(/^HTTP\/1\.1 403 No\r\n/)
})

test('other protocols are not passed on, and the request goes as what it is', async () => {
  const peer = await start()
  react = (upstream) => upstream.write('HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok')
  for (const token of ['h2c', 'TLS/1.0']) {
    peer.say(
      `GET / HTTP/1.1\r\nHost: ${authority}\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: ${token}\r\nHTTP2-Settings: x\r\n\r\n`,
    )
    expect(await peer.hears('ok')).toMatch(/^HTTP\/1\.1 200 OK/)
  }
  expect(heads.join('')).not.toMatch(/upgrade|http2-settings/i)
})

test('a handshake with a body is refused', async () => {
  const peer = await start()
  expect(await peer.say(`${handshake('Content-Length: 2')}hi`).rest()).toMatch(/^HTTP\/1\.1 400 /)
  expect(heads).toEqual([])
})

test('either side that leaves takes the other along', async () => {
  const peer = await start()
  await peer.say(handshake()).hears('\r\n\r\n')
  last().socket.destroy()
  await peer.rest()
  await expect.poll(inFlight).toBe(0)
  const other = await RawClient.inside(app, authority)
  await other.say(handshake()).hears('\r\n\r\n')
  const upstream = last()
  other.socket.destroy()
  await until(() => upstream.closed)
})

test('a client that leaves before upstream has agreed leaves nothing behind', async () => {
  const peer = await start()
  react = () => {}
  peer.say(handshake())
  await until(() => heads.length === 1)
  peer.socket.destroy()
  await until(() => last().closed)
  await expect.poll(inFlight).toBe(0)
})

test('silence both ways ends it', async () => {
  const peer = await start({ idleTimeout: '300ms' })
  await peer.say(handshake()).hears('\r\n\r\n')
  await peer.rest()
  await until(() => last().closed)
})

test('a reader that stalls holds the sender back', async () => {
  const peer = await start()
  await peer.say(handshake()).hears('\r\n\r\n')
  peer.socket.pause()
  const { socket } = last()
  const chunk = Buffer.alloc(1024 * 1024)
  let sent = 0
  while (socket.writableLength < 4 * chunk.length && sent < 256) {
    socket.write(chunk)
    sent += 1
    await new Promise((resolve) => setImmediate(resolve))
  }
  expect(sent).toBeLessThan(256)
  peer.socket.destroy()
  await until(() => last().closed)
})
