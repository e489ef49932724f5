import { createHash, X509Certificate } from 'node:crypto'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createServer, type TlsOptions } from 'node:tls'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { createCupbearer } from '../../src/app.ts'
import { examine } from '../../src/cli/doctor/report.ts'
import { loadConfig } from '../../src/config/load.ts'
import { createLineLog } from '../../src/lib/log.ts'
import { Harness } from '../egress/harness.ts'
import { startApp, type TestApp } from '../support/app.ts'
import {
  type IssuedCertificate,
  type IssueOptions,
  testAuthority,
} from '../support/certificates.ts'
import { type HttpProxy, startHttpProxy } from '../support/http-proxy.ts'
import { Listener } from '../support/listener.ts'
import { type Origin, startOrigin } from '../support/origin.ts'
import { trusting } from '../support/protected-origin.ts'
import { type SocksProxy, startSocksProxy } from '../support/socks-proxy.ts'

const EGRESSES = ['direct', 'local', 'http', 'https', 'socks']
/** One host for each egress. */
const HOSTS = EGRESSES.map((egress) => `${egress}.api.test`)
const TOKEN = 'token-that-must-not-leave'

const issue = (options: IssueOptions = {}, names = HOSTS) => testAuthority().issue(names, options)
const GOOD = issue()
const WEAK = { ciphers: 'DEFAULT@SECLEVEL=0' }

interface Case {
  readonly server: TlsOptions & IssuedCertificate
  readonly why?: string
}

const OTHER_NAME = 'its certificate is for another name'
const UNTRUSTED = 'its certificate is not trusted'
const CASES: Record<string, Case> = {
  expired: { server: issue({ expired: true }), why: 'its certificate has expired' },
  'not yet valid': { server: issue({ early: true }), why: 'its certificate is not valid yet' },
  'self-signed': { server: issue({ selfSigned: true }), why: UNTRUSTED },
  'of an unknown authority': { server: issue({ unknownIssuer: true }), why: UNTRUSTED },
  'for another name': { server: issue({}, ['api.test', 'else.api.test']), why: OTHER_NAME },
  'for names above and below': {
    server: issue({}, ['*', '*.*', '*.test', '*.*.test', ...HOSTS.map((host) => `*.${host}`)]),
    why: OTHER_NAME,
  },
  'for a part of a label': {
    server: issue({}, ['*irect.api.test', 'lo*l.api.test', 'h*.api.test', 'sock*.api.test']),
    why: OTHER_NAME,
  },
  'with a common name only': { server: issue({ commonNameOnly: true }), why: OTHER_NAME },
  'with NUL in its names': {
    server: issue(
      {},
      HOSTS.map((host) => `${host}\0.evil.test`),
    ),
    why: OTHER_NAME,
  },
  'with names that quote others': {
    server: issue(
      {},
      HOSTS.map((host) => `evil.test, DNS:${host}`),
    ),
    why: OTHER_NAME,
  },
  'with URIs': {
    server: issue(
      { nameTag: 0x86 },
      HOSTS.map((host) => `https://${host}/`),
    ),
    why: OTHER_NAME,
  },
  'of a weak key': { server: { ...issue({ weakKey: true }), ...WEAK } },
  'signed by SHA-1': { server: { ...issue({ sha1: true }), ...WEAK } },
  'good, by TLS 1.1': {
    server: { ...GOOD, ...WEAK, minVersion: 'TLSv1', maxVersion: 'TLSv1.1' },
  },
  'good, and not the pinned one': { server: GOOD, why: 'its key is none of those pinned' },
}

/** Reads decrypted bytes, and answers whatever comes. */
interface Recorder {
  readonly port: number
  handshakes: number
  heard: string
}

const listeners: Listener[] = []
const recorders = new Map<string, Recorder>()
let http: HttpProxy
let https: HttpProxy
let socks: SocksProxy
let app: TestApp

async function record(options: TlsOptions): Promise<Recorder> {
  const recorder = { port: 0, handshakes: 0, heard: '' }
  const server = createServer(options, (socket) => {
    recorder.handshakes += 1
    socket.on('error', () => {})
    socket.on('data', (chunk: Buffer) => {
      recorder.heard += chunk.toString('latin1')
      socket.end('HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n')
    })
  })
  server.on('tlsClientError', () => {})
  const listener = new Listener(server)
  listeners.push(listener)
  recorder.port = await listener.listen('127.0.0.1')
  return recorder
}

const egress = () => ({
  local: 'local://127.0.0.5',
  http: http.url,
  https: https.url,
  socks: socks.url,
})

function pinOf({ cert }: IssuedCertificate): string {
  const key = new X509Certificate(cert).publicKey.export({ type: 'spki', format: 'der' })
  return `sha256//${createHash('sha256').update(key).digest('base64')}`
}

beforeAll(async () => {
  http = await startHttpProxy({ host: '127.0.0.2' })
  https = await startHttpProxy({ host: '127.0.0.3', tls: true })
  socks = await startSocksProxy({ host: '127.0.0.4' })
  for (const [kind, { server }] of Object.entries(CASES)) recorders.set(kind, await record(server))
  recorders.set('good', await record(GOOD))
  const ports = [...recorders.values()].map(({ port }) => port)
  const pinned = recorders.get('good, and not the pinned one')?.port
  app = await startApp({
    egress: egress(),
    upstream: {
      ...trusting(HOSTS),
      hosts: Object.fromEntries(
        HOSTS.map((host) => [`${host}:${pinned}`, { pin: [pinOf(issue({ expired: true }))] }]),
      ),
    },
    pools: Object.fromEntries(
      EGRESSES.map((name) => [
        name,
        {
          targets: ports.map((port) => `${name}.api.test:${port}`),
          egress: [name],
          credentials: [{ id: 'a', source: { type: 'static', token: TOKEN } }],
        },
      ]),
    ),
  })
})
afterAll(async () => {
  await app?.[Symbol.asyncDispose]()
  for (const each of [http, https, socks, ...listeners]) await each?.[Symbol.asyncDispose]()
})

describe.each(EGRESSES)('by the egress %s', (name) => {
  test.each(Object.keys(CASES))(
    'an origin whose certificate is %s gets not one byte',
    async (kind) => {
      const recorder = recorders.get(kind) as Recorder
      const answer = await app.client().request(`https://${name}.api.test:${recorder.port}/`)
      const { error } = answer.json<{ error: { code: string; message: string } }>()
      expect([answer.status, error.code]).toEqual([502, 'UPSTREAM_TLS'])
      expect(error.message).toContain(CASES[kind]?.why ?? 'the handshake failed')
      expect(recorder.heard).toBe('')
    },
  )

  test('one whose certificate is good gets the token', async () => {
    const recorder = recorders.get('good') as Recorder
    const answer = await app.client().request(`https://${name}.api.test:${recorder.port}/`)
    expect(answer.status).toBe(200)
    expect(recorder.heard).toContain(`Bearer ${TOKEN}`)
    recorder.heard = ''
  })
})

test('an address that stands as a DNS name is none', async () => {
  const recorder = await record(issue({ nameTag: 0x82 }, ['127.0.0.1']))
  await using harness = new Harness({ egress: egress() })
  for (const name of harness.egresses.names()) {
    const failure = await harness.failure(name, `https://127.0.0.1:${recorder.port}`)
    expect([name, failure.code, failure.sent]).toEqual([name, 'UPSTREAM_TLS', false])
  }
  expect(recorder.heard).toBe('')
})

describe('what holds for one host alone', () => {
  const SELF_SIGNED = testAuthority().issue(['127.0.0.1'], { selfSigned: true })

  function harness(origin: Origin, rule: object): Harness {
    return new Harness({
      egress: egress(),
      upstream: { hosts: { [`127.0.0.1:${origin.port}`]: rule } },
    })
  }

  test('insecure lets in whoever answers there, and nobody elsewhere', async () => {
    await using origin = await startOrigin({ tls: true, certificate: SELF_SIGNED })
    await using other = await startOrigin({ tls: true, certificate: SELF_SIGNED })
    await using trustful = harness(origin, { insecure: true })
    for (const name of trustful.egresses.names()) {
      expect((await trustful.request(name, origin.url)).status).toBe(200)
      expect((await trustful.failure(name, other.url)).code).toBe('UPSTREAM_TLS')
    }
    expect(other.requests).toEqual([])
    trustful.apply({ egress: egress(), upstream: {} })
    expect((await trustful.failure('direct', origin.url)).code).toBe('UPSTREAM_TLS')
  })

  test('an insecure host with a pin is the one with that key', async () => {
    await using origin = await startOrigin({ tls: true, certificate: SELF_SIGNED })
    await using right = harness(origin, { insecure: true, pin: [pinOf(SELF_SIGNED)] })
    expect((await right.request('direct', origin.url)).status).toBe(200)
    await using wrong = harness(origin, { insecure: true, pin: [pinOf(GOOD)] })
    const seen = origin.requests.length
    for (const name of wrong.egresses.names()) {
      expect((await wrong.failure(name, origin.url)).message).toContain('none of those pinned')
    }
    expect(origin.requests).toHaveLength(seen)
  })

  test.each(['TLSv1.2', 'TLSv1.3'] as const)(
    'a pin is one of several, comes on top of the rest, and outlives resumption of %s',
    async (maxVersion) => {
      const certificate = testAuthority().issue(['127.0.0.1'])
      await using origin = await startOrigin({
        tls: true,
        certificate,
        maxVersion,
        handler: (_request, response) => response.setHeader('connection', 'close').end('{}'),
      })
      const both = { pin: [pinOf(GOOD), pinOf(certificate)] }
      await using pinned = harness(origin, both)
      for (let i = 0; i < 2; i++) await pinned.request('direct', origin.url, 'key')
      expect(origin.resumedSessions).toBe(1)
      // Revoked: the key is taken from the list.
      pinned.apply({ upstream: { hosts: { '127.0.0.1': { pin: [pinOf(GOOD)] } } } })
      for (let i = 0; i < 2; i++) {
        const failure = await pinned.failure('direct', origin.url, 'key')
        expect(failure.message).toContain('none of those pinned')
      }
      expect(origin.requests).toHaveLength(2)
      await using expired = await startOrigin({
        tls: true,
        certificate: testAuthority().issue(['127.0.0.1'], { expired: true }),
      })
      const pin = [pinOf(testAuthority().issue(['127.0.0.1'], { expired: true }))]
      await using lapsed = harness(expired, { pin })
      expect((await lapsed.failure('direct', expired.url)).code).toBe('UPSTREAM_TLS')
    },
  )

  test('insecure is warned of at start and by the doctor, and is refused for patterns and for all', async () => {
    const folder = await mkdtemp(join(tmpdir(), 'cupbearer-'))
    const file = join(folder, 'config.json')
    const configure = (upstream: object) =>
      writeFile(
        file,
        JSON.stringify({
          listen: '127.0.0.1:0',
          admin: { listen: '127.0.0.1:0' },
          store: 'memory:',
          upstream,
        }),
      )
    try {
      await configure({ hosts: { 'old.test': { insecure: true } } })
      const config = await loadConfig(file)
      let said = ''
      const log = createLineLog('warn', (line) => {
        said += line
      })
      await (await createCupbearer({ config, log })).stop({ force: true })
      expect(said).toContain('INSECURE: the certificate of old.test is not verified')
      const findings = (await examine(config, {})).filter(({ check }) => check === 'tls')
      expect(findings).toMatchObject([
        { status: 'warn', message: expect.stringMatching(/old\.test/) },
      ])
      await configure({ insecure: true })
      await expect(loadConfig(file)).rejects.toThrow()
      await configure({ hosts: { 'a.test': { pin: ['sha256//short'] } } })
      await expect(loadConfig(file)).rejects.toThrow()
      await configure({ hosts: { '*.test': { insecure: true } } })
      const wild = await loadConfig(file)
      await expect(createCupbearer({ config: wild, log })).rejects.toThrow(/upstream\.hosts/)
    } finally {
      await rm(folder, { recursive: true, force: true })
    }
  })
})
