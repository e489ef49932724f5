import { readFileSync } from 'node:fs'
import { isIP, type Socket } from 'node:net'
import type { RequestInit as UndiciInit } from 'undici'
import type { Config, UpstreamConfig } from '../config/schema.ts'
import { ConfigError, type ConfigIssue } from '../errors.ts'
import type { Events } from '../events.ts'
import { type Authority, normalizeHost } from '../lib/authority.ts'
import type { Clock } from '../lib/clock.ts'
import { Secret } from '../lib/secret.ts'
import { Agents } from './agents.ts'
import { Connections, type UnpinnedGuard } from './connections.ts'
import { Connector } from './connector.ts'
import { egressDown, toFetchError } from './failure.ts'
import { type EgressProbes, Probes } from './probes.ts'
import { readBundle, readHostRules, TlsClient } from './tls.ts'
import type { Transport } from './transport.ts'
import { createTransport } from './transports.ts'
import type { Dispatcher } from './upstream.ts'

export { type ConnectTimings, timingsOf } from './connector.ts'
export { toUpstreamError } from './failure.ts'

export interface EgressesOptions {
  readonly egress: Config['egress']
  readonly upstream: UpstreamConfig
  /** Addresses that nothing may dial, own listeners above all: true refuses. Asked with what is dialled. */
  readonly forbidden: (address: string, port: number) => boolean
  /** Judges what requests without a credential dial (key ''), where names are resolved here. */
  readonly passthrough?: UnpinnedGuard
  readonly events: Events
  readonly clock: Clock
  /** Told whenever a probe has changed whether something may leave by an egress. */
  readonly held?: (egress: string) => void
  /** 0 to 1, for jitter. */
  readonly random?: () => number
  /** Stands in for the probes, where another process makes them; told what to call when it objects anew. */
  readonly probes?: (judged: (egress: string) => void) => EgressProbes
}

export interface TunnelOptions {
  readonly signal?: AbortSignal
  /** Judges the address that is dialled, or the name where a proxy resolves it: false refuses. */
  readonly guard?: (address: string, port: number) => boolean
  /** Speak TLS with the target, by HTTP/1.1 (RFC 6455 §4.1 wants it for WebSocket). */
  readonly secure?: boolean
}

/** `fetch` by one egress; structurally what sources ask for. */
type EgressFetch = (url: string | URL, init?: RequestInit) => Promise<Response>

interface Way {
  readonly url: Secret
  readonly connector: Connector
  /** For requests. */
  readonly connections: Connections
  /** For `fetch`. */
  readonly agents: Agents
}

const DIRECT = new Secret('direct:')
/** No credential's key: those have a slash. */
const PROBE_KEY = 'probe'

/** The named ways out, and all connections that leave by them. */
export class Egresses {
  readonly #forbidden: EgressesOptions['forbidden']
  readonly #passthrough: EgressesOptions['passthrough']
  readonly #events: Events
  readonly #clock: Clock
  readonly #held: (egress: string) => void
  readonly #probes: EgressProbes
  /** Egresses whose last connection failed. */
  readonly #down = new Set<string>()
  /** Those that observers were told are down. */
  readonly #toldDown = new Set<string>()
  readonly #draining = new Set<Way>()
  #ways = new Map<string, Way>()
  /** What the connections in use were made by: they end when it changes. */
  #upstream = ''

  /** Throws `ConfigError` for an egress or a CA file that cannot be used. */
  constructor(options: EgressesOptions) {
    this.#forbidden = options.forbidden
    this.#passthrough = options.passthrough
    this.#events = options.events
    this.#clock = options.clock
    this.#held = options.held ?? (() => {})
    const judged = (egress: string) => this.#judged(egress)
    this.#probes =
      options.probes?.(judged) ??
      new Probes({
        fetch: (egress, url, init) => this.fetch(egress, PROBE_KEY)(url, init),
        clock: options.clock,
        random: options.random ?? Math.random,
        judged,
        news: (egress, news) =>
          this.#events.emit('address', { time: this.#clock.now(), egress, ...news }),
      })
    this.apply(options.egress, options.upstream)
  }

  has(name: string): boolean {
    return this.#ways.has(name)
  }

  names(): string[] {
    return [...this.#ways.keys()]
  }

  /** Where it leads, userinfo included; undefined for none of that name. */
  url(name: string): Secret | undefined {
    return this.#ways.get(name)?.url
  }

  /**
   * The dispatcher for one key on one egress; take it afresh for each request. Connections of one key never
   * serve another: a credential's is `pool/credential`, unpinned traffic's is empty.
   */
  dispatcher(name: string, key: string): Dispatcher {
    this.#admit(name)
    return this.#way(name).connections.get(key)
  }

  /** A stream to the target for tunnels and upgrades; rejects with `UpstreamError` or the signal's reason. */
  async connect(name: string, target: Authority, options: TunnelOptions = {}): Promise<Socket> {
    this.#admit(name)
    return this.#way(name).connector.connect(target, {
      secure: options.secure ?? false,
      early: options.secure ? 'refuse' : 'keep',
      guard: options.guard,
      signal: options.signal,
    })
  }

  /**
   * `fetch` by the same way as the traffic of `key`, and by connections of that key alone. Redirects are handed
   * back unless asked for.
   * Rejects with `SourceError('egress')` when the egress is down, else with `UpstreamError`.
   */
  fetch(name: string, key: string): EgressFetch {
    return async (url, init) => {
      try {
        // Only sources that ask over the network need it. The index would load all of undici, and its cookies the
        // copy within Node too: 60 ms and 9 MB.
        const [{ fetch }, { default: Agent }] = await Promise.all([
          import('undici/lib/web/fetch/index.js'),
          import('undici/lib/dispatcher/agent.js'),
        ])
        // undici's own types and those of lib.dom differ in name only.
        const options = { redirect: 'manual', ...init } as unknown as UndiciInit
        if (key !== PROBE_KEY) this.#admit(name)
        const dispatcher = this.#way(name).agents.get(key, Agent)
        const response = await fetch(url, { ...options, dispatcher })
        return response as unknown as Response
      } catch (error) {
        throw toFetchError(error, init?.signal)
      }
    }
  }

  /**
   * Takes over a new configuration. Egresses that it leaves as they were keep their connections, unless
   * `upstream` changed; of the others, what has begun is served to its end. Throws `ConfigError` and changes
   * nothing when it cannot be used.
   */
  apply(egress: Config['egress'], upstream: UpstreamConfig): void {
    const issues: ConfigIssue[] = []
    const ca = readFiles(upstream.ca, issues)
    const overrides = readOverrides(upstream.resolve, issues)
    const hosts = readHostRules(upstream.hosts, issues)
    const urls = new Map([['direct', DIRECT]])
    for (const [name, { url }] of Object.entries(egress)) urls.set(name, url)
    const transports = new Map<string, Transport>()
    for (const [name, url] of urls) {
      try {
        if (name === 'direct' && !url.equals(DIRECT)) throw new Error('direct is always direct:')
        transports.set(name, createTransport(name, url))
      } catch (error) {
        issues.push({ path: `egress.${name}`, message: (error as Error).message })
      }
    }
    if (issues.length > 0) throw new ConfigError(issues)

    const fingerprint = JSON.stringify([upstream, ca])
    const same = fingerprint === this.#upstream
    this.#upstream = fingerprint
    let tls: TlsClient | undefined
    const ways = new Map<string, Way>()
    for (const [name, transport] of transports) {
      const url = urls.get(name) ?? DIRECT
      const current = this.#ways.get(name)
      if (same && current?.url.equals(url)) {
        ways.set(name, current)
        continue
      }
      tls ??= new TlsClient(ca, hosts)
      const connector = new Connector({
        egress: name,
        transport,
        tls,
        overrides,
        forbidden: this.#forbidden,
        connectTimeout: upstream.connectTimeout,
        clock: this.#clock,
        outcome: (up, reason) => this.#outcome(name, connector, up, reason),
      })
      const [clock, guard] = [this.#clock, this.#passthrough]
      ways.set(name, {
        url,
        connector,
        connections: new Connections({ connector, upstream, clock, guard }),
        agents: new Agents(connector, upstream, clock, guard),
      })
    }
    const former = this.#ways
    this.#ways = ways
    for (const [name, way] of former) {
      if (ways.get(name) === way) continue
      this.#down.delete(name)
      void this.#drain(way)
    }
    const held = new Set([...former.keys()].filter((name) => this.isHeld(name)))
    this.#probes.apply(egress)
    for (const name of ways.keys()) {
      if (this.isHeld(name) !== held.has(name)) this.#held(name)
      if (former.has(name)) this.#tell(name, 'its configuration has changed')
      else if (this.isHeld(name)) this.#toldDown.add(name)
    }
  }

  /** Gives up every egress but `direct` and these; what has begun is served to its end. */
  retain(egress: Config['egress']): void {
    for (const [name, way] of this.#ways) {
      if (name === 'direct' || Object.hasOwn(egress, name)) continue
      this.#ways.delete(name)
      this.#down.delete(name)
      this.#toldDown.delete(name)
      void this.#drain(way)
    }
    this.#probes.retain(egress)
  }

  /** Whether the last connection by this egress worked, if there was one, and its visible address is right. */
  isUp(name: string): boolean {
    return this.has(name) && !this.#down.has(name) && !this.isHeld(name)
  }

  /** Whether nothing may leave by it, since its visible address is wrong or not known, as far as one is expected. */
  isHeld(name: string): boolean {
    return this.objection(name) !== undefined
  }

  /** Why nothing may leave by it; undefined when something may. */
  objection(name: string): string | undefined {
    return this.#probes.objection(name)
  }

  /** Takes over what another process of ours has seen of an egress. */
  report(name: string, up: boolean, reason: string): void {
    const way = this.#ways.get(name)
    if (way) this.#outcome(name, way.connector, up, reason)
  }

  /** The address that targets see behind an egress, as last probed. */
  address(name: string): string | undefined {
    return this.#probes.address(name)
  }

  /** Ends when each egress that is held has been probed, or after `ms`. */
  probed(ms: number): Promise<void> {
    return this.#probes.settled(ms)
  }

  /** Closes every connection, also those in use; tunnels belong to their callers. */
  async close(): Promise<void> {
    this.#probes.close()
    const ways = [...new Set([...this.#draining, ...this.#ways.values()])]
    this.#ways = new Map()
    for (const { connector, connections } of ways) {
      connector.close()
      connections.destroy()
    }
    await Promise.all(ways.map(({ agents }) => agents.destroy()))
  }

  #way(name: string): Way {
    const way = this.#ways.get(name)
    if (!way) throw egressDown(name, 'there is no egress of that name')
    return way
  }

  async #drain(way: Way): Promise<void> {
    this.#draining.add(way)
    try {
      await Promise.all([way.connections.drain(), way.agents.drain()])
    } finally {
      this.#draining.delete(way)
    }
  }

  #outcome(name: string, connector: Connector, up: boolean, reason: string): void {
    // A late word of an egress that the configuration has replaced says nothing of its successor.
    if (this.#ways.get(name)?.connector !== connector || up === !this.#down.has(name)) return
    if (up) {
      this.#down.delete(name)
      this.#probes.cameBack(name)
    } else {
      this.#down.add(name)
      this.#probes.wentDown(name)
    }
    this.#tell(name, reason)
  }

  /** A probe has found an address right, or found a reason why nothing may leave. */
  #judged(name: string): void {
    const way = this.#ways.get(name)
    const objection = this.#probes.objection(name)
    // Connections that may show the wrong address must not serve when it is right again.
    if (way && objection !== undefined) void this.#drain(way)
    this.#held(name)
    this.#tell(name, objection ?? 'its visible address is the expected one')
  }

  /** Fails closed: no other route, and not one byte by this one. */
  #admit(name: string): void {
    const objection = this.#probes.objection(name)
    if (objection !== undefined) throw egressDown(name, objection)
  }

  #tell(name: string, reason: string): void {
    const up = this.isUp(name)
    if (up === !this.#toldDown.has(name)) return
    if (up) this.#toldDown.delete(name)
    else this.#toldDown.add(name)
    this.#events.emit('egress', { time: this.#clock.now(), egress: name, up, reason })
  }
}

function readFiles(files: readonly string[], issues: ConfigIssue[]): string[] {
  const roots: string[] = []
  for (const [index, file] of files.entries()) {
    try {
      roots.push(...readBundle(readFileSync(file, 'utf8')))
    } catch {
      const message = `expected a readable PEM file with certificates at ${file}`
      issues.push({ path: `upstream.ca[${index}]`, message })
    }
  }
  return roots
}

function readOverrides(
  resolve: Readonly<Record<string, string>>,
  issues: ConfigIssue[],
): Map<string, string> {
  const overrides = new Map<string, string>()
  for (const [pattern, text] of Object.entries(resolve)) {
    const [, hostText, port] = /^(.*?)(?::(\d{1,5}))?$/.exec(pattern) ?? []
    const host = normalizeHost(hostText ?? '')
    const address = text.replace(/^\[(.*)\]$/, '$1')
    if (host === undefined || isIP(address) === 0) {
      const message = 'expected a host name or HOST:PORT, and an IP address to dial'
      issues.push({ path: `upstream.resolve.${pattern}`, message })
      continue
    }
    overrides.set(port === undefined ? host : `${host}:${port}`, address)
  }
  return overrides
}
