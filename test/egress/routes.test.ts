import { once } from 'node:events'
import { createServer } from 'node:net'
import { connect as tlsConnect } from 'node:tls'
import { expect, test } from 'vitest'
import { timingsOf } from '../../src/egress/egress.ts'
import { startHttpProxy } from '../support/http-proxy.ts'
import { Listener } from '../support/listener.ts'
import { startOrigin } from '../support/origin.ts'
import { startSocksProxy } from '../support/socks-proxy.ts'
import { failureOf, Harness } from './harness.ts'

const AUTH = { user: 'ann@example', pass: 'p:ä%/ss' }

for (const tls of [false, true]) {
  const scheme = tls ? 'https' : 'http'

  test(`leaves by the address of each egress, as the ${scheme} origin sees it`, async () => {
    await using origin = await startOrigin({ tls })
    await using http = await startHttpProxy({ host: '127.0.0.2', auth: AUTH })
    await using https = await startHttpProxy({ host: '127.0.0.3', tls: true, auth: AUTH })
    await using socks = await startSocksProxy({ host: '127.0.0.4', auth: AUTH })
    await using open = await startSocksProxy({ host: '127.0.0.6' })
    await using harness = new Harness({
      egress: {
        local: 'local://127.0.0.5',
        http: http.url,
        https: https.url,
        socks: socks.url,
        open: open.url,
      },
    })
    const seen: Record<string, string> = {}
    for (const name of harness.egresses.names()) {
      seen[name] = (await harness.request(name, origin.url)).remoteAddress
    }
    expect(seen).toEqual({
      direct: '127.0.0.1',
      local: '127.0.0.5',
      http: '127.0.0.2',
      https: '127.0.0.3',
      socks: '127.0.0.4',
      open: '127.0.0.6',
    })
    expect(http.targets).toEqual([`127.0.0.1:${origin.port}`])
  })
}

test('reaches an IPv6 target and verifies its address in the certificate', async () => {
  await using origin = await startOrigin({ tls: true, host: '::1' })
  await using http = await startHttpProxy({ host: '::1', outboundAddress: '::1' })
  await using socks = await startSocksProxy({ host: '::1', outboundAddress: '::1' })
  await using harness = new Harness({
    egress: {
      http: `http://[::1]:${http.port}`,
      socks: `socks5://[::1]:${socks.port}`,
      local: 'local://[::1]',
    },
  })
  for (const name of harness.egresses.names()) {
    expect((await harness.request(name, origin.url)).status).toBe(200)
  }
  expect(http.targets).toEqual([`[::1]:${origin.port}`])
  expect(socks.targets).toEqual([`::1:${origin.port}`])
})

test('lets a SOCKS proxy resolve the name', async () => {
  await using origin = await startOrigin({ tls: true })
  await using socks = await startSocksProxy({ names: { 'api.test': '127.0.0.1' } })
  await using harness = new Harness({ egress: { socks: socks.url } })
  await harness.request('socks', `https://api.test:${origin.port}`)
  expect(socks.targets).toEqual([`api.test:${origin.port}`])
})

test('dials what upstream.resolve says and keeps the name in TLS and Host', async () => {
  await using origin = await startOrigin({ tls: true, names: ['api.test'] })
  await using http = await startHttpProxy()
  await using socks = await startSocksProxy()
  await using harness = new Harness({
    egress: { http: http.url, socks: socks.url },
    upstream: { resolve: { 'API.test': '127.0.0.9', [`api.test:${origin.port}`]: '127.0.0.1' } },
  })
  for (const name of harness.egresses.names()) {
    await harness.request(name, `https://api.test:${origin.port}`)
  }
  expect(http.targets).toEqual([`127.0.0.1:${origin.port}`])
  expect(socks.targets).toEqual([`127.0.0.1:${origin.port}`])
  const hosts = origin.requests.map(({ headers }) => headers[headers.indexOf('Host') + 1])
  expect(hosts).toEqual(Array(3).fill(`api.test:${origin.port}`))
})

test('tries the next address of a name when one refuses, and only the family of a local address', async () => {
  await using origin = await startOrigin({ host: '127.0.0.1' })
  await using harness = new Harness({ egress: { local: 'local://127.0.0.5' } })
  const url = `http://localhost:${origin.port}`
  expect((await harness.request('direct', url)).remoteAddress).toBe('127.0.0.1')
  expect((await harness.request('local', url)).remoteAddress).toBe('127.0.0.5')
})

test('dials only what is permitted of the addresses of a name', async () => {
  await using origin = await startOrigin({ host: '::1' })
  await using harness = new Harness({ forbidden: (address) => address === '::1' })
  const failure = await harness.failure('direct', `http://localhost:${origin.port}`)
  // 127.0.0.1 is left where localhost has both addresses, and nothing listens there.
  expect(['UPSTREAM_UNREACHABLE', 'DESTINATION_DENIED']).toContain(failure.code)
  expect(origin.connections).toBe(0)
})

test('refuses a forbidden address by the address that is dialled, on every egress', async () => {
  await using origin = await startOrigin()
  await using http = await startHttpProxy()
  await using socks = await startSocksProxy()
  const asked: string[] = []
  await using harness = new Harness({
    egress: { local: 'local://127.0.0.5', http: http.url, socks: socks.url },
    upstream: { resolve: { 'own.test': '127.0.0.1' } },
    forbidden: (address, port) => {
      asked.push(address)
      return port === origin.port
    },
  })
  for (const name of harness.egresses.names()) {
    for (const host of ['own.test', 'localhost', '127.0.0.1']) {
      // A name that only the proxy resolves is the proxy's to judge.
      if (host === 'localhost' && ['http', 'socks'].includes(name)) continue
      const failure = await harness.failure(name, `http://${host}:${origin.port}`)
      expect([name, host, failure.code]).toEqual([name, host, 'DESTINATION_DENIED'])
      expect(failure.sent).toBe(false)
    }
  }
  expect(asked.every((address) => address === '127.0.0.1' || address === '::1')).toBe(true)
  expect(origin.connections).toBe(0)
  expect(harness.changes).toEqual([])
})

test('treats a proxy at a forbidden address, such as an own listener, as down', async () => {
  await using origin = await startOrigin()
  await using http = await startHttpProxy()
  await using harness = new Harness({
    egress: { http: http.url },
    forbidden: (_address, port) => port === http.port,
  })
  expect((await harness.failure('http', origin.url)).code).toBe('EGRESS_DOWN')
  expect(http.openConnections).toBe(0)
})

test('asks the guard of a tunnel for the address that is dialled', async () => {
  await using origin = await startOrigin()
  await using harness = new Harness({ upstream: { resolve: { 'api.test': '127.0.0.1' } } })
  const asked: string[] = []
  const connecting = harness.egresses.connect(
    'direct',
    { host: 'api.test', port: origin.port },
    {
      guard: (address, port) => {
        asked.push(`${address}:${port}`)
        return false
      },
    },
  )
  expect((await failureOf(connecting)).code).toBe('DESTINATION_DENIED')
  expect(asked).toEqual([`127.0.0.1:${origin.port}`])
  expect(origin.connections).toBe(0)
})

test('a tunnel carries bytes both ways, the greeting of a server that speaks first too', async () => {
  const server = createServer((socket) => {
    socket.write('220 ready\n')
    socket.on('data', (chunk) => socket.end(`echo ${chunk}`))
  })
  await using listener = new Listener(server)
  const port = await listener.listen('127.0.0.1')
  await using http = await startHttpProxy()
  await using socks = await startSocksProxy()
  await using harness = new Harness({ egress: { http: http.url, socks: socks.url } })
  for (const name of harness.egresses.names()) {
    const socket = await harness.egresses.connect(name, { host: '127.0.0.1', port })
    // The greeting must survive although nobody listens for it yet.
    await new Promise((resolve) => setImmediate(resolve))
    let text = ''
    socket.on('data', (chunk) => {
      if (text === '') socket.write('hello')
      text += chunk
    })
    await once(socket, 'end')
    expect([name, text]).toEqual([name, '220 ready\necho hello'])
    socket.destroy()
  }
})

test('hands over what a proxy sent together with the opening of a tunnel', async () => {
  await using http = await startHttpProxy({ behaviour: 'garbage-after-200' })
  await using socks = await startSocksProxy({ behaviour: 'garbage-after-grant' })
  await using harness = new Harness({ egress: { http: http.url, socks: socks.url } })
  for (const name of ['http', 'socks']) {
    const socket = await harness.egresses.connect(name, { host: '127.0.0.1', port: 9 })
    const [chunk] = await once(socket, 'data')
    expect(String(chunk)).toMatch(/^HTTP\/1\.1 200 OK/)
    socket.destroy()
  }
})

test('opens TLS over a tunnel for upgrades', async () => {
  await using origin = await startOrigin({ tls: true })
  await using http = await startHttpProxy()
  await using harness = new Harness({ egress: { http: http.url } })
  const target = { host: '127.0.0.1', port: origin.port }
  const socket = await harness.egresses.connect('http', target, { secure: true })
  socket.write(`GET /upgraded HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n`)
  const [chunk] = await once(socket, 'data')
  expect(String(chunk)).toMatch(/^HTTP\/1\.1 200 OK/)
  expect(origin.requests[0]?.remoteAddress).toBe('127.0.0.2')
  socket.destroy()
})

test('tells how long a connection took and what was dialled', async () => {
  await using origin = await startOrigin({ tls: true })
  await using http = await startHttpProxy()
  await using harness = new Harness({ egress: { http: http.url } })
  const target = { host: '127.0.0.1', port: origin.port }
  const plain = await harness.egresses.connect('direct', target)
  expect(timingsOf(plain)).toEqual({
    connectMs: expect.any(Number),
    tlsMs: undefined,
    address: `127.0.0.1:${origin.port}`,
  })
  const proxied = await harness.egresses.connect('http', target, { secure: true })
  expect(timingsOf(proxied)).toEqual({
    connectMs: expect.any(Number),
    tlsMs: expect.any(Number),
    address: `127.0.0.2:${http.port}`,
  })
  expect(timingsOf(tlsConnect({ port: origin.port, rejectUnauthorized: false }).destroy())).toBe(
    undefined,
  )
  plain.destroy()
  proxied.destroy()
})

test('fetch leaves by the same way as the traffic of its key, on a connection of its own', async () => {
  await using origin = await startOrigin({ tls: true })
  await using http = await startHttpProxy()
  await using harness = new Harness({ egress: { http: http.url } })
  const { connection } = await harness.request('http', origin.url, 'supplier/a')
  const fetch = harness.egresses.fetch('http', 'supplier/a')
  const response = await fetch(`${origin.url}/token`, {
    method: 'POST',
    headers: new Headers({ 'x-test': 'yes' }),
    body: new URLSearchParams({ grant_type: 'client_credentials' }),
  })
  expect(await response.json()).toMatchObject({
    remoteAddress: '127.0.0.2',
    connection: connection + 1,
    method: 'POST',
  })
  expect(origin.requests[1]?.body.toString()).toBe('grant_type=client_credentials')
  expect(http.targets).toHaveLength(2)
})

test('fetch hands redirects back, fails as a source when the egress is down, and can be aborted', async () => {
  await using origin = await startOrigin({
    handler: (request, response) => {
      if (request.url === '/hang') return
      response.writeHead(302, { location: '/elsewhere' }).end()
    },
  })
  await using http = await startHttpProxy()
  await using harness = new Harness({ egress: { http: http.url } })
  const fetch = harness.egresses.fetch('http', 'supplier/a')
  expect((await fetch(origin.url)).status).toBe(302)
  const controller = new AbortController()
  const aborted = fetch(`${origin.url}/hang`, { signal: controller.signal })
  while (origin.requests.length < 2) await new Promise((resolve) => setImmediate(resolve))
  controller.abort(new Error('enough'))
  await expect(aborted).rejects.toThrow('enough')
  await http.close()
  await expect(fetch(origin.url)).rejects.toMatchObject({ kind: 'egress', code: 'SOURCE_FAILED' })
  const direct = harness.egresses.fetch('direct', 'supplier/a')
  await expect(direct(`https://127.0.0.1:${origin.port}`)).rejects.toMatchObject({
    code: 'UPSTREAM_TLS',
  })
})
