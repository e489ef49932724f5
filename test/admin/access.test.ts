import { connect } from 'node:net'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { startAdmin } from '../../src/admin/server.ts'
import { ADMIN_TOKEN, TestAdmin } from '../support/admin.ts'

let admin: TestAdmin
beforeEach(async () => {
  admin = await TestAdmin.start()
})
afterEach(() => admin[Symbol.asyncDispose]())

describe('the admin token', () => {
  test.each([
    '/api/pools',
    '/api/pools/supplier',
    '/api/traces',
    '/api/traces/x',
    '/api/events',
    '/api/openapi.json',
    '/api/nothing',
    '/nothing',
  ])('is needed for %s', async (path) => {
    const answer = await admin.ask(path, { token: null })
    expect(answer.status).toBe(401)
    expect(answer.headers['www-authenticate']).toBe('Bearer')
    expect(answer.json()).toEqual({
      error: { code: 'UNAUTHENTICATED', message: 'the admin token is required' },
    })
  })

  test('is needed for an action, which is not done without it', async () => {
    const path = '/api/pools/supplier/credentials/alice/refresh'
    expect((await admin.ask(path, { method: 'POST', token: null })).status).toBe(401)
    expect((await admin.ask(path, { method: 'POST', token: 'wrong' })).status).toBe(401)
    expect(admin.actions).toEqual([])
  })

  test.each(['/', '/assets/app.js', '/healthz', '/readyz', '/metrics', '/ca.pem', '/proxy.pac'])(
    'is not needed for %s on loopback',
    async (path) => {
      expect((await admin.ask(path, { token: null })).status).toBe(200)
    },
  )

  test.each([`bearer ${ADMIN_TOKEN}`, `Bearer  ${ADMIN_TOKEN} `])(
    'is read from %j',
    async (authorization) => {
      const answer = await admin.ask('/api/pools', { token: null, headers: { authorization } })
      expect(answer.status).toBe(200)
    },
  )

  test.each([
    ADMIN_TOKEN,
    `Basic ${ADMIN_TOKEN}`,
    'Bearer',
    `Bearer ${ADMIN_TOKEN}x`,
    `Bearer ${ADMIN_TOKEN} x`,
  ])('is not accepted as %j', async (authorization) => {
    const answer = await admin.ask('/api/pools', { token: null, headers: { authorization } })
    expect(answer.status).toBe(401)
  })
})

describe('on every address', () => {
  test('metrics, CA and PAC need the token, health does not', async () => {
    await using everywhere = await TestAdmin.start({ host: '0.0.0.0' })
    for (const path of ['/metrics', '/ca.pem', '/proxy.pac']) {
      expect((await everywhere.ask(path, { token: null })).status).toBe(401)
      expect((await everywhere.ask(path)).status).toBe(200)
    }
    for (const path of ['/healthz', '/readyz']) {
      expect((await everywhere.ask(path, { token: null })).status).toBe(200)
    }
  })
})

describe('failed authentications', () => {
  const fail = async (count: number) => {
    for (let i = 0; i < count; i++) {
      expect((await admin.ask('/api/pools', { token: 'wrong' })).status).toBe(401)
    }
  }

  test('after ten in a minute right credentials are refused too until Retry-After has passed', async () => {
    await fail(10)
    const refused = await admin.ask('/api/pools')
    expect(refused.status).toBe(429)
    expect(refused.headers['retry-after']).toBe('1')
    expect(refused.json()).toMatchObject({ error: { code: 'TOO_MANY_ATTEMPTS' } })
    expect((await admin.ask('/healthz', { token: null })).status).toBe(200)
    admin.clock.advance(1000)
    expect((await admin.ask('/api/pools')).status).toBe(200)
  })

  test('the wait doubles with each further failure', async () => {
    await fail(10)
    admin.clock.advance(1000)
    await fail(1)
    expect((await admin.ask('/api/pools')).headers['retry-after']).toBe('2')
  })

  test('requests without credentials are no guesses', async () => {
    for (let i = 0; i < 12; i++) await admin.ask('/api/pools', { token: null })
    expect((await admin.ask('/api/pools')).status).toBe(200)
  })
})

describe('Host', () => {
  test.each(['/api/pools', '/healthz', '/', '/metrics', '/nothing'])(
    'of a stranger is refused for %s',
    async (path) => {
      const { port } = admin.server
      for (const host of [
        `rebound.example:${port}`,
        '127.0.0.1',
        'localhost',
        `127.0.0.1:${port + 1}`,
        `127.0.0.2:${port}`,
        `localhost.rebound.example:${port}`,
      ]) {
        const answer = await admin.ask(path, { headers: { host } })
        expect([host, answer.status]).toEqual([host, 421])
        expect(answer.json()).toMatchObject({ error: { code: 'AUTHORITY_MISMATCH' } })
      }
    },
  )

  test('that is missing is refused', async () => {
    const text = await new Promise<string>((resolve, reject) => {
      const socket = connect(admin.server.port, '127.0.0.1', () =>
        socket.write('GET /healthz HTTP/1.0\r\n\r\n'),
      )
      socket.on('data', (chunk) => resolve(chunk.toString()))
      socket.on('error', reject)
    })
    expect(text).toMatch(/^HTTP\/1\.1 421 /)
  })

  test('may be the address or localhost with the right port', async () => {
    const { port } = admin.server
    for (const host of [`127.0.0.1:${port}`, `localhost:${port}`, `LOCALHOST.:${port}`]) {
      expect((await admin.ask('/api/pools', { headers: { host } })).status).toBe(200)
    }
  })

  test('may be the IPv6 address', async () => {
    await using six = await TestAdmin.start({ host: '::1' })
    expect(six.server.url).toBe(`http://[::1]:${six.server.port}`)
    const response = await fetch(`${six.server.url}/healthz`)
    expect(response.status).toBe(200)
  })
})

describe('a state change', () => {
  const path = '/api/pools/supplier/credentials/alice/release'
  const post = (headers: Record<string, string>) => admin.ask(path, { method: 'POST', headers })

  test.each<Record<string, string>>([
    { origin: 'https://evil.example' },
    { origin: 'null' },
    { origin: 'http://127.0.0.1:1' },
    { 'sec-fetch-site': 'cross-site' },
    { 'sec-fetch-site': 'same-site' },
  ])('is refused to a page with %j', async (headers) => {
    const answer = await post(headers)
    expect(answer.status).toBe(403)
    expect(answer.json()).toMatchObject({ error: { code: 'ORIGIN_DENIED' } })
    expect(admin.actions).toEqual([])
  })

  test('is done for the dashboard and for programs', async () => {
    const origin = admin.server.url
    expect((await post({ origin, 'sec-fetch-site': 'same-origin' })).status).toBe(200)
    expect((await post({})).status).toBe(200)
    expect(admin.actions).toEqual(['release supplier/alice', 'release supplier/alice'])
  })
})

test('every answer carries the security headers and no CORS', async () => {
  for (const path of ['/', '/api/pools', '/api/nothing', '/metrics', '/%zz']) {
    const { headers } = await admin.ask(path, { headers: { origin: 'https://evil.example' } })
    expect(headers['content-security-policy']).toContain("default-src 'none'; script-src 'self'")
    expect(headers['x-content-type-options']).toBe('nosniff')
    expect(headers['referrer-policy']).toBe('no-referrer')
    expect(headers['cache-control']).toBe('no-store')
    expect(headers['access-control-allow-origin']).toBeUndefined()
  }
})

test('a port in use is LISTEN_FAILED', async () => {
  const { port } = admin.server
  const second = startAdmin({
    ...(await admin.options()),
    listen: { host: '127.0.0.1', port },
  })
  await expect(second).rejects.toMatchObject({
    code: 'LISTEN_FAILED',
    message: `cannot listen on 127.0.0.1:${port} for the admin API (EADDRINUSE)`,
  })
})
