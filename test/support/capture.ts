import { createHash, randomBytes } from 'node:crypto'
import { startApp, type TestApp } from './app.ts'
import type { ClientResponse, ProxyClient } from './client.ts'
import { type LoginServer, startLoginServer } from './login-server.ts'
import { type Origin, startOrigin } from './origin.ts'
import { trusting } from './protected-origin.ts'

/** A shop whose API takes the tokens of its authorization server, and a proxy that learns them. */
export class CaptureScene implements AsyncDisposable {
  readonly server: LoginServer
  readonly api: Origin
  /** `https://api.test:PORT` */
  readonly apiUrl: string
  #app: TestApp | undefined

  private constructor(server: LoginServer, api: Origin) {
    this.server = server
    this.api = api
    this.apiUrl = `https://api.test:${api.port}`
  }

  static async create(): Promise<CaptureScene> {
    const server = await startLoginServer()
    const api = await startOrigin({
      tls: true,
      handler: (request, response) => {
        const token = request.headers.authorization?.replace('Bearer ', '') ?? ''
        const { remoteAddress } = request.socket
        response
          .writeHead(server.isActive(token) ? 200 : 401)
          .end(JSON.stringify({ remoteAddress }))
      },
    })
    return new CaptureScene(server, api)
  }

  /** Starts the proxy; `targets` default to the API and the token endpoint. */
  async start(pool: object = {}, config: object = {}, dir?: string): Promise<TestApp> {
    const targets = [this.apiUrl, this.server.tokenUrl]
    const credentials = [{ id: 'ann', source: { type: 'capture' } }]
    const upstream = trusting(['api.test', 'other.test'])
    const pools = { shop: { targets, credentials, queue: { wait: '0ms' }, ...pool } }
    this.#app = await startApp({ upstream, pools, ...config }, dir)
    return this.#app
  }

  get app(): TestApp {
    if (!this.#app) throw new Error('not started')
    return this.#app
  }

  async status(id = 'ann') {
    const { credentials } = await this.app.admin('/api/pools/shop')
    return credentials.find((each: { id: string }) => each.id === id)
  }

  /** What the API answers, with a token of the client's own or without. */
  async ask(token?: string, client = this.app.client()): Promise<number> {
    const headers = token === undefined ? {} : { authorization: `Bearer ${token}` }
    return (await client.request(`${this.apiUrl}/orders`, { headers })).status
  }

  /** The token that the API saw last. */
  get lastSeen(): string | undefined {
    const { headers } = this.api.requests.at(-1) ?? { headers: [] }
    const index = headers.findIndex((name) => name.toLowerCase() === 'authorization')
    return headers[index + 1]?.replace('Bearer ', '')
  }

  /** A person logs in at a page without a secret: authorization code with PKCE, the token asked for by proxy. */
  async logIn(account = 'alice', client: ProxyClient = this.app.client()) {
    const { issuer, publicClientId, tokenUrl } = this.server
    const verifier = randomBytes(32).toString('base64url')
    const redirect = 'http://127.0.0.1/callback'
    const ask = new URLSearchParams({
      response_type: 'code',
      client_id: publicClientId,
      redirect_uri: redirect,
      scope: 'offline_access api:read',
      prompt: 'consent',
      code_challenge: createHash('sha256').update(verifier).digest('base64url'),
      code_challenge_method: 'S256',
    })
    this.server.account = account
    const arrived = new URL((await this.server.browse(`${issuer}/auth?${ask}`)) as string)
    const code = arrived.searchParams.get('code') ?? ''
    return post(client, tokenUrl, {
      grant_type: 'authorization_code',
      client_id: publicClientId,
      redirect_uri: redirect,
      code,
      code_verifier: verifier,
    })
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#app?.[Symbol.asyncDispose]()
    await this.api[Symbol.asyncDispose]()
    await this.server[Symbol.asyncDispose]()
  }
}

/** Posts a form and gives the JSON that came. */
export async function post(
  client: ProxyClient,
  url: string,
  form: Record<string, string>,
  headers: Record<string, string> = {},
): Promise<{ response: ClientResponse; access: string; refresh: string }> {
  const response = await client.request(url, {
    method: 'POST',
    headers: { 'content-type': 'application/x-www-form-urlencoded', ...headers },
    body: new URLSearchParams(form).toString(),
  })
  const { access_token: access = '', refresh_token: refresh = '' } =
    response.status === 200 ? response.json<Record<string, string>>() : {}
  return { response, access, refresh }
}
