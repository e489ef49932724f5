import { randomBytes } from 'node:crypto'
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type Cupbearer, createCupbearer } from '../../app.ts'
import { loadConfig } from '../../config/load.ts'
import type { Config } from '../../config/schema.ts'
import { createLog } from '../../lib/log.ts'
import { startEgressProxy } from './egress-proxy.ts'
import { API_HOST, LOGIN_HOST, type Servers, startServers } from './servers.ts'
import { type Account, type Issue, TokenBook } from './token-book.ts'

const LIFETIME_MS = 15_000

/** Named like the cities that such proxies stand in, by the address that they dial from. */
export const EGRESS = { berlin: '127.0.0.2', oslo: '127.0.0.3' } as const

/** Everything that the demo runs, in a folder of its own. */
export interface Stage extends AsyncDisposable {
  readonly app: Cupbearer
  readonly config: Config
  readonly book: TokenBook
  readonly servers: Servers
  readonly apiUrl: string
  /** The dashboard with the admin token in the link's fragment, which no server is sent. */
  loginLink(): Promise<string>
}

/** Starts API, token endpoint, egress proxies and Cupbearer; whatever fails, nothing stays behind. */
export async function buildStage(observe: (issue: Issue) => void): Promise<Stage> {
  const closers: (() => Promise<unknown>)[] = []
  const dispose = async () => {
    for (const close of closers.splice(0).reverse()) await close()
  }
  try {
    const folder = await mkdtemp(join(tmpdir(), 'cupbearer-demo-'))
    closers.push(() => rm(folder, { recursive: true, force: true }))
    const egress: Record<string, string> = {}
    for (const [name, address] of Object.entries(EGRESS)) {
      const proxy = await startEgressProxy(address)
      closers.push(proxy.close)
      egress[name] = proxy.url
    }
    const book = new TokenBook(ACCOUNTS.map(openAccount), LIFETIME_MS, observe)
    const servers = await startServers(book, join(folder, 'servers'))
    closers.push(servers.close)

    const file = join(folder, 'config.json')
    await writeFile(file, JSON.stringify(configFor(egress, book, servers), null, 2), {
      mode: 0o600,
    })
    const config = await loadConfig(file)
    const app = await createCupbearer({
      config,
      log: await createLog({ level: 'warn', format: 'pretty' }),
    })
    closers.push(() => app.stop({ force: true }))
    return {
      app,
      config,
      book,
      servers,
      apiUrl: `https://${API_HOST}:${servers.apiPort}`,
      async loginLink() {
        const token = (await readFile(join(config.dataDir, 'admin-token'), 'utf8')).trim()
        return `${app.adminUrl}/#token=${encodeURIComponent(token)}`
      },
      [Symbol.asyncDispose]: dispose,
    }
  } catch (error) {
    await dispose()
    throw error
  }
}

const ACCOUNTS = [
  { id: 'alice', grant: 'refresh_token', egress: 'berlin' },
  { id: 'bob', grant: 'refresh_token', egress: 'oslo' },
  { id: 'batch', grant: 'client_credentials', egress: 'oslo' },
] as const

function openAccount(account: (typeof ACCOUNTS)[number]): Account {
  const clientSecret = randomBytes(24).toString('base64url')
  return { ...account, address: EGRESS[account.egress], clientSecret }
}

function configFor(egress: object, book: TokenBook, servers: Servers): object {
  const tokenUrl = `https://${LOGIN_HOST}:${servers.loginPort}/oauth/token`
  return {
    listen: '127.0.0.1:0',
    admin: { listen: '127.0.0.1:0' },
    egress,
    upstream: {
      ca: [servers.caPath],
      resolve: { [API_HOST]: '127.0.0.1', [LOGIN_HOST]: '127.0.0.1' },
    },
    pools: {
      orders: {
        targets: [`${API_HOST}:${servers.apiPort}`],
        refresh: { ahead: 0.1, floor: '2s' },
        credentials: book.accounts.map((account) => ({
          id: account.id,
          egress: account.egress,
          source: {
            type: 'oauth2',
            grant: account.grant,
            tokenUrl,
            clientId: account.id,
            clientSecret: account.clientSecret,
            ...(account.grant === 'refresh_token' && { refreshToken: book.enrol(account.id) }),
          },
        })),
      },
    },
  }
}
