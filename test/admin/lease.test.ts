import { request } from 'node:http'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { WireError } from '../../src/errors.ts'
import type { LeaseAsk, LeaseReport, OpenLease } from '../../src/exchange/remote-leases.ts'
import type { Client } from '../../src/exchange/request.ts'
import { Secret } from '../../src/lib/secret.ts'
import { TestAdmin } from '../support/admin.ts'

let admin: TestAdmin
/** What reached the leases behind the routes. */
let asked: { pool: string; client: Client; ask: LeaseAsk; gone: AbortSignal }[]
let reported: { id: string; client: Client; report: LeaseReport }[]
let given: OpenLease

beforeEach(async () => {
  admin = await TestAdmin.start()
  asked = []
  reported = []
  given = {
    id: 'lease-1',
    credential: 'alice',
    token: new Secret('t0ken'),
    injection: { place: 'header', name: 'authorization', value: new Secret('Bearer t0ken') },
    headers: [],
    egress: { name: 'one', url: new Secret('http://user:pass@192.0.2.1:3128') },
    expiresAt: Date.parse('2030-01-01T00:01:00Z'),
  }
  admin.leases = {
    async open(pool, client, ask, gone) {
      asked.push({ pool, client, ask, gone })
      return pool === 'supplier' ? given : undefined
    },
    async report(id, client, report) {
      reported.push({ id, client, report })
      if (id === 'lease-1') return { verdict: 'ok', recovery: undefined, trace: 'trace-1' }
      return id === 'done' ? 'reported' : id === 'late' ? 'expired' : 'unknown'
    },
  }
  admin.identify = (authorization) => {
    const [user = '', password] = Buffer.from(authorization.slice(6), 'base64')
      .toString()
      .split(':')
    if (password !== 'right') throw new WireError('CLIENT_UNAUTHENTICATED', 'wrong')
    const name = user === 'nobody' ? undefined : user
    return {
      client: { name, address: '127.0.0.1', pools: undefined },
      hints: { session: 'of-the-name' },
      lease: user !== 'plain',
    }
  }
})
afterEach(() => admin[Symbol.asyncDispose]())

const post = (path: string, body?: unknown, authorization?: string) =>
  admin.ask(path, {
    method: 'POST',
    ...(body !== undefined && { body: JSON.stringify(body) }),
    ...(authorization !== undefined && { token: null, headers: { authorization } }),
  })
const open = (body?: unknown, authorization?: string) =>
  post('/api/pools/supplier/leases', body, authorization)
const basic = (text: string) => `Basic ${Buffer.from(text).toString('base64')}`

describe('a lease', () => {
  test('has token, header, egress and end, and is 201', async () => {
    const answer = await open()
    expect(answer.status).toBe(201)
    expect(answer.headers['cache-control']).toBe('no-store')
    expect(answer.json()).toEqual({
      lease: 'lease-1',
      credential: 'alice',
      token: 't0ken',
      header: { name: 'authorization', value: 'Bearer t0ken' },
      query: null,
      headers: {},
      egress: { name: 'one', url: 'http://user:pass@192.0.2.1:3128' },
      expiresAt: '2030-01-01T00:01:00.000Z',
    })
  })

  test('tells of a cookie as a header, and of a query parameter as one', async () => {
    const value = new Secret('v')
    given = { ...given, injection: { place: 'cookie', name: 'sid', value } }
    expect((await open()).json()).toMatchObject({
      header: { name: 'Cookie', value: 'sid=v' },
      query: null,
    })
    given = { ...given, injection: { place: 'query', name: 'key', value } }
    expect((await open()).json()).toMatchObject({
      header: null,
      query: { name: 'key', value: 'v' },
    })
  })

  test('has the headers that are fixed for its credential', async () => {
    given = { ...given, headers: ['User-Agent', 'Shop/1', 'Accept-Language', 'da'] }
    expect((await open()).json()).toMatchObject({
      headers: { 'User-Agent': 'Shop/1', 'Accept-Language': 'da' },
    })
  })

  test('is asked for with a minute, and no wait of its own, by default', async () => {
    await open()
    expect(asked[0]).toMatchObject({ pool: 'supplier', client: { name: undefined } })
    expect(asked[0]?.ask).toEqual({
      hints: { session: undefined, credential: undefined, scopes: undefined },
      request: undefined,
      waitMs: undefined,
      ttlMs: 60_000,
    })
  })

  test('is asked for with what the body says', async () => {
    await open({
      session: 's',
      credential: 'alice',
      scopes: ['a', 'b'],
      method: 'POST',
      path: '/v1/x?y=z',
      waitSeconds: 0.5,
      ttlSeconds: 300,
    })
    expect(asked[0]?.ask).toEqual({
      hints: { session: 's', credential: 'alice', scopes: ['a', 'b'] },
      request: { method: 'POST', path: '/v1/x?y=z' },
      waitMs: 500,
      ttlMs: 300_000,
    })
  })

  test('of an unknown pool is a 404', async () => {
    expect((await post('/api/pools/other/leases')).status).toBe(404)
  })

  test.each([
    ['POOL_EXHAUSTED', 503, '7'],
    ['QUEUE_FULL', 503, '7'],
    ['NO_TOKEN_WITH_SCOPE', 403, '7'],
    ['EGRESS_DOWN', 502, '7'],
    ['SHUTTING_DOWN', 503, '7'],
  ] as const)('that cannot be had says %s with %d', async (code, status, retryAfter) => {
    admin.leases.open = async () => {
      throw new WireError(code, 'why', { retryAfterMs: 6500 })
    }
    const answer = await open()
    expect(answer.status).toBe(status)
    expect(answer.headers['retry-after']).toBe(retryAfter)
    expect(answer.headers['cache-control']).toBe('no-store')
    expect(answer.json()).toEqual({ error: { code, message: 'why' } })
  })

  test('is given up when the worker leaves while it waits', async () => {
    const { port } = admin.server
    const arrived = new Promise<AbortSignal>((resolve) => {
      admin.leases.open = (_pool, _client, _ask, gone) => {
        resolve(gone)
        return new Promise(() => {})
      }
    })
    const authorization = basic('worker:right')
    const path = '/api/pools/supplier/leases'
    const waiting = request({ port, path, method: 'POST', headers: { authorization } })
    waiting.on('error', () => {})
    waiting.end()
    const gone = await arrived
    expect(gone.aborted).toBe(false)
    const left = new Promise((resolve) => gone.addEventListener('abort', resolve))
    waiting.destroy()
    await left
  })
})

describe('a client', () => {
  test('with lease is served by its Basic credentials, its user parameters included', async () => {
    expect((await open({ scopes: 'a b' }, basic('worker:right'))).status).toBe(201)
    expect(asked[0]?.client.name).toBe('worker')
    expect(asked[0]?.ask.hints).toMatchObject({ session: 'of-the-name', scopes: ['a', 'b'] })
    await open({ session: 'of-the-body' }, basic('worker:right'))
    expect(asked[1]?.ask.hints.session).toBe('of-the-body')
    const report = await post('/api/leases/lease-1', { status: 200 }, basic('worker:right'))
    expect(report.status).toBe(200)
    expect(reported[0]?.client.name).toBe('worker')
  })

  test('without lease is refused', async () => {
    for (const path of ['/api/pools/supplier/leases', '/api/leases/lease-1']) {
      const answer = await post(path, { status: 200 }, basic('plain:right'))
      expect(answer.status).toBe(403)
      expect(answer.json()).toEqual({
        error: { code: 'DESTINATION_DENIED', message: 'client plain may not ask for leases' },
      })
    }
    expect([asked, reported]).toEqual([[], []])
  })

  test.each([
    ['no credentials', undefined],
    ['a wrong password', basic('worker:wrong')],
    ['a name where no clients are configured', basic('nobody:right')],
    ['a wrong admin token', 'Bearer wrong'],
    ['another scheme', 'Digest x'],
  ])('with %s is told how to authenticate', async (_what, authorization) => {
    for (const path of ['/api/pools/supplier/leases', '/api/leases/lease-1']) {
      const answer = await admin.ask(path, {
        method: 'POST',
        token: null,
        ...(authorization !== undefined && { headers: { authorization } }),
      })
      expect(answer.status).toBe(401)
      expect(answer.headers['www-authenticate']).toBe('Bearer, Basic realm="cupbearer"')
      expect(answer.json()).toMatchObject({ error: { code: 'UNAUTHENTICATED' } })
    }
    expect([asked, reported]).toEqual([[], []])
  })

  test('gets nothing else of the API by its credentials', async () => {
    for (const path of ['/api/pools', '/api/traces', '/api/openapi.json']) {
      const headers = { authorization: basic('worker:right') }
      expect((await admin.ask(path, { token: null, headers })).status).toBe(401)
    }
  })

  test('that has guessed too often is told when to come back', async () => {
    admin.identify = () => {
      throw new WireError('TOO_MANY_ATTEMPTS', 'too many', { retryAfterMs: 2000 })
    }
    const answer = await open(undefined, basic('worker:right'))
    expect([answer.status, answer.headers['retry-after']]).toEqual([429, '2'])
  })

  test('of another origin is refused', async () => {
    const headers = { origin: 'https://evil.example' }
    const path = '/api/pools/supplier/leases'
    expect((await admin.ask(path, { method: 'POST', headers })).status).toBe(403)
    expect(asked).toEqual([])
  })
})

describe('a report', () => {
  test('passes on the status, the time to wait, headers and body', async () => {
    const answer = await post('/api/leases/lease-1', {
      status: 429,
      retryAfterSeconds: 2,
      headers: { 'X-A': 'b' },
      body: { error: 'slow_down' },
    })
    expect(answer.json()).toEqual({ lease: 'lease-1', verdict: 'ok', trace: 'trace-1' })
    expect(reported[0]?.report).toEqual({
      status: 429,
      verdict: undefined,
      headers: ['retry-after', '2', 'X-A', 'b', 'content-type', 'application/json'],
      body: Buffer.from('{"error":"slow_down"}'),
    })
  })

  test('may give its verdict instead', async () => {
    await post('/api/leases/lease-1', { verdict: 'unknown' })
    expect(reported[0]?.report).toEqual({
      status: undefined,
      verdict: 'unknown',
      headers: [],
      body: undefined,
    })
  })

  test('tells what came of renewing an expired token', async () => {
    admin.leases.report = async () => ({
      verdict: 'expired',
      recovery: { result: 'failed', reason: 'the endpoint said no' },
      trace: 'trace-1',
    })
    expect((await post('/api/leases/lease-1', { status: 401 })).json()).toEqual({
      lease: 'lease-1',
      verdict: 'expired',
      recovery: 'failed',
      trace: 'trace-1',
    })
  })

  test('of an unknown lease is a 404, of one that is over a 409', async () => {
    const codeOf = async (id: string) => {
      const answer = await post(`/api/leases/${id}`, { status: 200 })
      return [answer.status, (answer.json().error as { code: string }).code]
    }
    expect(await codeOf('never-was')).toEqual([404, 'NOT_FOUND'])
    expect(await codeOf('done')).toEqual([409, 'LEASE_OVER'])
    expect(await codeOf('late')).toEqual([409, 'LEASE_OVER'])
  })
})

describe('a body', () => {
  test.each([
    '[]',
    '1',
    'null',
    '{',
    '{"token":"x"}',
    '{"session":""}',
    '{"session":"a\\u0000b"}',
    `{"session":"${'x'.repeat(257)}"}`,
    '{"credential":1}',
    '{"scopes":[1]}',
    '{"scopes":["a b"]}',
    `{"scopes":${JSON.stringify(Array(65).fill('x'))}}`,
    '{"ttlSeconds":0}',
    '{"ttlSeconds":301}',
    '{"ttlSeconds":"60"}',
    '{"waitSeconds":-1}',
    '{"path":"x"}',
    '{"method":"GET"}',
    '{"method":"G T","path":"/"}',
  ])('of a lease is refused as %s', async (body) => {
    const answer = await admin.ask('/api/pools/supplier/leases', { method: 'POST', body })
    expect(answer.status).toBe(400)
    expect(answer.json()).toMatchObject({ error: { code: 'BAD_REQUEST' } })
    expect(asked).toEqual([])
  })

  test.each([
    '',
    '{}',
    '{"status":99}',
    '{"status":200.5}',
    '{"status":"200"}',
    '{"verdict":"fine"}',
    '{"status":200,"colour":"red"}',
    '{"status":429,"retryAfterSeconds":-1}',
    '{"status":200,"headers":["a"]}',
    '{"status":200,"headers":{"a":1}}',
  ])('of a report is refused as %s', async (body) => {
    const answer = await admin.ask('/api/leases/lease-1', { method: 'POST', body })
    expect(answer.status).toBe(400)
    expect(answer.json()).toMatchObject({ error: { code: 'BAD_REQUEST' } })
    expect(reported).toEqual([])
  })

  test('over the bound is refused', async () => {
    const body = JSON.stringify({ status: 200, body: 'x'.repeat(170_000) })
    const answer = await admin.ask('/api/leases/lease-1', { method: 'POST', body })
    expect(answer.status).toBe(413)
    expect(reported).toEqual([])
  })
})
