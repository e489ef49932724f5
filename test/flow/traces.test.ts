import { once } from 'node:events'
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { gzipSync } from 'node:zlib'
import { afterEach, describe, expect, test } from 'vitest'
import type { ToldTrace, Trace } from '../../src/trace/recorder.ts'
import { startApp, type TestApp } from '../support/app.ts'
import { startAuthServer } from '../support/auth-server.ts'
import type { ClientResponse } from '../support/client.ts'
import { Collector } from '../support/collector.ts'
import { harProblems } from '../support/har-schema.ts'
import { startHttpProxy } from '../support/http-proxy.ts'
import { type Origin, type OriginOptions, startOrigin } from '../support/origin.ts'
import { startProtectedOrigin, trusting } from '../support/protected-origin.ts'

const open: AsyncDisposable[] = []

afterEach(async () => {
  for (const each of open.splice(0).reverse()) await each[Symbol.asyncDispose]()
})

function use<Resource extends AsyncDisposable>(resource: Resource): Resource {
  open.push(resource)
  return resource
}

const token = (id: string, more: object = {}) => ({
  id,
  source: { type: 'static', token: `token-of-${id}` },
  ...more,
})

async function start(
  pool: object,
  more: object = {},
  options: OriginOptions = {},
): Promise<{ app: TestApp; origin: Origin; url: string }> {
  const origin = use(await startOrigin({ tls: true, ...options }))
  const app = use(
    await startApp({
      upstream: trusting(['api.test']),
      ...more,
      pools: { api: { targets: [`api.test:${origin.port}`], ...pool } },
    }),
  )
  return { app, origin, url: `https://api.test:${origin.port}` }
}

/** The trace of an answer; its record may be a moment later than the answer's last byte. */
async function traceOf(app: TestApp, answer: ClientResponse): Promise<ToldTrace> {
  const id = String(answer.headers['cupbearer-trace'])
  let trace: ToldTrace | undefined
  await expect
    .poll(async () => {
      trace = await app.admin(`/api/traces/${id}`)
      return trace?.id
    })
    .toBe(id)
  return trace as ToldTrace
}

describe('a trace', () => {
  test('of a plain request tells the way, its phases and both protocols, and nothing is passed over', async () => {
    const { app, url } = await start({ credentials: [token('alice'), token('bob')] })
    const client = app.client()
    const [first, second] = [await client.request(`${url}/a`), await client.request(`${url}/b`)]
    const trace = await traceOf(app, first)
    expect(trace).toMatchObject({
      kind: 'exchange',
      protocol: 'h1',
      skipped: [],
      waitMs: 0,
      attempts: [{ egress: 'direct', reused: false, startMs: expect.any(Number) }],
    })
    const [attempt] = trace.attempts
    expect(['h1', 'h2']).toContain(attempt?.protocol)
    const phases = [attempt?.connectMs, attempt?.tlsMs, attempt?.sentMs, attempt?.firstByteMs]
    for (const phase of phases) expect(phase).toBeGreaterThan(0)
    expect(attempt?.firstByteMs).toBeGreaterThanOrEqual(attempt?.sentMs as number)
    // What is dialled stands in the configuration: no name was resolved.
    expect(attempt?.dnsMs).toBeNull()
    expect(trace).not.toHaveProperty('skippedMore')
    expect(trace).not.toHaveProperty('messages')
    expect((await traceOf(app, second)).kind).toBe('exchange')
  })

  test('tells how long the resolution of a name took', async () => {
    const origin = use(await startOrigin({ tls: true }))
    const app = use(
      await startApp({
        upstream: trusting(),
        pools: { api: { targets: [`localhost:${origin.port}`], credentials: [token('alice')] } },
      }),
    )
    const answer = await app.client().request(`https://localhost:${origin.port}/`)
    const [attempt] = (await traceOf(app, answer)).attempts
    expect(attempt?.dnsMs).toBeGreaterThan(0)
    expect(attempt?.connectMs).toBeGreaterThanOrEqual(attempt?.dnsMs as number)
  })

  test('of a request that waited says for whom, and why it could not have them', async () => {
    let release = () => {}
    const held = new Promise<void>((resolve) => {
      release = resolve
    })
    const { app, origin, url } = await start(
      { limits: { concurrency: 1 }, credentials: [token('alice'), token('bob')] },
      {},
      {
        handler: async (request, response) => {
          if (request.url === '/slow') await held
          response.end('done')
        },
      },
    )
    await app.admin('/api/pools/api/credentials/bob/quarantine', 'POST')
    const client = app.client()
    const slow = client.request(`${url}/slow`)
    await expect.poll(() => origin.openConnections).toBe(1)
    const waiting = client.request(`${url}/fast`)
    await expect.poll(async () => (await app.admin('/api/pools/api')).waiting).toBe(1)
    release()
    await slow
    const trace = await traceOf(app, await waiting)
    expect(trace.waitMs).toBeGreaterThan(0)
    expect(trace.skipped).toEqual([
      { credential: 'alice', why: 'as many requests run as it may have' },
      { credential: 'bob', why: 'quarantined: by the operator' },
    ])
    expect(trace.story.join('\n')).toMatch(/It waited .* for a token: alice \(as many/)
  })

  test('of a replay says who had been tried', async () => {
    const { app, url } = await start(
      {
        credentials: [token('alice'), token('bob'), token('carol')],
      },
      {},
      {
        handler: (request, response) => {
          const limited = request.headers.authorization?.endsWith('alice')
          response.writeHead(limited ? 429 : 200, { 'retry-after': '60' }).end()
        },
      },
    )
    await app.admin('/api/pools/api/credentials/carol/quarantine', 'POST')
    const client = app.client()
    const replayed = await traceOf(app, await client.request(`${url}/`))
    expect(replayed.attempts.map(({ credential }) => credential)).toEqual(['alice', 'bob'])
    expect(replayed.skipped).toEqual([
      { credential: 'alice', why: 'tried already' },
      { credential: 'carol', why: 'quarantined: by the operator' },
    ])
  })

  test('of thousands of candidates names a few and counts the rest', async () => {
    const { app, url } = await start({
      queue: { wait: '1ms' },
      credentials: Array.from({ length: 200 }, (_, i) => token(`c${i}`)),
    })
    for (let i = 0; i < 200; i++) {
      await app.admin(`/api/pools/api/credentials/c${i}/quarantine`, 'POST')
    }
    const trace = await traceOf(app, await app.client().request(`${url}/`))
    expect(trace.status).toBe(503)
    expect(trace.skipped).toHaveLength(8)
    expect(trace.skippedMore).toBe(192)
    expect(trace.error?.code).toBe('POOL_EXHAUSTED')
  })

  test('of a healed 401 has the renewal with what was asked, which has a record of its own', async () => {
    const auth = use(await startAuthServer({ accessTokenTtlSeconds: 600 }))
    const origin = use(await startProtectedOrigin(auth))
    const source = {
      type: 'oauth2',
      grant: 'client_credentials',
      tokenUrl: auth.tokenUrl,
      clientId: auth.clientId,
      clientSecret: auth.clientSecret,
    }
    const app = use(
      await startApp({
        upstream: trusting(['api.test']),
        pools: {
          api: {
            targets: [`api.test:${origin.port}`],
            refresh: { minInterval: '50ms' },
            credentials: [{ id: 'alice', source }],
          },
        },
      }),
    )
    const url = `https://api.test:${origin.port}/`
    const client = app.client()
    expect((await client.request(url)).status).toBe(200)
    auth.revokeAccessTokens()
    const trace = await traceOf(app, await client.request(url))
    expect(trace).toMatchObject({
      status: 200,
      refresh: {
        role: 'led',
        result: 'renewed',
        calls: [{ method: 'POST', url: auth.tokenUrl, status: 200 }],
      },
      replay: { done: true },
      attempts: [{ verdict: 'expired' }, { verdict: 'ok' }],
    })
    const [refused, healed] = trace.attempts
    const { refresh } = trace
    expect(refresh?.startMs).toBeGreaterThanOrEqual(refused?.totalMs as number)
    expect(healed?.startMs).toBeGreaterThanOrEqual(
      (refresh?.startMs as number) + (refresh?.ms as number) - 1,
    )
    const renewal = await app.admin(`/api/traces/${refresh?.trace}`)
    expect(renewal).toMatchObject({
      kind: 'refresh',
      pool: 'api',
      verdict: 'ok',
      refresh: { result: 'ok (expired)' },
      attempts: [{ credential: 'alice', egress: 'direct', status: 200 }],
    })
    // The one at the start, and this one.
    const { traces } = await app.admin('/api/traces?kind=refresh')
    expect(traces.map((each: Trace) => each.refresh?.result)).toEqual([
      'ok (expired)',
      'ok (startup)',
    ])
  })

  test('names the address that an egress shows', async () => {
    const echo = use(
      await startOrigin({
        handler: (request, response) => response.end(request.socket.remoteAddress),
      }),
    )
    const proxy = use(await startHttpProxy({ host: '127.0.0.7' }))
    const { app, url } = await start(
      { credentials: [token('alice', { egress: 'frankfurt' })] },
      { egress: { frankfurt: { url: proxy.url, probe: `${echo.url}/` } } },
    )
    const trace = await traceOf(app, await app.client().request(`${url}/`))
    expect(trace.attempts).toMatchObject([{ egress: 'frankfurt', egressAddress: '127.0.0.7' }])
  })

  test('tunnels and refusals have records too', async () => {
    const { app } = await start(
      { credentials: [token('alice')] },
      { passthrough: { deny: ['denied.test'] } },
    )
    const other = use(await startOrigin())
    const client = app.client()
    expect((await client.tunnel('denied.test:443')).status).toBe(403)
    const { socket } = await client.tunnel(`127.0.0.1:${other.port}`)
    socket.destroy()
    await once(socket, 'close')
    await expect
      .poll(async () => (await app.admin('/api/traces')).traces.map((each: Trace) => each.kind))
      .toEqual(expect.arrayContaining(['tunnel', 'denied']))
    const { traces } = await app.admin('/api/traces?kind=denied')
    expect(traces[0]).toMatchObject({
      method: 'CONNECT',
      status: 403,
      verdict: 'DESTINATION_DENIED',
    })
  })
})

const SECRETS = {
  url: '/v1?api_key=SECRET-query&page=2',
  request: {
    'X-Api-Key': 'SECRET-key',
    Cookie: 'sid=SECRET-cookie; theme=dark',
    Authorization: 'Bearer SECRET-own',
    Referer: 'https://app.test/?code=SECRET-code',
    Accept: 'application/json',
  },
}

/** Answers with its token and secrets of its own, in every place. */
const chatty: OriginOptions['handler'] = async (request, response) => {
  const sent = request.headers.authorization?.replace('Bearer ', '') ?? ''
  for await (const _ of request);
  const body = JSON.stringify({
    name: 'alice',
    refresh_token: 'SECRET-answer',
    tokens: ['SECRET-list'],
    echo: sent,
    code: 'RATE_LIMIT',
    nested: { password: 'SECRET-password', n: 1 },
  })
  const zipped = request.url?.includes('zip')
  response.writeHead(200, {
    'content-type': 'application/json',
    'set-cookie': 'session=SECRET-session; Path=/; HttpOnly',
    'x-echo': `the token is ${sent}`,
    location: 'https://app.test/?access_token=SECRET-location',
    ...(zipped && { 'content-encoding': 'gzip' }),
  })
  response.end(zipped ? gzipSync(body) : body)
}

describe('messages', () => {
  const pair = (headers: readonly string[] | undefined, name: string) => {
    const index = headers?.findIndex((each) => each.toLowerCase() === name) ?? -1
    return index === -1 ? undefined : headers?.[index + 1]
  }

  test('are recorded with trace.headers, as they were sent, with every secret replaced', async () => {
    const { app, url } = await start(
      { credentials: [token('alice')] },
      { trace: { headers: true } },
      { handler: chatty },
    )
    const answer = await app.client().request(url + SECRETS.url, { headers: SECRETS.request })
    const trace = await traceOf(app, answer)
    const { request, response } = trace.messages ?? {}
    expect(pair(request?.headers, 'authorization')).toBe('Bearer [redacted]')
    expect(pair(request?.headers, 'x-api-key')).toBe('[redacted]')
    expect(pair(request?.headers, 'cookie')).toBe('sid=[redacted]; theme=[redacted]')
    expect(pair(request?.headers, 'referer')).toBe('https://app.test/?code=[redacted]')
    expect(pair(request?.headers, 'accept')).toBe('application/json')
    expect(pair(response?.headers, 'set-cookie')).toBe('session=[redacted]; Path=/; HttpOnly')
    expect(pair(response?.headers, 'x-echo')).toBe('the token is [redacted]')
    expect(pair(response?.headers, 'location')).toBe('https://app.test/?access_token=[redacted]')
    expect(request?.body).toBeUndefined()
    expect(response?.body).toBeUndefined()
    expect(JSON.stringify(trace)).not.toMatch(/SECRET|token-of-alice/)
    expect(trace.curl).toContain("-H 'Accept: application/json'")
  })

  test.each(['/v1', '/v1?zip=1'])('have their bodies with trace.bodies (%s)', async (path) => {
    const { app, url } = await start(
      { credentials: [token('alice')] },
      { trace: { bodies: true } },
      { handler: chatty },
    )
    const answer = await app.client().request(url + path, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: '{"client_secret":"SECRET-body","page":2}',
    })
    const { messages } = await traceOf(app, answer)
    expect(messages?.request.body).toEqual({
      text: '{"client_secret":"[redacted]","page":2}',
      size: 40,
      cut: false,
    })
    expect(JSON.parse(messages?.response?.body?.text ?? '')).toEqual({
      name: 'alice',
      refresh_token: '[redacted]',
      tokens: '[redacted]',
      echo: '[redacted]',
      code: 'RATE_LIMIT',
      nested: { password: '[redacted]', n: 1 },
    })
  })

  test('are bounded: of a long body only its beginning is kept, of a binary one nothing', async () => {
    const { app, url } = await start(
      { credentials: [token('alice')] },
      { trace: { bodies: { max: '100B' } } },
      {
        handler: (request, response) => {
          const type = request.url === '/binary' ? 'image/png' : 'text/plain'
          response.writeHead(200, { 'content-type': type }).end('x'.repeat(100_000))
        },
      },
    )
    const client = app.client()
    const long = await client.request(`${url}/long`)
    expect(long.body).toHaveLength(100_000)
    expect((await traceOf(app, long)).messages?.response?.body).toEqual({
      text: 'x'.repeat(100),
      size: 100_000,
      cut: true,
    })
    const binary = await traceOf(app, await client.request(`${url}/binary`))
    expect(binary.messages?.response?.body).toBeUndefined()
  })
})

test('/api/traces.har is valid, filtered, and holds no secret', async () => {
  const { app, url } = await start(
    { credentials: [token('alice')] },
    { trace: { bodies: true } },
    { handler: chatty },
  )
  const client = app.client()
  await traceOf(app, await client.request(url + SECRETS.url, { headers: SECRETS.request }))
  await traceOf(app, await client.request(`${url}/other`))
  const har = await app.admin('/api/traces.har')
  expect(harProblems(har)).toEqual([])
  const entries = har.log.entries.filter(
    (entry: { _cupbearer: Trace }) => entry._cupbearer.kind === 'exchange',
  )
  expect(entries).toHaveLength(2)
  expect(entries[0].response.content.text).toContain('"name":"alice"')
  expect(JSON.stringify(har)).not.toMatch(/SECRET|token-of-alice/)
  expect((await app.admin('/api/traces.har?status=404')).log.entries).toEqual([])
  expect((await app.admin('/api/traces.har?nonsense=1')).error.code).toBe('BAD_REQUEST')
})

test('trace.har appends every request to a file that is whole after the stop', async () => {
  const { app, url } = await start(
    { credentials: [token('alice')] },
    { trace: { har: 'requests.har' } },
    { handler: chatty },
  )
  for (const path of ['/a', '/b', '/c']) await app.client().request(url + path)
  await app.app.stop()
  const har = JSON.parse(await readFile(join(app.dir, 'requests.har'), 'utf8'))
  expect(harProblems(har)).toEqual([])
  const urls = har.log.entries.map((entry: { request: { url: string } }) => entry.request.url)
  expect(urls.filter((each: string) => each.startsWith(url))).toEqual([
    `${url}/a`,
    `${url}/b`,
    `${url}/c`,
  ])
  expect(JSON.stringify(har)).not.toMatch(/SECRET|token-of-alice/)
})

describe('a traceparent', () => {
  const PARENT = '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01'
  const headers = { traceparent: PARENT, tracestate: 'a=1' }
  const sent = (origin: Origin) => {
    const list = origin.requests.at(-1)?.headers ?? []
    const index = list.findIndex((each) => each.toLowerCase() === 'traceparent')
    return index === -1 ? undefined : list[index + 1]
  }

  test('goes on in the spans, and passes upstream as it was sent', async () => {
    const collector = use(await Collector.start())
    const { app, origin, url } = await start(
      { credentials: [token('alice')] },
      { trace: { otlp: collector.url } },
    )
    const client = app.client()
    const answer = await client.request(`${url}/`, { headers })
    expect(sent(origin)).toBe(PARENT)
    const other = await client.request(`${url}/`)
    expect(sent(origin)).toBeUndefined()
    await app.app.stop()
    const id = (each: ClientResponse) =>
      ['cupbearer.trace', each.headers['cupbearer-trace']] as const
    expect(collector.find('GET', id(answer))).toMatchObject({
      traceId: PARENT.slice(3, 35),
      parentSpanId: PARENT.slice(36, 52),
    })
    expect(collector.find('GET', id(other)).parentSpanId).toBeUndefined()
  })

  test('names the proxy’s own span upstream where that is asked for', async () => {
    const collector = use(await Collector.start())
    const { app, origin, url } = await start(
      { credentials: [token('alice')] },
      { trace: { otlp: { url: collector.url, propagate: true } } },
    )
    const client = app.client()
    const answer = await client.request(`${url}/`, { headers })
    const told = sent(origin)
    await app.app.stop()
    const span = collector.find('GET', ['cupbearer.trace', answer.headers['cupbearer-trace']])
    expect(told).toBe(`00-${PARENT.slice(3, 35)}-${span.spanId}-01`)
    expect(span.parentSpanId).toBe(PARENT.slice(36, 52))
  })
})
