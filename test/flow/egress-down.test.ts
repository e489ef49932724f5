import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { startApp, type TestApp } from '../support/app.ts'
import { startAuthServer } from '../support/auth-server.ts'
import type { ClientResponse } from '../support/client.ts'
import { type HttpProxyBehaviour, startHttpProxy } from '../support/http-proxy.ts'
import { type Origin, startOrigin } from '../support/origin.ts'
import { PatientClock } from '../support/patient-clock.ts'
import { trusting } from '../support/protected-origin.ts'
import { type SocksProxyBehaviour, startSocksProxy } from '../support/socks-proxy.ts'

const WELL = '127.0.0.9'
/** Long enough for the healthy: it is the proxy's own time, and the others are in its process. */
const CONNECT_TIMEOUT_MS = 1000
const AUTH = { user: 'ann', pass: 'correct horse' }

interface Sick extends AsyncDisposable {
  /** As the configuration names it. */
  readonly url: string
  /** The address that origins see once it works. */
  readonly address: string
  /** Undefined where it never can. */
  readonly heal: (() => void) | undefined
}

function httpProxy(behaviour: HttpProxyBehaviour, tls = false) {
  return async (): Promise<Sick> => {
    const proxy = await startHttpProxy({ behaviour, tls, host: '127.0.0.2' })
    const heal = () => {
      proxy.behaviour = 'normal'
    }
    return { ...disposer(proxy), url: proxy.url, address: '127.0.0.2', heal }
  }
}

function socksProxy(behaviour: SocksProxyBehaviour) {
  return async (): Promise<Sick> => {
    const proxy = await startSocksProxy({ behaviour, host: '127.0.0.3', auth: AUTH })
    const heal = () => {
      proxy.behaviour = 'normal'
    }
    return { ...disposer(proxy), url: proxy.url, address: '127.0.0.3', heal }
  }
}

async function deadProxy(): Promise<Sick> {
  const proxy = await startHttpProxy({ host: '127.0.0.2' })
  await proxy.close()
  return { ...disposer(proxy), url: proxy.url, address: '127.0.0.2', heal: undefined }
}

async function wrongPassword(): Promise<Sick> {
  const proxy = await startSocksProxy({ host: '127.0.0.3', auth: AUTH })
  const url = proxy.url.replace('correct', 'wrong')
  return { ...disposer(proxy), url, address: '127.0.0.3', heal: undefined }
}

async function noSuchAddress(): Promise<Sick> {
  const nothing = { [Symbol.asyncDispose]: async () => {} }
  return { ...nothing, url: 'local://203.0.113.77', address: '203.0.113.77', heal: undefined }
}

function disposer(proxy: AsyncDisposable): AsyncDisposable {
  return { [Symbol.asyncDispose]: () => proxy[Symbol.asyncDispose]() }
}

const CASES: [string, () => Promise<Sick>][] = [
  ['is dead', deadProxy],
  ['is black-holed', httpProxy('hang')],
  ['answers CONNECT with 407', httpProxy('refuse-407')],
  ['answers CONNECT with 302', httpProxy('redirect-302')],
  ['answers CONNECT with 200 and garbage', httpProxy('garbage-after-200')],
  ['answers CONNECT with 200 and speaks into the handshake', httpProxy('garbage-later')],
  ['does not speak HTTP', httpProxy('garbage')],
  ['never ends its answer', httpProxy('endless-header')],
  ['hangs up', httpProxy('close')],
  ['is black-holed behind TLS', httpProxy('hang', true)],
  ['answers CONNECT with 407 behind TLS', httpProxy('refuse-407', true)],
  ['is a local address that cannot be bound', noSuchAddress],
  ['fails SOCKS authentication', socksProxy('refuse-auth')],
  ['knows another SOCKS password', wrongPassword],
  ['fails by SOCKS', socksProxy('general-failure')],
  ['does not speak SOCKS', socksProxy('garbage')],
  ['grants by SOCKS and speaks garbage', socksProxy('garbage-after-grant')],
  ['is black-holed by SOCKS', socksProxy('hang')],
]

let origin: Origin
let app: TestApp
let sick: Sick | undefined

beforeEach(async () => {
  origin = await startOrigin({ tls: true })
})

afterEach(async () => {
  await app?.[Symbol.asyncDispose]()
  await origin[Symbol.asyncDispose]()
  await sick?.[Symbol.asyncDispose]()
  sick = undefined
})

/** `only.example.test` has nothing but the sick egress, `pair.example.test` another credential beside it. */
async function start(url: string): Promise<{ only: string; pair: string }> {
  const credential = (id: string, egress: string) => ({
    id,
    egress,
    source: { type: 'static', token: `token-of-${id}` },
  })
  const names = ['only.example.test', 'pair.example.test']
  const config = {
    egress: { sick: url, well: `local://${WELL}` },
    upstream: { ...trusting(names), connectTimeout: `${CONNECT_TIMEOUT_MS}ms` },
    pools: {
      only: {
        targets: [`only.example.test:${origin.port}`],
        credentials: [credential('alone', 'sick')],
      },
      pair: {
        targets: [`pair.example.test:${origin.port}`],
        select: 'fill-first',
        credentials: [credential('first', 'sick'), credential('second', 'well')],
      },
    },
  }
  app = await startApp(config, undefined, new PatientClock())
  const [only, pair] = names.map((name) => `https://${name}:${origin.port}`)
  return { only: only as string, pair: pair as string }
}

function expectEgressDown(answer: ClientResponse): void {
  expect(answer.status).toBe(502)
  expect(answer.headers['proxy-status']).toBe(
    'cupbearer; error=destination_unavailable; details="EGRESS_DOWN"',
  )
  expect(answer.json()).toEqual({
    error: {
      code: 'EGRESS_DOWN',
      message: expect.stringContaining('egress'),
      trace: answer.headers['cupbearer-trace'],
    },
  })
  expect(answer.body.toString()).not.toMatch(/correct|wrong|horse/)
}

async function states(pool: string): Promise<string[]> {
  const { credentials } = await app.admin(`/api/pools/${pool}`)
  return credentials.map(({ state }: { state: string }) => state)
}

describe.each(CASES)('an egress that %s', (_, create) => {
  test('is answered with EGRESS_DOWN, and nothing reaches the origin by any route', async () => {
    sick = await create()
    const { only } = await start(sick.url)
    const client = app.client()
    for (const method of ['GET', 'POST']) {
      const body = method === 'POST' ? 'some body' : undefined
      const answer = await client.request(`${only}/x`, { method, ...(body && { body }) })
      expectEgressDown(answer)
      const trace = await app.admin(`/api/traces/${answer.headers['cupbearer-trace']}`)
      expect(trace).toMatchObject({ verdict: 'EGRESS_DOWN', error: { code: 'EGRESS_DOWN' } })
      expect(trace.attempts).toMatchObject([{ credential: 'alone', egress: 'sick' }])
    }
    expect(origin.connections).toBe(0)
    expect(await states('only')).toEqual(['cooling'])
    if (!sick.heal) return
    sick.heal()
    const answer = await client.request(`${only}/x`)
    expect(answer.json()).toMatchObject({
      authorization: 'Bearer token-of-alone',
      remoteAddress: sick.address,
    })
    expect(await states('only')).toEqual(['active'])
  })

  test('moves a request once to another credential, and rests meanwhile', async () => {
    sick = await create()
    const { pair } = await start(sick.url)
    const client = app.client()
    const answer = await client.request(`${pair}/x`, { method: 'POST', body: 'some body' })
    expect(answer.json()).toMatchObject({
      authorization: 'Bearer token-of-second',
      remoteAddress: WELL,
      method: 'POST',
    })
    expect(String(origin.requests[0]?.body)).toBe('some body')
    const { attempts } = await app.admin(`/api/traces/${answer.headers['cupbearer-trace']}`)
    expect(attempts).toMatchObject([
      { credential: 'first', egress: 'sick', verdict: 'EGRESS_DOWN' },
      { credential: 'second', egress: 'well', verdict: 'ok' },
    ])
    expect(await states('pair')).toEqual(['cooling', 'active'])
    // While it rests nobody pays for it.
    const next = await client.request(`${pair}/x`)
    const trace = await app.admin(`/api/traces/${next.headers['cupbearer-trace']}`)
    expect(trace.attempts).toMatchObject([{ credential: 'second', verdict: 'ok' }])
  })
})

test.each<[string, () => Promise<Sick>]>([
  ['an HTTP proxy', httpProxy('close')],
  ['an HTTPS proxy', httpProxy('redirect-302', true)],
  ['a SOCKS proxy', socksProxy('refuse-auth')],
])('the credential behind %s comes back by itself when that does', async (_, create) => {
  sick = await create()
  const { address, heal } = sick
  const { pair } = await start(sick.url)
  const client = app.client()
  await client.request(`${pair}/x`)
  expect(await states('pair')).toEqual(['cooling', 'active'])
  heal?.()
  const dialled = async () => {
    const { status, json } = await client.request(`${pair}/x`)
    return [status, json().remoteAddress]
  }
  await expect.poll(dialled).toEqual([200, address])
  expect(await states('pair')).toEqual(['active', 'active'])
  for (const { headers, remoteAddress } of origin.requests) {
    const first = headers.includes('Bearer token-of-first')
    expect(remoteAddress).toBe(first ? address : WELL)
  }
})

test('a token is not fetched by another route either, and comes once its egress does', async () => {
  await using auth = await startAuthServer()
  const proxy = await startHttpProxy({ behaviour: 'close', host: '127.0.0.2' })
  sick = { ...disposer(proxy), url: proxy.url, address: '127.0.0.2', heal: undefined }
  const source = {
    type: 'oauth2',
    grant: 'client_credentials',
    tokenUrl: auth.tokenUrl,
    clientId: auth.clientId,
    clientSecret: auth.clientSecret,
  }
  app = await startApp({
    egress: { sick: proxy.url },
    upstream: trusting(['api.test']),
    pools: {
      api: {
        targets: [`api.test:${origin.port}`],
        credentials: [{ id: 'alone', egress: 'sick', source }],
      },
    },
  })
  const client = app.client()
  const url = `https://api.test:${origin.port}/x`
  expectEgressDown(await client.request(url))
  expect(auth.remoteAddresses.size).toBe(0)
  proxy.behaviour = 'normal'
  const status = async () => (await client.request(url)).status
  await expect.poll(status).toBe(200)
  expect([...auth.remoteAddresses]).toEqual(['127.0.0.2'])
  expect(new Set(origin.requests.map(({ remoteAddress }) => remoteAddress))).toEqual(
    new Set(['127.0.0.2']),
  )
})
