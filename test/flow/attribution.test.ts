import type { ServerResponse } from 'node:http'
import { afterEach, describe, expect, test } from 'vitest'
import { startApp, type TestApp } from '../support/app.ts'
import { type AuthServer, startAuthServer } from '../support/auth-server.ts'
import { type Origin, startOrigin } from '../support/origin.ts'
import { PatientClock } from '../support/patient-clock.ts'
import { until } from '../support/until.ts'

const open: AsyncDisposable[] = []
function keep<Server extends AsyncDisposable>(server: Server): Server {
  open.unshift(server)
  return server
}
afterEach(async () => {
  for (const each of open.splice(0)) await each[Symbol.asyncDispose]()
})

const EGRESS = { one: 'local://127.0.0.2', two: 'local://127.0.0.3', dead: 'http://127.0.0.1:1' }

interface Attempt {
  readonly credential: string
  readonly egress: string
  readonly verdict: string
  readonly fault: string | null
}

interface CredentialStatus {
  readonly id: string
  readonly state: string
  readonly generation: number
  readonly cooldownUntil: string | null
  readonly lastError: string | null
}

/** A pool of static tokens, `id@egress`, over an API that answers by credential. */
async function setUp(
  credentials: readonly string[],
  answer: (response: ServerResponse, id: string) => void,
) {
  const origin = keep(
    await startOrigin({
      handler: (request, response) => {
        request.resume()
        answer(response, request.headers.authorization?.slice(7) ?? '')
      },
    }),
  )
  const app = keep(
    await startApp({
      egress: EGRESS,
      pools: {
        api: {
          targets: [`http://127.0.0.1:${origin.port}`],
          select: 'fill-first',
          credentials: credentials.map((text) => {
            const [id, egress] = text.split('@') as [string, string]
            return { id, egress, source: { type: 'static', token: id } }
          }),
        },
      },
    }),
  )
  return { origin, app }
}

async function send(app: TestApp, origin: Origin, path = '/') {
  const answer = await app.client().request(`http://127.0.0.1:${origin.port}${path}`)
  const trace = await app.admin(`/api/traces/${answer.headers['cupbearer-trace']}`)
  const attempts: Attempt[] = trace.attempts
  return {
    status: answer.status,
    body: answer.body.toString(),
    hops: attempts.map(({ credential, verdict, fault }) => [credential, verdict, fault]),
  }
}

async function states(app: TestApp): Promise<Record<string, string>> {
  const { credentials } = await app.admin('/api/pools/api')
  return Object.fromEntries(credentials.map(({ id, state }: CredentialStatus) => [id, state]))
}

/** Holds a rest against what was asked for between sending and now. */
async function expectRest(app: TestApp, id: string, seconds: number, sentAt: number) {
  const { credentials } = await app.admin('/api/pools/api')
  const found = credentials.find((each: CredentialStatus) => each.id === id)
  const from = Date.parse(found.cooldownUntil) - seconds * 1000
  expect(from).toBeGreaterThanOrEqual(sentAt - 1)
  expect(from).toBeLessThanOrEqual(Date.now() + 1)
}

/** Limits some credentials, each for as long as it says, in seconds. */
const limiting = (seconds: Record<string, number>) => (response: ServerResponse, id: string) => {
  const limit = seconds[id]
  if (limit !== undefined) response.writeHead(429, { 'retry-after': String(limit) })
  response.end(id)
}

describe('a limit', () => {
  test('of one token is that token’s: another of the same egress serves', async () => {
    const { app, origin } = await setUp(['a@one', 'x@two', 'b@one'], limiting({ a: 30 }))
    const sentAt = Date.now()
    expect(await send(app, origin)).toEqual({
      status: 200,
      body: 'b',
      hops: [
        ['a', 'limited', 'token'],
        ['b', 'ok', null],
      ],
    })
    expect(await states(app)).toEqual({ a: 'cooling', x: 'active', b: 'active' })
    await expectRest(app, 'a', 30, sentAt)
  })

  test('of a second token on the same egress is the address’s: it rests, another egress serves', async () => {
    const { app, origin } = await setUp(
      ['a@one', 'x@two', 'b@one', 'c@one', 'y@two'],
      limiting({ a: 40, b: 20 }),
    )
    const sentAt = Date.now()
    expect(await send(app, origin)).toEqual({
      status: 200,
      body: 'x',
      hops: [
        ['a', 'limited', 'egress'],
        ['b', 'limited', 'egress'],
        ['x', 'ok', null],
      ],
    })
    expect(await states(app)).toEqual({
      a: 'cooling',
      x: 'active',
      b: 'cooling',
      c: 'cooling',
      y: 'active',
    })
    for (const id of ['a', 'b', 'c']) await expectRest(app, id, 40, sentAt)
  })

  test('of a third on another egress is upstream’s: it passes, and those that were not asked serve on', async () => {
    const { app, origin } = await setUp(
      ['a@one', 'b@one', 'x@two', 'y@two'],
      limiting({ a: 40, b: 20, x: 10 }),
    )
    const sentAt = Date.now()
    expect(await send(app, origin)).toEqual({
      status: 429,
      body: 'x',
      hops: [
        ['a', 'limited', 'egress'],
        ['b', 'limited', 'egress'],
        ['x', 'limited', 'upstream'],
      ],
    })
    expect(await states(app)).toEqual({ a: 'cooling', b: 'cooling', x: 'cooling', y: 'active' })
    await expectRest(app, 'x', 10, sentAt)
    expect((await send(app, origin)).body).toBe('y')
  })

  test('of two tokens on two egresses is each token’s', async () => {
    const { app, origin } = await setUp(['a@one', 'x@two', 'y@two'], limiting({ a: 40, x: 10 }))
    const { status, hops } = await send(app, origin)
    expect([status, hops]).toEqual([
      429,
      [
        ['a', 'limited', 'token'],
        ['x', 'limited', 'token'],
      ],
    ])
    expect(await states(app)).toEqual({ a: 'cooling', x: 'cooling', y: 'active' })
  })
})

describe('what is not the token’s fault leaves it alone', () => {
  test('a storm of 5xx', async () => {
    const { app, origin } = await setUp(['a@one', 'b@two'], (response) =>
      response.writeHead(500).end('down'),
    )
    const answers = await Promise.all(Array.from({ length: 60 }, () => send(app, origin)))
    expect(answers.every(({ status }) => status === 500)).toBe(true)
    expect(answers[0]?.hops).toEqual([['a', 'upstream', 'upstream']])
    expect(origin.requests).toHaveLength(60)
    expect(await states(app)).toEqual({ a: 'active', b: 'active' })
  })

  test('an egress that is down', async () => {
    const { app, origin } = await setUp(['a@dead', 'b@two'], (response) => response.end('ok'))
    expect((await send(app, origin)).hops).toEqual([
      ['a', 'EGRESS_DOWN', 'egress'],
      ['b', 'ok', null],
    ])
  })

  test('a request that is wrong', async () => {
    const { app, origin } = await setUp(['a@one'], (response) => response.writeHead(404).end())
    expect((await send(app, origin)).hops).toEqual([['a', 'ok', 'request']])
    expect(await states(app)).toEqual({ a: 'active' })
  })
})

describe('while a token is renewed', () => {
  /** Two accounts with rotating refresh tokens; the API knows which tokens live. */
  async function setUpAccounts() {
    const auth: AuthServer = keep(await startAuthServer())
    const origin = keep(
      await startOrigin({
        handler: async (request, response) => {
          const live = await auth.isActive(request.headers.authorization?.slice(7) ?? '')
          response.writeHead(live ? 200 : 401).end(live ? 'live' : 'dead')
        },
      }),
    )
    const clientId = auth.publicClientId
    const first = await auth.issueRefreshToken('a', { clientId })
    const second = await auth.issueRefreshToken('b', { clientId })
    const { tokenUrl } = auth
    const credential = (id: string, refreshToken: string) => ({
      id,
      source: { type: 'oauth2', grant: 'refresh_token', tokenUrl, clientId, refreshToken },
    })
    const pool = {
      targets: [`http://127.0.0.1:${origin.port}`],
      select: 'fill-first',
      credentials: [credential('a', first), credential('b', second)],
    }
    const app = keep(await startApp({ pools: { api: pool } }, undefined, new PatientClock()))
    // Both have a token.
    await until(async () => Object.values(await states(app)).every((state) => state === 'active'))
    return { auth, origin, app, first }
  }

  test('a block page is no invalid_grant: the 401 passes, and the account heals by itself', async () => {
    const { auth, origin, app } = await setUpAccounts()
    auth.revokeAccessTokens()
    auth.fail('403')
    const { status, body, hops } = await send(app, origin)
    expect([status, body]).toEqual([401, 'dead'])
    expect(hops).toEqual([
      ['a', 'expired', 'token'],
      ['b', 'expired', 'token'],
    ])
    const { credentials } = await app.admin('/api/pools/api')
    for (const { state, lastError } of credentials as CredentialStatus[]) {
      expect(state).toBe('cooling')
      expect(lastError).toMatch(/^token endpoint 127\.0\.0\.1:\d+ answered 403$/)
    }
    auth.fail(undefined)
    expect(await send(app, origin)).toMatchObject({ status: 200, body: 'live' })
    expect(auth.reuseDetected).toBe(0)
  })

  test('only invalid_grant is for good, and only for its own account', async () => {
    const { auth, origin, app, first } = await setUpAccounts()
    // Somebody uses the first account's old refresh token: that ends its whole family.
    const body = new URLSearchParams({
      grant_type: 'refresh_token',
      client_id: auth.publicClientId,
      refresh_token: first,
    })
    expect((await fetch(auth.tokenUrl, { method: 'POST', body })).status).toBe(400)
    const { status, hops } = await send(app, origin)
    expect([status, hops]).toEqual([
      200,
      [
        ['a', 'expired', 'token'],
        ['b', 'ok', null],
      ],
    ])
    expect(await states(app)).toEqual({ a: 'revoked', b: 'active' })
  })
})
