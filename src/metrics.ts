import { type EventLoopUtilization, monitorEventLoopDelay, performance } from 'node:perf_hooks'
import type { Counter, Histogram, Registry, RegistryContentType } from 'prom-client'
import { WIRE_CODES } from './errors.ts'
import type { EventMap, Events, ExchangeRecord } from './events.ts'
import type { PoolStatus } from './pool/lease.ts'

/** What Prometheus scrapes, and the end of it. */
export interface Metrics {
  /**
   * The exposition format's text, or OpenMetrics with exemplars where `accept` asks for it; pools and egresses are
   * asked at this moment.
   */
  scrape(accept?: string): Promise<{ readonly text: string; readonly contentType: string }>
  close(): void
}

/** Verdicts that may become label values; anything else counts as `other`, so that labels stay bounded. */
const VERDICTS = new Set<string>([
  'ok',
  'expired',
  'limited',
  'denied',
  'upstream',
  'tunnel',
  'aborted',
  'unknown',
  'unreported',
  ...Object.keys(WIRE_CODES),
])
const SAMPLING_MS = 50
const REFRESH_RESULTS = ['ok', 'failed', 'revoked'] as const
const REPLAY_RESULTS = ['ok', 'failed', 'skipped'] as const
const POOL_STATES = ['healthy', 'degraded', 'exhausted'] as const
/** Those that somebody watches: a series that exists from the start shows its first increase to rate(). */
const WATCHED_VERDICTS = [
  'ok',
  'expired',
  'limited',
  'denied',
  'upstream',
  'POOL_EXHAUSTED',
  'QUEUE_FULL',
  'NO_TOKEN_WITH_SCOPE',
  'EGRESS_DOWN',
] as const

const DURATION_BOUNDS = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60] as const

/** Loaded by the first scrape: a process that nobody scrapes needs none of it. */
type Prometheus = typeof import('prom-client')

/** Counts events in arrays of its own; what Prometheus is shown is put together at each scrape. */
export function createMetrics(
  events: Events,
  pools: () => readonly PoolStatus[],
  egresses: () => readonly { readonly name: string; readonly up: boolean }[],
): Metrics {
  const counts = {
    requests: new Tally(),
    refreshes: new Tally(),
    replays: new Tally(),
    durations: new Durations(),
  }
  const onExchange = (record: ExchangeRecord): void => {
    const pool = record.pool ?? ''
    counts.requests.add(pool, VERDICTS.has(record.verdict) ? record.verdict : 'other')
    // How long a worker holds a lease says nothing of requests.
    if (record.kind !== 'tunnel' && record.kind !== 'lease')
      counts.durations.observe(record.durationMs / 1000, record.id)
    if (!record.replay) return
    const outcome = !record.replay.done ? 'skipped' : record.verdict === 'ok' ? 'ok' : 'failed'
    counts.replays.add(pool, outcome)
  }
  const onRefresh = (outcome: EventMap['refresh'][0]): void => {
    counts.refreshes.add(outcome.pool, outcome.result)
  }
  events.on('exchange', onExchange)
  events.on('refresh', onRefresh)

  const expositions = new Map<string, Exposition>()
  let closed = false
  return {
    async scrape(accept) {
      const prometheus = await import('prom-client')
      const { OPENMETRICS_CONTENT_TYPE, PROMETHEUS_CONTENT_TYPE } = prometheus.Registry
      const open = accept?.includes('application/openmetrics-text')
      const contentType = open ? OPENMETRICS_CONTENT_TYPE : PROMETHEUS_CONTENT_TYPE
      if (closed) return { text: '', contentType }
      const exposition =
        expositions.get(contentType) ?? createExposition(prometheus, counts, contentType)
      expositions.set(contentType, exposition)
      return { text: await exposition.text(pools(), egresses()), contentType }
    },
    close() {
      closed = true
      events.off('exchange', onExchange)
      events.off('refresh', onRefresh)
      for (const exposition of expositions.values()) exposition.close()
    },
  }
}

interface Counts {
  readonly requests: Tally
  readonly refreshes: Tally
  readonly replays: Tally
  readonly durations: Durations
}

interface Exposition {
  text(
    pools: readonly PoolStatus[],
    egresses: readonly { readonly name: string; readonly up: boolean }[],
  ): Promise<string>
  close(): void
}

/** A registry of its own for the counts of one app, in one format. */
function createExposition(prometheus: Prometheus, counts: Counts, contentType: string): Exposition {
  const { Counter, Gauge, Registry } = prometheus
  const registry = new Registry()
  const either: Registry<RegistryContentType> = registry
  either.setContentType(contentType as RegistryContentType)
  const registers = [registry]
  registry.registerMetric(
    counts.durations.asMetric(
      'cupbearer_request_duration_seconds',
      'Time from a request’s arrival to the end of its response, tunnels left out',
    ),
  )
  const requestsTotal = new Counter({
    name: 'cupbearer_requests_total',
    help: 'Requests ended, by verdict; the pool is empty where no pool covers the host',
    labelNames: ['pool', 'verdict'],
    registers,
  })
  const refreshesTotal = new Counter({
    name: 'cupbearer_refreshes_total',
    help: 'Tries to get a token, by result: ok, failed or revoked',
    labelNames: ['pool', 'result'],
    registers,
  })
  const replaysTotal = new Counter({
    name: 'cupbearer_replays_total',
    help: 'Requests worth replaying: ok healed, failed did not, skipped could not be replayed',
    labelNames: ['pool', 'result'],
    registers,
  })
  const tokens = new Gauge({
    name: 'cupbearer_tokens',
    help: 'Tokens by state',
    labelNames: ['pool', 'state'],
    registers,
  })
  const authOverhead = new Gauge({
    name: 'cupbearer_auth_overhead_ratio',
    help: 'Refreshes divided by requests since start',
    labelNames: ['pool'],
    registers,
  })
  const tokenTtl = new Gauge({
    name: 'cupbearer_token_ttl_seconds',
    help: 'Average lifetime left of the tokens whose end is known',
    labelNames: ['pool'],
    registers,
  })
  const poolStatus = new Gauge({
    name: 'cupbearer_pool_status',
    help: '1 for the state that the pool is in: healthy, degraded or exhausted',
    labelNames: ['pool', 'status'],
    registers,
  })
  const refreshSuccess = new Gauge({
    name: 'cupbearer_refresh_success_ratio',
    help: 'Refreshes that succeeded divided by all since start; 1 before the first',
    labelNames: ['pool'],
    registers,
  })
  const requestRate = new Gauge({
    name: 'cupbearer_requests_per_token_per_minute',
    help: 'Requests of the last minute divided by tokens in use',
    labelNames: ['pool'],
    registers,
  })
  const queueWaiting = new Gauge({
    name: 'cupbearer_queue_waiting',
    help: 'Requests waiting for a token',
    labelNames: ['pool'],
    registers,
  })
  const egressUp = new Gauge({
    name: 'cupbearer_egress_up',
    help: '1 while the egress can be reached',
    labelNames: ['egress'],
    registers,
  })
  const sampled = [
    tokens,
    authOverhead,
    tokenTtl,
    queueWaiting,
    egressUp,
    poolStatus,
    refreshSuccess,
    requestRate,
  ]
  const runtime = processMetrics(prometheus, registry)

  const { requests, refreshes, replays } = counts

  return {
    text(pools, egresses) {
      for (const gauge of sampled) gauge.reset()
      for (const status of pools) {
        const pool = status.name
        for (const [state, count] of Object.entries(status.tokens))
          tokens.set({ pool, state }, count)
        authOverhead.set({ pool }, status.authOverhead)
        queueWaiting.set({ pool }, status.waiting)
        if (status.avgTtlRemainingSeconds !== undefined) {
          tokenTtl.set({ pool }, status.avgTtlRemainingSeconds)
        }
        refreshSuccess.set({ pool }, status.refreshSuccessRate ?? 1)
        requestRate.set({ pool }, status.requestsPerTokenPerMinute)
        for (const state of POOL_STATES) {
          poolStatus.set({ pool, status: state }, status.status === state ? 1 : 0)
        }
        for (const verdict of WATCHED_VERDICTS) requests.touch(pool, verdict)
        for (const result of REFRESH_RESULTS) refreshes.touch(pool, result)
        for (const result of REPLAY_RESULTS) replays.touch(pool, result)
      }
      for (const { name, up } of egresses) egressUp.set({ egress: name }, up ? 1 : 0)
      requests.copyTo(requestsTotal, 'verdict')
      refreshes.copyTo(refreshesTotal, 'result')
      replays.copyTo(replaysTotal, 'result')
      runtime.sample()
      return registry.metrics()
    },
    close() {
      runtime.close()
      registry.clear()
    },
  }
}

/** A histogram without labels, counted without a call into the library per request. */
class Durations {
  /** One for each bound, and one for what is above all of them; not cumulative. */
  readonly #counts = new Float64Array(DURATION_BOUNDS.length + 1)
  /** The last request of each bucket. */
  readonly #exemplars: ({ id: string; seconds: number; time: number } | undefined)[] = []
  #sum = 0

  observe(seconds: number, id: string): void {
    let bucket = 0
    while (bucket < DURATION_BOUNDS.length && seconds > (DURATION_BOUNDS[bucket] as number)) {
      bucket += 1
    }
    this.#counts[bucket] = (this.#counts[bucket] as number) + 1
    this.#sum += seconds
    const exemplar = this.#exemplars[bucket]
    if (!exemplar) this.#exemplars[bucket] = { id, seconds, time: Date.now() / 1000 }
    else {
      exemplar.id = id
      exemplar.seconds = seconds
      exemplar.time = Date.now() / 1000
    }
  }

  /** What a registry asks for its values at each scrape, and all that it asks for. */
  asMetric(name: string, help: string): Histogram {
    const get = async () => {
      const values: object[] = []
      let count = 0
      for (const [bucket, le] of [...DURATION_BOUNDS, '+Inf'].entries()) {
        count += this.#counts[bucket] as number
        const last = this.#exemplars[bucket]
        const exemplar = last && {
          labelSet: { trace_id: last.id },
          value: last.seconds,
          timestamp: last.time,
        }
        values.push({ metricName: `${name}_bucket`, labels: { le }, value: count, exemplar })
      }
      values.push({ metricName: `${name}_sum`, labels: {}, value: this.#sum })
      values.push({ metricName: `${name}_count`, labels: {}, value: count })
      return { name, help, type: 'histogram', values, aggregator: 'sum' }
    }
    return { name, help, get } as unknown as Histogram
  }
}

/** Counts per pool and outcome without an allocation per event; a Counter would hash its labels each time. */
class Tally {
  readonly #pools = new Map<string, Map<string, number>>()

  add(pool: string, outcome: string): void {
    const counts = this.#of(pool)
    counts.set(outcome, (counts.get(outcome) ?? 0) + 1)
  }

  /** Makes the series exist. */
  touch(pool: string, outcome: string): void {
    const counts = this.#of(pool)
    if (!counts.has(outcome)) counts.set(outcome, 0)
  }

  copyTo<Label extends string>(counter: Counter<'pool' | Label>, label: Label): void {
    counter.reset()
    for (const [pool, counts] of this.#pools) {
      for (const [outcome, count] of counts) {
        counter.labels({ pool, [label]: outcome } as Record<'pool' | Label, string>).inc(count)
      }
    }
  }

  #of(pool: string): Map<string, number> {
    let counts = this.#pools.get(pool)
    if (!counts) {
      counts = new Map()
      this.#pools.set(pool, counts)
    }
    return counts
  }
}

/**
 * The usual names of process metrics, read at each scrape. prom-client's own collector keeps a GC observer and a
 * 10 ms timer that nothing can stop; these end with `close`.
 */
function processMetrics(
  { Counter, Gauge }: Prometheus,
  registry: Registry,
): { sample(): void; close(): void } {
  const registers = [registry]
  const gauge = (name: string, help: string) => new Gauge({ name, help, registers })
  const cpuUser = new Counter({
    name: 'process_cpu_user_seconds_total',
    help: 'User CPU time',
    registers,
  })
  const cpuSystem = new Counter({
    name: 'process_cpu_system_seconds_total',
    help: 'System CPU time',
    registers,
  })
  const cpu = new Counter({ name: 'process_cpu_seconds_total', help: 'CPU time', registers })
  gauge('process_start_time_seconds', 'Start since the epoch').set(performance.timeOrigin / 1000)
  const resident = gauge('process_resident_memory_bytes', 'Resident memory')
  const heapTotal = gauge('nodejs_heap_size_total_bytes', 'Heap reserved')
  const heapUsed = gauge('nodejs_heap_size_used_bytes', 'Heap in use')
  const external = gauge('nodejs_external_memory_bytes', 'Memory of buffers outside the heap')
  const lagMean = gauge('nodejs_eventloop_lag_mean_seconds', 'Mean delay since the last scrape')
  const lagMax = gauge('nodejs_eventloop_lag_max_seconds', 'Longest delay since the last scrape')
  const lagP99 = gauge('nodejs_eventloop_lag_p99_seconds', '99th percentile since the last scrape')
  const utilization = gauge('nodejs_eventloop_utilization', 'Busy share since the last scrape')
  const resources = new Gauge({
    name: 'nodejs_active_resources',
    help: 'What keeps the event loop alive, by type',
    labelNames: ['type'],
    registers,
  })
  new Gauge({
    name: 'nodejs_version_info',
    help: 'Node.js version',
    labelNames: ['version'],
    registers,
  }).set({ version: process.version }, 1)

  const delay = monitorEventLoopDelay({ resolution: SAMPLING_MS })
  delay.enable()
  let busy: EventLoopUtilization = performance.eventLoopUtilization()
  // What is recorded is the time from tick to tick, sampling interval included; no mean before the first.
  const seconds = (nanoseconds: number) => Math.max(0, nanoseconds / 1e9 - SAMPLING_MS / 1e3) || 0

  return {
    sample() {
      const { user, system } = process.cpuUsage()
      for (const counter of [cpuUser, cpuSystem, cpu]) counter.reset()
      cpuUser.inc(user / 1e6)
      cpuSystem.inc(system / 1e6)
      cpu.inc((user + system) / 1e6)
      const memory = process.memoryUsage()
      resident.set(memory.rss)
      heapTotal.set(memory.heapTotal)
      heapUsed.set(memory.heapUsed)
      external.set(memory.external)
      lagMean.set(seconds(delay.mean))
      lagMax.set(seconds(delay.max))
      lagP99.set(seconds(delay.percentile(99)))
      delay.reset()
      const now = performance.eventLoopUtilization()
      utilization.set(performance.eventLoopUtilization(now, busy).utilization)
      busy = now
      resources.reset()
      for (const type of process.getActiveResourcesInfo()) resources.inc({ type })
    },
    close: () => void delay.disable(),
  }
}
