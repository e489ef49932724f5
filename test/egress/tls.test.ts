import { writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { createServer } from 'node:tls'
import { expect, test } from 'vitest'
import { testAuthority } from '../support/certificates.ts'
import { startHttpProxy } from '../support/http-proxy.ts'
import { Listener } from '../support/listener.ts'
import { startOrigin } from '../support/origin.ts'
import { Harness } from './harness.ts'

const NAMES = ['127.0.0.1']
const BAD = {
  'self-signed': testAuthority().issue(NAMES, { selfSigned: true }),
  'for another name': testAuthority().issue(['elsewhere.test', '127.0.0.2']),
  expired: testAuthority().issue(NAMES, { expired: true }),
  'with a common name only': testAuthority().issue(NAMES, { commonNameOnly: true }),
}

for (const [kind, certificate] of Object.entries(BAD)) {
  test(`sends no request to an origin whose certificate is ${kind}`, async () => {
    await using origin = await startOrigin({ tls: true, certificate })
    await using http = await startHttpProxy()
    await using harness = new Harness({ egress: { http: http.url } })
    for (const name of harness.egresses.names()) {
      for (let i = 0; i < 2; i++) {
        const failure = await harness.failure(name, origin.url)
        expect([name, failure.code, failure.sent]).toEqual([name, 'UPSTREAM_TLS', false])
      }
      expect(harness.egresses.isUp(name)).toBe(true)
    }
    expect(origin.requests).toEqual([])
  })
}

test('a common name stands for nothing, also beside an address as alternative name', async () => {
  const certificate = testAuthority().issue(['api.test'], { commonNameOnly: true })
  await using origin = await startOrigin({ tls: true, certificate })
  await using harness = new Harness({ upstream: { resolve: { 'api.test': '127.0.0.1' } } })
  const failure = await harness.failure('direct', `https://api.test:${origin.port}`)
  expect(failure.code).toBe('UPSTREAM_TLS')
  expect(failure.message).toContain('certificate is for another name')
})

test('does not trust a private root unless it is configured', async () => {
  await using origin = await startOrigin({ tls: true })
  await using harness = new Harness({ upstream: { ca: [] } })
  const failure = await harness.failure('direct', origin.url)
  expect(failure.message).toMatch(/its certificate is not trusted/)
})

test('trusts every certificate of a bundle', async () => {
  await using origin = await startOrigin({ tls: true })
  const authority = testAuthority()
  const other = authority.issue(['other.test'], { selfSigned: true }).cert
  const bundle = join(dirname(authority.caFile), 'bundle.pem')
  writeFileSync(bundle, `# roots\n${other}\n${authority.caPem}`)
  await using harness = new Harness({ upstream: { ca: [bundle] } })
  expect((await harness.request('direct', origin.url)).status).toBe(200)
})

test('refuses TLS 1.1, and offers HTTP/2 unless it is switched off', async () => {
  const offered: unknown[] = []
  const certificate = testAuthority().issue(NAMES)
  const old = createServer({
    ...certificate,
    minVersion: 'TLSv1',
    maxVersion: 'TLSv1.1',
    ciphers: 'DEFAULT@SECLEVEL=0',
  })
  old.on('tlsClientError', () => {})
  await using oldListener = new Listener(old)
  const oldPort = await oldListener.listen('127.0.0.1')
  const alpn = createServer({
    ...certificate,
    ALPNCallback: ({ servername, protocols }) => {
      offered.push(servername || '', protocols)
      return undefined
    },
  })
  alpn.on('tlsClientError', () => {})
  await using alpnListener = new Listener(alpn)
  const alpnPort = await alpnListener.listen('127.0.0.1')
  await using harness = new Harness()
  expect((await harness.failure('direct', `https://127.0.0.1:${oldPort}`)).code).toBe(
    'UPSTREAM_TLS',
  )
  expect((await harness.failure('direct', `https://127.0.0.1:${alpnPort}`)).code).toBe(
    'UPSTREAM_TLS',
  )
  harness.apply({ upstream: { http2: false } })
  await harness.failure('direct', `https://127.0.0.1:${alpnPort}`)
  // No server name for an address (RFC 6066 §3).
  expect(offered).toEqual(['', ['h2', 'http/1.1'], '', ['http/1.1']])
})

test('an origin that closes within the handshake is a TLS failure', async () => {
  const { createServer: createTcpServer } = await import('node:net')
  const server = createTcpServer((socket) => socket.once('data', () => socket.destroy()))
  await using listener = new Listener(server)
  const port = await listener.listen('127.0.0.1')
  await using harness = new Harness()
  const failure = await harness.failure('direct', `https://127.0.0.1:${port}`)
  expect(failure).toMatchObject({ code: 'UPSTREAM_TLS', sent: false })
})

for (const maxVersion of ['TLSv1.2', 'TLSv1.3'] as const) {
  test(`resumes ${maxVersion} sessions for one key and never for another`, async () => {
    await using origin = await startOrigin({
      tls: true,
      maxVersion,
      handler: (_request, response) => {
        response.setHeader('connection', 'close').end('{}')
      },
    })
    await using harness = new Harness()
    await harness.request('direct', origin.url, 'a')
    await harness.request('direct', origin.url, 'a')
    expect([origin.connections, origin.resumedSessions]).toEqual([2, 1])
    await harness.request('direct', origin.url, 'b')
    expect([origin.connections, origin.resumedSessions]).toEqual([3, 1])
  })
}
