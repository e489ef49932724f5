import { generateKeyPairSync, type KeyObject, randomBytes } from 'node:crypto'
import { createServer, type IncomingHttpHeaders, type IncomingMessage } from 'node:http'
import type { AddressInfo } from 'node:net'
import { jwtVerify } from 'jose'
import type { Context, Provider } from 'oidc-provider'
import { adapterFor, createAuthStore } from './auth-store.ts'

/** One call of the token or the device authorization endpoint. */
export interface EndpointCall {
  readonly path: string
  readonly form: URLSearchParams
  readonly headers: IncomingHttpHeaders
  readonly remoteAddress: string
  status: number
  /** The `error` of the answer, if it was one. */
  error: string | undefined
}

export interface LoginServerOptions {
  readonly accessTokenTtlSeconds?: number
  /** Whether proofs must carry a nonce of the server's. */
  readonly dpopNonce?: boolean
  /** Whether interactive grants give a refresh token. */
  readonly refreshTokens?: boolean
}

export interface LoginServer extends AsyncDisposable {
  readonly issuer: string
  readonly tokenUrl: string
  readonly clientId: string
  readonly clientSecret: string
  /** A client that signs: for private_key_jwt. */
  readonly keyClient: { readonly clientId: string; readonly privateKey: string; keyId: string }
  /** A client without a secret. */
  readonly publicClientId: string
  readonly user: { readonly name: string; readonly password: string }
  readonly calls: readonly EndpointCall[]
  /** Who logs in; undefined refuses. */
  account: string | undefined
  isActive(token: string): boolean
  revokeAccessTokens(): void
  /** Refresh tokens answer with invalid_grant from now on. */
  revokeRefreshTokens(): void
  /**
   * A person at a browser: follows redirects, with cookies, and submits the forms of the device flow.
   * Returns the first address outside of the server, or undefined when the way ends on a page.
   */
  browse(url: string): Promise<string | undefined>
}

const RESOURCE = 'urn:cupbearer:test-api'
const SCOPE = 'api:read api:write'
const JWT_BEARER = 'urn:ietf:params:oauth:grant-type:jwt-bearer'
const TOKEN_EXCHANGE = 'urn:ietf:params:oauth:grant-type:token-exchange'
const DEVICE = 'urn:ietf:params:oauth:grant-type:device_code'
const USER = { name: 'alice', password: 'correct horse' }
const INTERACTIVE = ['refresh_token', 'authorization_code', DEVICE]

/** Starts oidc-provider on loopback HTTP with everything that a client can ask it for. */
export async function startLoginServer(options: LoginServerOptions = {}): Promise<LoginServer> {
  const calls: EndpointCall[] = []
  const store = createAuthStore()
  const key = generateKeyPairSync('rsa', { modulusLength: 2048 })
  let account: string | undefined = USER.name
  let handle: (request: IncomingMessage, response: never) => unknown = () => {}
  const server = createServer((request, response) => handle(request, response as never))
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const issuer = `http://127.0.0.1:${(server.address() as AddressInfo).port}`
  const provider = await createProvider(issuer, store, key.publicKey, options)

  provider.use(async (context, next) => {
    if (context.path.startsWith('/interaction/')) {
      context.respond = false
      const result = account
        ? { login: { accountId: account }, consent: {} }
        : { error: 'access_denied' }
      return provider.interactionFinished(context.req, context.res, result)
    }
    const { path } = context
    const isCall = path === '/token' || path === '/device/auth'
    try {
      await next()
    } finally {
      if (isCall) calls.push(callOf(context))
    }
    // The provider leaves it at five seconds.
    if (path === '/device/auth' && context.status === 200) {
      context.body = { ...(context.body as object), interval: 1 }
    }
    if (path !== '/token' || context.status !== 200) return
    const { access_token: token, expires_in: seconds } = context.body as {
      access_token: string
      expires_in: number
    }
    const grantId = context.oidc?.entities.AccessToken?.grantId
    store.accessTokens.set(token, { expiresAt: Date.now() + seconds * 1000, grantId })
  })
  addGrants(provider, key.publicKey, issuer, store)
  handle = provider.callback() as never

  return {
    issuer,
    tokenUrl: `${issuer}/token`,
    clientId: 'secret-client',
    clientSecret: 'the secret of the client',
    keyClient: {
      clientId: 'key-client',
      privateKey: key.privateKey.export({ type: 'pkcs8', format: 'pem' }) as string,
      keyId: 'key-1',
    },
    publicClientId: 'public-client',
    user: USER,
    calls,
    get account() {
      return account
    },
    set account(next) {
      account = next
    },
    isActive: (token) => (store.accessTokens.get(token)?.expiresAt ?? 0) > Date.now(),
    revokeAccessTokens: () => store.accessTokens.clear(),
    revokeRefreshTokens() {
      for (const name of [...store.payloads.keys()]) {
        if (name.startsWith('RefreshToken:')) store.payloads.delete(name)
      }
    },
    browse: (url) => browse(url, issuer),
    async [Symbol.asyncDispose]() {
      server.closeAllConnections()
      await new Promise((resolve) => server.close(resolve))
    },
  }
}

function callOf(context: Context): EndpointCall {
  const { error } = (context.body ?? {}) as { error?: string }
  const params = Object.entries(context.oidc?.params ?? {})
  return {
    path: context.path,
    form: new URLSearchParams(
      params.filter((each): each is [string, string] => typeof each[1] === 'string'),
    ),
    headers: context.req.headers,
    remoteAddress: context.req.socket.remoteAddress ?? '',
    status: context.status,
    error,
  }
}

async function createProvider(
  issuer: string,
  store: ReturnType<typeof createAuthStore>,
  publicKey: KeyObject,
  { accessTokenTtlSeconds: ttl = 60, dpopNonce = false, refreshTokens = true }: LoginServerOptions,
): Promise<Provider> {
  const signer = generateKeyPairSync('ec', { namedCurve: 'P-256' }).privateKey
  const client = {
    // RFC 8252 §7.3: a native client's loopback redirect is good on any port.
    application_type: 'native',
    redirect_uris: ['http://127.0.0.1/callback'],
    scope: `openid offline_access ${SCOPE}`,
    response_types: ['code'],
  }
  const { warn, info } = console
  console.warn = console.info = () => {}
  try {
    const { default: OidcProvider } = await import('oidc-provider')
    const provider = new OidcProvider(issuer, {
      adapter: (model: string) => adapterFor(store, model),
      jwks: { keys: [{ ...signer.export({ format: 'jwk' }), alg: 'ES256', use: 'sig' }] },
      clientDefaults: { id_token_signed_response_alg: 'ES256' },
      clients: [
        {
          ...client,
          client_id: 'secret-client',
          client_secret: 'the secret of the client',
          grant_types: [
            ...INTERACTIVE,
            'client_credentials',
            'password',
            JWT_BEARER,
            TOKEN_EXCHANGE,
          ],
        },
        {
          ...client,
          client_id: 'public-client',
          token_endpoint_auth_method: 'none',
          grant_types: [...INTERACTIVE, 'password'],
        },
        {
          ...client,
          client_id: 'key-client',
          token_endpoint_auth_method: 'private_key_jwt',
          token_endpoint_auth_signing_alg: 'RS256',
          jwks: { keys: [{ ...publicKey.export({ format: 'jwk' }), kid: 'key-1', alg: 'RS256' }] },
          grant_types: [...INTERACTIVE, 'client_credentials'],
        },
      ],
      scopes: ['openid', 'offline_access', ...SCOPE.split(' ')],
      extraClientMetadata: { properties: [] },
      cookies: { keys: ['test'] },
      findAccount: (_context: unknown, accountId: string) => ({
        accountId,
        claims: () => ({ sub: accountId }),
      }),
      pkce: { required: () => true },
      issueRefreshToken: () => refreshTokens,
      async loadExistingGrant(context: Context & { oidc: Record<string, never> }) {
        const { client, session } = context.oidc as unknown as {
          client: { clientId: string }
          session: { accountId: string }
        }
        const grant = new provider.Grant({
          clientId: client.clientId,
          accountId: session.accountId,
        })
        grant.addOIDCScope(`openid offline_access ${SCOPE}`)
        grant.addResourceScope(RESOURCE, SCOPE)
        await grant.save()
        return grant
      },
      ttl: {
        AccessToken: ttl,
        ClientCredentials: ttl,
        RefreshToken: 86_400,
        Grant: 86_400,
        DeviceCode: 600,
        Interaction: 600,
        Session: 600,
        IdToken: 600,
      },
      features: {
        devInteractions: { enabled: false },
        clientCredentials: { enabled: true },
        deviceFlow: {
          enabled: true,
          userCodeConfirmSource: (context: Context, form: string) => {
            context.body = form
          },
          successSource: (context: Context) => {
            context.body = 'You can close this page'
          },
        },
        dPoP: {
          enabled: true,
          nonceSecret: dpopNonce ? randomBytes(32) : undefined,
          requireNonce: () => dpopNonce,
        },
        resourceIndicators: {
          enabled: true,
          defaultResource: () => RESOURCE,
          useGrantedResource: () => true,
          getResourceServerInfo: () => ({
            scope: SCOPE,
            audience: RESOURCE,
            accessTokenTTL: ttl,
            accessTokenFormat: 'jwt',
            jwt: { sign: { alg: 'ES256' } },
          }),
        },
      },
    })
    return provider
  } finally {
    Object.assign(console, { warn, info })
  }
}

/** What the provider lets others add: grants without a browser for which it has none of its own. */
function addGrants(
  provider: Provider,
  publicKey: KeyObject,
  issuer: string,
  store: ReturnType<typeof createAuthStore>,
): void {
  const refuse = (context: Context, error: string) => {
    context.status = 400
    context.body = { error }
  }
  const give = async (context: Context, accountId: string, more: object = {}) => {
    const clientId = context.oidc?.client?.clientId as string
    const grant = new provider.Grant({ clientId, accountId })
    grant.addOIDCScope('offline_access')
    await grant.save()
    const client = await provider.Client.find(clientId)
    const token = new provider.AccessToken({ accountId, client, grantId: grant.jti, gty: 'other' })
    context.body = {
      access_token: await token.save(),
      token_type: 'Bearer',
      expires_in: 60,
      ...more,
    }
  }
  provider.registerGrantType(
    'password',
    async (context) => {
      const { username, password } = context.oidc?.params ?? {}
      if (username !== USER.name || password !== USER.password) refuse(context, 'invalid_grant')
      else await give(context, username)
    },
    ['username', 'password', 'scope'],
  )
  provider.registerGrantType(
    JWT_BEARER,
    async (context) => {
      const assertion = context.oidc?.params?.assertion ?? ''
      // RFC 7523 §3: issuer, subject, audience and end are what an assertion must have.
      const verified = await jwtVerify(assertion, publicKey, {
        issuer: 'service@example.test',
        audience: `${issuer}/token`,
        requiredClaims: ['sub', 'exp', 'iat', 'jti'],
      }).catch(() => undefined)
      if (verified) await give(context, verified.payload.sub as string)
      else refuse(context, 'invalid_grant')
    },
    ['assertion', 'scope'],
  )
  provider.registerGrantType(
    TOKEN_EXCHANGE,
    async (context) => {
      const { subject_token: subject, subject_token_type: type } = context.oidc?.params ?? {}
      const known = type?.endsWith(':access_token') && store.accessTokens.has(subject ?? '')
      const issued = 'urn:ietf:params:oauth:token-type:access_token'
      if (known) await give(context, USER.name, { issued_token_type: issued, token_type: 'N_A' })
      else refuse(context, 'invalid_grant')
    },
    ['subject_token', 'subject_token_type', 'actor_token', 'actor_token_type', 'audience', 'scope'],
  )
}

async function browse(start: string, issuer: string): Promise<string | undefined> {
  const cookies = new Map<string, string>()
  let url = start
  let form: URLSearchParams | undefined
  for (let step = 0; step < 20; step++) {
    const response = await fetch(url, {
      redirect: 'manual',
      headers: { cookie: [...cookies].map(([name, value]) => `${name}=${value}`).join('; ') },
      ...(form && { method: 'POST', body: form }),
    })
    for (const cookie of response.headers.getSetCookie()) {
      const [, name, value] = /^([^=]+)=([^;]*)/.exec(cookie) ?? []
      cookies.set(name as string, value as string)
    }
    const location = response.headers.get('location')
    const page = await response.text()
    form = undefined
    if (location !== null) {
      url = new URL(location, url).href
      if (!url.startsWith(issuer)) return url
      continue
    }
    const action = /<form[^>]* action="([^"]+)"/.exec(page)?.[1]
    if (action === undefined) return undefined
    url = new URL(action.replaceAll('&amp;', '&'), url).href
    form = new URLSearchParams()
    for (const [input] of page.matchAll(/<input[^>]*type="hidden"[^>]*>/g)) {
      form.set(attribute(input, 'name'), attribute(input, 'value'))
    }
  }
  throw new Error('the browser goes round in circles')
}

function attribute(tag: string, name: string): string {
  return new RegExp(`\\b${name}="([^"]*)"`).exec(tag)?.[1] ?? ''
}
