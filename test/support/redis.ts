import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createClient } from 'redis'

/** A real redis-server of one's own, on loopback, in a folder that goes with its scope. */
export class RedisServer implements AsyncDisposable {
  readonly port: number
  readonly folder: string
  readonly #args: readonly string[]
  #child: ChildProcess | undefined

  private constructor(port: number, folder: string, args: readonly string[]) {
    this.port = port
    this.folder = folder
    this.#args = args
  }

  /** `args` are options as on the command line: `['--replicaof', …]`; `config` are lines of a file of its own. */
  static async start(
    args: readonly string[] = [],
    config: readonly string[] = [],
  ): Promise<RedisServer> {
    const folder = mkdtempSync(join(tmpdir(), 'cupbearer-redis-'))
    const file = join(folder, 'redis.conf')
    writeFileSync(file, config.join('\n'))
    // Another process may take the port between the look and the start.
    for (let tries = 0; ; tries++) {
      const server = new RedisServer(await freePort(), folder, [file, ...args])
      try {
        await server.start()
        return server
      } catch (error) {
        if (tries === 4) throw error
      }
    }
  }

  get url(): string {
    return `redis://127.0.0.1:${this.port}`
  }

  /** Starts it, again after `kill`: empty, as it writes nothing to the disk. */
  async start(): Promise<void> {
    const common = ['--port', String(this.port), '--bind', '127.0.0.1']
    if (!this.#args.includes('--sentinel')) common.push('--save', '')
    const child = spawn('redis-server', [...this.#args, ...common, '--dir', this.folder], {
      stdio: ['ignore', 'pipe', 'inherit'],
    })
    this.#child = child
    let said = ''
    for await (const chunk of child.stdout) {
      said += chunk
      if (/Ready to accept connections|Sentinel ID is/.test(said)) break
    }
    if (!/Ready to accept|Sentinel ID is/.test(said)) throw new Error(`redis-server ended: ${said}`)
    child.stdout.on('error', () => {})
    child.stdout.resume()
  }

  /** Stops it in its tracks: connections stay, nothing is answered. */
  freeze(): void {
    this.#child?.kill('SIGSTOP')
  }
  thaw(): void {
    this.#child?.kill('SIGCONT')
  }

  async kill(): Promise<void> {
    const child = this.#child
    if (!child || child.exitCode !== null || child.signalCode !== null) return
    const ended = once(child, 'exit')
    child.kill('SIGCONT')
    child.kill('SIGKILL')
    await ended
  }

  /** One command, over a connection of its own. */
  async command(...args: string[]): Promise<unknown> {
    const client = createClient({ url: this.url, RESP: 2 })
    client.on('error', () => {})
    await client.connect()
    try {
      return await client.sendCommand(args)
    } finally {
      client.destroy()
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.kill()
    rmSync(this.folder, { recursive: true, force: true })
  }
}

/** Below those that the system hands out by itself: no connection takes it while its server is away. */
export async function freePort(): Promise<number> {
  for (;;) {
    const port = 12_000 + Math.floor(Math.random() * 20_000)
    const server = createServer()
    server.listen(port, '127.0.0.1')
    const free = await once(server, 'listening').then(
      () => true,
      () => false,
    )
    if (!free) continue
    server.close()
    await once(server, 'close')
    return port
  }
}
