import { expect, test } from 'vitest'
import { Events, type ExchangeRecord } from '../../src/events.ts'
import { createLog } from '../../src/lib/log.ts'
import { Secret } from '../../src/lib/secret.ts'
import { OtlpExporter } from '../../src/trace/otlp.ts'
import { TraceRecorder } from '../../src/trace/recorder.ts'
import { sampleExchange } from '../support/admin.ts'
import { Collector } from '../support/collector.ts'
import { Pauses } from '../support/pauses.ts'

const SERVER = 2
const CLIENT = 3
const ERROR = 2

async function setUp(url: string, sample = 1) {
  const events = new Events()
  const recorder = new TraceRecorder(events, { capacity: 10 })
  const log = await createLog({ level: 'silent', format: 'json' })
  const headers = { 'x-collector-key': new Secret('the-key-of-the-collector') }
  const exporter = new OtlpExporter(recorder, { url, headers, sample, service: 'cupbearer' }, log)
  return { events, exporter }
}

const ATTEMPT = sampleExchange().attempts[0] as ExchangeRecord['attempts'][number]
const START = Date.parse('2030-01-01T00:00:00Z')

test('an exchange is a span, with one for each attempt and one for the renewal', async () => {
  await using collector = await Collector.start()
  const { events, exporter } = await setUp(collector.url)
  events.emit(
    'exchange',
    sampleExchange({
      durationMs: 300,
      waitMs: 10,
      protocol: 'h2',
      attempts: [
        { ...ATTEMPT, status: 401, verdict: 'expired', startMs: 10, totalMs: 40 },
        { ...ATTEMPT, generation: 4, startMs: 160, firstByteMs: 80, totalMs: 100, protocol: 'h1' },
      ],
      refresh: { role: 'led', ms: 100, result: 'renewed', startMs: 50, trace: 'r1' },
      replay: { done: true, why: 'the token was renewed' },
    }),
  )
  await exporter.close()

  const exchange = collector.spans.find(({ kind }) => kind === SERVER)
  expect(exchange).toMatchObject({
    name: 'GET',
    parentSpanId: undefined,
    startMs: START,
    endMs: START + 300,
    events: ['waited for a token'],
    attributes: {
      'http.request.method': 'GET',
      'http.response.status_code': 200,
      'url.full': 'https://api.example.com/v1/items?page=2',
      'url.scheme': 'https',
      'server.address': 'api.example.com',
      'server.port': 443,
      'client.address': '127.0.0.1',
      'network.protocol.version': '2',
      'cupbearer.trace': 'trace-1',
      'cupbearer.pool': 'supplier',
      'cupbearer.verdict': 'ok',
    },
  })
  const attempts = collector.spans.filter(({ kind }) => kind === CLIENT)
  expect(attempts).toMatchObject([
    {
      startMs: START + 10,
      endMs: START + 50,
      status: ERROR,
      attributes: { 'http.response.status_code': 401, 'cupbearer.verdict': 'expired' },
    },
    {
      startMs: START + 160,
      endMs: START + 260,
      events: ['first byte'],
      attributes: {
        'http.response.status_code': 200,
        'http.request.resend_count': 1,
        'network.peer.address': '192.0.2.7',
        'network.peer.port': 443,
        'cupbearer.credential': 'alice',
        'cupbearer.generation': 4,
        'cupbearer.egress': 'one',
      },
    },
  ])
  const refresh = collector.find('refresh')
  expect(refresh).toMatchObject({
    startMs: START + 50,
    endMs: START + 150,
    attributes: { 'cupbearer.refresh.role': 'led', 'cupbearer.refresh.trace': 'r1' },
  })
  for (const span of [...attempts, refresh]) {
    expect(span.traceId).toBe(exchange?.traceId)
    expect(span.parentSpanId).toBe(exchange?.spanId)
  }
  expect(collector.resource).toMatchObject({ 'service.name': 'cupbearer' })
  expect(collector.requests[0]?.headers['x-collector-key']).toBe('the-key-of-the-collector')
})

test('a trace that the client has begun goes on, and its choice not to be sampled holds', async () => {
  await using collector = await Collector.start()
  const { events, exporter } = await setUp(collector.url)
  const trace = '0af7651916cd43dd8448eb211c80319c'
  const parent = `00-${trace}-b7ad6b7169203331`
  events.emit('exchange', sampleExchange({ id: 'sampled', parent: `${parent}-01` }))
  events.emit('exchange', sampleExchange({ id: 'unsampled', parent: `${parent}-00` }))
  await exporter.close()
  expect(collector.find('GET', ['cupbearer.trace', 'sampled'])).toMatchObject({
    traceId: trace,
    parentSpanId: 'b7ad6b7169203331',
  })
  expect(collector.spans.filter(({ kind }) => kind === SERVER)).toHaveLength(1)
})

test('the span that upstream was told of has the ids that it was told', async () => {
  await using collector = await Collector.start()
  const { events, exporter } = await setUp(collector.url)
  const span = ['11112222333344445555666677778888', 'aaaabbbbccccdddd'] as const
  events.emit('exchange', sampleExchange({ span }))
  await exporter.close()
  const exchange = collector.spans.find(({ kind }) => kind === SERVER)
  expect([exchange?.traceId, exchange?.spanId]).toEqual(span)
  const attempt = collector.spans.find(({ kind }) => kind === CLIENT)
  expect(attempt?.parentSpanId).toBe(span[1])
  expect(attempt?.spanId).not.toBe(span[1])
})

test('a renewal is a trace of its own, with a span for each of its requests', async () => {
  await using collector = await Collector.start()
  const { events, exporter } = await setUp(collector.url)
  events.emit('refresh', {
    id: 'renewal',
    time: START + 90,
    pool: 'supplier',
    credential: 'alice',
    cause: 'scheduled',
    result: 'failed',
    generation: 4,
    ms: 90,
    reason: 'the token endpoint answered 503',
    egress: 'one',
    calls: [{ method: 'POST', url: 'https://auth.example/token', status: 503, startMs: 5, ms: 50 }],
  })
  await exporter.close()
  const refresh = collector.find('refresh')
  expect(refresh).toMatchObject({
    startMs: START,
    endMs: START + 90,
    status: ERROR,
    attributes: { 'cupbearer.kind': 'refresh', 'cupbearer.credential': 'alice' },
  })
  expect(collector.find('POST')).toMatchObject({
    parentSpanId: refresh.spanId,
    startMs: START + 5,
    endMs: START + 55,
    attributes: { 'url.full': 'https://auth.example/token', 'http.response.status_code': 503 },
  })
})

test('samples the share that is asked for', async () => {
  await using collector = await Collector.start()
  const { events, exporter } = await setUp(collector.url, 0)
  for (let i = 0; i < 20; i++) events.emit('exchange', sampleExchange())
  await exporter.close()
  expect(collector.spans).toEqual([])
})

test('a collector that fails harms nobody, and what it is sent stays bounded', async () => {
  await using collector = await Collector.start()
  collector.status = 400
  const { events, exporter } = await setUp(collector.url)
  for (let i = 0; i < 6000; i++) events.emit('exchange', sampleExchange())
  await exporter.close()
  const spans = collector.requests.flatMap(({ body }) =>
    JSON.parse(body.toString()).resourceSpans.flatMap(
      ({ scopeSpans }: { scopeSpans: { spans: unknown[] }[] }) => scopeSpans[0]?.spans,
    ),
  )
  // Two spans an exchange: the queue took what it holds, and dropped the rest.
  expect(spans.length).toBeGreaterThan(0)
  expect(spans.length).toBeLessThan(6000)
})

test('nobody at the other end does not hold up the stop', async () => {
  const { url, [Symbol.asyncDispose]: gone } = await Collector.start().then(async (collector) => {
    await collector[Symbol.asyncDispose]()
    return collector
  })
  expect(gone).toBeDefined()
  const { events, exporter } = await setUp(url)
  events.emit('exchange', sampleExchange())
  using pauses = new Pauses()
  const started = performance.now()
  await exporter.close()
  expect(performance.now() - started - pauses.lost).toBeLessThan(4000)
})
