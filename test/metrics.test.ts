import { expect, test } from 'vitest'
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
  return { events, metrics, scrape: async () => parse(await metrics.text()), pools }
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

test('closing stops listening', () => {
  const { events, metrics } = setUp()
  metrics.close()
  expect(events.listenerCount('exchange') + events.listenerCount('refresh')).toBe(0)
})
