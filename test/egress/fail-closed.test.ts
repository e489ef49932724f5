import { createServer } from 'node:net'
import { inspect } from 'node:util'
import { expect, test } from 'vitest'
import { systemClock } from '../../src/lib/clock.ts'
import { type HttpProxyBehaviour, startHttpProxy } from '../support/http-proxy.ts'
import { Listener } from '../support/listener.ts'
import { ManualClock } from '../support/manual-clock.ts'
import { startOrigin } from '../support/origin.ts'
import { type SocksProxyBehaviour, startSocksProxy } from '../support/socks-proxy.ts'
import { failureOf, Harness } from './harness.ts'
import { until } from './raw-origin.ts'

const HTTP: HttpProxyBehaviour[] = [
  'refuse-407',
  'redirect-302',
  'garbage',
  'garbage-after-200',
  'garbage-later',
  'endless-header',
  'hang',
  'close',
]
const SOCKS: SocksProxyBehaviour[] = [
  'refuse-auth',
  'general-failure',
  'garbage',
  'garbage-after-grant',
  'hang',
  'close',
]
const AUTH = { user: 'ann', pass: 'correct horse' }

for (const behaviour of HTTP) {
  for (const tls of [false, true]) {
    const proxyScheme = tls ? 'https' : 'http'

    test(`an ${proxyScheme} proxy that does ${behaviour} is down, and nothing reaches the origin`, async () => {
      await using origin = await startOrigin({ tls: true })
      await using proxy = await startHttpProxy({ behaviour, tls, auth: AUTH })
      const clock = behaviour === 'hang' ? new ManualClock() : systemClock
      await using harness = new Harness({ clock, egress: { pinned: proxy.url } })
      const failing = harness.failure('pinned', origin.url)
      if (clock instanceof ManualClock) {
        await until(() => proxy.targets.length > 0)
        clock.advance(10_000)
      }
      const failure = await failing
      expect(failure).toMatchObject({ code: 'EGRESS_DOWN', sent: false })
      expect(origin.connections).toBe(0)
      expect(proxy.targets.length).toBe(1)
      expect(harness.egresses.isUp('pinned')).toBe(false)
      expect(inspect(failure, { depth: 9 })).not.toMatch(/correct|Basic/)
    })
  }
}

for (const behaviour of SOCKS) {
  test(`a SOCKS proxy that does ${behaviour} is down, and nothing reaches the origin`, async () => {
    await using origin = await startOrigin({ tls: true })
    await using proxy = await startSocksProxy({ behaviour, auth: AUTH })
    const clock = behaviour === 'hang' ? new ManualClock() : systemClock
    await using harness = new Harness({ clock, egress: { pinned: proxy.url } })
    const failing = harness.failure('pinned', origin.url)
    if (clock instanceof ManualClock) {
      await until(() => proxy.openConnections > 0)
      clock.advance(10_000)
    }
    const failure = await failing
    expect(failure).toMatchObject({ code: 'EGRESS_DOWN', sent: false })
    expect(origin.connections).toBe(0)
    expect(harness.egresses.isUp('pinned')).toBe(false)
    expect(inspect(failure, { depth: 9 })).not.toMatch(/correct/)
  })
}

for (const start of [startHttpProxy, startSocksProxy]) {
  test(`what ${start.name} says before HTTP over plain TCP is not the origin's answer`, async () => {
    await using origin = await startOrigin()
    await using proxy = await start()
    proxy.behaviour = (
      start === startHttpProxy ? 'garbage-after-200' : 'garbage-after-grant'
    ) as never
    await using harness = new Harness({ egress: { pinned: proxy.url } })
    const failure = await harness.failure('pinned', origin.url)
    expect(failure).toMatchObject({ code: 'EGRESS_DOWN', sent: false })
  })

  test(`a dead proxy of ${start.name} is down, reported once, and up again once it is replaced`, async () => {
    await using origin = await startOrigin()
    await using back = await start()
    const dead = await start()
    await dead.close()
    await using harness = new Harness({ egress: { pinned: dead.url } })
    expect((await harness.failure('pinned', origin.url)).code).toBe('EGRESS_DOWN')
    expect((await harness.failure('pinned', origin.url, 'other')).code).toBe('EGRESS_DOWN')
    expect(origin.connections).toBe(0)
    expect(harness.changes).toEqual(['pinned down'])
    harness.apply({ egress: { pinned: dead.url } })
    expect(harness.egresses.isUp('pinned')).toBe(false)
    harness.apply({ egress: { pinned: back.url } })
    expect(harness.egresses.isUp('pinned')).toBe(true)
    expect((await harness.request('pinned', origin.url)).remoteAddress).toBe('127.0.0.2')
    expect(harness.changes).toEqual(['pinned down', 'pinned up'])
    expect(harness.messages.join()).not.toContain(`:${dead.port}`)
  })

  test(`${start.name} that recovers is up again with the next connection`, async () => {
    await using origin = await startOrigin()
    await using proxy = await start()
    await using harness = new Harness({ egress: { pinned: proxy.url } })
    proxy.behaviour = 'close'
    expect((await harness.failure('pinned', origin.url)).code).toBe('EGRESS_DOWN')
    proxy.behaviour = 'normal'
    expect((await harness.request('pinned', origin.url)).remoteAddress).toBe('127.0.0.2')
    await harness.request('pinned', origin.url, 'other')
    expect(harness.changes).toEqual(['pinned down', 'pinned up'])
  })
}

test('wrong credentials are no way around a SOCKS or HTTP proxy', async () => {
  await using origin = await startOrigin()
  await using http = await startHttpProxy({ auth: AUTH })
  await using socks = await startSocksProxy({ auth: AUTH })
  await using harness = new Harness({
    egress: {
      http: `http://ann:wrong@127.0.0.2:${http.port}`,
      none: `http://127.0.0.2:${http.port}`,
      socks: `socks5://ann:wrong@127.0.0.2:${socks.port}`,
      open: `socks5://127.0.0.2:${socks.port}`,
    },
  })
  for (const name of ['http', 'none', 'socks', 'open']) {
    expect((await harness.failure(name, origin.url)).code).toBe('EGRESS_DOWN')
  }
  expect(origin.connections).toBe(0)
})

test('an https proxy with a certificate for another name is down', async () => {
  await using origin = await startOrigin()
  await using proxy = await startHttpProxy({ tls: true, host: '127.0.0.2' })
  await using harness = new Harness({
    egress: { pinned: `https://proxy.test:${proxy.port}` },
    upstream: { resolve: { 'proxy.test': '127.0.0.2' } },
  })
  expect((await harness.failure('pinned', origin.url)).code).toBe('EGRESS_DOWN')
  expect(proxy.targets).toEqual([])
})

test('a local address that cannot be bound is down, never replaced by another', async () => {
  await using origin = await startOrigin()
  await using harness = new Harness({ egress: { gone: 'local://203.0.113.77' } })
  for (const host of ['127.0.0.1', 'localhost']) {
    const failure = await harness.failure('gone', `http://${host}:${origin.port}`)
    expect(failure).toMatchObject({ code: 'EGRESS_DOWN', sent: false })
  }
  expect(origin.connections).toBe(0)
  expect(harness.changes).toEqual(['gone down'])
})

test('a target that refuses, has no name or does not answer is no fault of the egress', async () => {
  const closedPort = await freePort()
  await using socks = await startSocksProxy()
  await using harness = new Harness({
    egress: { local: 'local://127.0.0.5', socks: socks.url },
  })
  for (const name of harness.egresses.names()) {
    const refused = await harness.failure(name, `http://127.0.0.1:${closedPort}`)
    expect([name, refused.code, refused.sent]).toEqual([name, 'UPSTREAM_UNREACHABLE', false])
    // No label is that long (RFC 1035 §2.3.4), so no resolver is asked over the network.
    const nameless = await harness.failure(name, `http://${'x'.repeat(64)}.test:${closedPort}`)
    expect([name, nameless.code, nameless.sent]).toEqual([name, 'UPSTREAM_UNREACHABLE', false])
    expect(harness.egresses.isUp(name)).toBe(true)
  }
  expect(harness.changes).toEqual([])
})

test('a target that accepts and says nothing in TLS times out on every egress', async () => {
  let hellos = 0
  await using silent = new Listener(createServer((socket) => socket.once('data', () => hellos++)))
  const port = await silent.listen('127.0.0.1')
  await using http = await startHttpProxy()
  const clock = new ManualClock()
  await using harness = new Harness({ clock, egress: { http: http.url } })
  for (const [index, name] of harness.egresses.names().entries()) {
    const failing = harness.failure(name, `https://127.0.0.1:${port}`)
    await until(() => hellos > index)
    clock.advance(10_000)
    const failure = await failing
    expect([name, failure.code, failure.sent]).toEqual([name, 'UPSTREAM_TIMEOUT', false])
    expect(harness.egresses.isUp(name)).toBe(true)
  }
})

test('an egress that does not exist is down', async () => {
  await using harness = new Harness()
  expect(() => harness.egresses.dispatcher('nowhere', '')).toThrow(/no egress of that name/)
  const connecting = harness.egresses.connect('nowhere', { host: '127.0.0.1', port: 9 })
  expect((await failureOf(connecting)).code).toBe('EGRESS_DOWN')
  expect(harness.egresses.has('nowhere')).toBe(false)
  expect(harness.egresses.isUp('nowhere')).toBe(false)
})

test('giving up a tunnel ends its connection to a proxy that hangs', async () => {
  await using http = await startHttpProxy({ behaviour: 'hang' })
  await using socks = await startSocksProxy({ behaviour: 'hang' })
  await using harness = new Harness({ egress: { http: http.url, socks: socks.url } })
  for (const [name, proxy] of [
    ['http', http],
    ['socks', socks],
  ] as const) {
    const controller = new AbortController()
    const target = { host: '127.0.0.1', port: 9 }
    const connecting = harness.egresses.connect(name, target, { signal: controller.signal })
    while (proxy.openConnections === 0) await new Promise((resolve) => setImmediate(resolve))
    controller.abort(new Error('client gone'))
    await expect(connecting).rejects.toThrow('client gone')
    while (proxy.openConnections > 0) await new Promise((resolve) => setImmediate(resolve))
    expect(harness.egresses.isUp(name)).toBe(true)
  }
})

async function freePort(): Promise<number> {
  await using listener = new Listener(createServer())
  return await listener.listen('127.0.0.1')
}
