import { once } from 'node:events'
import { request as httpRequest } from 'node:http'
import { connect, createServer, type Socket } from 'node:net'
import { buffer } from 'node:stream/consumers'
import { afterEach, expect, test } from 'vitest'
import { UpstreamError } from '../../src/errors.ts'
import { Bridge } from '../../src/sources/browser-bridge.ts'
import type { PinnedConnect } from '../../src/sources/source.ts'
import { Listener } from '../support/listener.ts'
import { startOrigin } from '../support/origin.ts'

const open: { close(): Promise<void> }[] = []

afterEach(async () => {
  for (const each of open.splice(0).reverse()) await each.close()
})

const direct: PinnedConnect = async ({ host, port }, signal) => {
  const socket = connect({ host: host === 'spa.test' ? '127.0.0.1' : host, port, signal })
  await once(socket, 'connect')
  return socket
}

async function start(connect: PinnedConnect = direct, failures: Error[] = []): Promise<Bridge> {
  const bridge = await Bridge.open(connect, (error) => failures.push(error))
  open.push(bridge)
  return bridge
}

const credential = ({ username, password }: Bridge) =>
  `Basic ${btoa(`${username}:${password.reveal()}`)}`

/** The answer to a CONNECT, and the socket after it. */
async function tunnel(bridge: Bridge, target: string): Promise<{ status: number; socket: Socket }> {
  const socket = connect({ host: '127.0.0.1', port: Number(new URL(bridge.url).port) })
  socket.write(`CONNECT ${target} HTTP/1.1\r\nproxy-authorization: ${credential(bridge)}\r\n`)
  socket.write(`host: ${target}\r\n\r\n`)
  await once(socket, 'readable')
  const head = socket.read() as Buffer
  return { status: Number(head.toString().split(' ')[1]), socket }
}

test('a tunnel carries bytes both ways, to the last one after either end', async () => {
  const server = createServer({ allowHalfOpen: true }, (socket) => {
    const all: Buffer[] = []
    socket.on('data', (chunk) => all.push(chunk))
    socket.on('end', () => socket.end(Buffer.concat(all).toString().toUpperCase()))
  })
  const listener = new Listener(server)
  open.push(listener)
  const port = await listener.listen('127.0.0.1')
  const { status, socket } = await tunnel(await start(), `spa.test:${port}`)
  expect(status).toBe(200)
  const sent = 'abc'.repeat(300_000)
  socket.end(sent)
  expect((await buffer(socket)).equals(Buffer.from(sent.toUpperCase()))).toBe(true)
})

test('a plain request goes on without what was meant for the bridge', async () => {
  const origin = await startOrigin()
  open.push(origin)
  const bridge = await start()
  const request = httpRequest({
    host: '127.0.0.1',
    port: new URL(bridge.url).port,
    method: 'POST',
    path: `http://spa.test:${origin.port}/a?b=c`,
    headers: {
      host: `spa.test:${origin.port}`,
      'proxy-authorization': credential(bridge),
      'proxy-connection': 'keep-alive',
      'X-Case': 'kept',
    },
  })
  request.end('a body')
  const [response] = await once(request, 'response')
  expect(response.statusCode).toBe(200)
  expect(JSON.parse((await buffer(response)).toString())).toMatchObject({ path: '/a?b=c' })
  const [seen] = origin.requests
  expect(seen).toMatchObject({ method: 'POST', body: Buffer.from('a body') })
  expect(seen?.headers).toContain('X-Case')
  expect(seen?.headers.join(' ')).not.toMatch(/proxy-|Basic/i)
})

test('an egress that is down is told, and nothing else is tried', async () => {
  const failures: Error[] = []
  const down: PinnedConnect = () =>
    Promise.reject(new UpstreamError('EGRESS_DOWN', 'egress way is down', { sent: false }))
  const bridge = await start(down, failures)
  const { status, socket } = await tunnel(bridge, 'spa.test:443')
  socket.destroy()
  expect(status).toBe(502)
  expect(failures).toMatchObject([{ kind: 'egress', message: 'egress way is down' }])
  expect(bridge.problem).toBe('egress way is down')
})

test('what the browser would tell its maker of a page is not passed on', async () => {
  const targets: string[] = []
  const bridge = await start((target) => {
    targets.push(target.host)
    return Promise.reject(new Error('not used'))
  })
  const { status, socket } = await tunnel(bridge, 'content-autofill.googleapis.com:443')
  socket.destroy()
  expect([status, targets]).toEqual([502, []])
})

test('its end takes along every connection, also one that is being made', async () => {
  const server = createServer((socket) => socket.on('error', () => {}))
  const listener = new Listener(server)
  open.push(listener)
  const port = await listener.listen('127.0.0.1')
  let given: AbortSignal | undefined
  const bridge = await Bridge.open(
    (target, signal) => {
      if (target.host === 'spa.test') return direct(target, signal)
      given = signal
      return new Promise((_, reject) =>
        signal.addEventListener('abort', () => reject(signal.reason)),
      )
    },
    () => {},
  )
  const { socket } = await tunnel(bridge, `spa.test:${port}`)
  const pending = tunnel(bridge, 'slow.test:443').catch(() => 'ended')
  const closed = once(socket, 'close')
  socket.on('error', () => {}).resume()
  await expect.poll(() => given !== undefined).toBe(true)
  const { url } = bridge
  await bridge.close()
  await closed
  expect(given?.aborted).toBe(true)
  await pending
  await expect(fetch(url)).rejects.toThrow()
})
