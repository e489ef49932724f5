import { existsSync, readFileSync } from 'node:fs'
import { writeFile } from 'node:fs/promises'
import { describe, expect, test } from 'vitest'
import { Folder } from '../config/folder.ts'
import { begin, cupbearer, FakeProxy, said } from './command-line.ts'

const CREDENTIAL = {
  id: 'acme@de',
  state: 'quarantined',
  egress: 'frankfurt',
  egressAddress: null,
  generation: 7,
  subject: 'evil\u001b[2Jname',
  scopes: null,
  issuedAt: null,
  expiresAt: '2999-01-01T00:00:00.000Z',
  refreshAt: null,
  uses: 12,
  inFlight: 0,
  limits: [],
  cooldownUntil: null,
  lastError: 'token endpoint timed out',
}
const POOL = {
  name: 'supplier',
  targets: ['api.supplier.example'],
  status: 'degraded',
  trouble: null,
  tokens: { active: 2, cooling: 1, quarantined: 1, pending: 0, revoked: 3 },
  avgTtlRemainingSeconds: 754.6,
  refreshSuccessRate: 0.985,
  requestsPerTokenPerMinute: 12.34,
  authOverhead: 0.0412,
  waiting: 5,
  credentials: [CREDENTIAL],
}
const TRACE = {
  id: '3f9c',
  time: '2026-01-31T12:00:00.123Z',
  kind: 'exchange',
  client: { name: 'crawler', address: '127.0.0.1' },
  method: 'GET',
  url: 'https://api.supplier.example/orders',
  pool: 'supplier',
  status: 200,
  durationMs: 153.2,
  waitMs: 2.5,
  verdict: 'ok',
  skipped: [{ credential: 'b', why: 'cooling' }],
  attempts: [
    {
      credential: 'a',
      generation: 3,
      egress: 'frankfurt',
      address: '192.0.2.1:443',
      status: 401,
      verdict: 'expired',
      connectMs: 10.2,
      tlsMs: 20,
      firstByteMs: 50,
      totalMs: 51,
      reused: false,
    },
    {
      credential: 'a',
      generation: 4,
      egress: 'frankfurt',
      address: '192.0.2.1:443',
      status: 200,
      verdict: 'ok',
      connectMs: null,
      tlsMs: null,
      firstByteMs: 20,
      totalMs: 21,
      reused: true,
    },
  ],
  refresh: { role: 'led', ms: 70, result: 'renewed' },
  replay: { done: true, why: 'a newer token' },
  bytes: { in: 0, out: 512 },
}

async function configured(config: object = {}): Promise<Folder> {
  const folder = await Folder.create()
  await folder.write('config.json', config)
  return folder
}

describe('status', () => {
  test('shows the pools as a table, and as JSON what the proxy says', async () => {
    await using folder = await configured()
    await using _proxy = await FakeProxy.start(folder.path, {
      'GET /api/pools': { pools: [POOL] },
      'GET /api/pools?credentials=false': { pools: [POOL] },
    })
    const { code, out } = await cupbearer(['status'], { cwd: folder.path })
    expect(code).toBe(0)
    const [head, row, ...rest] = out.trimEnd().split('\n')
    expect(rest).toEqual([])
    expect(head?.split(/ {2,}/)).toEqual(
      (
        'pool,status,active,cooling,quarantined,pending,revoked,' +
        'avg TTL,refresh success,req/token/min,overhead,waiting'
      ).split(','),
    )
    expect(row?.split(/ {2,}/)).toEqual(
      'supplier,degraded,2,1,1,0,3,12m 35s,98.5 %,12.3,4.1 %,5'.split(','),
    )
    const json = await cupbearer(['status', '--json'], { cwd: folder.path })
    expect(JSON.parse(json.out)).toEqual({ pools: [POOL] })
  })
})

describe('token', () => {
  test('lists every credential, without letting it write to the terminal', async () => {
    await using folder = await configured()
    await using _proxy = await FakeProxy.start(folder.path, { 'GET /api/pools': { pools: [POOL] } })
    const { out } = await cupbearer(['token', 'list'], { cwd: folder.path })
    expect(out).toContain('supplier/acme@de')
    expect(out).toContain('token endpoint timed out')
    expect(out).toContain('evil�[2Jname')
    expect(out).not.toContain('\u001b')
    expect((await cupbearer(['token', 'list', 'none'], { cwd: folder.path })).code).toBe(1)
  })

  test.each(['refresh', 'quarantine', 'release', 'forget'])(
    '%s acts on that credential',
    async (action) => {
      await using folder = await configured()
      const path = `POST /api/pools/supplier/credentials/acme%40de/${action}`
      await using proxy = await FakeProxy.start(folder.path, { [path]: CREDENTIAL })
      const args = ['token', action, 'supplier/acme@de']
      expect(await cupbearer(args, { cwd: folder.path })).toEqual({
        code: 0,
        out: 'supplier/acme@de is quarantined (token endpoint timed out)\n',
        err: '',
      })
      expect(proxy.requests).toEqual([path])
    },
  )

  test('that is unknown to the proxy exits with 1, and one without its pool with 2', async () => {
    await using folder = await configured()
    await using _proxy = await FakeProxy.start(folder.path, {})
    const unknown = await cupbearer(['token', 'refresh', 'supplier/none'], { cwd: folder.path })
    expect(unknown).toMatchObject({ code: 1, err: 'cupbearer: no such credential\n' })
    expect((await cupbearer(['token', 'refresh', 'acme'], { cwd: folder.path })).code).toBe(2)
  })
})

describe('trace', () => {
  test('lists the requests asked for', async () => {
    await using folder = await configured()
    const path = 'GET /api/traces?limit=5&pool=supplier&status=200'
    await using proxy = await FakeProxy.start(folder.path, { [path]: { traces: [TRACE] } })
    const args = ['trace', '--limit', '5', '--pool', 'supplier', '--status', '200']
    const { out } = await cupbearer(args, { cwd: folder.path })
    expect(proxy.requests).toEqual([path])
    expect(out).toMatch(/3f9c +supplier +a +200 +153 ms +ok +GET https:\/\/api\.supplier/)
  })

  test('of one tells its story', async () => {
    await using folder = await configured()
    await using _proxy = await FakeProxy.start(folder.path, { 'GET /api/traces/3f9c': TRACE })
    const { out } = await cupbearer(['trace', '3f9c'], { cwd: folder.path })
    expect(out.split('\n')).toEqual([
      'GET https://api.supplier.example/orders',
      '200 after 153 ms: all went well',
      '  At 2026-01-31T12:00:00.123Z it came from crawler at 127.0.0.1 for pool supplier; trace 3f9c.',
      '  It waited 2.5 ms for a token: b (cooling) could not be had.',
      '  It went out with the token of a (generation 3) by egress frankfurt to 192.0.2.1:443: 401, the token has expired (connect 10 ms, TLS 20 ms, first byte after 50 ms, all 51 ms).',
      '  Its token was renewed for it: a new token was there after 70 ms.',
      '  It was sent again (a newer token) with the token of a (generation 4) by egress frankfurt to 192.0.2.1:443 over a kept connection: 200 (first byte after 20 ms, all 21 ms).',
      '  0 bytes came from the client, 512 bytes went back.',
      '',
    ])
  })
})

describe('a proxy that', () => {
  test('is gone, though its files are there, is said not to run', async () => {
    await using folder = await configured()
    {
      await using _gone = await FakeProxy.start(folder.path, {})
    }
    const { code, err } = await cupbearer(['status'], { cwd: folder.path })
    expect([code, err]).toEqual([1, expect.stringContaining('no proxy is running')])
  })

  test('refuses the admin token is told apart, and the token is not shown', async () => {
    await using folder = await configured({ admin: { token: 'another-t0ken' } })
    await using _proxy = await FakeProxy.start(folder.path, {})
    const { code, err } = await cupbearer(['status'], { cwd: folder.path })
    expect([code, err]).toEqual([1, expect.stringContaining('refuses the admin token')])
    expect(err).not.toContain('another-t0ken')
  })
})

describe('run', () => {
  const node = (script: string) => ['run', '--', process.execPath, '-e', script]

  test('gives its child the proxy, the bundle with the CA, and the rest of the environment', async () => {
    await using folder = await configured()
    await using _proxy = await FakeProxy.start(folder.path, {})
    const script = 'console.log(JSON.stringify(process.env))'
    const { code, out } = await cupbearer(node(script), { cwd: folder.path, env: { MINE: '1' } })
    expect(code).toBe(0)
    const env = JSON.parse(out) as Record<string, string>
    expect(env).toMatchObject({
      MINE: '1',
      HTTPS_PROXY: 'http://127.0.0.1:8080',
      http_proxy: 'http://127.0.0.1:8080',
      NODE_EXTRA_CA_CERTS: folder.at('ca.pem'),
    })
    const ca = readFileSync(folder.at('ca.pem'), 'utf8').trim()
    expect(readFileSync(env.SSL_CERT_FILE as string, 'utf8')).toContain(ca)
    expect(env.JAVA_TOOL_OPTIONS).toContain('truststore.p12')
    expect(existsSync(folder.at('data/truststore.p12'))).toBe(true)
  })

  test('returns the exit code of its child, and 128 + the signal that ended it', async () => {
    await using folder = await configured()
    await using _proxy = await FakeProxy.start(folder.path, {})
    const cwd = folder.path
    expect((await cupbearer(node('process.exit(42)'), { cwd })).code).toBe(42)
    const killed = node('process.kill(process.pid, "SIGKILL"); setInterval(() => {}, 1000)')
    expect((await cupbearer(killed, { cwd })).code).toBe(137)
    const missing = await cupbearer(['run', '--', 'no-such-program'], { cwd })
    expect([missing.code, missing.err]).toEqual([127, expect.stringContaining('no such program')])
  })

  test.each(['SIGTERM', 'SIGINT'] as const)(
    'hands %s on to its child and waits for it',
    async (signal) => {
      await using folder = await configured()
      await using _proxy = await FakeProxy.start(folder.path, {})
      const script = `process.on('${signal}', () => process.exit(9)); setInterval(() => {}, 1000); console.log('up')`
      const child = begin(node(script), { cwd: folder.path })
      await said(child.stdout, /up/)
      const closed = new Promise((resolve) => child.once('close', resolve))
      child.kill(signal)
      expect(await closed).toBe(9)
    },
  )

  test('puts the client into the URL: the only one by itself, one of several by --client', async () => {
    const clients: Record<string, object> = { crawler: { password: 'p@ss:w/rd' } }
    await using folder = await configured({ clients })
    await using _proxy = await FakeProxy.start(folder.path, {})
    const proxyOf = async (...args: string[]) => {
      const { out } = await cupbearer(['env', '--json', ...args], { cwd: folder.path })
      return (JSON.parse(out) as Record<string, string>).HTTPS_PROXY
    }
    const crawler = 'http://crawler:p%40ss%3Aw%2Frd@127.0.0.1:8080'
    expect(await proxyOf()).toBe(crawler)
    await writeFile(
      folder.at('config.json'),
      JSON.stringify({ clients: { ...clients, other: { password: 'q' } } }),
    )
    expect(await proxyOf('--client', 'crawler')).toBe(crawler)
    const { code, err } = await cupbearer(['env'], { cwd: folder.path })
    expect([code, err]).toEqual([2, expect.stringContaining('crawler, other')])
    expect((await cupbearer(['env', '--client', 'x'], { cwd: folder.path })).code).toBe(2)
  })
})

test('env prints what a shell can evaluate, whatever the values hold', async () => {
  await using folder = await configured()
  await using _proxy = await FakeProxy.start(folder.path, {})
  const { out } = await cupbearer(['env'], { cwd: folder.path, env: { NO_PROXY: "it's,$(x)" } })
  expect(out).toContain("export HTTPS_PROXY='http://127.0.0.1:8080'\n")
  expect(out).toContain("export NO_PROXY='it'\\''s,$(x)'\n")
})
