import { afterEach, beforeAll, describe, expect, test } from 'vitest'
import { startApp, type TestApp } from '../support/app.ts'
import { type AuthServer, startAuthServer } from '../support/auth-server.ts'
import { type KeyIssuer, makeKey, type SigningKey, startKeyIssuer } from '../support/key-issuer.ts'
import { type Origin, startOrigin } from '../support/origin.ts'
import { PatientClock } from '../support/patient-clock.ts'
import { until } from '../support/until.ts'

let one: SigningKey
let two: SigningKey
beforeAll(async () => {
  one = await makeKey('one')
  two = await makeKey('two')
})

const open: AsyncDisposable[] = []
function keep<Server extends AsyncDisposable>(server: Server): Server {
  open.unshift(server)
  return server
}
afterEach(async () => {
  for (const each of open.splice(0)) await each[Symbol.asyncDispose]()
})

const EGRESS = { office: 'local://127.0.0.2', home: 'local://127.0.0.3' }

function config(
  origin: Origin,
  auth: Pick<AuthServer, 'tokenUrl'> & Partial<Pick<AuthServer, 'clientId' | 'clientSecret'>>,
  pool: object,
  ids: readonly string[] = ['a'],
): object {
  return {
    egress: EGRESS,
    pools: {
      api: {
        targets: [`http://127.0.0.1:${origin.port}`],
        egress: ['office'],
        ...pool,
        credentials: ids.map((id) => ({
          id,
          source: {
            type: 'oauth2',
            grant: 'client_credentials',
            tokenUrl: auth.tokenUrl,
            clientId: auth.clientId ?? id,
            clientSecret: auth.clientSecret ?? 'secret',
          },
        })),
      },
    },
  }
}

const get = (app: TestApp, origin: Origin, id?: string) =>
  app.client().request(`http://127.0.0.1:${origin.port}/`, {
    headers: id === undefined ? {} : { 'Cupbearer-Credential': id },
  })
const credentials = async (app: TestApp) => (await app.admin('/api/pools/api')).credentials

/** Answers 401 to tokens that a withdrawn key has signed, and counts them. */
async function startApi(issuer: KeyIssuer) {
  const seen = { refusals: 0 }
  const origin = keep(
    await startOrigin({
      handler: (request, response) => {
        const head = request.headers.authorization?.slice(7).split('.')[0] ?? ''
        const { kid } = JSON.parse(Buffer.from(head, 'base64url').toString()) as { kid: string }
        const good = issuer.published.some(({ id }) => id === kid)
        if (!good) seen.refusals += 1
        response.writeHead(good ? 200 : 401).end(kid)
      },
    }),
  )
  return { origin, seen }
}

describe('with a real authorization server', () => {
  test('new tokens are verified by its published keys, all by the pinned egress', async () => {
    const auth = keep(await startAuthServer())
    const origin = keep(await startOrigin())
    const app = keep(await startApp(config(origin, auth, { issuer: auth.issuer, verify: true })))
    expect((await get(app, origin)).status).toBe(200)
    expect(await credentials(app)).toMatchObject([{ state: 'active', lifetime: 'jwt' }])
    expect([...auth.remoteAddresses]).toEqual(['127.0.0.2'])
  })

  test('opaque tokens cannot be verified, and the reason is told', async () => {
    const auth = keep(await startAuthServer({ jwt: false }))
    const origin = keep(await startOrigin())
    const app = keep(
      await startApp(
        config(origin, auth, { issuer: auth.issuer, verify: true, queue: { wait: '200ms' } }),
      ),
    )
    expect((await get(app, origin)).status).toBe(503)
    const told = async () => (await credentials(app))[0].lastError
    await expect.poll(told).toBe('the new token was refused: it is not a signed JWT')
    expect(origin.requests).toHaveLength(0)
  })
})

describe('when an issuer changes its keys', () => {
  test('tokens of the old one are renewed before a request fails', async () => {
    const issuer = keep(await startKeyIssuer(one))
    const { origin, seen } = await startApi(issuer)
    const app = keep(
      await startApp(config(origin, issuer, { issuer: issuer.issuer }, ['a', 'b', 'c'])),
    )
    for (const id of ['a', 'b', 'c']) expect((await get(app, origin, id)).status).toBe(200)
    issuer.signWith = two
    issuer.published = [two]
    // A new token names a key that is not known: the rest follows.
    await app.admin('/api/pools/api/credentials/b/refresh', 'POST')
    await until(async () =>
      (await credentials(app)).every(({ generation }: { generation: number }) => generation === 2),
    )
    for (const id of ['a', 'b', 'c']) {
      expect((await get(app, origin, id)).body.toString()).toBe('two')
    }
    expect(seen.refusals).toBe(0)
    expect(issuer.calls.filter(({ path }) => path === '/token')).toHaveLength(6)
    expect(new Set(issuer.calls.map(({ remoteAddress }) => remoteAddress))).toEqual(
      new Set(['127.0.0.2']),
    )
  })

  test('a token that fails the check is refused, and the old one serves on', async () => {
    const issuer = keep(await startKeyIssuer(one))
    const { origin } = await startApi(issuer)
    const app = keep(await startApp(config(origin, issuer, { jwks: issuer.jwksUrl, verify: true })))
    expect((await get(app, origin)).body.toString()).toBe('one')
    issuer.signWith = two
    const answer = await app.admin('/api/pools/api/credentials/a/refresh', 'POST')
    expect(answer.error.message).toContain('the new token was refused: no key of the issuer fits')
    expect((await get(app, origin)).body.toString()).toBe('one')
    expect(await credentials(app)).toMatchObject([{ state: 'active', generation: 1 }])
  })

  test('the keys are asked for by another egress when the first is down', async () => {
    const issuer = keep(await startKeyIssuer(one))
    const { origin } = await startApi(issuer)
    const settings = config(origin, issuer, { jwks: issuer.jwksUrl, verify: true }, ['a', 'b'])
    const { pools } = settings as { pools: { api: { credentials: Record<string, unknown>[] } } }
    const [first, second] = pools.api.credentials as [
      Record<string, unknown>,
      Record<string, unknown>,
    ]
    first.egress = 'dead'
    second.egress = 'home'
    const app = keep(
      await startApp({ ...settings, egress: { ...EGRESS, dead: 'http://127.0.0.1:1' } }),
    )
    expect((await get(app, origin)).status).toBe(200)
    expect(new Set(issuer.calls.map(({ remoteAddress }) => remoteAddress))).toEqual(
      new Set(['127.0.0.3']),
    )
  })
})

describe('an issuer whose clock is ten minutes ahead', () => {
  test('has its tokens judged by its own time', async () => {
    const issuer = keep(await startKeyIssuer(one))
    issuer.aheadMs = 600_000
    const { origin } = await startApi(issuer)
    const app = keep(
      await startApp(config(origin, issuer, { issuer: issuer.issuer, verify: true })),
    )
    expect((await get(app, origin)).status).toBe(200)
    const [{ issuedAt, expiresAt }] = await credentials(app)
    // To half a minute: ten would be believed otherwise.
    expect(Math.abs(Date.parse(issuedAt) - Date.now())).toBeLessThan(30_000)
    expect(Math.abs(Date.parse(expiresAt) - Date.now() - 3600_000)).toBeLessThan(30_000)
  })
})

test('a token is not sent before its nbf', async () => {
  const issuer = keep(await startKeyIssuer(one))
  const { origin } = await startApi(issuer)
  const nbf = Math.ceil(Date.now() / 1000) + 2
  issuer.claims = () => ({ nbf })
  const app = keep(await startApp(config(origin, issuer, {})))
  expect((await get(app, origin)).status).toBe(200)
  expect(Date.now()).toBeGreaterThanOrEqual(nbf * 1000)
  expect(issuer.calls).toHaveLength(1)
})

test('a token of unknown end is renewed ahead once a refusal has told its lifetime', async () => {
  const issuer = keep(await startKeyIssuer(one))
  const clock = new PatientClock()
  Object.defineProperty(issuer, 'aheadMs', { get: () => clock.now() - Date.now() })
  let bornAt = 0
  let token = ''
  const statuses: number[] = []
  const origin = keep(
    await startOrigin({
      handler: (request, response) => {
        const sent = request.headers.authorization ?? ''
        if (sent !== token) [token, bornAt] = [sent, clock.now()]
        const status = clock.now() - bornAt > 1500 ? 401 : 200
        statuses.push(status)
        response.writeHead(status).end()
      },
    }),
  )
  let jti = 0
  issuer.claims = () => ({ exp: undefined, jti: String(++jti) })
  const app = keep(
    await startApp(
      config(origin, issuer, { refresh: { minInterval: '1s', floor: '500ms' } }),
      undefined,
      clock,
    ),
  )
  const lifetime = async () => (await credentials(app))[0].lifetime
  expect((await get(app, origin)).status).toBe(200)
  expect(await lifetime()).toBe('unknown')
  await until(async () => {
    expect((await get(app, origin)).status).toBe(200)
    return (await lifetime()) === 'learned'
  })
  const refusals = () => statuses.filter((status) => status === 401).length
  expect(refusals()).toBe(1)
  await until(async () => {
    expect((await get(app, origin)).status).toBe(200)
    return (await credentials(app))[0].generation === 4
  })
  expect(refusals()).toBe(1)
})
