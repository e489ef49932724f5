import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type Cupbearer, createCupbearer } from '../../src/app.ts'
import { loadConfig } from '../../src/config/load.ts'
import type { Clock } from '../../src/lib/clock.ts'
import { createLog } from '../../src/lib/log.ts'
import { ProxyClient, type ProxyClientOptions } from './client.ts'

/** A whole running proxy in a folder of its own, on ports of its own. */
export interface TestApp extends AsyncDisposable {
  readonly app: Cupbearer
  readonly dir: string
  readonly ca: string
  client(options?: Partial<ProxyClientOptions>): ProxyClient
  /** GET or POST on the admin API, as JSON. */
  // biome-ignore lint/suspicious/noExplicitAny: answers are looked at, not typed
  admin(path: string, method?: string): Promise<any>
  /** Writes the file anew and reloads. */
  reconfigure(config: object): ReturnType<Cupbearer['reload']>
}

/** Starts a proxy with this configuration; `store` defaults to memory, both listeners to a free port. */
export async function startApp(config: object, dir?: string, clock?: Clock): Promise<TestApp> {
  const folder = dir ?? (await mkdtemp(join(tmpdir(), 'cupbearer-')))
  const file = join(folder, 'config.json')
  const write = (content: object) =>
    writeFile(
      file,
      JSON.stringify({
        listen: '127.0.0.1:0',
        admin: { listen: '127.0.0.1:0', token: 'admin-token-of-the-test' },
        store: 'memory:',
        ...content,
      }),
    )
  await write(config)
  const log = await createLog({
    level: (process.env.TEST_LOG as 'debug' | undefined) ?? 'silent',
    format: 'json',
  })
  const app = await createCupbearer({
    config: await loadConfig(file),
    log,
    reloadFrom: () => loadConfig(file),
    ...(clock && { clock }),
  })
  const ca = await readFile(app.caPath, 'utf8')
  const clients: ProxyClient[] = []
  return {
    app,
    dir: folder,
    ca,
    client(options) {
      const client = new ProxyClient({ proxyUrl: app.proxyUrl, ca, ...options })
      clients.push(client)
      return client
    },
    async admin(path, method = 'GET') {
      const response = await fetch(app.adminUrl + path, {
        method,
        headers: { authorization: 'Bearer admin-token-of-the-test' },
      })
      return response.json()
    },
    async reconfigure(content) {
      await write(content)
      return app.reload()
    },
    async [Symbol.asyncDispose]() {
      for (const client of clients) await client[Symbol.asyncDispose]()
      await app.stop({ force: true })
      if (dir === undefined) await rm(folder, { recursive: true, force: true })
    },
  }
}
