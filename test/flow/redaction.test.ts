import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { readdir, readFile, writeFile } from 'node:fs/promises'
import { request as httpRequest } from 'node:http'
import { createServer } from 'node:net'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { type CommandLine, cupbearer, MAIN, said } from '../cli/command-line.ts'
import { Folder } from '../config/folder.ts'
import { canary, type Finding, findSecrets } from '../support/canaries.ts'
import { ProxyClient } from '../support/client.ts'
import { Collector } from '../support/collector.ts'
import { startHttpProxy } from '../support/http-proxy.ts'
import { type Origin, startOrigin } from '../support/origin.ts'
import { trusting } from '../support/protected-origin.ts'
import { json, type ScriptedEndpoint, startScriptedEndpoint } from '../support/scripted-endpoint.ts'
import { startSocksProxy } from '../support/socks-proxy.ts'

/** What nobody may ever read again, but those whom it is for. */
const SECRETS = {
  staticToken: canary('static'),
  queryToken: canary('query'),
  cookieToken: canary('cookie'),
  accessToken: canary('access'),
  secondAccessToken: canary('second'),
  refreshToken: canary('refresh'),
  rotatedToken: canary('rotated'),
  clientSecret: canary('client', ' "%\\+'),
  proxyPassword: canary('proxy', ' "%\\+'),
  socksPassword: canary('socks', ' "%\\+'),
  userPassword: canary('user', ' "%\\+'),
  wrongPassword: canary('wrong', ' "%\\+'),
  adminToken: canary('admin'),
  collectorKey: canary('collector'),
  ownCredential: canary('own'),
  quotedByError: canary('quoted'),
  misplaced: canary('misplaced'),
}

/** Everything that was written, by whom it was read. */
const written: [where: string, what: Buffer | string][] = []
const note = (where: string, what: Buffer | string) => written.push([where, what])

const closing: AsyncDisposable[] = []
let folder: Folder
let child: CommandLine
let ready: { proxy: string; admin: string; ca: string; pid: number }
let ca: string
let origin: Origin
let endpoint: ScriptedEndpoint
let collector: Collector
let endpointMode: 'well' | 'invalid' | 'html' = 'well'
let config: Record<string, unknown>
const codes = new Set<string>()

function use<Resource extends AsyncDisposable>(resource: Resource): Resource {
  closing.push(resource)
  return resource
}

/** Gives back, wherever it may, what came: the proxy must take the token out of it. */
function startEcho(): Promise<Origin> {
  return startOrigin({
    tls: true,
    handler: (request, response) => {
      const sent = JSON.stringify([
        request.headers.authorization,
        request.headers.cookie,
        request.url,
      ])
      if (request.url?.startsWith('/reset')) return void request.socket.destroy()
      if (request.url?.startsWith('/hang')) return
      const status = Number(/^\/status\/(\d+)/.exec(request.url ?? '')?.[1] ?? 200)
      const bearer = request.headers.authorization?.replace('Bearer ', '') ?? 'none'
      response.writeHead(status, `Fine for ${bearer}`, {
        'x-token': bearer,
        'www-authenticate': `Bearer error="invalid_token", error_description="${bearer} is over"`,
        'set-cookie': `seen=${bearer}`,
        location: `https://api.test/?access_token=${bearer}`,
        'content-type': 'application/json',
        trailer: 'x-last',
      })
      // The body of an answer passes as it is; only traces may not have it.
      response.write(request.url?.startsWith('/body') ? sent : '{}')
      response.addTrailers({ 'x-last': bearer })
      response.end()
    },
  })
}

/** An authorization server that quotes in its refusals what it was sent. */
function startEndpoint(): Promise<ScriptedEndpoint> {
  let given = 0
  return startScriptedEndpoint((response, request) => {
    const quoted = `${request.headers.authorization} ${request.body} ${SECRETS.clientSecret}`
    if (endpointMode === 'html') return void response.writeHead(500).end(`<p>${quoted}</p>`)
    if (endpointMode === 'invalid') {
      return json(response, 400, { error: 'invalid_grant', error_description: quoted })
    }
    given += 1
    json(response, 200, {
      access_token: given === 1 ? SECRETS.accessToken : SECRETS.secondAccessToken,
      refresh_token: SECRETS.rotatedToken,
      token_type: 'Bearer',
      expires_in: 3600,
    })
  })
}

function client(auth = `crawler:${SECRETS.userPassword}`): ProxyClient {
  return use(new ProxyClient({ proxyUrl: ready.proxy, ca, auth }))
}

/** One request through the proxy; all that the client gets is noted, the body only where it may be. */
async function ask(
  url: string,
  headers: Record<string, string> = {},
  options: { via?: ProxyClient; method?: string; body?: string } = {},
): Promise<number> {
  const { via = client(), ...more } = options
  try {
    const answer = await via.request(url, { headers, ...more })
    const head = [answer.status, answer.reason, answer.rawHeaders, answer.rawTrailers]
    note(`answer of ${url}`, JSON.stringify(head))
    if (!url.includes('/body')) note(`body of ${url}`, answer.body)
    const code = /details="(\w+)"/.exec(String(answer.headers['proxy-status']))?.[1]
    if (code) codes.add(code)
    return answer.status
  } catch (error) {
    const { status, head } = error as { status?: number; head?: string }
    if (!head) throw error
    note(`CONNECT for ${url}`, head)
    codes.add(/details="(\w+)"/.exec(head)?.[1] ?? '')
    return status ?? 0
  }
}

async function admin(path: string, method = 'GET', headers: Record<string, string> = {}) {
  const response = await fetch(ready.admin + path, {
    method,
    headers: { authorization: `Bearer ${SECRETS.adminToken}`, ...headers },
  })
  const body = await response.text()
  note(`${method} ${path}`, JSON.stringify([...response.headers]) + body)
  return body
}

/** Reads the events from here on until the proxy ends. */
async function listen(): Promise<void> {
  const asked = httpRequest(`${ready.admin}/api/events`, {
    headers: { authorization: `Bearer ${SECRETS.adminToken}` },
    agent: false,
  })
  asked.end()
  const [response] = await once(asked, 'response')
  response.on('error', () => {}).on('data', (chunk: Buffer) => note('events', chunk))
}

const oauth = (more: object = {}) => ({
  type: 'oauth2',
  grant: 'refresh_token',
  tokenUrl: `${endpoint.url}/token`,
  clientId: 'pipeline',
  clientSecret: SECRETS.clientSecret,
  refreshToken: SECRETS.refreshToken,
  ...more,
})

beforeAll(async () => {
  folder = await Folder.create()
  origin = use(await startEcho())
  endpoint = use(await startEndpoint())
  collector = use(await Collector.start())
  const auth = { user: 'ann', pass: SECRETS.proxyPassword }
  const proxy = use(await startHttpProxy({ host: '127.0.0.2', auth }))
  const socks = use(
    await startSocksProxy({
      host: '127.0.0.3',
      auth: { user: 'ann', pass: SECRETS.socksPassword },
    }),
  )
  const refusing = use(await startHttpProxy({ host: '127.0.0.4', auth, behaviour: 'refuse-407' }))
  const dead = await closedPort()
  await writeFile(folder.at('client-secret'), SECRETS.clientSecret)
  const fixed = (id: string, token: string, more: object = {}) => ({
    id,
    source: { type: 'static', token },
    ...more,
  })
  const at = (host: string, port = origin.port) => `${host}:${port}`
  config = {
    listen: '127.0.0.1:0',
    admin: { listen: '127.0.0.1:0', token: SECRETS.adminToken },
    log: { level: 'trace', format: 'json' },
    clients: { crawler: { password: SECRETS.userPassword, lease: true } },
    trace: {
      bodies: true,
      har: 'requests.har',
      otlp: { url: collector.url, headers: { 'x-key': SECRETS.collectorKey } },
    },
    egress: {
      http: proxy.url,
      socks: socks.url,
      refusing: { url: refusing.url },
    },
    passthrough: { action: 'deny' },
    upstream: {
      ...trusting('api a b c d e f g h i'.split(' ').map((name) => `${name}.test`)),
      // What hangs takes that long; all else must not.
      headersTimeout: '4s',
    },
    pools: {
      header: {
        targets: [at('api.test')],
        egress: ['http'],
        credentials: [fixed('static', SECRETS.staticToken)],
      },
      query: {
        targets: [at('a.example.test')],
        inject: { query: 'k', value: '{token}' },
        credentials: [fixed('query', SECRETS.queryToken)],
      },
      cookie: {
        targets: [at('b.example.test')],
        inject: { cookie: 'sid', value: '{token}' },
        egress: ['socks'],
        credentials: [fixed('cookie', SECRETS.cookieToken)],
      },
      oauth: {
        targets: [at('c.example.test')],
        refresh: { minInterval: '1ms' },
        queue: { wait: '3s' },
        credentials: [{ id: 'oauth', source: oauth({ clientSecret: `\${file:client-secret}` }) }],
      },
      refused: {
        targets: [at('d.example.test')],
        queue: { wait: '1ms' },
        credentials: [fixed('refused', SECRETS.staticToken, { egress: 'refusing' })],
      },
      scoped: {
        targets: [at('e.example.test')],
        requires: [{ path: '/admin', claims: { role: 'admin' } }],
        credentials: [fixed('scoped', unsigned({ role: 'reader' }))],
      },
      nobody: {
        targets: [at('f.example.test', dead)],
        credentials: [fixed('nobody', SECRETS.staticToken)],
      },
      plaintext: {
        targets: [at('localhost', Number(new URL(endpoint.url).port))],
        credentials: [fixed('plaintext', SECRETS.staticToken)],
      },
      full: {
        targets: [at('g.example.test')],
        queue: { wait: '1ms', max: 0 },
        credentials: [fixed('full', SECRETS.staticToken)],
      },
    },
  }
  const resolve = Object.fromEntries(
    ['api.test', ...'abcdefg'.split('').map((name) => `${name}.example.test`)].map((name) => [
      name,
      '127.0.0.1',
    ]),
  )
  ;(config.upstream as { resolve: object }).resolve = resolve
  await folder.write('config.json', config)
  child = spawn(process.execPath, [MAIN, 'start', '--json'], {
    cwd: folder.path,
    stdio: ['ignore', 'pipe', 'pipe'],
    env: {
      PATH: process.env.PATH,
      NODE_OPTIONS: `--import ${new URL('../support/crash-on-demand.mjs', import.meta.url).pathname}`,
      QUOTED_SECRET: SECRETS.quotedByError,
      REPORT_FILE: join(folder.path, 'report.json'),
    },
  })
  child.stderr.on('data', (chunk: Buffer | string) => note('stderr', String(chunk)))
  const line = await said(child.stdout, /\n/)
  note('stdout', line)
  child.stdout.on('data', (chunk: Buffer | string) => note('stdout', String(chunk)))
  ready = JSON.parse(line)
  ca = await readFile(ready.ca, 'utf8')
  await listen()
})

afterAll(async () => {
  child?.kill('SIGKILL')
  for (const each of closing.reverse()) await each[Symbol.asyncDispose]()
  await folder[Symbol.asyncDispose]()
})

/** A JWT that nobody has signed. */
function unsigned(claims: object): string {
  const part = (value: object) => Buffer.from(JSON.stringify(value)).toString('base64url')
  return `${part({ alg: 'none' })}.${part(claims)}.c2ln`
}

async function closedPort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as { port: number }
  server.close()
  await once(server, 'close')
  return port
}

describe('whatever happens', () => {
  const own = {
    authorization: `Bearer ${SECRETS.ownCredential}`,
    cookie: `me=${SECRETS.ownCredential}`,
  }
  const at = (host: string) => `https://${host}:${origin.port}`

  test('requests go well, by every injection and egress', async () => {
    for (const host of ['api.test', 'a.example.test', 'b.example.test', 'c.example.test']) {
      expect(await ask(`${at(host)}/?api_key=${SECRETS.ownCredential}`, own)).toBe(200)
      expect(await ask(`${at(host)}/body`, own)).toBe(200)
    }
    const form = { 'content-type': 'application/x-www-form-urlencoded' }
    const body = `client_secret=${encodeURIComponent(SECRETS.ownCredential)}&a=1`
    expect(await ask(`${at('c.example.test')}/`, form, { method: 'POST', body })).toBe(200)
  })

  test('a refused token is renewed, in vain and with success', async () => {
    expect(await ask(`${at('c.example.test')}/status/401`)).toBe(401)
    endpointMode = 'html'
    expect(await ask(`${at('c.example.test')}/status/401`)).toBe(503)
    endpointMode = 'well'
    await admin('/api/pools/oauth/credentials/oauth/release', 'POST')
    await admin('/api/pools/oauth/credentials/oauth/refresh', 'POST')
    endpointMode = 'invalid'
    await admin('/api/pools/oauth/credentials/oauth/refresh', 'POST')
    expect(await ask(`${at('c.example.test')}/`)).toBe(503)
  })

  test('every error that a client can provoke is met', async () => {
    expect(await ask(`${at('d.example.test')}/`)).toBe(502)
    expect(await ask(`${at('e.example.test')}/admin`)).toBe(403)
    expect(await ask(`https://f.example.test:${nobodyPort()}/`)).toBe(502)
    expect(await ask(`https://localhost:${new URL(endpoint.url).port}/`)).toBe(502)
    expect(await ask(`${at('api.test')}/reset`, own, { method: 'POST', body: 'x' })).toBe(502)
    expect(await ask(`${at('api.test')}/hang`, own, { method: 'POST', body: 'x' })).toBe(504)
    expect(await ask(`${at('api.test')}/`, { ...own, host: 'other.test' })).toBe(421)
    expect(await ask(`${at('api.test')}/`, own, { method: 'TRACE' })).toBe(405)
    expect(await ask(`${at('denied.example.test')}/`, own)).toBe(403)
    expect(await ask(`${at('g.example.test')}/`, { 'cupbearer-credential': 'nobody' })).toBe(503)
    await admin('/api/pools/full/credentials/full/quarantine', 'POST')
    expect(await ask(`${at('g.example.test')}/`)).toBe(503)
    const { head } = await client().tunnel(`me:${SECRETS.ownCredential}@api.test:443`)
    note('malformed CONNECT', head)
    codes.add(/details="(\w+)"/.exec(head)?.[1] ?? '')
    for (let i = 0; i < 11; i++) {
      const wrong = client(`crawler:${SECRETS.wrongPassword}`)
      await ask(`${at('api.test')}/`, own, { via: wrong })
    }
    expect([...codes].sort()).toEqual(
      [
        'AUTHORITY_MISMATCH',
        'BAD_REQUEST',
        'CLIENT_UNAUTHENTICATED',
        'DESTINATION_DENIED',
        'EGRESS_DOWN',
        'METHOD_REFUSED',
        'NO_TOKEN_WITH_SCOPE',
        'POOL_EXHAUSTED',
        'QUEUE_FULL',
        'TOO_MANY_ATTEMPTS',
        'UPSTREAM_RESET',
        'UPSTREAM_TIMEOUT',
        'UPSTREAM_TLS',
        'UPSTREAM_UNREACHABLE',
      ].sort(),
    )
  })

  test('everything is exported and shown', async () => {
    const traces = JSON.parse(await admin('/api/traces?limit=1000')).traces as { id: string }[]
    expect(traces.length).toBeGreaterThan(25)
    for (const { id } of traces) await admin(`/api/traces/${id}`)
    for (const path of [
      '/api/traces.har',
      '/api/pools',
      '/api/openapi.json',
      '/metrics',
      '/healthz',
      '/readyz',
      '/proxy.pac',
      '/api/pools/none',
      `/api/traces?nonsense=${SECRETS.ownCredential}`,
    ]) {
      await admin(path)
    }
    await admin('/metrics', 'GET', { accept: 'application/openmetrics-text' })
    await admin('/api/pools', 'GET', { authorization: `Bearer ${SECRETS.wrongPassword}` })
    for (const args of [
      ['status'],
      ['status', '--json'],
      ['trace', '--limit', '1000'],
      ['trace', traces[0]?.id as string],
      ['har', '-o', 'exported.har'],
      ['token', 'list'],
    ]) {
      const { out, err } = await cupbearer(args, { cwd: folder.path })
      note(`cupbearer ${args.join(' ')}`, out + err)
    }
  })

  test('a secret in the wrong place of the configuration is not quoted', async () => {
    const pools = config.pools as Record<string, Record<string, unknown>>
    const spoilt = {
      ...config,
      storeKey: SECRETS.misplaced,
      egress: { ...(config.egress as object), odd: `gopher://${SECRETS.misplaced}` },
      pools: { ...pools, header: { ...pools.header, targets: [SECRETS.misplaced], tokens: 1 } },
    }
    await folder.write('config.json', spoilt)
    child.kill('SIGHUP')
    await expect.poll(() => all('stderr')).toContain('configuration refused')
    const { code, out, err } = await cupbearer(['check'], { cwd: folder.path })
    note('cupbearer check', out + err)
    expect(code).toBe(2)
    await folder.write('config.json', config)
  })

  test('SIGUSR1 opens no inspector, a report is written, and a crash says little', async () => {
    child.kill('SIGUSR1')
    child.kill('SIGPWR')
    await expect
      .poll(() => readFile(folder.at('report.json'), 'utf8').catch(() => ''))
      .toContain('}')
    child.kill('SIGUSR2')
    const [code] = await once(child, 'close')
    expect(code).toBe(1)
    expect(all('stderr')).toContain('unexpected failure')
    expect(all('stderr')).not.toContain('Debugger listening')
    expect(all('events')).toContain('event: trace')
  })
})

describe('a search of everything that was written', () => {
  /** The sources of the secrets, which are the operator's own, and the file that is there to hand one over (0600). */
  const GIVEN = new Set(['config.json', 'client-secret', 'admin-token'])

  async function everything(): Promise<Finding[]> {
    const files = await readdir(folder.path, { recursive: true, withFileTypes: true })
    for (const entry of files) {
      if (!entry.isFile() || GIVEN.has(entry.name)) continue
      const path = join(entry.parentPath, entry.name)
      note(path.slice(folder.path.length), await readFile(path))
    }
    for (const { body } of collector.requests) note('collector', body)
    return written.flatMap(([where, what]) => findSecrets(SECRETS, where, what))
  }

  test('finds no secret, whole or in parts, in any spelling', async () => {
    const found = await everything()
    expect(found.slice(0, 5)).toEqual([])
    const places = new Set(written.map(([where]) => where))
    for (const place of [
      'stdout',
      'stderr',
      'events',
      'collector',
      '/requests.har',
      '/exported.har',
      '/report.json',
      '/data/cupbearer.db',
    ]) {
      expect([...places]).toContain(place)
    }
  })

  test('would find one in every spelling that it looks for', () => {
    const secret = SECRETS.clientSecret
    const turned = [...secret].reverse().join('')
    const spelt = [
      secret,
      encodeURIComponent(secret),
      JSON.stringify({ secret }),
      Buffer.from(secret).toString('hex'),
      Buffer.from(secret).toString('base64'),
      Buffer.from(secret).toString('base64url'),
      Buffer.from(`pipeline:${secret}`).toString('base64'),
      Buffer.from(`x${secret}`).toString('base64url'),
      turned,
      secret.slice(0, 12),
      `${secret.slice(0, 15)}…`,
    ]
    for (const text of spelt) {
      expect(findSecrets({ secret }, 'here', `before ${text} after`)).not.toEqual([])
    }
    expect(findSecrets({ secret }, 'here', 'nothing to see')).toEqual([])
  })
})

const all = (place: string) =>
  written
    .filter(([where]) => where === place)
    .map(([, what]) => what)
    .join('')

function nobodyPort(): number {
  const [target] = (config.pools as { nobody: { targets: string[] } }).nobody.targets
  return Number(target?.split(':')[1])
}
