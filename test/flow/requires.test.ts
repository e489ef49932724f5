import { afterEach, beforeAll, describe, expect, test } from 'vitest'
import { startApp, type TestApp } from '../support/app.ts'
import { type KeyIssuer, makeKey, type SigningKey, startKeyIssuer } from '../support/key-issuer.ts'
import { type Origin, startOrigin } from '../support/origin.ts'

let key: SigningKey
beforeAll(async () => {
  key = await makeKey('k')
})

const open: AsyncDisposable[] = []
afterEach(async () => {
  for (const each of open.splice(0).reverse()) await each[Symbol.asyncDispose]()
})

interface Setting {
  readonly issuer: KeyIssuer
  readonly origin: Origin
  readonly app: TestApp
  send(
    path: string,
    options?: { method?: string; headers?: Record<string, string> },
  ): Promise<{
    status: number
    /** Who served it. */
    by: string
    body: string
    trace: { attempts: { credential: string; verdict: string }[]; refresh?: object }
  }>
}

/** An API whose accounts have these claims in their tokens, or opaque ones for `undefined`. */
async function setUp(
  accounts: Record<string, Record<string, unknown> | undefined>,
  pool: object,
  refuses?: (path: string, scopes: string) => boolean,
): Promise<Setting> {
  const issuer = await startKeyIssuer(key)
  issuer.claims = (client) => ({ sub: client, ...accounts[client] })
  open.push(issuer)
  const origin = await startOrigin({
    handler: (request, response) => {
      request.resume()
      const token = request.headers.authorization?.slice(7) ?? ''
      const claims = token.startsWith('opaque')
        ? { sub: token.slice(7), scope: String(accounts[token.slice(7)]?.scope) }
        : JSON.parse(Buffer.from(token.split('.')[1] ?? '', 'base64url').toString())
      if (!refuses?.(request.url ?? '', claims.scope ?? '')) {
        response.end(claims.sub)
        return
      }
      response.setHeader(
        'www-authenticate',
        'Bearer error="insufficient_scope", scope="items:write"',
      )
      response.writeHead(403).end(`refused ${claims.sub}`)
    },
  })
  open.push(origin)
  const app = await startApp({
    pools: {
      api: {
        targets: [`http://127.0.0.1:${origin.port}`],
        select: 'fill-first',
        ...pool,
        credentials: Object.keys(accounts).map((id) => ({
          id,
          source: id.startsWith('opaque')
            ? { type: 'static', token: `opaque-${id}` }
            : {
                type: 'oauth2',
                grant: 'client_credentials',
                tokenUrl: issuer.tokenUrl,
                clientId: id,
                clientSecret: 'secret',
              },
        })),
      },
    },
  })
  open.push(app)
  return {
    issuer,
    origin,
    app,
    async send(path, options) {
      const answer = await app.client().request(`http://127.0.0.1:${origin.port}${path}`, options)
      const body = answer.body.toString()
      const trace = await app.admin(`/api/traces/${answer.headers['cupbearer-trace']}`)
      return { status: answer.status, by: body, body, trace }
    },
  }
}

const READER = { scope: 'items:read' }
const WRITER = { scope: 'items:read items:write' }

describe('requires', () => {
  const requires = [
    { methods: ['GET'], path: '/items*', scopes: ['items:read'] },
    { methods: ['POST', 'PUT', 'DELETE'], path: '/items*', scopes: ['items:write'] },
    { path: '/admin/*', claims: { '/realm_access/roles': 'admin' } },
    { path: '/tenants/acme/*', claims: { tenant: 'acme' } },
  ]
  const accounts = {
    reader: READER,
    writer: WRITER,
    admin: { scope: '', realm_access: { roles: ['user', 'admin'] } },
    acme: { scope: '', tenant: 'acme' },
  }

  test('chooses the credential by method and path', async () => {
    const { send } = await setUp(accounts, { requires })
    expect((await send('/other')).by).toBe('reader')
    expect((await send('/items/1')).by).toBe('reader')
    expect((await send('/items/1', { method: 'DELETE' })).by).toBe('writer')
    expect((await send('/admin/users')).by).toBe('admin')
    expect((await send('/tenants/acme/x')).by).toBe('acme')
  })

  test('adds to the scopes that the client asks for', async () => {
    const { send } = await setUp(accounts, { requires })
    const headers = { 'Cupbearer-Scope': 'items:write' }
    expect((await send('/items/1', { headers })).by).toBe('writer')
  })

  test.each(['/x/../admin/users', '/x/%2e%2e/admin/users', '/x/..;/admin/users', '//admin/users'])(
    'is not got around by %s',
    async (path) => {
      const { send } = await setUp(accounts, { requires })
      const { status, by } = await send(path)
      expect([status, by]).toEqual([200, 'admin'])
    },
  )

  test('refuses with a 403 that names what is missing, and sends nothing', async () => {
    const { send, origin } = await setUp({ reader: READER }, { requires })
    const { status, body } = await send('/items', { method: 'POST' })
    expect(status).toBe(403)
    expect(JSON.parse(body).error).toMatchObject({
      code: 'NO_TOKEN_WITH_SCOPE',
      message: 'no token of pool api has the scope items:write',
    })
    const other = await send('/tenants/acme/x')
    expect(JSON.parse(other.body).error.message).toBe('no token of pool api has the claim tenant')
    expect(origin.requests).toHaveLength(0)
  })

  test('tries a token that does not tell after those that do', async () => {
    const { send, app } = await setUp({ 'opaque-a': undefined, writer: WRITER }, { requires })
    expect((await send('/items', { method: 'POST' })).by).toBe('writer')
    await app.admin('/api/pools/api/credentials/writer/quarantine', 'POST')
    expect((await send('/items', { method: 'POST' })).trace.attempts[0]?.credential).toBe(
      'opaque-a',
    )
  })
})

describe('insufficient_scope', () => {
  const refuses = (path: string, scopes: string) =>
    path === '/items' && !scopes.includes('items:write')

  test('goes once to a credential that has the scope, and renews or quarantines nothing', async () => {
    const accounts = { reader: READER, second: READER, writer: WRITER }
    const { send, app, issuer } = await setUp(accounts, {}, refuses)
    const { status, by, trace } = await send('/items')
    expect([status, by]).toEqual([200, 'writer'])
    expect(trace.attempts.map(({ credential, verdict }) => [credential, verdict])).toEqual([
      ['reader', 'denied'],
      ['writer', 'ok'],
    ])
    expect(trace.refresh).toBeUndefined()
    expect(issuer.calls).toHaveLength(3)
    const { credentials } = await app.admin('/api/pools/api')
    expect(credentials.map(({ state }: { state: string }) => state)).toEqual(
      Array(3).fill('active'),
    )
  })

  test('goes to one whose scopes are unknown when no other has it, and once only', async () => {
    const accounts = { reader: READER, 'opaque-a': undefined, 'opaque-b': undefined }
    const { send } = await setUp(accounts, {}, refuses)
    const { status, body, trace } = await send('/items')
    expect([status, body]).toEqual([403, 'refused opaque-a'])
    expect(trace.attempts.map(({ credential }) => credential)).toEqual(['reader', 'opaque-a'])
  })

  test('passes as sent where nobody has it', async () => {
    const { send, issuer } = await setUp({ reader: READER, second: READER }, {}, refuses)
    const { status, body, trace } = await send('/items')
    expect([status, body]).toEqual([403, 'refused reader'])
    expect(trace.attempts).toHaveLength(1)
    expect(issuer.calls).toHaveLength(2)
  })
})
