import { Activity } from './admin/activity.ts'
import type { CredentialAction } from './admin/backend.ts'
import { History } from './admin/history.ts'
import { startAdmin } from './admin/server.ts'
import { adminToken } from './admin/token.ts'
import {
  exchangeRuntimeOf,
  fixedChanges,
  httpsTargets,
  MAX_THROTTLED_ADDRESSES,
  passthroughOf,
  problemsOf,
  urlOf,
} from './app/derive.ts'
import { tellRunning } from './app/running.ts'
import { createServing, type Serving, type Terms } from './app/serving.ts'
import { startTracing } from './app/tracing.ts'
import { SharedThrottle } from './app/workers/shared-throttle.ts'
import { type CertificateAuthority, openAuthority } from './ca/authority.ts'
import { LeafCache } from './ca/leaf.ts'
import type { Config } from './config/schema.ts'
import { insecureNotices } from './config/upstream-hosts.ts'
import { Egresses } from './egress/egress.ts'
import { Events } from './events.ts'
import type { ExchangeRuntime } from './exchange/exchange.ts'
import { RemoteLeases } from './exchange/remote-leases.ts'
import { type Clock, systemClock } from './lib/clock.ts'
import { privateFolder } from './lib/files.ts'
import type { Logger } from './lib/log.ts'
import { createMetrics } from './metrics.ts'
import type { Learning } from './pool/learning.ts'
import type { PoolStatus } from './pool/lease.ts'
import { Pool } from './pool/pool.ts'
import { Turns } from './pool/turns.ts'
import { ClientAuth } from './proxy/client-auth.ts'
import { OwnAddresses } from './proxy/own-addresses.ts'
import { Router } from './route/match.ts'
import { isAlwaysDenied, type PassthroughPolicy } from './route/passthrough.ts'
import { sourceFingerprint, sourceHost, sourceMaker } from './sources/table.ts'
import { openStore } from './store/open.ts'
import { logEvents } from './trace/event-log.ts'

export interface Cupbearer {
  readonly proxyUrl: string
  readonly adminUrl: string
  readonly caPath: string
  /** Reads the configuration anew and swaps it in as a whole, or keeps the old one and says why. */
  reload(): Promise<{ applied: boolean; problems: readonly string[] }>
  /** Drains within `server.drainTimeout`, then closes; with `force` at once. */
  stop(options?: { force?: boolean }): Promise<void>
}

export interface CupbearerOptions {
  readonly config: Config
  readonly log: Logger
  /** Where `reload` gets the new configuration; without it nothing can be reloaded. */
  readonly reloadFrom?: () => Promise<Config>
  readonly clock?: Clock
  readonly events?: Events
}

/** Egresses that must be probed first are waited for that long, at start and reload; then they count as down. */
const FIRST_PROBE_MS = 1000

/**
 * Builds everything from a configuration and starts it.
 * Throws `CupbearerError`: a store that is corrupt or in use, a CA that cannot be read, a port that is taken.
 */
export async function createCupbearer(options: CupbearerOptions): Promise<Cupbearer> {
  const app = new App(options)
  try {
    await app.start()
  } catch (error) {
    await app.stop({ force: true })
    throw error
  }
  return app
}

class App implements Cupbearer {
  readonly #log: Logger
  readonly #clock: Clock
  readonly #reloadFrom: (() => Promise<Config>) | undefined
  readonly #events: Events
  readonly #own = new OwnAddresses()
  readonly #throttle: SharedThrottle
  /** What has been opened, closed in reverse. */
  readonly #closers: (() => Promise<void> | void)[] = []
  readonly #pools = new Map<string, Pool>()
  readonly #turns: Turns
  #config: Config
  #egresses!: Egresses
  #runtime!: ExchangeRuntime
  #remoteLeases: RemoteLeases | undefined
  #auth!: ClientAuth
  /** Undefined until the listener is open. */
  #serving: Serving | undefined
  #authority!: CertificateAuthority
  #leaves!: LeafCache
  #openPool!: (name: string) => Promise<Pool>
  #passthrough!: PassthroughPolicy
  #reloading: Promise<unknown> = Promise.resolve()
  #stopping: Promise<void> | undefined
  #draining = false
  proxyUrl = ''
  adminUrl = ''
  caPath = ''

  constructor(options: CupbearerOptions) {
    this.#config = options.config
    this.#log = options.log
    this.#events = options.events ?? new Events()
    this.#clock = options.clock ?? systemClock
    this.#turns = new Turns(options.config.refresh.perHost)
    this.#reloadFrom = options.reloadFrom
    this.#throttle = new SharedThrottle(this.#clock, {
      maxEntries: MAX_THROTTLED_ADDRESSES,
      tell: (news) => this.#serving?.tellThrottle(news),
    })
  }

  async start(): Promise<void> {
    const config = this.#config
    await privateFolder(config.dataDir)
    const store = await openStore(config.store, { key: config.storeKey, clock: this.#clock })
    this.#closers.push(() => store.close())
    await this.#openCa(config)
    this.#passthrough = passthroughOf(config)
    const events = this.#events
    logEvents(events, this.#log)
    // Before the pools: what they do while opening is told too.
    const tracing = await startTracing(() => this.#config, events, this.#log, {
      egressAddress: (egress) => this.#egresses.address(egress),
      proxy: () => ({ url: this.proxyUrl, ca: this.caPath }),
    })
    this.#closers.push(() => tracing.close())
    const metrics = createMetrics(
      events,
      () => this.#status(),
      () => this.#egressStates(),
    )
    this.#closers.push(() => metrics.close())
    this.#egresses = new Egresses({
      egress: config.egress,
      upstream: config.upstream,
      forbidden: (address, port) => this.#own.includes(address, port),
      passthrough: (authority, address) => this.#passthrough.permits(authority, address),
      events: this.#events,
      clock: this.#clock,
      held: (egress) => {
        for (const pool of this.#pools.values()) pool.egressChanged(egress)
        this.#serving?.heldChanged()
      },
    })
    this.#closers.push(() => this.#egresses.close())
    const makeSource = sourceMaker({
      dataDir: config.dataDir,
      ca: () => this.#config.upstream.ca,
      warn: (message) => this.#log.warn(message),
    })
    this.#openPool = (name) =>
      Pool.open({
        name,
        config: this.#config.pools[name] as Config['pools'][string],
        clock: this.#clock,
        store,
        events: this.#events,
        createSource: makeSource,
        fingerprint: sourceFingerprint,
        hostOf: sourceHost,
        turns: this.#turns,
        fetchFor: (egress, key) => this.#egresses.fetch(egress, key),
        connectFor: (egress) => (target, signal) =>
          this.#egresses.connect(egress, target, { signal, guard: (to) => !isAlwaysDenied(to) }),
        held: (egress) => this.#egresses.isHeld(egress),
        log: this.#log,
      })
    this.#closers.push(() => this.#closePools([...this.#pools.keys()]))
    for (const name of Object.keys(config.pools)) this.#pools.set(name, await this.#openPool(name))
    await this.#egresses.probed(FIRST_PROBE_MS)

    const history = new History(events, () => this.#status(), this.#clock)
    const activity = new Activity(events)
    this.#closers.push(
      () => history.close(),
      () => activity.close(),
    )

    const serving = await createServing({
      terms: this.#terms(),
      pools: this.#pools,
      own: this.#own,
      egresses: this.#egresses,
      throttle: this.#throttle,
      events,
      clock: this.#clock,
      log: this.#log,
    })
    this.#serving = serving
    this.#closers.push(() => serving.close())
    const address = await serving.open(config.listen)
    this.#own.add(address)
    this.proxyUrl = urlOf(address)
    const leases = new RemoteLeases({
      events,
      clock: this.#clock,
      runtime: () => this.#runtime,
      egressUrl: (egress) => this.#egresses.url(egress),
    })
    this.#remoteLeases = leases
    const token = await adminToken(config.dataDir, config.admin.token)
    const admin = await startAdmin({
      listen: config.admin.listen,
      hosts: config.admin.hosts,
      token,
      log: this.#log,
      clock: this.#clock,
      backend: {
        caughtUp: () => serving.caughtUp(),
        pools: () => this.#status(),
        act: (pool, credential, action) => this.#act(pool, credential, action),
        login: (pool, ...how) => this.#pools.get(pool)?.login(...how),
        capture: (pool, ...how) => this.#capture(pool, ...how),
        leafKeyHash: () => this.#leaves.keyHash,
        leases,
        identify: (authorization, client) => this.#auth.identify(authorization, client),
        traces: tracing.recorder,
        ready: () => this.#ready(),
        metrics: (accept) => metrics.scrape(accept),
        caPem: () => this.#authority.certificatePem,
        proxyUrl: () => this.proxyUrl,
        egressAddress: (egress) => this.#egresses.address(egress),
        egresses: () => this.#egressStates(),
        history,
        activity,
      },
    })
    this.#closers.push(
      () => admin.close(),
      () => leases.close(),
    )
    this.#own.add(admin)
    this.adminUrl = admin.url
    await serving.ready()
    const { proxyUrl: proxy, adminUrl, caPath: ca } = this
    this.#closers.push(await tellRunning(config.dataDir, { proxy, admin: adminUrl, ca }))
  }

  async reload(): Promise<{ applied: boolean; problems: readonly string[] }> {
    // One at a time, in the order asked for.
    const result = this.#reloading.then(() => this.#reload())
    this.#reloading = result
    return result
  }

  async #reload(): Promise<{ applied: boolean; problems: readonly string[] }> {
    const outcome = (applied: boolean, problems: readonly string[]) => {
      this.#events.emit('config', { time: this.#clock.now(), applied, problems })
      const notes = problems.length > 0 ? problems : undefined
      if (applied) this.#log.info({ notes }, 'configuration applied')
      else this.#log.error({ problems }, 'configuration refused, the old one stays in force')
      return { applied, problems }
    }
    if (!this.#reloadFrom || this.#stopping) return outcome(false, ['nothing to reload from'])
    try {
      const config = await this.#reloadFrom()
      const fixed = fixedChanges(this.#config, config)
      await this.#apply(config)
      return outcome(
        true,
        fixed.map((key) => `${key} changed: that takes a restart`),
      )
    } catch (error) {
      return outcome(false, problemsOf(error))
    }
  }

  async #apply(config: Config): Promise<void> {
    // What can be refused comes first; after it nothing throws. An egress goes last, after those who use it.
    new Router(config.pools)
    const { egress, upstream } = this.#config
    this.#egresses.apply({ ...egress, ...config.egress }, config.upstream)
    try {
      await this.#openCa(config)
    } catch (error) {
      this.#egresses.apply(egress, upstream)
      throw error
    }
    await this.#egresses.probed(FIRST_PROBE_MS)
    this.#turns.configure(config.refresh.perHost)
    this.#config = config
    this.#passthrough = passthroughOf(config)
    for (const [name, pool] of Object.entries(config.pools)) {
      const running = this.#pools.get(name)
      if (running) await running.apply(pool)
      else this.#pools.set(name, await this.#openPool(name))
    }
    await this.#serving?.apply(this.#terms())
    await this.#closePools([...this.#pools.keys()].filter((name) => !(name in config.pools)))
    this.#egresses.retain(config.egress)
  }

  stop(options: { force?: boolean } = {}): Promise<void> {
    if (options.force) this.#serving?.cut()
    this.#stopping ??= this.#stop(options.force ?? false)
    return this.#stopping
  }

  async #stop(force: boolean): Promise<void> {
    this.#draining = true
    this.#remoteLeases?.drain()
    const serving = this.#serving
    if (serving && !force) {
      const drained = serving.drain()
      let cancel = () => {}
      const late = new Promise<'late'>((resolve) => {
        cancel = this.#clock.schedule(this.#config.server.drainTimeout, () => resolve('late'))
      })
      const result = await Promise.race([drained, late])
      cancel()
      if (result === 'late')
        this.#log.warn({ connections: serving.connections }, 'cut what had not drained')
    }
    for (const close of this.#closers.splice(0).reverse()) await close()
    this.#events.removeAllListeners()
  }

  async #openCa(config: Config): Promise<void> {
    const authority = await openAuthority({
      ...config.ca,
      targets: httpsTargets(config),
      clock: this.#clock,
    })
    const notices = [...authority.notices, ...insecureNotices(config.upstream)]
    for (const notice of notices) this.#log.warn(notice)
    this.#authority = authority
    this.#leaves = new LeafCache(authority, { clock: this.#clock })
    this.caPath = authority.certificatePath
  }

  async #closePools(names: readonly string[]): Promise<void> {
    const pools = names.map((name) => this.#pools.get(name))
    for (const name of names) this.#pools.delete(name)
    await Promise.all(pools.map((pool) => pool?.close()))
  }

  /** What the configuration in force gives to those who serve. */
  #terms(): Terms {
    this.#auth = new ClientAuth(this.#config.clients, this.#throttle)
    this.#runtime = exchangeRuntimeOf(this.#config, this.#pools, this.#clock)
    return {
      config: this.#config,
      runtime: this.#runtime,
      passthrough: this.#passthrough,
      auth: this.#auth,
      authority: this.#authority,
      leaves: this.#leaves,
    }
  }

  #capture(pool: string, ...how: Parameters<Learning['capture']>) {
    const lesson = this.#pools.get(pool)?.learning.capture(...how)
    const changed = () => this.#serving?.learningChanged(pool)
    changed()
    lesson?.then(changed, changed)
    return lesson
  }

  #status(): PoolStatus[] {
    return [...this.#pools.values()].map((pool) => pool.status())
  }

  #egressStates() {
    return this.#egresses.names().map((name) => ({ name, up: this.#egresses.isUp(name) }))
  }

  async #act(
    poolName: string,
    credential: string,
    action: CredentialAction,
  ): Promise<'done' | 'unknown'> {
    const pool = this.#pools.get(poolName)
    if (!pool?.has(credential)) return 'unknown'
    await pool[action](credential)
    return 'done'
  }

  #ready(): { ready: boolean; reasons: string[] } {
    const pools = this.#status()
    const reasons = pools
      .filter((pool) => pool.status === 'exhausted')
      .map((pool) => `pool ${pool.name} has no active token`)
    reasons.push(...(this.#serving?.ailments() ?? []))
    if (this.#draining) reasons.push('shutting down')
    const ready = reasons.length === 0
    // Tokens serve on: an instance that cannot hear the others is degraded, and still ready.
    return { ready, reasons: [...reasons, ...new Set(pools.flatMap((pool) => pool.trouble ?? []))] }
  }
}
