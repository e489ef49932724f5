import { once } from 'node:events'
import { mkdtemp, rm } from 'node:fs/promises'
import { createServer, type Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

/** What a site has been asked, and by whom. */
export interface SiteRequest {
  readonly method: string
  readonly path: string
  readonly userAgent: string | undefined
  readonly authorization: string | undefined
  readonly remoteAddress: string | undefined
}

/** A real system that nobody here wrote, with a user `alice`. */
export interface LoginSite extends AsyncDisposable {
  readonly url: string
  readonly password: string
  readonly requests: readonly SiteRequest[]
}

const PASSWORD = 'correct {horse} "battery" & staple'

/** Verdaccio, a private npm registry: who exists already logs in by Basic only. */
export async function startVerdaccio(): Promise<LoginSite> {
  const { runServer } = await import('verdaccio')
  const folder = await mkdtemp(join(tmpdir(), 'cupbearer-verdaccio-'))
  const server: Server = await runServer({
    storage: join(folder, 'storage'),
    self_path: folder,
    configPath: folder,
    web: { enable: false },
    auth: { htpasswd: { file: join(folder, 'htpasswd'), algorithm: 'bcrypt', rounds: 1 } },
    packages: { '**': { access: '$authenticated' } },
    security: { api: { jwt: { sign: { expiresIn: '1h' } } } },
    log: { type: 'stdout', format: 'json', level: 'fatal' },
  } as never)
  const requests = record(server)
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const url = urlOf(server)
  const made = await fetch(`${url}/-/user/org.couchdb.user:alice`, {
    method: 'PUT',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ name: 'alice', password: PASSWORD }),
  })
  if (made.status !== 201) throw new Error(`verdaccio answered ${made.status}`)
  requests.length = 0
  return {
    url,
    password: PASSWORD,
    requests,
    async [Symbol.asyncDispose]() {
      await close(server)
      await rm(folder, { recursive: true, force: true })
    },
  }
}

/** Node-RED's admin API, with its own tokens. */
export async function startNodeRed(): Promise<LoginSite> {
  const { default: red } = await import('node-red')
  const folder = await mkdtemp(join(tmpdir(), 'cupbearer-node-red-'))
  const server = createServer((request, response) => red.httpAdmin(request, response))
  const requests = record(server)
  red.init(server, {
    userDir: folder,
    httpAdminRoot: '/',
    httpNodeRoot: false,
    disableEditor: true,
    adminAuth: {
      type: 'credentials',
      sessionExpiryTime: 3600,
      users: async (name: string) =>
        name === 'alice' ? { username: name, permissions: '*' } : null,
      authenticate: async (name: string, password: string) =>
        name === 'alice' && password === PASSWORD ? { username: name, permissions: '*' } : null,
    },
    logging: { console: { level: 'off', metrics: false, audit: false } },
    telemetry: { enabled: false },
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  await red.start()
  return {
    url: urlOf(server),
    password: PASSWORD,
    requests,
    async [Symbol.asyncDispose]() {
      await red.stop()
      await close(server)
      await rm(folder, { recursive: true, force: true })
    },
  }
}

/** The login and consent pages of oidc-provider, and its own protected resource at /me. */
export async function startFormLogin(): Promise<LoginSite & { readonly secret: string }> {
  let handle: Parameters<typeof createServer>[1] = () => {}
  const server = createServer((request, response) => handle?.(request, response))
  const requests = record(server)
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { warn, info } = console
  // It warns of its runtime and of its development pages, which are what is wanted here.
  console.warn = console.info = () => {}
  try {
    const { default: OidcProvider } = await import('oidc-provider')
    const provider = new OidcProvider(urlOf(server), {
      findAccount: (_context: unknown, accountId: string) => ({
        accountId,
        claims: () => ({ sub: accountId }),
      }),
      clients: [
        {
          client_id: 'portal',
          client_secret: PASSWORD,
          redirect_uris: ['https://app.example/callback'],
          grant_types: ['authorization_code', 'refresh_token'],
        },
      ],
      pkce: { required: () => false },
      cookies: { keys: ['test'] },
      ttl: {
        AccessToken: 600,
        RefreshToken: 3600,
        Session: 600,
        Interaction: 600,
        Grant: 3600,
        IdToken: 600,
      },
    })
    handle = provider.callback()
  } finally {
    Object.assign(console, { warn, info })
  }
  return {
    url: urlOf(server),
    password: PASSWORD,
    secret: PASSWORD,
    requests,
    [Symbol.asyncDispose]: () => close(server),
  }
}

function record(server: Server): SiteRequest[] {
  const requests: SiteRequest[] = []
  server.prependListener('request', ({ method = '', url = '', headers, socket }) => {
    requests.push({
      method,
      path: url.split('?')[0] as string,
      userAgent: headers['user-agent'],
      authorization: headers.authorization,
      remoteAddress: socket.remoteAddress,
    })
  })
  return requests
}

const urlOf = (server: Server): string =>
  `http://127.0.0.1:${(server.address() as AddressInfo).port}`

async function close(server: Server): Promise<void> {
  server.closeAllConnections()
  await new Promise((resolve) => server.close(resolve))
}
