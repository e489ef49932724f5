import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { rename, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { text } from 'node:stream/consumers'
import { type CommandLine, hear, MAIN, said } from '../cli/command-line.ts'
import { ProxyClient, type ProxyClientOptions } from './client.ts'

const ADMIN_TOKEN = 'admin-token-of-the-test'

interface Ready {
  readonly proxy: string
  readonly admin: string
  readonly ca: string
  readonly pid: number
}

/** More of the command line, and of its environment. */
interface Started {
  readonly args?: readonly string[]
  readonly env?: NodeJS.ProcessEnv
}

/** A folder with a configuration in which the built command line runs `start`, as often as one likes. */
export class ChildFolder implements Disposable {
  readonly path = mkdtempSync(join(tmpdir(), 'cupbearer-child-'))
  readonly #file = join(this.path, 'config.json')

  constructor(config: object) {
    writeFileSync(this.#file, whole(config))
  }

  /** Saves another configuration, as an editor does: by a rename. */
  async save(config: object | string): Promise<void> {
    const content = typeof config === 'string' ? config : whole(config)
    await writeFile(`${this.#file}.new`, content)
    await rename(`${this.#file}.new`, this.#file)
  }

  /** Starts the command line and does not wait for it. */
  spawn({ args = [], env = {} }: Started = {}): CommandLine {
    return spawn(process.execPath, [MAIN, 'start', '--json', '-c', 'config.json', ...args], {
      cwd: this.path,
      env: { PATH: process.env.PATH, ...env },
      stdio: ['ignore', 'pipe', 'pipe'],
    })
  }

  async start(how?: Started): Promise<ChildApp> {
    const started = performance.now()
    const child = this.spawn(how)
    const line = await said(child.stdout, /\n/).catch(async () => {
      throw new Error(`it did not start: ${await text(child.stderr)}`)
    })
    const ready = JSON.parse(line) as Ready
    return new ChildApp(child, ready, performance.now() - started)
  }

  [Symbol.dispose](): void {
    rmSync(this.path, { recursive: true, force: true })
  }
}

/** A whole running proxy as a process of its own; leaving its scope kills it. */
export class ChildApp implements AsyncDisposable {
  readonly child: CommandLine
  readonly startMs: number
  readonly #ready: Ready
  readonly #closed: Promise<unknown>
  readonly #clients: ProxyClient[] = []

  constructor(child: CommandLine, ready: Ready, startMs: number) {
    this.child = child
    this.startMs = startMs
    this.#ready = ready
    this.#closed = once(child, 'close')
    child.stdout.resume()
    hear(child.stderr)
  }

  get proxyUrl(): string {
    return this.#ready.proxy
  }

  client(options?: Partial<ProxyClientOptions>): ProxyClient {
    const { proxy, ca } = this.#ready
    const client = new ProxyClient({
      proxyUrl: proxy,
      ca: readFileSync(ca, 'utf8'),
      ...options,
    })
    this.#clients.push(client)
    return client
  }

  /** GET or POST on the admin API, as JSON. */
  // biome-ignore lint/suspicious/noExplicitAny: answers are looked at, not typed
  async admin(path: string, method = 'GET'): Promise<any> {
    const response = await fetch(this.#ready.admin + path, {
      method,
      headers: { authorization: `Bearer ${ADMIN_TOKEN}` },
    })
    return response.json()
  }

  /** What it has in memory, in MiB, as the system sees it. */
  residentMiB(): number {
    const status = readFileSync(`/proc/${this.child.pid}/status`, 'utf8')
    return Number(/VmRSS:\s+(\d+) kB/.exec(status)?.[1]) / 1024
  }

  /** Kills it without warning. */
  async kill(): Promise<void> {
    this.child.kill('SIGKILL')
    await this.#closed
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const client of this.#clients) await client[Symbol.asyncDispose]()
    await this.kill()
  }
}

function whole(config: object): string {
  return JSON.stringify({
    listen: '127.0.0.1:0',
    admin: { listen: '127.0.0.1:0', token: ADMIN_TOKEN },
    store: 'memory:',
    log: { format: 'json' },
    ...config,
  })
}
