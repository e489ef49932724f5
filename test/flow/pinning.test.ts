import { afterAll, beforeAll, expect, test } from 'vitest'
import { startApp, type TestApp } from '../support/app.ts'
import { type AuthServer, type FailMode, startAuthServer } from '../support/auth-server.ts'
import type { ProxyClient } from '../support/client.ts'
import { type HttpProxyBehaviour, startHttpProxy } from '../support/http-proxy.ts'
import { type Origin, startOrigin } from '../support/origin.ts'
import { trusting } from '../support/protected-origin.ts'
import { type SocksProxyBehaviour, startSocksProxy } from '../support/socks-proxy.ts'

const REQUESTS = 10_000
const CONCURRENCY = 32
/** So many requests pass between one piece of bad luck and the next. */
const LUCK_LASTS = 200
const METHODS = ['GET', 'POST', 'PUT', 'DELETE', 'PATCH', 'HEAD', 'OPTIONS']
/** What the contract allows while egresses, token endpoints and the origin fail. */
const ALLOWED = [
  ...['200', '401', 'EGRESS_DOWN', 'POOL_EXHAUSTED'],
  // By phase, where a proxy dies under a request twice, or the machine is too busy to connect in time.
  ...['UPSTREAM_RESET', 'UPSTREAM_TLS', 'UPSTREAM_UNREACHABLE', 'UPSTREAM_TIMEOUT'],
]

/** A proxy that can be killed and comes back on its port, well or ill. */
interface Way {
  readonly url: string
  restart(behaviour?: HttpProxyBehaviour | SocksProxyBehaviour): Promise<void>
  close(): Promise<void>
}

/** One credential: its egress, the address that this leaves by, and an authorization server of its own. */
interface Account {
  readonly id: string
  readonly address: string
  readonly egress: string
  readonly way: Way | undefined
  readonly auth: AuthServer
}

/** What the origin saw of one request. */
interface Sighting {
  readonly issuer: string
  readonly address: string
}

const sightings: Sighting[] = []
let accounts: Account[]
let origin: Origin
let app: TestApp
let url: string

async function startWay(
  start: (options: object) => ReturnType<typeof startHttpProxy | typeof startSocksProxy>,
  options: { host: string; tls?: boolean; auth?: { user: string; pass: string } },
): Promise<Way> {
  let proxy = await start(options)
  const { url, port } = proxy
  return {
    url,
    async restart(behaviour) {
      await proxy.close()
      proxy = await start({ ...options, port, behaviour })
    },
    close: () => proxy.close(),
  }
}

function issuerOf(authorization: string | undefined): string {
  const payload = authorization?.split('.')[1]
  if (!payload) return 'none'
  return JSON.parse(Buffer.from(payload, 'base64url').toString()).iss
}

/** Answers 200 to a live token, else 401; resets the connection where the path says so. */
function startPickyOrigin(): Promise<Origin> {
  return startOrigin({
    tls: true,
    handler: async (request, response) => {
      const { authorization } = request.headers
      const address = request.socket.remoteAddress ?? ''
      sightings.push({ issuer: issuerOf(authorization), address })
      if (request.url?.startsWith('/reset')) return request.socket.destroy()
      let bytes = 0
      try {
        for await (const chunk of request) bytes += chunk.length
      } catch {
        return undefined
      }
      const token = authorization?.slice('Bearer '.length) ?? ''
      const { auth } = accounts.find(({ auth }) => auth.issuer === issuerOf(token)) as Account
      const live = await auth.isActive(token)
      return response.writeHead(live ? 200 : 401, { 'x-bytes': bytes }).end(live ? 'fine' : 'dead')
    },
  })
}

beforeAll(async () => {
  const socks = { user: 'ann', pass: 'correct horse' }
  const ways: (Way | undefined)[] = await Promise.all([
    startWay(startHttpProxy, { host: '127.0.0.2' }),
    startWay(startSocksProxy, { host: '127.0.0.3', auth: socks }),
    startWay(startHttpProxy, { host: '127.0.0.4', tls: true }),
  ])
  accounts = await Promise.all(
    [...ways, undefined].map(async (way, index) => {
      const address = `127.0.0.${index + 2}`
      const auth = await startAuthServer({ accessTokenTtlSeconds: 8 })
      return { id: `c${index}`, address, egress: way?.url ?? `local://${address}`, way, auth }
    }),
  )
  origin = await startPickyOrigin()
  app = await startApp({
    egress: Object.fromEntries(accounts.map(({ id, egress }) => [id, egress])),
    upstream: { ...trusting(['api.test']), connectTimeout: '1s' },
    pools: {
      api: {
        targets: [`api.test:${origin.port}`],
        refresh: { floor: '2s', minInterval: '50ms' },
        quarantine: { base: '100ms', max: '500ms' },
        credentials: await Promise.all(
          accounts.map(async ({ id, way, auth }) => ({
            id,
            egress: id,
            source: {
              type: 'oauth2',
              tokenUrl: auth.tokenUrl,
              clientId: auth.clientId,
              clientSecret: auth.clientSecret,
              // A rotated refresh token is lost with a proxy that dies on its way: only where none does.
              ...(way
                ? { grant: 'client_credentials' }
                : { grant: 'refresh_token', refreshToken: await auth.issueRefreshToken() }),
            },
          })),
        ),
      },
    },
  })
  url = `https://api.test:${origin.port}`
})

afterAll(async () => {
  await app?.[Symbol.asyncDispose]()
  await origin?.[Symbol.asyncDispose]()
  for (const { way, auth } of accounts ?? []) {
    await way?.close()
    await auth.close()
  }
})

/** What goes wrong, in turn: each returns what sets it right again. */
function* badLuck(): Generator<() => Promise<() => Promise<void>>> {
  const revoke = (account: Account, mode?: FailMode) => async () => {
    account.auth.fail(mode)
    account.auth.revokeAccessTokens()
    return async () => account.auth.fail(undefined)
  }
  const spoil = (way: Way, how: 'kill' | HttpProxyBehaviour | SocksProxyBehaviour) => async () => {
    await (how === 'kill' ? way.close() : way.restart(how))
    return () => way.restart()
  }
  const all = async () => {
    for (const { auth } of accounts) auth.revokeAccessTokens()
    return async () => {}
  }
  const [http, socks, https, local] = accounts as [Account, Account, Account, Account]
  for (;;) {
    for (const { way } of accounts) if (way) yield spoil(way, 'kill')
    for (const account of accounts) yield revoke(account)
    yield spoil(http.way as Way, 'refuse-407')
    yield spoil(socks.way as Way, 'refuse-auth')
    yield spoil(https.way as Way, 'garbage-after-200')
    yield all
    yield revoke(http, '500')
    yield revoke(socks, { delayMs: 150 })
    yield revoke(https, 'reset')
    yield revoke(local, 'html')
    yield spoil(http.way as Way, 'redirect-302')
    yield spoil(socks.way as Way, 'garbage-after-grant')
    yield spoil(https.way as Way, 'hang')
    yield revoke(local, '429')
    yield spoil(socks.way as Way, 'hang')
  }
}

/** The n-th request: its status, or the code of the proxy's own answer. */
async function ask(client: ProxyClient, n: number): Promise<string> {
  const method = METHODS[n % METHODS.length] as string
  const path = n % 97 === 0 ? `/reset/${n}` : `/${n}`
  const bodiless = method === 'GET' || method === 'HEAD' || method === 'OPTIONS'
  const body = bodiless ? undefined : n % 50 === 1 ? chunks(5) : `body ${n}`
  const answer = await client.request(url + path, {
    method,
    ...(body !== undefined && { body }),
    // Node's client frames a DELETE's only when told to.
    ...(typeof body === 'string' && { headers: { 'content-length': String(body.length) } }),
    ...(typeof body === 'object' && { headers: { 'transfer-encoding': 'chunked' } }),
  })
  if (answer.status === 200 && body !== undefined) {
    const length = typeof body === 'string' ? body.length : 5 * 20_000
    expect(answer.headers['x-bytes']).toBe(String(length))
  }
  const { 'proxy-status': status } = answer.headers
  return /details="(\w+)"/.exec(String(status))?.[1] ?? String(answer.status)
}

async function* chunks(count: number): AsyncGenerator<Buffer> {
  for (let i = 0; i < count; i++) yield Buffer.alloc(20_000, 120)
}

function expectPinned(): void {
  const addressOf = new Map(accounts.map(({ auth, address }) => [auth.issuer, address]))
  const strays = sightings.filter(({ issuer, address }) => addressOf.get(issuer) !== address)
  expect(strays).toEqual([])
  for (const { auth, address } of accounts) {
    expect([...auth.remoteAddresses]).toEqual([address])
    expect(auth.calls.length).toBeGreaterThan(3)
  }
}

test('10,000 mixed requests: no token ever leaves by another egress, whatever fails', async () => {
  const client = app.client({ maxSockets: CONCURRENCY })
  const luck = badLuck()
  const outcomes = new Map<string, number>()
  let next = 0
  let settingRight = async () => {}
  let changing = Promise.resolve()
  const work = async () => {
    for (let n = next++; n < REQUESTS; n = next++) {
      if (n % LUCK_LASTS === LUCK_LASTS - 1) {
        changing = changing.then(async () => {
          await settingRight()
          settingRight = await luck.next().value()
        })
        await changing
      }
      const outcome = await ask(client, n)
      outcomes.set(outcome, (outcomes.get(outcome) ?? 0) + 1)
    }
  }
  await Promise.all(Array.from({ length: CONCURRENCY }, work))
  await settingRight()

  expectPinned()
  expect([...outcomes.keys()].filter((outcome) => !ALLOWED.includes(outcome))).toEqual([])
  expect(outcomes.get('200')).toBeGreaterThan(REQUESTS * 0.95)

  // Canaries and egresses are tried by requests.
  const state = async () => {
    await ask(client, 1)
    return (await app.admin('/api/pools/api')).tokens
  }
  await expect.poll(state).toMatchObject({ active: accounts.length })
  sightings.length = 0
  const get = METHODS.length
  const burst = () => Promise.all(Array.from({ length: 40 }, () => ask(client, get)))
  await expect.poll(burst).toEqual(Array(40).fill('200'))
  expectPinned()
  expect(new Set(sightings.map(({ address }) => address)).size).toBe(accounts.length)
  expect(accounts.map(({ auth }) => auth.reuseDetected)).toEqual([0, 0, 0, 0])
  const { credentials, waiting } = await app.admin('/api/pools/api')
  expect(waiting).toBe(0)
  expect(credentials.map(({ inFlight }: { inFlight: number }) => inFlight)).toEqual([0, 0, 0, 0])
}, 300_000)
