import { expect, test } from 'vitest'
import { ConfigError } from '../../src/errors.ts'
import { startHttpProxy } from '../support/http-proxy.ts'
import { ManualClock } from '../support/manual-clock.ts'
import { startOrigin } from '../support/origin.ts'
import { Harness, settings } from './harness.ts'

const turn = () => new Promise((resolve) => setImmediate(resolve))

test('reuses one upstream connection across requests of one key', async () => {
  await using origin = await startOrigin({ tls: true })
  await using proxy = await startHttpProxy()
  await using harness = new Harness({ egress: { pinned: proxy.url } })
  for (let i = 0; i < 20; i++) await harness.request('pinned', origin.url, 'pool/a')
  expect(origin.connections).toBe(1)
  expect(proxy.targets).toHaveLength(1)
})

test('never shares a connection between keys or egresses', async () => {
  await using origin = await startOrigin()
  await using harness = new Harness({ egress: { local: 'local://127.0.0.5' } })
  const owners = new Map<number, string>()
  const work: Promise<void>[] = []
  for (let i = 0; i < 300; i++) {
    const egress = i % 2 === 0 ? 'direct' : 'local'
    const key = `pool/${i % 7}`
    work.push(
      harness.request(egress, origin.url, key).then(({ connection, remoteAddress }) => {
        const owner = `${egress} ${key}`
        expect(remoteAddress).toBe(egress === 'direct' ? '127.0.0.1' : '127.0.0.5')
        expect(owners.get(connection) ?? owner).toBe(owner)
        owners.set(connection, owner)
      }),
    )
  }
  await Promise.all(work)
  expect(new Set(owners.values()).size).toBe(14)
})

test('forgets a key that nobody has asked for in two minutes, and makes it anew', async () => {
  await using origin = await startOrigin()
  const clock = new ManualClock()
  await using harness = new Harness({ clock })
  const first = harness.egresses.dispatcher('direct', 'a')
  await harness.request('direct', origin.url, 'a')
  clock.advance(100_000)
  await harness.request('direct', origin.url, 'b')
  clock.advance(25_000)
  // Node's server says that it closes idle connections after five seconds.
  while (origin.openConnections > 0) await turn()
  expect(harness.egresses.dispatcher('direct', 'a')).not.toBe(first)
  await harness.request('direct', origin.url, 'a')
  await harness.request('direct', origin.url, 'b')
  expect(origin.connections).toBe(4)
  clock.advance(100_000)
  while (origin.openConnections > 0) await turn()
  await turn()
  clock.advance(200_000)
  // Nothing is left to look at.
  expect(clock.pending).toBe(0)
})

test('a response that still streams outlives the sweep of what is idle', async () => {
  let finish: (() => void) | undefined
  await using origin = await startOrigin({
    handler: (_request, response) => {
      response.write('{"a":')
      finish = () => response.end('1}')
    },
  })
  const clock = new ManualClock()
  await using harness = new Harness({ clock })
  const response = harness.send('direct', origin.url, 'a')
  await response.begun
  clock.advance(250_000)
  finish?.()
  await response.whole
  expect(JSON.parse(response.text)).toEqual({ a: 1 })
})

test('a reload keeps the connections of an unchanged egress and drains those of a changed one', async () => {
  let finish: (() => void) | undefined
  await using origin = await startOrigin({
    handler: (request, response, connection) => {
      const remoteAddress = request.socket.remoteAddress
      const end = () => response.end(JSON.stringify({ connection, remoteAddress }))
      if (request.url === '/slow') {
        response.flushHeaders()
        finish = end
      } else end()
    },
  })
  await using harness = new Harness({
    egress: { kept: 'local://127.0.0.2', changed: 'local://127.0.0.3', gone: 'local://127.0.0.4' },
  })
  const kept = await harness.request('kept', origin.url)
  await harness.request('gone', origin.url)
  const slow = harness.send('changed', `${origin.url}/slow`)
  await slow.begun

  harness.apply({ egress: { kept: 'local://127.0.0.2', changed: 'local://127.0.0.5' } })
  expect(harness.egresses.names()).toEqual(['direct', 'kept', 'changed'])
  expect((await harness.request('kept', origin.url)).connection).toBe(kept.connection)
  expect((await harness.request('changed', origin.url)).remoteAddress).toBe('127.0.0.5')
  expect(() => harness.egresses.dispatcher('gone', '')).toThrow()
  while (origin.openConnections > 3) await turn()
  finish?.()
  await slow.whole
  expect(JSON.parse(slow.text)).toMatchObject({ remoteAddress: '127.0.0.3' })
  while (origin.openConnections > 2) await turn()
})

test('a reload with other upstream settings renews every connection', async () => {
  await using origin = await startOrigin({ tls: true })
  await using harness = new Harness()
  const { connection } = await harness.request('direct', origin.url)
  harness.apply({})
  expect((await harness.request('direct', origin.url)).connection).toBe(connection)
  harness.apply({ upstream: { ca: [] } })
  expect((await harness.failure('direct', origin.url)).code).toBe('UPSTREAM_TLS')
})

test('refuses what cannot be used, all at once, and keeps what it has', async () => {
  await using origin = await startOrigin()
  await using harness = new Harness({ egress: { local: 'local://127.0.0.2' } })
  const long = 'x'.repeat(256)
  const { egress, upstream } = settings({
    egress: { direct: 'local://127.0.0.2', socks: `socks5://${long}:y@127.0.0.1` },
    upstream: { ca: ['/nonexistent.pem'], resolve: { 'api.test': 'not an address' } },
  })
  let error: unknown
  try {
    harness.egresses.apply(egress, upstream)
  } catch (thrown) {
    error = thrown
  }
  expect(error).toBeInstanceOf(ConfigError)
  const paths = (error as ConfigError).issues.map((issue) => issue.path)
  expect(paths).toEqual([
    'upstream.ca[0]',
    'upstream.resolve.api.test',
    'egress.direct',
    'egress.socks',
  ])
  expect((error as ConfigError).message).not.toContain(long)
  expect((await harness.request('local', origin.url)).remoteAddress).toBe('127.0.0.2')
})

test('closing ends connections in use, in the making and idle', async () => {
  await using origin = await startOrigin({
    handler: (request, response) => {
      if (request.url !== '/hang') response.end('{}')
    },
  })
  await using proxy = await startHttpProxy({ behaviour: 'hang' })
  const harness = new Harness({ egress: { hanging: proxy.url } })
  await harness.request('direct', origin.url, 'idle')
  const busy = harness.failure('direct', `${origin.url}/hang`, 'busy').catch((error) => error)
  const making = harness.failure('hanging', origin.url)
  while (origin.requests.length < 2 || proxy.targets.length < 1) await turn()
  await harness.egresses.close()
  await busy
  await making.catch(() => {})
  while (origin.openConnections > 0 || proxy.openConnections > 0) await turn()
})
