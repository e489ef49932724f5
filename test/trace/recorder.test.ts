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
        address: '192.0.2.7:443',
        status: 200,
        verdict: 'ok',
        connectMs: null,
        tlsMs: null,
        firstByteMs: 40,
        totalMs: 42,
        reused: true,
        fault: null,
      },
    ],
    refresh: { role: 'led', ms: 12.346, result: 'renewed' },
    replay: { done: true, why: 'expired' },
    bytes: { in: 0, out: 1024 },
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
  expect(events.listenerCount('exchange')).toBe(0)
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
