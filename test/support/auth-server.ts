import { generateKeyPairSync } from 'node:crypto'
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import type { Provider } from 'oidc-provider'
import { adapterFor, createAuthStore } from './auth-store.ts'

/** What the token endpoint does instead of its work. */
export type FailMode =
  | '500'
  | '429'
  | '403'
  | 'html'
  | 'huge'
  | 'redirect'
  | 'hang'
  | 'reset'
  /** Does its work, then calls this and drops the connection in place of the answer. */
  | { readonly lost: () => void }
  | { readonly delayMs: number }
  /** Answers when this has come about. */
  | { readonly after: Promise<void> }

export interface TokenCall {
  /** Known once the provider has read the request, so by the time it answers. */
  readonly grant: string
  readonly remoteAddress: string
  /** Wall time, ms since the epoch. */
  readonly at: number
  /** The refresh token that came with it, once the provider has read the request. */
  readonly presented?: string | undefined
  /** What the provider gave for it, whether or not that arrived. */
  readonly issued?: { accessToken: string; refreshToken: string | undefined }
}

export interface AuthServerOptions {
  readonly host?: string
  readonly accessTokenTtlSeconds?: number
  /** JWT access tokens (the default), else opaque ones. */
  readonly jwt?: boolean
  /** Whether each refresh gives a new refresh token (the default). */
  readonly rotate?: boolean
}

export interface AuthServer extends AsyncDisposable {
  readonly issuer: string
  readonly tokenUrl: string
  /** A confidential client; authenticates by `client_secret_basic` or `client_secret_post`. */
  readonly clientId: string
  readonly clientSecret: string
  /** A client without a secret, for the refresh token grant. */
  readonly publicClientId: string
  /** Every call of the token endpoint, failed ones too, oldest first. */
  readonly calls: readonly TokenCall[]
  /** Every address that a connection came from, discovery included. */
  readonly remoteAddresses: ReadonlySet<string>
  /** How many times a refresh token was presented that had been used before. */
  readonly reuseDetected: number
  /** The start of a family of rotating refresh tokens, as a login in the browser would give. */
  issueRefreshToken(account?: string, options?: { clientId?: string }): Promise<string>
  /** What a resource server would say of an access token now. */
  isActive(token: string): Promise<boolean>
  /** Makes every living access token answer 401; refresh tokens stay. */
  revokeAccessTokens(): void
  fail(mode: FailMode | undefined): void
  /** Resolves once nobody is connected and no call is under way: all that a killed client sent has been dealt with. */
  idle(): Promise<void>
  close(): Promise<void>
}

type Writable<Shape> = { -readonly [Key in keyof Shape]: Shape[Key] }

const RESOURCE = 'urn:cupbearer:test-api'
const SCOPE = 'api:read api:write'
const CLIENT_ID = 'pipeline-client'
// Characters that Basic must carry form-encoded (RFC 6749 §2.3.1).
const CLIENT_SECRET = 'a secret: with+odd/characters%'
const PUBLIC_CLIENT_ID = 'public-client'

/** Starts oidc-provider on loopback HTTP. */
export async function startAuthServer(options: AuthServerOptions = {}): Promise<AuthServer> {
  const { host = '127.0.0.1', accessTokenTtlSeconds = 60, jwt = true, rotate = true } = options
  const store = createAuthStore()
  const calls: TokenCall[] = []
  const callOf = new WeakMap<IncomingMessage, Writable<TokenCall>>()
  let underWay = 0
  const remoteAddresses = new Set<string>()
  const timers = new Set<NodeJS.Timeout>()
  let mode: FailMode | undefined
  let handle: (request: IncomingMessage, response: ServerResponse) => unknown = () => {}

  const server = createServer((request, response) => {
    remoteAddresses.add(request.socket.remoteAddress ?? '')
    if (request.url === '/token') answerToken(request, response)
    else handle(request, response)
  })
  await new Promise<void>((resolve) => server.listen(0, host, resolve))
  const issuer = `http://${host}:${(server.address() as AddressInfo).port}`

  const answerToken = (request: IncomingMessage, response: ServerResponse) => {
    const call = { grant: '', remoteAddress: request.socket.remoteAddress ?? '', at: Date.now() }
    calls.push(call)
    callOf.set(request, call)
    if (mode === undefined) handle(request, response)
    else if (typeof mode === 'object' && 'lost' in mode) {
      const { lost } = mode
      response.end = () => {
        lost()
        request.socket.resetAndDestroy()
        return response
      }
      handle(request, response)
    } else if (typeof mode === 'object' && 'after' in mode) {
      void mode.after.then(() => handle(request, response))
    } else if (typeof mode === 'object') {
      const timer = setTimeout(() => {
        timers.delete(timer)
        handle(request, response)
      }, mode.delayMs)
      timers.add(timer)
    } else void failWith(mode, call, request, response)
  }

  const provider = await createProvider(issuer, { accessTokenTtlSeconds, jwt, rotate, store })
  provider.use(async (context, next) => {
    underWay += 1
    try {
      await next()
    } finally {
      underWay -= 1
    }
    const call = callOf.get(context.req)
    if (call) {
      call.grant = context.oidc?.params?.grant_type ?? ''
      call.presented = context.oidc?.params?.refresh_token
    }
    if (context.path !== '/token' || context.status !== 200) return
    const answer = context.body as {
      access_token: string
      refresh_token?: string
      expires_in: number
    }
    if (call) call.issued = { accessToken: answer.access_token, refreshToken: answer.refresh_token }
    // As a resource server sees it: whole seconds, the end excluded.
    const expiresAt = (Math.floor(Date.now() / 1000) + answer.expires_in) * 1000
    const grantId = context.oidc?.entities.AccessToken?.grantId
    store.accessTokens.set(answer.access_token, { expiresAt, grantId })
  })
  provider.on('grant.error', (_context, error) => {
    if (error.error_detail === 'refresh token already used') store.reuseDetected += 1
  })
  provider.on('grant.revoked', (_context, grantId) => {
    for (const [token, { grantId: of }] of store.accessTokens) {
      if (of === grantId) store.accessTokens.delete(token)
    }
  })
  handle = provider.callback()

  const close = async () => {
    for (const timer of timers) clearTimeout(timer)
    timers.clear()
    if (!server.listening) return
    server.closeAllConnections()
    await new Promise((resolve) => server.close(resolve))
  }

  return {
    issuer,
    tokenUrl: `${issuer}/token`,
    clientId: CLIENT_ID,
    clientSecret: CLIENT_SECRET,
    publicClientId: PUBLIC_CLIENT_ID,
    calls,
    remoteAddresses,
    get reuseDetected() {
      return store.reuseDetected
    },
    async issueRefreshToken(account = 'account-1', { clientId = CLIENT_ID } = {}) {
      const grant = new provider.Grant({ accountId: account, clientId })
      grant.addOIDCScope('offline_access')
      grant.addResourceScope(RESOURCE, SCOPE)
      await grant.save()
      const token = new provider.RefreshToken({
        accountId: account,
        client: await provider.Client.find(clientId),
        grantId: grant.jti,
        gty: 'authorization_code',
        scope: `offline_access ${SCOPE}`,
        resource: RESOURCE,
        rotations: 0,
      })
      return token.save()
    },
    async isActive(token) {
      const known = store.accessTokens.get(token)
      return known !== undefined && known.expiresAt > Date.now()
    },
    revokeAccessTokens: () => store.accessTokens.clear(),
    fail(next) {
      mode = next
    },
    async idle() {
      // A connection that waits to be accepted shows within a turn or two of the loop.
      for (let quiet = 0; quiet < 3; ) {
        await new Promise((resolve) => setImmediate(resolve))
        const open = await new Promise<number>((resolve) =>
          server.getConnections((_error, count) => resolve(count)),
        )
        quiet = open === 0 && underWay === 0 ? quiet + 1 : 0
      }
    },
    close,
    [Symbol.asyncDispose]: close,
  }
}

async function createProvider(
  issuer: string,
  options: {
    accessTokenTtlSeconds: number
    jwt: boolean
    rotate: boolean
    store: ReturnType<typeof createAuthStore>
  },
): Promise<Provider> {
  const { accessTokenTtlSeconds: ttl, jwt, rotate, store } = options
  const grants = ['client_credentials', 'refresh_token', 'authorization_code']
  const common = {
    redirect_uris: ['https://client.invalid/callback'],
    scope: `offline_access ${SCOPE}`,
  }
  const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
  return quietly(async () => {
    const { default: OidcProvider } = await import('oidc-provider')
    return new OidcProvider(issuer, {
      adapter: (model: string) => adapterFor(store, model),
      jwks: { keys: [{ ...privateKey.export({ format: 'jwk' }), alg: 'ES256', use: 'sig' }] },
      clientDefaults: { id_token_signed_response_alg: 'ES256' },
      clients: [
        { ...common, client_id: CLIENT_ID, client_secret: CLIENT_SECRET, grant_types: grants },
        {
          ...common,
          client_id: PUBLIC_CLIENT_ID,
          token_endpoint_auth_method: 'none',
          grant_types: ['refresh_token', 'authorization_code'],
        },
      ],
      scopes: ['offline_access', ...SCOPE.split(' ')],
      cookies: { keys: ['test'] },
      findAccount: (_context: unknown, accountId: string) => ({
        accountId,
        claims: () => ({ sub: accountId }),
      }),
      rotateRefreshToken: rotate,
      ttl: { AccessToken: ttl, ClientCredentials: ttl, RefreshToken: 86_400, Grant: 86_400 },
      features: {
        devInteractions: { enabled: false },
        clientCredentials: { enabled: true },
        resourceIndicators: {
          enabled: true,
          defaultResource: () => RESOURCE,
          useGrantedResource: () => true,
          getResourceServerInfo: () => ({
            scope: SCOPE,
            audience: RESOURCE,
            accessTokenTTL: ttl,
            accessTokenFormat: jwt ? 'jwt' : 'opaque',
            jwt: { sign: { alg: 'ES256' } },
          }),
        },
      },
    })
  })
}

/** The provider warns on the console of its runtime and its defaults, which are no news in a test. */
async function quietly<Value>(job: () => Promise<Value>): Promise<Value> {
  const { warn, info } = console
  console.warn = console.info = () => {}
  try {
    return await job()
  } finally {
    Object.assign(console, { warn, info })
  }
}

async function failWith(
  mode: Exclude<FailMode, object>,
  call: { grant: string },
  request: IncomingMessage,
  response: ServerResponse,
): Promise<void> {
  let body = ''
  for await (const chunk of request.iterator({ destroyOnReturn: false })) body += chunk
  call.grant = new URLSearchParams(body).get('grant_type') ?? ''
  const html = { 'content-type': 'text/html' }
  const json = { 'content-type': 'application/json' }
  if (mode === '500') response.writeHead(500, json).end('{"error":"server_error"}')
  else if (mode === '429') response.writeHead(429, { 'retry-after': '7' }).end('slow down')
  else if (mode === '403') response.writeHead(403, html).end('<h1>Blocked</h1>')
  else if (mode === 'html') response.writeHead(200, html).end('<h1>Sign in</h1>')
  else if (mode === 'huge') response.writeHead(200, json).end(Buffer.alloc(10_000_000, 0x20))
  else if (mode === 'redirect') response.writeHead(307, { location: '/elsewhere' }).end()
  else if (mode === 'reset') request.socket.resetAndDestroy()
}
