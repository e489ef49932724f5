import { EventEmitter } from 'node:events'
import { readFile } from 'node:fs/promises'
import { join, resolve } from 'node:path'
import { createSecureContext, type SecureContext } from 'node:tls'
import { fileURLToPath } from 'node:url'
import { type Cupbearer as App, createCupbearer as createApp } from '../app.ts'
import { writeClientFiles } from '../ca/client-files.ts'
import { childEnvironment, splitCertificates, systemRoots } from '../ca/trust.ts'
import { loadConfig, readConfig } from '../config/load.ts'
import type { Config, ConfigInput } from '../config/schema.ts'
import { ConfigError } from '../errors.ts'
import { type EventMap, Events } from '../events.ts'
import { createLog, type Logger, type LogLevel } from '../lib/log.ts'
import { formatTrace, type Trace } from '../trace/trace.ts'
import { injectedParameters } from './derive.ts'

/** What a program that runs Cupbearer inside itself can listen to. None of it holds a secret. */
export interface CupbearerEvents {
  /** A request has ended, by whatever outcome; the same as `GET /api/traces/ID` without the words. */
  exchange: [trace: Trace]
  /** A credential changed its state. */
  credential: EventMap['credential']
  /** A token was renewed, or could not be. */
  refresh: EventMap['refresh']
  /** An egress went down or came back. */
  egress: EventMap['egress']
  /** The address that targets see behind an egress was learned or has changed. */
  address: EventMap['address']
  /** A new configuration is in force, or was refused. */
  config: EventMap['config']
}

const NAMES = ['exchange', 'credential', 'refresh', 'egress', 'address', 'config'] as const

export interface CupbearerOptions {
  /** Path of a configuration file, or what would stand in it. */
  readonly config: string | ConfigInput
  /** Where the relative paths of a configuration object begin; default: the working directory. */
  readonly folder?: string
  /** For `${env:NAME}`; default: `process.env`. */
  readonly env?: NodeJS.ProcessEnv
  /** Least weight that is logged to standard error as JSON, or a pino logger; default: `warn`. */
  readonly log?: LogLevel | Logger
}

/** What undici's `ProxyAgent` takes. */
export interface ProxyAgentOptions {
  uri: string
  /** `Proxy-Authorization`, where the proxy asks for one. */
  token?: string
  requestTls: { secureContext: SecureContext }
}

/** A Cupbearer that runs inside this program. */
export interface Cupbearer extends AsyncDisposable {
  readonly proxyUrl: string
  readonly adminUrl: string
  /** The certificate that clients have to trust. */
  readonly caPath: string
  on<Name extends keyof CupbearerEvents>(name: Name, listener: Listener<Name>): this
  once<Name extends keyof CupbearerEvents>(name: Name, listener: Listener<Name>): this
  off<Name extends keyof CupbearerEvents>(name: Name, listener: Listener<Name>): this
  /** What a child process needs in its environment, as `cupbearer env` prints it; writes the files it points to. */
  env(options?: { client?: string }): Promise<Record<string, string>>
  /** For `new ProxyAgent(…)` of undici, to be had anew when the CA was: it trusts the system's roots too. */
  agentOptions(options?: { client?: string }): Promise<ProxyAgentOptions>
  /** Reads the file anew, or takes another configuration, and swaps it in as a whole, or keeps the old one and says why. */
  reload(config?: string | ConfigInput): ReturnType<App['reload']>
  /** Drains within `server.drainTimeout`, then closes; with `force` at once. */
  stop(options?: { force?: boolean }): Promise<void>
}

type Listener<Name extends keyof CupbearerEvents> = (...args: CupbearerEvents[Name]) => void

const NODE_PRELOAD = fileURLToPath(new URL('../cli/preload/env-proxy.cjs', import.meta.url))

/**
 * Starts Cupbearer inside this program.
 * Throws `ConfigError` with every issue at once, and `CupbearerError` for a store that is in use, a CA that cannot
 * be read, a port that is taken.
 */
export async function createCupbearer(options: CupbearerOptions): Promise<Cupbearer> {
  const { log = 'warn' } = options
  const embedded = new Embedded(options)
  await embedded.start(
    typeof log === 'string' ? await createLog({ level: log, format: 'json' }) : log,
  )
  return embedded
}

class Embedded implements Cupbearer {
  readonly #options: CupbearerOptions
  readonly #events = new Events()
  readonly #emitter = new EventEmitter<CupbearerEvents>()
  /** What the next reload reads. */
  #written: string | ConfigInput
  #config!: Config
  #candidate: Config | undefined
  #reloading: Promise<unknown> = Promise.resolve()
  #app!: App

  constructor(options: CupbearerOptions) {
    this.#options = options
    this.#written = options.config
    this.#forward()
  }

  async start(log: Logger): Promise<void> {
    const first = await this.#read()
    this.#config = first
    this.#app = await createApp({
      config: first,
      log,
      events: this.#events,
      reloadFrom: async () => {
        this.#candidate = await this.#read()
        return this.#candidate
      },
    })
  }

  get proxyUrl(): string {
    return this.#app.proxyUrl
  }

  get adminUrl(): string {
    return this.#app.adminUrl
  }

  get caPath(): string {
    return this.#app.caPath
  }

  on<Name extends keyof CupbearerEvents>(name: Name, listener: Listener<Name>): this {
    this.#emitter.on(name, listener as never)
    return this
  }

  once<Name extends keyof CupbearerEvents>(name: Name, listener: Listener<Name>): this {
    this.#emitter.once(name, listener as never)
    return this
  }

  off<Name extends keyof CupbearerEvents>(name: Name, listener: Listener<Name>): this {
    this.#emitter.off(name, listener as never)
    return this
  }

  async env(options: { client?: string } = {}): Promise<Record<string, string>> {
    const url = new URL(this.proxyUrl)
    const client = this.#client(options.client)
    // The setters do the percent-encoding.
    url.username = client?.name ?? ''
    url.password = client?.password ?? ''
    const caPem = await readFile(this.caPath, 'utf8')
    return childEnvironment({
      ...(await writeClientFiles(this.#config.dataDir, caPem, process.env)),
      proxyUrl: url.href.replace(/\/$/, ''),
      caPath: this.caPath,
      nodePreload: NODE_PRELOAD,
      inherit: process.env,
    })
  }

  async agentOptions(options: { client?: string } = {}): Promise<ProxyAgentOptions> {
    const client = this.#client(options.client)
    const roots = splitCertificates(systemRoots())
    // Made once: with `ca` in its place every connection would read all of the roots again.
    const secureContext = createSecureContext({
      ca: [...roots, await readFile(this.caPath, 'utf8')],
    })
    const basic = client && Buffer.from(`${client.name}:${client.password}`).toString('base64')
    const token = basic && `Basic ${basic}`
    return { uri: this.proxyUrl, ...(token && { token }), requestTls: { secureContext } }
  }

  reload(config?: string | ConfigInput): ReturnType<App['reload']> {
    // One at a time, so that each takes up what it was given.
    const outcome = this.#reloading.then(() => this.#reload(config))
    this.#reloading = outcome.catch(() => {})
    return outcome
  }

  async #reload(config: string | ConfigInput | undefined): ReturnType<App['reload']> {
    const before = this.#written
    if (config !== undefined) this.#written = config
    const outcome = await this.#app.reload()
    if (outcome.applied) this.#config = this.#candidate ?? this.#config
    else this.#written = before
    return outcome
  }

  stop(options?: { force?: boolean }): Promise<void> {
    return this.#app.stop(options)
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.stop()
  }

  #read(): Promise<Config> {
    const written = this.#written
    const { folder = '.', env = process.env } = this.#options
    return typeof written === 'string'
      ? loadConfig(written, env)
      : readConfig(written, join(resolve(folder), 'config.json'), env)
  }

  /** Who a client of ours is: the named one, or the only one there is. */
  #client(wanted: string | undefined): { name: string; password: string } | undefined {
    const { clients } = this.#config
    const names = Object.keys(clients)
    const name = wanted ?? (names.length === 1 ? names[0] : undefined)
    const client = name === undefined ? undefined : clients[name]
    if (name !== undefined && client) return { name, password: client.password.reveal() }
    if (wanted === undefined && names.length === 0) return undefined
    throw new ConfigError([
      {
        path: 'clients',
        message: `expected the name of one of them (${names.join(', ') || 'none'})`,
      },
    ])
  }

  /** A listener that throws must not do so in the middle of an exchange, hence the microtask. */
  #forward(): void {
    for (const name of NAMES) {
      this.#events.on(name, (told: EventMap[typeof name][0]) => {
        if (this.#emitter.listenerCount(name) === 0) return
        const shown =
          name === 'exchange'
            ? formatTrace(told as EventMap['exchange'][0], injectedParameters(this.#config))
            : told
        queueMicrotask(() => this.#emitter.emit(name, shown as never))
      })
    }
  }
}
