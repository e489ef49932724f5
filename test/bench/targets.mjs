import { execFileSync, spawn } from 'node:child_process'
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import net from 'node:net'
import { performance } from 'node:perf_hooks'
import { setTimeout as delay } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { mitmdump, squid } from './external.mjs'
import { HTTP2_HOST } from './payload.mjs'

/**
 * What is measured. Each target gives the command that starts it; it tells in one JSON line on stdout
 * where it listens (`port` or `proxy`) and whose CA to trust (`ca`, else the benchmark's own).
 */

const here = (file) => fileURLToPath(new URL(file, import.meta.url))
const script = (file, ...args) => ({ command: process.execPath, args: [here(file), ...args] })

/** Hosts that are new to a proxy, one domain each: what `upstream.resolve` must know beforehand. */
export const NEW_HOSTS = 4000

/** Free for the moment; whoever is started with it takes it at once. */
const freePort = () =>
  new Promise((resolve) => {
    const server = net.createServer().listen(0, '127.0.0.1', () => {
      const { port } = server.address()
      server.close(() => resolve(port))
    })
  })

/** The same with state in a Redis of the benchmark's own, which ends with it. */
const withRedis = async (context) => {
  const port = await freePort()
  const args = ['--port', String(port), '--bind', '127.0.0.1', '--save', '', '--appendonly', 'no']
  const redis = spawn('redis-server', [...args, '--dir', context.folder], { stdio: 'ignore' })
  const started = await new Promise((resolve) => {
    redis.once('error', () => resolve(false)).once('spawn', () => resolve(true))
  })
  if (!started) return { missing: 'redis-server is not on PATH' }
  process.once('exit', () => redis.kill('SIGKILL'))
  return cupbearer(true, {
    store: `redis://127.0.0.1:${port}`,
    storeKey: Buffer.alloc(32, 7).toString('base64'),
  })(context)
}

const cupbearer =
  (features, more = {}) =>
  (context) => {
    const main = here('../../dist/cli/main.js')
    if (!existsSync(main)) return { missing: 'not built' }
    const resolve = { 'api.bench.test': '127.0.0.1', [HTTP2_HOST]: '127.0.0.1' }
    for (let index = 0; index < context.newHosts; index += 1) {
      resolve[`api.n${index}.bench.test`] = '127.0.0.1'
    }
    const config = {
      listen: '127.0.0.1:0',
      admin: { listen: '127.0.0.1:0' },
      ca: { dir: 'ca' },
      store: features ? 'file:data/cupbearer.db' : 'memory:',
      upstream: { ca: [context.authorityPem], resolve },
      pools: {
        bench: {
          targets: [`*.bench.test:${context.originPort}`],
          ...(features && { limits: { rate: ['1000000/s'], concurrency: 10_000 } }),
          credentials: [{ id: 'bench', source: { type: 'static', token: context.token } }],
        },
      },
      ...more,
    }
    const file = `${context.folder}/config.json`
    writeFileSync(file, JSON.stringify(config, undefined, 2))
    return { command: process.execPath, args: [main, 'start', '-c', file, '--json'] }
  }

/**
 * By name, in the order of the table; `injects: false` means that the client brings the token itself, `only` what
 * it is measured with.
 */
export const targets = {
  direct: { injects: false },
  tunnel: { injects: false, prepare: () => script('tunnel.mjs') },
  base: { prepare: ({ authority, token }) => script('base.mjs', authority, token) },
  cupbearer: { prepare: cupbearer(false) },
  'cupbearer-full': { prepare: cupbearer(true) },
  'cupbearer-workers': { prepare: cupbearer(false, { workers: 2 }) },
  'cupbearer-full-workers': {
    prepare: cupbearer(true, { workers: 2 }),
    only: ['c1', 'c64', 'saturated'],
  },
  'cupbearer-redis': { prepare: withRedis },
  'mitm-bare': {
    prepare: ({ authority, token, folder }) => script('mitm-bare.mjs', authority, token, folder),
  },
  mockttp: {
    prepare: ({ authority, token, folder }) => {
      if (!existsSync(here('node_modules/mockttp'))) {
        const npm = ['ci', '--no-audit', '--no-fund', '--omit=optional', '--prefix', here('.')]
        execFileSync('npm', npm, { stdio: ['ignore', 'ignore', 'inherit'] })
      }
      return script('mockttp.mjs', authority, token, folder)
    },
  },
  mitmdump: { prepare: mitmdump },
  squid: { prepare: squid },
}

/** A child process that has said that it is ready. */
export class Running {
  #child

  constructor(child, message, startMs) {
    this.#child = child
    this.message = message
    this.startMs = startMs
    this.pid = message.pid ?? child.pid
  }

  /** Starts a command and waits for its JSON line (or, given `port`, until it accepts connections). */
  static async start({ command, args, port, ca }) {
    const startedAt = performance.now()
    const child = spawn(command, args, { stdio: 'pipe' })
    const exit = () => child.kill('SIGKILL')
    process.once('exit', exit)
    child.once('close', () => process.off('exit', exit))
    child.stdin.on('error', () => {})
    let errors = ''
    child.stderr.on('data', (bytes) => {
      errors = (errors + bytes).slice(-2000)
    })
    let message
    child.stdout.on('data', (bytes) => {
      message ??= /^\{.*"(?:port|proxy)":.*\}$/m.exec(bytes.toString())?.[0]
    })
    let failure
    child.once('error', (error) => {
      failure = error.message
    })
    child.once('close', (code) => {
      failure ??= `exit ${code}: ${errors.trim()}`
    })
    const listening = () =>
      new Promise((resolve) => {
        const socket = net.connect(port, '127.0.0.1', () => resolve(true))
        socket.on('error', () => resolve(false)).on('connect', () => socket.destroy())
      })
    while (!message && !failure && performance.now() - startedAt < 20_000) {
      if (port && (await listening())) message = JSON.stringify({ port, ca })
      else await delay(2)
    }
    const startMs = performance.now() - startedAt
    if (message) return new Running(child, JSON.parse(message), startMs)
    child.kill('SIGKILL')
    throw new Error(failure ?? `not ready within 20 s: ${errors.trim()}`)
  }

  /** How the generator reaches the origin through it. */
  route(context, injects) {
    const { port, proxy, ca } = this.message
    return {
      originPort: context.originPort,
      proxyPort: port ?? Number(new URL(proxy).port),
      ca: readFileSync(ca ?? context.authorityPem, 'utf8'),
      own: injects ? undefined : `Bearer ${context.token}`,
      expected: `Bearer ${context.token}`,
    }
  }

  async stop() {
    if (this.#child.exitCode !== null || this.#child.signalCode !== null) return
    const closed = new Promise((resolve) => this.#child.once('close', resolve))
    this.#child.kill('SIGTERM')
    const timer = setTimeout(() => this.#child.kill('SIGKILL'), 3000)
    await closed
    clearTimeout(timer)
  }
}

/** The folder and facts that a target is started with. */
export function contextFor(name, shared) {
  const folder = `${shared.folder}/${name}`
  mkdirSync(folder, { recursive: true })
  return { ...shared, folder }
}
