import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { startApp } from '../support/app.ts'
import { type AuthServer, startAuthServer } from '../support/auth-server.ts'
import { type ChildApp, ChildFolder } from '../support/child-app.ts'
import type { ProxyClient } from '../support/client.ts'
import { type Origin, startOrigin } from '../support/origin.ts'
import { RedisServer } from '../support/redis.ts'
import { until } from '../support/until.ts'

const STORE_KEY = Buffer.alloc(32, 3).toString('base64')
/** A claim that nobody keeps is over after this. */
const CLAIM_MS = 5000

let redis: RedisServer
beforeAll(async () => {
  redis = await RedisServer.start()
})
afterAll(() => redis[Symbol.asyncDispose]())

let clusters = 0

/** Several proxies, each a process, on one Redis, with one account at a real authorization server. */
class Cluster implements AsyncDisposable {
  readonly auth: AuthServer
  readonly apps: ChildApp[] = []
  readonly #origin: Origin
  readonly #folders: ChildFolder[]
  readonly #clients = new Map<ChildApp, ProxyClient>()

  private constructor(auth: AuthServer, origin: Origin, folders: ChildFolder[]) {
    this.auth = auth
    this.#origin = origin
    this.#folders = folders
  }

  static async start(size: number, pool: object = {}): Promise<Cluster> {
    const auth = await startAuthServer({ accessTokenTtlSeconds: 600 })
    const origin = await startOrigin({
      handler: async (request, response) => {
        const token = request.headers.authorization?.slice(7) ?? ''
        response.writeHead((await auth.isActive(token)) ? 200 : 401).end()
      },
    })
    const { tokenUrl, clientId, clientSecret } = auth
    const refreshToken = await auth.issueRefreshToken()
    const source = { type: 'oauth2', grant: 'refresh_token', refreshToken, tokenUrl }
    const config = {
      store: `${redis.url}?prefix=test-${clusters++}`,
      storeKey: STORE_KEY,
      pools: {
        api: {
          targets: [`http://127.0.0.1:${origin.port}`],
          credentials: [{ id: 'a', source: { ...source, clientId, clientSecret } }],
          ...pool,
        },
      },
    }
    const folders = Array.from({ length: size }, () => new ChildFolder(config))
    const cluster = new Cluster(auth, origin, folders)
    cluster.apps.push(...(await Promise.all(folders.map((folder) => folder.start()))))
    for (const app of cluster.apps) while ((await cluster.status(app)) !== 200);
    return cluster
  }

  /** The status of one request through a proxy. */
  async status(app: ChildApp): Promise<number> {
    const client = this.#clients.get(app) ?? app.client()
    this.#clients.set(app, client)
    return (await client.request(`http://127.0.0.1:${this.#origin.port}/`)).status
  }

  /** Refreshes that have reached the authorization server. */
  get refreshes(): number {
    return this.auth.calls.length
  }

  /** So many refreshes were made, and no refresh token was used twice. */
  judge(refreshes: number): void {
    const presented = this.auth.calls.map((call) => call.presented)
    expect(new Set(presented).size).toBe(presented.length)
    expect(this.auth.reuseDetected).toBe(0)
    expect(this.refreshes).toBe(refreshes)
  }

  async credential(app: ChildApp) {
    return (await app.admin('/api/pools/api')).credentials[0]
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const app of this.apps) {
      app.child.kill('SIGCONT')
      await app[Symbol.asyncDispose]()
    }
    for (const folder of this.#folders) folder[Symbol.dispose]()
    await this.#origin.close()
    await this.auth.close()
  }
}

/** Two proxies; the first is stopped or killed while the endpoint has its refresh in hand. */
async function cutOff(
  cluster: Cluster,
  signal: 'SIGSTOP' | 'SIGKILL',
): Promise<{ leader: ChildApp; other: ChildApp; before: number }> {
  const [leader, other] = cluster.apps as [ChildApp, ChildApp]
  const before = cluster.refreshes
  cluster.auth.fail({ delayMs: 1000 })
  void leader.admin('/api/pools/api/credentials/a/refresh', 'POST').catch(() => {})
  await until(() => cluster.refreshes === before + 1)
  leader.child.kill(signal)
  cluster.auth.revokeAccessTokens()
  if (signal === 'SIGKILL') await cluster.auth.idle()
  else await until(() => cluster.auth.calls.at(-1)?.issued !== undefined)
  cluster.auth.fail(undefined)
  return { leader, other, before }
}

test('a proxy whose Redis is gone says so, stays ready and serves', async () => {
  await using own = await RedisServer.start()
  const origin = await startOrigin({ handler: (_request, response) => response.end('fine') })
  const credentials = [{ id: 'a', source: { type: 'static', token: 'static-token' } }]
  await using app = await startApp({
    store: own.url,
    storeKey: STORE_KEY,
    pools: { api: { targets: [`http://127.0.0.1:${origin.port}`], credentials } },
  })
  await own.kill()
  const ready = () => fetch(`${app.app.adminUrl}/readyz`)
  let answer = await ready()
  let said = (await answer.json()) as { ready: boolean; reasons: string[] }
  while (said.reasons.length === 0) {
    answer = await ready()
    said = (await answer.json()) as typeof said
  }
  expect(answer.status).toBe(200)
  expect(said.reasons).toEqual([expect.stringContaining('the shared store is away')])
  expect((await app.admin('/api/pools')).pools[0]).toMatchObject({
    status: 'degraded',
    trouble: expect.stringContaining('the shared store is away'),
  })
  const served = await app.client().request(`http://127.0.0.1:${origin.port}/`)
  expect(served.status).toBe(200)
  await origin.close()
})

describe.concurrent('several proxies on one Redis', { timeout: 60_000 }, () => {
  test('900 parallel requests that are refused at three proxies lead to one refresh', async () => {
    await using cluster = await Cluster.start(3)
    expect(cluster.refreshes).toBe(1)
    cluster.auth.revokeAccessTokens()
    const statuses = await Promise.all(
      cluster.apps.flatMap((app) => Array.from({ length: 300 }, () => cluster.status(app))),
    )
    expect(new Set(statuses)).toEqual(new Set([200]))
    cluster.judge(2)
  })

  test('an endpoint that is slower than a claim lasts is asked once', async () => {
    await using cluster = await Cluster.start(2)
    cluster.auth.fail({ delayMs: CLAIM_MS + 1500 })
    cluster.auth.revokeAccessTokens()
    const statuses = await Promise.all(cluster.apps.map((app) => cluster.status(app)))
    expect(statuses).toEqual([200, 200])
    cluster.judge(2)
  })

  test('a leader that stands still keeps its refresh token to itself, and heals all when it goes on', async () => {
    await using cluster = await Cluster.start(2, { queue: { wait: '500ms' } })
    const { leader, other, before } = await cutOff(cluster, 'SIGSTOP')
    const end = performance.now() + CLAIM_MS + 1500
    while (performance.now() < end) expect(await cluster.status(other)).not.toBe(200)
    expect(cluster.refreshes).toBe(before + 1)
    leader.child.kill('SIGCONT')
    const statuses = new Set<number>()
    const healed = performance.now() + 8000
    while (!statuses.has(200) && performance.now() < healed) {
      statuses.add(await cluster.status(other))
    }
    expect(statuses.has(200)).toBe(true)
    cluster.judge(before + 1)
    expect(await cluster.status(leader)).toBe(200)
  })

  test('a leader that was killed leaves a clear word, and nobody uses its refresh token again', async () => {
    await using cluster = await Cluster.start(2, { refresh: { timeout: '6s' } })
    const { other, before } = await cutOff(cluster, 'SIGKILL')
    let state = ''
    const end = performance.now() + 20_000
    while (state !== 'revoked' && performance.now() < end) {
      await cluster.status(other)
      state = (await cluster.credential(other)).state
      await new Promise((resolve) => setTimeout(resolve, 100))
    }
    expect(state).toBe('revoked')
    expect((await cluster.credential(other)).lastError).toMatch(/log in again/)
    cluster.judge(before + 1)
    // What a person wants is tried: once.
    await other.admin('/api/pools/api/credentials/a/release', 'POST')
    await until(() => cluster.refreshes === before + 2)
  })
})
