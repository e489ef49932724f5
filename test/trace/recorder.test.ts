import { expect, test } from 'vitest'
import { Events } from '../../src/events.ts'
import { type Trace, TraceRecorder } from '../../src/trace/recorder.ts'
import { sampleExchange } from '../support/admin.ts'

function setUp(capacity = 3) {
  const events = new Events()
  const recorder = new TraceRecorder(events, { capacity })
  return { events, recorder }
}

test('keeps the newest requests up to its capacity and lists them newest first', () => {
  const { events, recorder } = setUp(3)
  for (let i = 1; i <= 8; i++) events.emit('exchange', sampleExchange({ id: `t${i}` }))
  expect(recorder.list({}).map((trace) => trace.id)).toEqual(['t8', 't7', 't6'])
  expect(recorder.get('t5')).toBeUndefined()
  expect(recorder.get('t6')?.id).toBe('t6')
})

test('lists a ring that is not full yet', () => {
  const { events, recorder } = setUp(3)
  expect(recorder.list({})).toEqual([])
  events.emit('exchange', sampleExchange({ id: 't1' }))
  events.emit('exchange', sampleExchange({ id: 't2' }))
  expect(recorder.list({}).map((trace) => trace.id)).toEqual(['t2', 't1'])
})

test('a trace has ISO time, null for what is unknown, and only the parts that happened', () => {
  const { events, recorder } = setUp()
  events.emit(
    'exchange',
    sampleExchange({
      status: undefined,
      refresh: { role: 'led', ms: 12.34567, result: 'renewed' },
      replay: { done: true, why: 'expired' },
    }),
  )
  const trace = recorder.get('trace-1') as Trace
  expect(trace).toEqual({
    id: 'trace-1',
    time: '2030-01-01T00:00:00.000Z',
    kind: 'exchange',
    client: { name: null, address: '127.0.0.1' },
    method: 'GET',
    url: 'https://api.example.com/v1/items?page=2',
    protocol: null,
    pool: 'supplier',
    status: null,
    durationMs: 42.123,
    waitMs: 0,
    verdict: 'ok',
    skipped: [],
    attempts: [
      {
        credential: 'alice',
        generation: 3,
        egress: 'one',
        egressAddress: null,
        address: '192.0.2.7:443',
        status: 200,
        verdict: 'ok',
        startMs: null,
        sentMs: null,
        dnsMs: null,
        connectMs: null,
        tlsMs: null,
        firstByteMs: 40,
        totalMs: 42,
        reused: true,
        protocol: null,
        fault: null,
      },
    ],
    refresh: { role: 'led', ms: 12.346, result: 'renewed' },
    replay: { done: true, why: 'expired' },
    bytes: { in: 0, out: 1024 },
    curl: null,
    story: expect.any(Array),
  })
})

test('filters by pool, credential, status, verdict, time and number', () => {
  const { events, recorder } = setUp(10)
  const start = Date.parse('2030-01-01T00:00:00Z')
  events.emit('exchange', sampleExchange({ id: 'old', time: start - 1 }))
  events.emit('exchange', sampleExchange({ id: 'other-pool', time: start, pool: 'other' }))
  events.emit(
    'exchange',
    sampleExchange({ id: 'denied', time: start, status: 403, verdict: 'denied' }),
  )
  events.emit('exchange', sampleExchange({ id: 'no-attempt', time: start, attempts: [] }))
  const ids = (filter: Parameters<TraceRecorder['list']>[0]) =>
    recorder.list(filter).map((trace) => trace.id)
  expect(ids({ pool: 'other' })).toEqual(['other-pool'])
  expect(ids({ status: 403 })).toEqual(['denied'])
  expect(ids({ verdict: 'denied' })).toEqual(['denied'])
  expect(ids({ credential: 'alice' })).toEqual(['denied', 'other-pool', 'old'])
  expect(ids({ since: start })).toEqual(['no-attempt', 'denied', 'other-pool'])
  expect(ids({ limit: 2 })).toEqual(['no-attempt', 'denied'])
  expect(ids({ pool: 'supplier', status: 200, limit: 1 })).toEqual(['no-attempt'])
})

test('subscribers get each trace masked until they leave, and closing stops recording', () => {
  const { events, recorder } = setUp()
  const seen: string[] = []
  const leave = recorder.subscribe((trace) => seen.push(trace.url))
  events.emit('exchange', sampleExchange({ url: 'https://api.example.com/?access_token=abc' }))
  leave()
  events.emit('exchange', sampleExchange())
  expect(seen).toEqual(['https://api.example.com/?access_token=[redacted]'])
  recorder.close()
  events.emit('exchange', sampleExchange({ id: 'late' }))
  expect(recorder.get('late')).toBeUndefined()
  expect(events.listenerCount('exchange') + events.listenerCount('refresh')).toBe(0)
})

test('masks the query parameters that a pool injects into', () => {
  const events = new Events()
  const recorder = new TraceRecorder(events, {
    capacity: 1,
    secretParameters: () => new Set(['k']),
  })
  events.emit('exchange', sampleExchange({ url: 'https://api.example.com/?k=abc&page=1' }))
  expect(recorder.list()[0]?.url).toBe('https://api.example.com/?k=[redacted]&page=1')
})

const REFRESH = {
  time: Date.parse('2030-01-01T00:00:01Z'),
  pool: 'supplier',
  credential: 'alice',
  cause: 'scheduled',
  result: 'failed',
  generation: 3,
  ms: 250,
  reason: 'the token endpoint answered 503',
  id: 'refresh-1',
  egress: 'one',
  calls: [{ method: 'POST', url: 'https://auth.example/token', status: 503, startMs: 10, ms: 200 }],
} as const

test('a renewal has a record of its own, with what was asked and by which egress', () => {
  const { events, recorder } = setUp()
  events.emit('refresh', REFRESH)
  const trace = recorder.get('refresh-1') as Trace
  expect(trace).toMatchObject({
    kind: 'refresh',
    time: '2030-01-01T00:00:00.750Z',
    method: 'POST',
    url: 'https://auth.example/token',
    pool: 'supplier',
    status: 503,
    verdict: 'failed',
    durationMs: 250,
    refresh: { result: 'failed (scheduled)' },
    error: { code: 'SOURCE_FAILED', message: 'the token endpoint answered 503' },
  })
  expect(trace.attempts).toMatchObject([
    { credential: 'alice', egress: 'one', status: 503, startMs: 10, totalMs: 200 },
  ])
  expect(recorder.list({ kind: 'refresh', credential: 'alice' })).toHaveLength(1)
})

test('the address that an egress shows is the one of that moment', () => {
  const events = new Events()
  let address = '192.0.2.1'
  const recorder = new TraceRecorder(events, { capacity: 3, egressAddress: () => address })
  events.emit('exchange', sampleExchange())
  address = '192.0.2.2'
  expect(recorder.list()[0]?.attempts[0]?.egressAddress).toBe('192.0.2.1')
})

test('filters by client, by name and by address, and by kind', () => {
  const { events, recorder } = setUp(10)
  const crawler = { name: 'crawler', address: '127.0.0.2' }
  events.emit('exchange', sampleExchange({ id: 'named', client: crawler }))
  events.emit('exchange', sampleExchange({ id: 'tunnel', kind: 'tunnel' }))
  const ids = (filter: Parameters<TraceRecorder['list']>[0]) =>
    recorder.list(filter).map((trace) => trace.id)
  expect(ids({ client: 'crawler' })).toEqual(['named'])
  expect(ids({ client: '127.0.0.2' })).toEqual(['named'])
  expect(ids({ kind: 'tunnel' })).toEqual(['tunnel'])
})

test('recorded messages are bounded altogether: the oldest go first, their traces stay', () => {
  const events = new Events()
  const recorder = new TraceRecorder(events, { capacity: 4, maxText: 250 })
  const body = { text: 'x'.repeat(100), size: 100, cut: false }
  const messages = () => ({ request: { headers: [], body }, response: undefined })
  for (let i = 1; i <= 7; i++) {
    events.emit('exchange', sampleExchange({ id: `t${i}`, messages: messages() }))
  }
  const kept = () => recorder.list().map(({ id, messages }) => [id, messages !== undefined])
  expect(kept()).toEqual([
    ['t7', true],
    ['t6', true],
    ['t5', false],
    ['t4', false],
  ])
  for (let i = 8; i <= 11; i++) events.emit('exchange', sampleExchange({ id: `t${i}` }))
  events.emit('exchange', sampleExchange({ id: 't12', messages: messages() }))
  expect(kept()[0]).toEqual(['t12', true])
})

test('a record is copied into a slot that is there: what happens to it later is not shown', () => {
  const { events, recorder } = setUp(1)
  events.emit('exchange', sampleExchange({ id: 'first', skippedMore: 3, protocol: 'h2' }))
  const record = sampleExchange({ id: 'second' })
  events.emit('exchange', record)
  record.bytes.out = 1
  ;(record.attempts[0] as { verdict: string }).verdict = 'changed'
  const trace = recorder.get('second') as Trace
  expect(trace.bytes.out).toBe(1024)
  expect(trace.attempts[0]?.verdict).toBe('ok')
  expect(trace.protocol).toBeNull()
  expect(trace).not.toHaveProperty('skippedMore')
})

test('URLs of any length are kept as they were, in a ring that grows and turns', () => {
  const { events, recorder } = setUp(600)
  const url = (i: number) => `https://api.example.com/${i}/${'x'.repeat((i * 37) % 500)}\xe9`
  for (let i = 0; i < 1500; i++) events.emit('exchange', sampleExchange({ url: url(i), time: i }))
  const traces = recorder.list({ limit: 600 })
  expect(traces.map((trace) => trace.url)).toEqual(
    Array.from({ length: 600 }, (_, i) => url(1499 - i)),
  )
  expect(recorder.list({ since: 1490 })).toHaveLength(10)
})
