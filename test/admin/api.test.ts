import { connect } from 'node:net'
import { runInNewContext } from 'node:vm'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { SourceError } from '../../src/errors.ts'
import { sampleCredential, sampleExchange, samplePool, TestAdmin } from '../support/admin.ts'

let admin: TestAdmin
beforeEach(async () => {
  admin = await TestAdmin.start()
})
afterEach(() => admin[Symbol.asyncDispose]())

const shownPool = {
  name: 'supplier',
  targets: ['api.example.com', '*.example.org'],
  status: 'healthy',
  trouble: null,
  tokens: { active: 1, cooling: 0, quarantined: 0, pending: 0, revoked: 0 },
  avgTtlRemainingSeconds: 1800,
  refreshSuccessRate: 1,
  requestsPerTokenPerMinute: 4.5,
  authOverhead: 0.01,
  waiting: 0,
  credentials: [
    {
      id: 'alice',
      state: 'active',
      egress: 'one',
      egressAddress: '192.0.2.1',
      generation: 3,
      subject: 'alice@example.com',
      scopes: ['read'],
      issuedAt: '2030-01-01T00:00:00.000Z',
      expiresAt: '2030-01-01T01:00:00.000Z',
      lifetime: 'jwt',
      refreshAt: '2030-01-01T00:54:00.000Z',
      uses: 12,
      inFlight: 1,
      limits: [{ limit: '10/s', used: 2, max: 10 }],
      cooldownUntil: null,
      lastError: null,
    },
  ],
}

describe('pools', () => {
  test('are listed with their figures and credentials', async () => {
    expect((await admin.ask('/api/pools')).json()).toEqual({ pools: [shownPool] })
  })

  test('can be asked for one by one', async () => {
    expect((await admin.ask('/api/pools/supplier')).json()).toEqual(shownPool)
    const unknown = await admin.ask('/api/pools/other')
    expect(unknown.status).toBe(404)
    expect(unknown.json()).toEqual({ error: { code: 'NOT_FOUND', message: 'no such pool' } })
  })

  test('show null for what is not known, and nothing that a status holds beside the contract', async () => {
    const credential = sampleCredential({
      egress: 'two',
      subject: undefined,
      scopes: undefined,
      issuedAt: undefined,
      expiresAt: Number.MAX_VALUE,
      refreshAt: undefined,
    })
    const smuggled = Object.assign(credential, { token: 'must-not-show' })
    admin.pools = [samplePool({ avgTtlRemainingSeconds: undefined, credentials: [smuggled] })]
    const { text } = await admin.ask('/api/pools/supplier')
    expect(text).not.toContain('must-not-show')
    expect(JSON.parse(text)).toMatchObject({
      avgTtlRemainingSeconds: null,
      credentials: [
        { egressAddress: null, subject: null, scopes: null, issuedAt: null, expiresAt: null },
      ],
    })
  })
})

describe('credential actions', () => {
  test.each(['refresh', 'quarantine', 'release', 'forget'])(
    '%s acts on the credential and answers with it',
    async (action) => {
      const path = `/api/pools/supplier/credentials/alice/${action}`
      const answer = await admin.ask(path, {
        method: 'POST',
        headers: { 'content-type': 'application/json' },
      })
      expect(answer.status).toBe(200)
      expect(answer.json()).toEqual(shownPool.credentials[0])
      expect(admin.actions).toEqual([`${action} supplier/alice`])
    },
  )

  test('reach ids with escapes and of the longest length', async () => {
    const ids = ['a@b+c', 'x'.repeat(128)]
    admin.pools = [samplePool({ credentials: ids.map((id) => sampleCredential({ id })) })]
    for (const id of ids) {
      const path = `/api/pools/supplier/credentials/${encodeURIComponent(id)}/refresh`
      expect((await admin.ask(path, { method: 'POST' })).status).toBe(200)
    }
    expect(admin.actions).toEqual(ids.map((id) => `refresh supplier/${id}`))
  })

  test('answer 404 for what is unknown and 405 for another method', async () => {
    const post = (path: string) => admin.ask(path, { method: 'POST' })
    expect((await post('/api/pools/supplier/credentials/bob/refresh')).status).toBe(404)
    expect((await post('/api/pools/other/credentials/alice/refresh')).status).toBe(404)
    expect((await post('/api/pools/supplier/credentials/alice/explode')).status).toBe(404)
    const wrong = await post('/api/pools')
    expect(wrong.status).toBe(405)
    expect(wrong.json()).toMatchObject({ error: { code: 'METHOD_NOT_ALLOWED' } })
  })

  test('say why they failed, but never what a library said', async () => {
    const path = '/api/pools/supplier/credentials/alice/refresh'
    admin.failure = new SourceError('transient', 'the token endpoint timed out', {
      cause: new Error('secret detail'),
    })
    const failed = await admin.ask(path, { method: 'POST' })
    expect(failed.status).toBe(502)
    expect(failed.json()).toEqual({
      error: { code: 'SOURCE_FAILED', message: 'the token endpoint timed out' },
    })
    admin.failure = new Error('secret detail')
    const internal = await admin.ask(path, { method: 'POST' })
    expect(internal.status).toBe(500)
    expect(internal.json()).toMatchObject({ error: { code: 'INTERNAL' } })
    expect(failed.text + internal.text).not.toContain('secret detail')
  })
})

describe('traces', () => {
  beforeEach(() => {
    admin.events.emit('exchange', sampleExchange({ id: 't1' }))
    admin.events.emit(
      'exchange',
      sampleExchange({ id: 't2', status: 401, verdict: 'expired', url: 'https://h/?token=abc' }),
    )
  })
  const ids = async (query: string) =>
    ((await admin.ask(`/api/traces${query}`)).json() as { traces: { id: string }[] }).traces.map(
      (trace) => trace.id,
    )

  test('are listed newest first and filtered', async () => {
    expect(await ids('')).toEqual(['t2', 't1'])
    expect(await ids('?limit=1')).toEqual(['t2'])
    expect(await ids('?status=200&pool=supplier&credential=alice')).toEqual(['t1'])
    expect(await ids('?verdict=expired')).toEqual(['t2'])
    expect(await ids('?since=2030-01-01T00:00:00Z')).toEqual(['t2', 't1'])
    expect(await ids('?since=2030-01-01T00:00:01Z')).toEqual([])
  })

  test('can be asked for one by one, masked', async () => {
    expect((await admin.ask('/api/traces/t2')).json()).toMatchObject({
      id: 't2',
      url: 'https://h/?token=[redacted]',
    })
    expect((await admin.ask('/api/traces/t9')).status).toBe(404)
  })

  test.each(['?status=abc', '?limit=0', '?since=yesterday', '?pool=a&pool=b', '?color=red'])(
    'refuse the filter %s',
    async (query) => {
      const answer = await admin.ask(`/api/traces${query}`)
      expect(answer.status).toBe(400)
      expect(answer.json()).toMatchObject({ error: { code: 'BAD_REQUEST' } })
    },
  )
})

test('readiness is 503 with reasons until the proxy can serve', async () => {
  admin.readiness = { ready: false, reasons: ['pool supplier has no token yet'] }
  const answer = await admin.ask('/readyz', { token: null })
  expect(answer.status).toBe(503)
  expect(answer.json()).toEqual(admin.readiness)
})

test('metrics are served in the exposition format', async () => {
  const answer = await admin.ask('/metrics', { token: null })
  expect(answer.headers['content-type']).toContain('text/plain; version=0.0.4')
  expect(answer.text).toContain('cupbearer_tokens{pool="supplier",state="active"} 1')
})

test('the PAC script sends mapped hosts by the proxy and others directly', async () => {
  const { text, headers } = await admin.ask('/proxy.pac', { token: null })
  expect(headers['content-type']).toContain('application/x-ns-proxy-autoconfig')
  const ask = (host: string) =>
    runInNewContext(`${text}; FindProxyForURL('https://' + host, host)`, { host })
  expect(ask('api.example.com')).toBe('PROXY 127.0.0.1:8080')
  expect(ask('API.example.com.')).toBe('PROXY 127.0.0.1:8080')
  expect(ask('deep.sub.example.org')).toBe('PROXY 127.0.0.1:8080')
  expect(ask('example.org')).toBe('DIRECT')
  expect(ask('example.com')).toBe('DIRECT')
})

test('the OpenAPI document describes every route that answers', async () => {
  const { paths } = (await admin.ask('/api/openapi.json')).json() as {
    paths: Record<string, Record<string, unknown>>
  }
  for (const [path, methods] of Object.entries(paths)) {
    // One never ends, the others want something that is under way, or a body.
    if (['/api/events', '/api/logins/{id}'].includes(path) || path.includes('/leases')) continue
    const real = path
      .replace('{name}', 'supplier')
      .replace(/credentials\/\{id\}/, 'credentials/alice')
    for (const method of Object.keys(methods)) {
      admin.events.emit('exchange', sampleExchange({ id: 'known' }))
      const answer = await admin.ask(real.replace('{id}', 'known'), {
        method: method.toUpperCase(),
      })
      const made = ['/api/dashboard-links', '/api/sessions'].includes(path)
      expect([path, answer.status]).toEqual([path, made ? 201 : 200])
    }
  }
})

describe('bad input', () => {
  test('a body over the bound is refused', async () => {
    const path = '/api/pools/supplier/credentials/alice/refresh'
    const answer = await admin.ask(path, { method: 'POST', body: 'x'.repeat(65 * 1024) })
    expect(answer.status).toBe(413)
    expect(answer.json()).toMatchObject({ error: { code: 'BODY_TOO_LARGE' } })
    expect(admin.actions).toEqual([])
  })

  test('a malformed path is a 400 with a code', async () => {
    const answer = await admin.ask('/api/pools/%zz')
    expect(answer.status).toBe(400)
    expect(answer.json()).toMatchObject({ error: { code: 'BAD_REQUEST' } })
  })

  test('what is no HTTP is a 400 with a code', async () => {
    const text = await new Promise<string>((resolve, reject) => {
      const socket = connect(admin.server.port, '127.0.0.1', () => socket.write('NONSENSE\r\n\r\n'))
      let received = ''
      socket.on('data', (chunk) => {
        received += chunk.toString()
      })
      socket.on('close', () => resolve(received))
      socket.on('error', reject)
    })
    expect(text).toMatch(/^HTTP\/1\.1 400 Bad Request\r\n/)
    expect(text).toContain('{"error":{"code":"BAD_REQUEST"')
  })

  test('no path reaches outside the dashboard files', async () => {
    for (const path of ['/assets/../server.ts', '/assets/..%2fserver.ts', '/assets/', '/app.js']) {
      expect((await admin.ask(path)).status).toBe(404)
    }
  })
})

test('the dashboard is whole: the files it names are served, and nothing in it is inline', async () => {
  const { text, headers } = await admin.ask('/', { token: null })
  expect(headers['content-type']).toBe('text/html; charset=utf-8')
  const sources = [text]
  const seen = new Set<string>()
  const names = (source: string) =>
    [...source.matchAll(/(?:src|href)="(\/assets\/[^"]+)"/g)].map((match) => match[1] as string)
  for (let source = sources.pop(); source !== undefined; source = sources.pop()) {
    for (const path of names(source)) {
      if (seen.has(path)) continue
      seen.add(path)
      const file = await admin.ask(path, { token: null })
      expect([path, file.status]).toEqual([path, 200])
      sources.push(file.text)
    }
  }
  expect([...seen].sort()).toEqual(['/assets/app.css', '/assets/app.js'])
  expect(text).not.toMatch(/ style=| on\w+="|<script>|<style>/)
})
