import { readFileSync } from 'node:fs'
import { expect, test } from 'vitest'
import { parse as parseYaml } from 'yaml'
import { Events } from '../src/events.ts'
import { createMetrics } from '../src/metrics.ts'
import { sampleExchange, samplePool } from './support/admin.ts'

/** `name{labels}` → value; fails on a line that isn't of the exposition format. */
function parse(text: string): Map<string, number> {
  const samples = new Map<string, number>()
  for (const line of text.split('\n')) {
    if (line === '' || line.startsWith('# HELP ') || line.startsWith('# TYPE ')) continue
    const match = /^([a-zA-Z_:][\w:]*(?:\{[^}]*\})?) (\S+)$/.exec(line)
    if (!match) throw new Error(`not a sample: ${line}`)
    samples.set(match[1] as string, Number(match[2]))
  }
  return samples
}

function setUp(pools = [samplePool()]) {
  const events = new Events()
  const metrics = createMetrics(
    events,
    () => pools,
    () => [
      { name: 'direct', up: true },
      { name: 'proxy-1', up: false },
    ],
  )
  return { events, metrics, scrape: async () => parse((await metrics.scrape()).text), pools }
}

test('counts requests by pool and verdict, and keeps labels bounded', async () => {
  const { events, metrics, scrape } = setUp()
  events.emit('exchange', sampleExchange())
  events.emit('exchange', sampleExchange())
  events.emit('exchange', sampleExchange({ verdict: 'EGRESS_DOWN' }))
  events.emit('exchange', sampleExchange({ pool: undefined, kind: 'tunnel', verdict: 'tunnel' }))
  for (let i = 0; i < 50; i++) events.emit('exchange', sampleExchange({ verdict: `made up ${i}` }))
  const samples = await scrape()
  expect(samples.get('cupbearer_requests_total{pool="supplier",verdict="ok"}')).toBe(2)
  expect(samples.get('cupbearer_requests_total{pool="supplier",verdict="EGRESS_DOWN"}')).toBe(1)
  expect(samples.get('cupbearer_requests_total{pool="",verdict="tunnel"}')).toBe(1)
  expect(samples.get('cupbearer_requests_total{pool="supplier",verdict="other"}')).toBe(50)
  expect(samples.get('cupbearer_request_duration_seconds_count')).toBe(53)
  metrics.close()
})

test('a scrape does not count anything twice', async () => {
  const { events, metrics, scrape } = setUp()
  events.emit('exchange', sampleExchange())
  await scrape()
  events.emit('exchange', sampleExchange())
  expect((await scrape()).get('cupbearer_requests_total{pool="supplier",verdict="ok"}')).toBe(2)
  metrics.close()
})

test('counts refreshes and replays by result; refresh results exist from the start', async () => {
  const { events, metrics, scrape } = setUp()
  const refresh = {
    time: 0,
    pool: 'supplier',
    credential: 'alice',
    cause: 'scheduled',
    generation: 1,
    ms: 5,
    reason: undefined,
  } as const
  events.emit('refresh', { ...refresh, result: 'ok' })
  events.emit('exchange', sampleExchange({ replay: { done: true, why: 'expired' } }))
  events.emit('exchange', sampleExchange({ replay: { done: true, why: '' }, verdict: 'expired' }))
  events.emit('exchange', sampleExchange({ replay: { done: false, why: 'body too large' } }))
  const samples = await scrape()
  expect(samples.get('cupbearer_refreshes_total{pool="supplier",result="ok"}')).toBe(1)
  expect(samples.get('cupbearer_refreshes_total{pool="supplier",result="failed"}')).toBe(0)
  for (const result of ['ok', 'failed', 'skipped']) {
    expect(samples.get(`cupbearer_replays_total{pool="supplier",result="${result}"}`)).toBe(1)
  }
  metrics.close()
})

test('shows pools and egresses as they are at the scrape, and drops those that are gone', async () => {
  const { metrics, scrape, pools } = setUp()
  pools.push(samplePool({ name: 'second', avgTtlRemainingSeconds: undefined, waiting: 7 }))
  const samples = await scrape()
  expect(samples.get('cupbearer_tokens{pool="supplier",state="active"}')).toBe(1)
  expect(samples.get('cupbearer_tokens{pool="supplier",state="revoked"}')).toBe(0)
  expect(samples.get('cupbearer_auth_overhead_ratio{pool="supplier"}')).toBe(0.01)
  expect(samples.get('cupbearer_token_ttl_seconds{pool="supplier"}')).toBe(1800)
  expect(samples.has('cupbearer_token_ttl_seconds{pool="second"}')).toBe(false)
  expect(samples.get('cupbearer_queue_waiting{pool="second"}')).toBe(7)
  expect(samples.get('cupbearer_egress_up{egress="direct"}')).toBe(1)
  expect(samples.get('cupbearer_egress_up{egress="proxy-1"}')).toBe(0)
  pools.pop()
  expect((await scrape()).has('cupbearer_queue_waiting{pool="second"}')).toBe(false)
  metrics.close()
})

test('has process metrics, and two instances live side by side', async () => {
  const first = setUp()
  const second = setUp()
  const samples = await first.scrape()
  for (const name of [
    'process_cpu_seconds_total',
    'process_resident_memory_bytes',
    'process_start_time_seconds',
    'nodejs_heap_size_used_bytes',
  ]) {
    expect(samples.get(name)).toBeGreaterThan(0)
  }
  expect(samples.get('nodejs_eventloop_lag_mean_seconds')).toBeGreaterThanOrEqual(0)
  first.metrics.close()
  expect((await second.scrape()).size).toBeGreaterThan(10)
  second.metrics.close()
})

test('every series that somebody watches is there from the start, at 0', async () => {
  const { metrics, scrape } = setUp()
  const samples = await scrape()
  for (const verdict of ['ok', 'expired', 'limited', 'denied', 'POOL_EXHAUSTED', 'EGRESS_DOWN']) {
    expect(samples.get(`cupbearer_requests_total{pool="supplier",verdict="${verdict}"}`)).toBe(0)
  }
  for (const result of ['ok', 'failed', 'skipped']) {
    expect(samples.get(`cupbearer_replays_total{pool="supplier",result="${result}"}`)).toBe(0)
  }
  expect(samples.get('cupbearer_request_duration_seconds_count')).toBe(0)
  metrics.close()
})

test('shows a pool’s health, refresh success and requests per token and minute', async () => {
  const { metrics, scrape } = setUp([
    samplePool({ status: 'degraded', refreshSuccessRate: 0.75 }),
    samplePool({ name: 'fresh', refreshSuccessRate: undefined }),
  ])
  const samples = await scrape()
  const status = (name: string) =>
    samples.get(`cupbearer_pool_status{pool="supplier",status="${name}"}`)
  expect(['healthy', 'degraded', 'exhausted'].map(status)).toEqual([0, 1, 0])
  expect(samples.get('cupbearer_refresh_success_ratio{pool="supplier"}')).toBe(0.75)
  expect(samples.get('cupbearer_refresh_success_ratio{pool="fresh"}')).toBe(1)
  expect(samples.get('cupbearer_requests_per_token_per_minute{pool="supplier"}')).toBe(4.5)
  metrics.close()
})

test('OpenMetrics has an exemplar for each bucket that was met, and the plain format has none', async () => {
  const { events, metrics } = setUp()
  events.emit('exchange', sampleExchange({ id: 'fast-one', durationMs: 3 }))
  events.emit('exchange', sampleExchange({ id: 'slow-one', durationMs: 700 }))
  const plain = await metrics.scrape('text/plain')
  const open = await metrics.scrape(
    'application/openmetrics-text;version=1.0.0;q=0.8,text/plain;q=0.1',
  )
  expect(plain.contentType).toContain('text/plain')
  expect(plain.text).not.toContain('fast-one')
  expect(open.contentType).toContain('application/openmetrics-text')
  expect(open.text).toMatch(
    /^cupbearer_request_duration_seconds_bucket\{le="0\.005"\} 1 # \{trace_id="fast-one"\} 0\.003 \d+(\.\d+)?$/m,
  )
  expect(open.text).toMatch(/\{le="1"\} 2 # \{trace_id="slow-one"\} 0\.7 /)
  expect(open.text).toMatch(/^# TYPE cupbearer_requests counter$/m)
  expect(open.text).toMatch(/^cupbearer_requests_total\{pool="supplier",verdict="ok"\} 2$/m)
  expect(open.text.endsWith('\n# EOF\n')).toBe(true)
  // One format's scrape doesn't spoil the other's.
  expect((await metrics.scrape()).text).toContain('# TYPE cupbearer_requests_total counter')
  metrics.close()
})

test('closing stops listening', () => {
  const { events, metrics } = setUp()
  metrics.close()
  expect(events.listenerCount('exchange') + events.listenerCount('refresh')).toBe(0)
})

interface Rule {
  readonly alert: string
  readonly expr: string
  readonly annotations: { readonly summary: string; readonly description: string }
}

const read = (file: string) => readFileSync(new URL(`../docs/${file}`, import.meta.url), 'utf8')

test('the alert rules and the Grafana dashboard ask for metrics and labels that are there', async () => {
  const { metrics, scrape } = setUp()
  const series = [...(await scrape()).keys()]
  metrics.close()
  const { groups } = parseYaml(read('alerts.yml')) as { groups: { rules: Rule[] }[] }
  const rules = groups.flatMap((group) => group.rules)
  expect(rules.map(({ alert }) => alert).sort()).toEqual([
    'CupbearerAuthOverhead',
    'CupbearerEgressDown',
    'CupbearerLoginNeeded',
    'CupbearerNoActiveToken',
    'CupbearerQueueWaiting',
    'CupbearerRefreshFailures',
    'CupbearerRequestsFail',
  ])
  const dashboard = JSON.parse(read('grafana/cupbearer.json')) as {
    panels: { targets: { expr: string }[] }[]
    templating: { list: { query: { query: string } | string }[] }
  }
  const variables = dashboard.templating.list.map(({ query }) =>
    typeof query === 'string' ? '' : query.query,
  )
  const asked = [
    ...rules.map(({ expr }) => expr),
    ...dashboard.panels.flatMap(({ targets }) => targets.map(({ expr }) => expr)),
    ...variables,
  ]
  expect(asked.length).toBeGreaterThan(25)
  // `job` is Prometheus's own.
  const unknown = asked.flatMap(selectors).filter(({ name, labels }) => {
    const known = series.filter((each) => each.split('{')[0] === name)
    return known.length === 0 || labels.some((label) => !known[0]?.includes(`${label}="`))
  })
  expect(unknown).toEqual([])
})

/** The metrics in an expression of PromQL, and the labels that it chooses them by. */
function selectors(expr: string): { name: string; labels: string[] }[] {
  return [...expr.matchAll(/\b((?:cupbearer|process|nodejs)_\w+)(?:\{([^}]*)\})?/g)].map(
    ([, name, matchers = '']) => ({
      name: name as string,
      labels: [...matchers.matchAll(/(\w+)\s*[=!]/g)]
        .map(([, label]) => label as string)
        .filter((label) => label !== 'job'),
    }),
  )
}
