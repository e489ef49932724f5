import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { startApp, type TestApp } from '../support/app.ts'
import { type AuthServer, startAuthServer } from '../support/auth-server.ts'
import type { Origin } from '../support/origin.ts'
import { startProtectedOrigin, trusting } from '../support/protected-origin.ts'

interface Seen {
  live: boolean
  method: string
  path: string
  bytes: number
  connection: number
  headers: string[]
}

let auth: AuthServer
let origin: Origin
let app: TestApp
let url: string

async function start(pool: object = {}, more: object = {}): Promise<void> {
  app = await startApp({
    upstream: trusting(['api.test']),
    ...more,
    pools: {
      api: {
        targets: [`api.test:${origin.port}`],
        refresh: { minInterval: '50ms' },
        credentials: [
          {
            id: 'alice',
            source: {
              type: 'oauth2',
              grant: 'refresh_token',
              tokenUrl: auth.tokenUrl,
              clientId: auth.clientId,
              clientSecret: auth.clientSecret,
              refreshToken: await auth.issueRefreshToken('alice'),
            },
          },
        ],
        ...pool,
      },
    },
  })
  url = `https://api.test:${origin.port}`
}

beforeEach(async () => {
  auth = await startAuthServer({ accessTokenTtlSeconds: 600 })
  origin = await startProtectedOrigin(auth)
})

afterEach(async () => {
  await app?.[Symbol.asyncDispose]()
  await origin[Symbol.asyncDispose]()
  await auth[Symbol.asyncDispose]()
})

describe('a mapped host', () => {
  test('gets a live token in place of what the client sent, and the client never sees it', async () => {
    await start()
    const answer = await app.client().request(`${url}/items?page=2`, {
      headers: {
        host: `api.test:${origin.port}`,
        Authorization: 'Bearer of-the-client',
        'X-Custom': 'Kept',
      },
    })
    expect(answer.status).toBe(200)
    const seen = answer.json<{ headers: string[]; path: string }>()
    expect(seen.path).toBe('/items?page=2')
    expect(seen.headers).toContain('X-Custom')
    expect(seen.headers.filter((each) => each.toLowerCase() === 'authorization')).toHaveLength(1)
    expect(JSON.stringify(seen.headers)).not.toContain('of-the-client')
    expect(answer.headers['cupbearer-trace']).toMatch(/^[0-9a-z]{11,}$/)
    const trace = await app.admin(`/api/traces/${answer.headers['cupbearer-trace']}`)
    expect(trace).toMatchObject({
      pool: 'api',
      status: 200,
      verdict: 'ok',
      attempts: [{ credential: 'alice' }],
    })
  })

  test('reuses one upstream connection across requests and clients', async () => {
    await start()
    const connections = new Set<number>()
    for (let i = 0; i < 6; i++) {
      const client = app.client()
      connections.add((await client.request(`${url}/`)).json<Seen>().connection)
    }
    expect(connections.size).toBe(1)
  })

  test('waits for the first token when the pool is cold', async () => {
    auth.fail({ delayMs: 150 })
    await start()
    const answer = await app.client().request(`${url}/`)
    expect(answer.status).toBe(200)
    expect(auth.calls).toHaveLength(1)
  })
})

describe('a 401', () => {
  test('is healed by one refresh and a replay', async () => {
    await start()
    const client = app.client()
    expect((await client.request(`${url}/`)).status).toBe(200)
    await auth.revokeAccessTokens()
    const answer = await client.request(`${url}/again`)
    expect(answer.status).toBe(200)
    expect(auth.calls).toHaveLength(2)
    expect(auth.reuseDetected).toBe(0)
    const trace = await app.admin(`/api/traces/${answer.headers['cupbearer-trace']}`)
    expect(trace.attempts.map((each: { verdict: string }) => each.verdict)).toEqual([
      'expired',
      'ok',
    ])
    expect(trace).toMatchObject({ refresh: { role: 'led' }, replay: { done: true } })
  })

  test('on 500 requests at once leads to one refresh and 500 good answers', async () => {
    await start()
    const client = app.client({ maxSockets: 100 })
    await client.request(`${url}/warm`)
    await auth.revokeAccessTokens()
    const answers = await Promise.all(
      Array.from({ length: 500 }, (_, i) => client.request(`${url}/${i}`)),
    )
    expect(answers.filter((answer) => answer.status === 200)).toHaveLength(500)
    expect(auth.calls).toHaveLength(2)
  })

  test('that comes late, after the token was rotated, leads to no refresh', async () => {
    await start()
    const client = app.client()
    await client.request(`${url}/warm`)
    // The origin holds its 401 back until another request has had the token renewed.
    let release = () => {}
    const gate = new Promise<void>((resolve) => {
      release = resolve
    })
    const isActive = auth.isActive.bind(auth)
    const arrived = new Promise<void>((resolve) => {
      auth.isActive = async (token) => {
        auth.isActive = isActive
        const answer = isActive(token)
        resolve()
        await gate
        await answer
        return false
      }
    })
    const late = client.request(`${url}/late`)
    await arrived
    await auth.revokeAccessTokens()
    expect((await client.request(`${url}/first`)).status).toBe(200)
    expect(auth.calls).toHaveLength(2)
    release()
    expect((await late).status).toBe(200)
    expect(auth.calls).toHaveLength(2)
  })

  test.each(['GET', 'HEAD', 'POST', 'PUT', 'PATCH', 'DELETE', 'OPTIONS', 'PROPFIND'])(
    'on %s is replayed with its whole body',
    async (method) => {
      await start()
      const client = app.client()
      await client.request(`${url}/warm`)
      for (const body of ['x'.repeat(1000), chunks(300_000), chunks(3_000_000)]) {
        if (method === 'HEAD' && typeof body !== 'string') continue
        await auth.revokeAccessTokens()
        await new Promise((resolve) => setTimeout(resolve, 60)) // past refresh.minInterval
        const length = typeof body === 'string' ? body.length : body.size
        const headers: Record<string, string> =
          typeof body === 'string'
            ? { 'content-length': String(length) }
            : { 'transfer-encoding': 'chunked' }
        const answer = await client.request(`${url}/x`, {
          method,
          ...(method !== 'HEAD' && { body, headers }),
        })
        expect(answer.status).toBe(200)
        if (method !== 'HEAD')
          expect(answer.json<Seen>()).toMatchObject({ live: true, method, bytes: length })
      }
    },
  )

  test('on a body beyond the replay limits reaches the client, and the token is renewed all the same', async () => {
    await start({ replay: { memory: '64KiB', disk: '64KiB' } })
    const client = app.client()
    await client.request(`${url}/warm`)
    await auth.revokeAccessTokens()
    const answer = await client.request(`${url}/big`, { method: 'POST', body: chunks(1_000_000) })
    expect(answer.status).toBe(401)
    expect(answer.headers['www-authenticate']).toBe('Bearer error="invalid_token"')
    const trace = await app.admin(`/api/traces/${answer.headers['cupbearer-trace']}`)
    expect(trace.replay).toMatchObject({ done: false, why: expect.stringContaining('too large') })
    expect((await client.request(`${url}/next`)).status).toBe(200)
    expect(auth.calls).toHaveLength(2)
  })

  test('that nothing can heal reaches the client as upstream sent it', async () => {
    await start()
    const client = app.client()
    await client.request(`${url}/warm`)
    auth.fail('500')
    await auth.revokeAccessTokens()
    const answer = await client.request(`${url}/x`)
    expect(answer.status).toBe(401)
    expect(answer.headers['www-authenticate']).toBe('Bearer error="invalid_token"')
    const trace = await app.admin(`/api/traces/${answer.headers['cupbearer-trace']}`)
    expect(trace.replay).toMatchObject({ done: false })
  })
})

/** A body in pieces of 50 KB, of no announced length. */
function chunks(size: number): AsyncIterable<Buffer> & { size: number } {
  return {
    size,
    async *[Symbol.asyncIterator]() {
      for (let sent = 0; sent < size; sent += 50_000)
        yield Buffer.alloc(Math.min(50_000, size - sent), 120)
    },
  }
}
