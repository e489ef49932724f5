import { createSocket } from 'node:dgram'
import { once } from 'node:events'
import { mkdtemp, readdir, readFile, rm, stat } from 'node:fs/promises'
import { connect } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest'
import { configSchema } from '../../src/config/schema.ts'
import { SourceError, UpstreamError } from '../../src/errors.ts'
import { formatAuthority } from '../../src/lib/authority.ts'
import { Secret } from '../../src/lib/secret.ts'
import type { PinnedConnect, Source, SourceContext } from '../../src/sources/source.ts'
import { sourceMaker } from '../../src/sources/table.ts'
import { sourceContext } from '../support/source-context.ts'
import { type Spa, type SpaOptions, startSpa } from '../support/spa.ts'

const STEPS = [
  { fill: 'input[name=user]', value: '{user}' },
  { fill: 'input[name=password]', value: '{password}' },
  { click: 'text=Sign in' },
]

let spa: Spa | undefined
/** The system's folder for temporary files, as far as this test is concerned. */
let temporary: string
let dataDir: string

beforeEach(async () => {
  warnings.length = 0
  temporary = await mkdtemp(join(tmpdir(), 'cupbearer-'))
  dataDir = await mkdtemp(join(tmpdir(), 'cupbearer-'))
  vi.stubEnv('TMPDIR', temporary)
})

afterEach(async () => {
  vi.unstubAllEnvs()
  vi.doUnmock('playwright-core')
  await spa?.[Symbol.asyncDispose]()
  spa = undefined
  await rm(temporary, { recursive: true })
  await rm(dataDir, { recursive: true })
})

async function start(options: SpaOptions = {}): Promise<Spa> {
  spa = await startSpa(options)
  return spa
}

const warnings: string[] = []

function maker() {
  return sourceMaker({ dataDir, warn: (message) => warnings.push(message) })
}

function source(
  config: Record<string, unknown>,
  options: { password?: string; make?: ReturnType<typeof maker> } = {},
): Source {
  const { url, user, password } = spa as Spa
  const whole = { type: 'browser', url: `${url}/`, steps: STEPS, capture: RESPONSE(), ...config }
  const parsed = configSchema.parse({
    pools: { api: { targets: ['api.test'], credentials: [{ id: 'a', source: whole }] } },
  })
  const parts = parsed.pools.api?.credentials[0]?.source
  if (!parts) throw new Error('no source')
  return (options.make ?? maker())(parts, {
    vars: { user: new Secret(user), password: new Secret(options.password ?? password) },
  })
}

/** Comes to its end as soon as the page has shown an error. */
const AMBIGUOUS = { steps: [...STEPS, { wait: { selector: '#error' } }, { click: 'input' }] }

const RESPONSE = () => ({
  response: {
    url: `${spa?.url}/api/session`,
    token: '/data/access_token',
    refreshToken: '/data/refresh_token',
    expiresIn: '/data/expires_in',
  },
})

/** Knows the names of the test, and notes what is asked for. */
function dialling(): { connect: PinnedConnect; targets: string[] } {
  const targets: string[] = []
  return {
    targets,
    async connect(target, signal) {
      targets.push(formatAuthority(target))
      if (target.host !== 'spa.test') {
        throw new UpstreamError('UPSTREAM_UNREACHABLE', 'no such host', { sent: false })
      }
      const socket = connect({ host: '127.0.0.1', port: target.port, signal, noDelay: true })
      await once(socket, 'connect')
      return socket
    },
  }
}

const context = (given: Partial<SourceContext> = {}): SourceContext =>
  sourceContext({ connect: dialling().connect, egress: 'way', name: 'api/a', ...given })

async function failure(promise: Promise<unknown>): Promise<SourceError> {
  const error = await promise.then(
    () => undefined,
    (reason: unknown) => reason,
  )
  expect(error).toBeInstanceOf(SourceError)
  return error as SourceError
}

/** Command lines of the processes that have this test's folder in their environment or arguments. */
async function browserProcesses(): Promise<string[]> {
  const found: string[] = []
  for (const id of await readdir('/proc')) {
    if (!/^\d+$/.test(id) || Number(id) === process.pid) continue
    const command = await readFile(`/proc/${id}/cmdline`, 'utf8').catch(() => '')
    const environment = await readFile(`/proc/${id}/environ`, 'utf8').catch(() => '')
    if (`${command}${environment}`.includes(temporary)) found.push(command.replaceAll('\0', ' '))
  }
  return found
}

async function expectNothingLeft(): Promise<void> {
  expect(await readdir(temporary)).toEqual([])
  await vi.waitFor(async () => expect(await browserProcesses()).toEqual([]), 20_000)
}

describe('the token is taken', () => {
  test('from an answer in JSON, with refresh token and lifetime', async () => {
    const { isLive } = await start({ lifetimeSeconds: 600 })
    const { connect, targets } = dialling()
    const before = Date.now()
    const set = await source({}).obtain(undefined, context({ connect }))
    expect(isLive(set.token.reveal())).toBe(true)
    expect(set.refreshToken?.reveal()).toBe(`r-${set.token.reveal()}`)
    expect((set.expiresAt as number) - before).toBeGreaterThanOrEqual(600_000)
    // Nothing but the page: no service of the browser's maker.
    expect(new Set(targets)).toEqual(new Set([`spa.test:${spa?.origin.port}`]))
    await expectNothingLeft()
  })

  test('from a request of a page that keeps it in memory', async () => {
    const { isLive, url } = await start({ keeping: 'memory' })
    const capture = { request: { url: `${url}/api/*` } }
    const set = await source({ capture }).obtain(undefined, context())
    expect(isLive(set.token.reveal())).toBe(true)
    expect(set.expiresAt).toBeUndefined()
  })

  test.each([
    [
      'localStorage',
      'local',
      { key: 'app:*:tokens', token: '/tokens/access', expiresIn: '/tokens/until' },
    ],
    ['sessionStorage', 'session', { key: 'token' }],
    ['cookie', 'cookie', { name: 'sid', regex: '^(spa-.*)$' }],
  ] as const)('from %s', async (kind, keeping, place) => {
    const { isLive } = await start({ keeping })
    const set = await source({ capture: { [kind]: place } }).obtain(undefined, context())
    expect(isLive(set.token.reveal())).toBe(true)
    expect(set.expiresAt === undefined).toBe(kind === 'sessionStorage')
  })

  test('after a one-time password that a command prints', async () => {
    const { isLive } = await start({ otp: '417203' })
    const steps = [
      ...STEPS,
      {
        otp: 'input[name=otp]',
        command: [
          'sh',
          '-c',
          'test "$WHO" = "$CUPBEARER_CREDENTIAL:ann@example.test" && echo 417203',
        ],
        env: { WHO: 'a:{user}' },
      },
      { press: 'Enter', on: 'input[name=otp]' },
      { wait: { url: '*://spa.test:*/home' } },
    ]
    const set = await source({ steps }).obtain(undefined, context())
    expect(isLive(set.token.reveal())).toBe(true)
  })
})

describe('the browser', () => {
  test('has the header profile of its credential, and a bridge that only it may use', async () => {
    const { hold, waiting, seen, origin } = await start()
    const headers = ['User-Agent', 'acme/2.3', 'Accept-Language', 'fr-CH,fr;q=0.9', 'X-Team', 'a']
    const secrets = ['Authorization', 'Bearer old', 'Cookie', 'sid=old']
    const release = hold()
    const set = source({}).obtain(undefined, context({ headers: [...headers, ...secrets] }))
    await waiting()
    const commands = (await browserProcesses()).join(' ')
    const [, port] = /--proxy-server=http:\/\/127\.0\.0\.1:(\d+)/.exec(commands) ?? []
    for (const scheme of ['http', 'https']) {
      expect(await throughProxy(Number(port), `${scheme}://spa.test:${origin.port}/`)).toBe(407)
    }
    expect(commands).not.toMatch(/correct|horse|ann@example/)
    release()
    await set
    expect(seen).toEqual([{ language: 'fr-CH', userAgent: 'acme/2.3' }])
    for (const request of origin.requests) {
      const fields = new Headers(pairs(request.headers))
      expect(fields.get('user-agent')).toBe('acme/2.3')
      expect(fields.get('accept-language')).toBe('fr-CH,fr;q=0.9')
      expect(fields.get('x-team')).toBe('a')
      expect(`${fields.get('cookie')} ${fields.get('authorization')}`).not.toContain('old')
    }
  })

  test('sends nothing past the bridge: no WebRTC, no name look-ups, no loopback', async () => {
    const udp = createSocket('udp4')
    udp.bind(0, '127.0.0.1')
    await once(udp, 'listening')
    const datagrams: Buffer[] = []
    udp.on('message', (message) => datagrams.push(message))
    const script = `
      const peer = new RTCPeerConnection({ iceServers: [{ urls: 'stun:127.0.0.1:${udp.address().port}' }] })
      peer.createDataChannel('x')
      await peer.setLocalDescription(await peer.createOffer())
      while (peer.iceGatheringState !== 'complete') await new Promise((go) => { peer.onicegatheringstatechange = go })
      await fetch('http://127.0.0.1:${udp.address().port}/', { mode: 'no-cors' }).catch(() => {})
      await fetch('https://elsewhere.test/', { mode: 'no-cors' }).catch(() => {})`
    await start({ script })
    const { connect, targets } = dialling()
    await source({}).obtain(undefined, context({ connect }))
    const loopback = `127.0.0.1:${udp.address().port}`
    udp.close()
    expect(datagrams).toEqual([])
    expect(targets).toEqual(expect.arrayContaining([loopback, 'elsewhere.test:443']))
  })

  test('runs once at a time for an egress, and beside those of others', async () => {
    const spa = await start()
    const make = maker()
    const login = (egress: string) => source({}, { make }).obtain(undefined, context({ egress }))
    await Promise.all([login('way'), login('way')])
    expect(spa.mostAtOnce).toBe(1)
    const release = spa.hold()
    const both = [login('way'), login('other')]
    await spa.waiting()
    await vi.waitFor(() => expect(spa.mostAtOnce).toBe(2), 20_000)
    release()
    await Promise.all(both)
    expect(warnings).toEqual(
      process.getuid?.() === 0 ? [expect.stringContaining('without its sandbox')] : [],
    )
  })

  test('ends with the try, and leaves neither process nor file', async () => {
    const { hold, waiting } = await start()
    const release = hold()
    const abort = new AbortController()
    const ending = failure(source({}).obtain(undefined, context({ signal: abort.signal })))
    await waiting()
    expect(await browserProcesses()).not.toEqual([])
    abort.abort(new SourceError('transient', 'over'))
    expect((await ending).kind).toBe('transient')
    await expectNothingLeft()
    expect(await readdir(dataDir)).toEqual([])
    release()
  })

  test('is ended by force when it does not end by itself', async () => {
    const { hold, waiting } = await start()
    const release = hold()
    const abort = new AbortController()
    const ending = failure(source({}).obtain(undefined, context({ signal: abort.signal })))
    await waiting()
    for (const id of await readdir('/proc')) {
      if (!/^\d+$/.test(id)) continue
      const command = await readFile(`/proc/${id}/cmdline`, 'utf8').catch(() => '')
      const first = command.includes('--remote-debugging-pipe') && command.includes(temporary)
      if (first && !command.includes('--type=')) process.kill(Number(id), 'SIGSTOP')
    }
    abort.abort()
    await ending
    await expectNothingLeft()
    release()
  })
})

describe('a login that fails', () => {
  test('is shown without what was typed', async () => {
    const pictures: Buffer[] = []
    for (const password of ['hunter2', 'a much longer secret']) {
      const { url } = await start()
      const error = await failure(source(AMBIGUOUS, { password }).obtain(undefined, context()))
      const picture = join(dataDir, 'screenshots', 'api', 'a.png')
      expect(error.message).toBe(
        `browser login at ${new URL(url).host}: step 5 (click) found several elements for its selector (it was answered 401); a picture of the page is in ${picture}`,
      )
      expect((await stat(picture)).mode & 0o777).toBe(0o600)
      pictures.push(await readFile(picture))
      await expectNothingLeft()
      await spa?.[Symbol.asyncDispose]()
    }
    expect(pictures[0]?.subarray(1, 4).toString()).toBe('PNG')
    expect(pictures[0]?.equals(pictures[1] as Buffer)).toBe(true)
  })

  test('three times in a row is given up, for it may be the password', async () => {
    await start()
    const login = source(AMBIGUOUS, { password: 'wrong' })
    const ends: unknown[] = []
    for (let i = 0; i < 3; i++) {
      const { kind, retryAfterMs } = await failure(login.obtain(undefined, context()))
      ends.push([kind, retryAfterMs])
    }
    expect(ends).toEqual([
      ['transient', 5000],
      ['transient', 60_000],
      ['revoked', undefined],
    ])
  })

  test('while the server has trouble is no fault of the account', async () => {
    const spa = await start()
    spa.answer = 'unavailable'
    const error = await failure(source(AMBIGUOUS).obtain(undefined, context()))
    expect(error).toMatchObject({ kind: 'transient', retryAfterMs: undefined })
    expect(error.message).toContain('(it was answered 503)')
  })

  test.each(['html', 'huge'] as const)(
    'for an answer that is %s says so in time',
    async (answer) => {
      const spa = await start()
      spa.answer = answer
      const told = 'no token in time: an answer from such a URL (200) had no token at its place'
      let message = ''
      // Where the browser is slow to start, the answer may not have come in time.
      for (const timeout of ['4s', '12s', '36s']) {
        if (message.includes(told)) break
        message = (await failure(source({ timeout }).obtain(undefined, context()))).message
      }
      expect(message).toContain(told)
    },
  )

  test('for a page that moves on for ever is bounded', async () => {
    await start({ script: 'location.replace("/?" + Math.random()); await new Promise(() => {})' })
    const error = await failure(source({}).obtain(undefined, context()))
    expect(error.message).toContain('the page has moved on more than 50 times')
  })

  test('for a page that eats memory is bounded', async () => {
    await start({ script: 'for (const all = []; ; ) all.push(new Array(1e6).fill({}))' })
    const error = await failure(source({}).obtain(undefined, context()))
    expect(error.message).toContain('the page has crashed, perhaps for lack of memory')
    await expectNothingLeft()
  })

  test('since its egress is down is no fault of the account', async () => {
    await start()
    const connect: PinnedConnect = () =>
      Promise.reject(new UpstreamError('EGRESS_DOWN', 'egress way is down', { sent: false }))
    const error = await failure(source({}).obtain(undefined, context({ connect })))
    expect(error).toMatchObject({ kind: 'egress', message: 'egress way is down' })
  })

  test('since a page cannot be reached says why', async () => {
    await start()
    const error = await failure(source({ url: 'http://other.test/' }).obtain(undefined, context()))
    expect(error.message).toMatch(
      /the first page could not load the page \(ERR_\w+\): no such host/,
    )
  })

  test('by a command that prints no password is no fault of the account', async () => {
    await start({ otp: '1' })
    const steps = [...STEPS, { otp: 'input[name=otp]', command: ['echo', 'two words'] }]
    const error = await failure(source({ steps }).obtain(undefined, context()))
    expect(error.message).toContain('step 4 (otp): command echo printed no one-time password')
    expect(error.message).not.toContain('two words')
    expect(error.retryAfterMs).toBeUndefined()
  })
})

describe('what is missing is named', () => {
  test('the browser', async () => {
    await start()
    vi.stubEnv('PATH', temporary)
    const none = await failure(source({}).obtain(undefined, context()))
    expect(none.message).toMatch(
      /needs a Chromium: install the package chromium, or set executable/,
    )
    const other = source({ executable: '/nowhere/chromium' }).obtain(undefined, context())
    expect((await failure(other)).message).toContain('/nowhere/chromium is no program')
  })

  test('the package', async () => {
    await start()
    // The last of the file: modules are other ones from here on.
    vi.resetModules()
    vi.doMock('playwright-core', () => {
      throw Object.assign(new Error('not found'), { code: 'ERR_MODULE_NOT_FOUND' })
    })
    const { browserSource } = await import('../../src/sources/browser.ts')
    const config = { type: 'browser', url: new Secret('http://spa.test/') } as never
    await expect(browserSource(config, {}).obtain(undefined, context())).rejects.toThrow(
      'needs the package playwright-core: npm install playwright-core',
    )
  })
})

function pairs(flat: readonly string[]): [string, string][] {
  return flat.flatMap((name, index) =>
    index % 2 === 0 ? [[name, flat[index + 1] as string] as [string, string]] : [],
  )
}

/** What a proxy without credentials for it is answered. */
async function throughProxy(port: number, url: string): Promise<number> {
  const { host, protocol } = new URL(url)
  const socket = connect({ host: '127.0.0.1', port })
  const line = protocol === 'https:' ? `CONNECT ${host}` : `GET ${url}`
  socket.write(`${line} HTTP/1.1\r\nHost: ${host}\r\n\r\n`)
  const [answer] = (await once(socket, 'data')) as [Buffer]
  socket.destroy()
  return Number(/^HTTP\/1\.1 (\d{3})/.exec(answer.toString())?.[1])
}
