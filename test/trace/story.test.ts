import { expect, test } from 'vitest'
import { Events, type ExchangeRecord } from '../../src/events.ts'
import { type ToldTrace, TraceRecorder } from '../../src/trace/recorder.ts'
import { sampleExchange } from '../support/admin.ts'

function told(changes: Partial<ExchangeRecord>): ToldTrace {
  const events = new Events()
  const recorder = new TraceRecorder(events, {
    capacity: 1,
    egressAddress: () => '203.0.113.9',
    proxy: () => ({ url: 'http://127.0.0.1:8080', ca: '/etc/cup bearer/ca.pem' }),
  })
  events.emit('exchange', sampleExchange({ id: 't1', ...changes }))
  return recorder.get('t1') as ToldTrace
}

const ATTEMPT = sampleExchange().attempts[0] as ExchangeRecord['attempts'][number]

test('a healed request is told from its arrival to its end', () => {
  const { story } = told({
    client: { name: 'crawler', address: '127.0.0.1' },
    durationMs: 312,
    waitMs: 20,
    skipped: [
      { credential: 'bob', why: 'its rate limit is reached' },
      { credential: 'carol', why: 'revoked: invalid_grant' },
    ],
    skippedMore: 7,
    attempts: [
      {
        ...ATTEMPT,
        status: 401,
        verdict: 'expired',
        dnsMs: 1,
        connectMs: 4,
        tlsMs: 12,
        firstByteMs: 40,
        totalMs: 41,
        reused: false,
      },
      { ...ATTEMPT, generation: 4, firstByteMs: 20, totalMs: 21 },
    ],
    refresh: {
      role: 'led',
      ms: 120,
      result: 'renewed',
      trace: 'r9',
      calls: [
        { method: 'POST', url: 'https://auth.example/token', status: 200, startMs: 0, ms: 110 },
      ],
    },
    replay: { done: true, why: 'the token was renewed' },
    bytes: { in: 10, out: 20_480 },
  })
  expect(story).toEqual([
    'GET https://api.example.com/v1/items?page=2',
    '200 after 312 ms: all went well',
    '  At 2030-01-01T00:00:00.000Z it came from crawler at 127.0.0.1 for pool supplier; trace t1.',
    '  It waited 20 ms for a token: bob (its rate limit is reached), carol (revoked: invalid_grant), and 7 more could not be had.',
    '  It went out with the token of alice (generation 3) by egress one (seen as 203.0.113.9) to 192.0.2.7:443: 401, the token has expired; to blame: the token (DNS 1.0 ms, connect 4.0 ms, TLS 12 ms, first byte after 40 ms, all 41 ms).',
    '  Its token was renewed for it: a new token was there after 120 ms (POST https://auth.example/token answered 200 in 110 ms); trace r9.',
    '  It was sent again (the token was renewed) with the token of alice (generation 4) by egress one (seen as 203.0.113.9) to 192.0.2.7:443 over a kept connection: 200 (first byte after 20 ms, all 21 ms).',
    '  10 bytes came from the client, 20.5 kB went back.',
  ])
})

test('a refusal says why, and that nothing was sent again', () => {
  const { story } = told({
    status: 503,
    verdict: 'POOL_EXHAUSTED',
    attempts: [],
    skipped: [{ credential: 'alice', why: 'quarantined: upstream refused the token' }],
    replay: { done: false, why: 'the request body is too large to be sent again' },
    error: { code: 'POOL_EXHAUSTED', message: 'pool supplier has no usable token' },
  })
  expect(story[1]).toBe('503 after 42 ms: POOL_EXHAUSTED')
  expect(story.slice(3)).toEqual([
    '  alice (quarantined: upstream refused the token) could not be had.',
    '  It was not sent again: the request body is too large to be sent again.',
    '  It ended with POOL_EXHAUSTED: pool supplier has no usable token.',
    '  0 bytes came from the client, 1024 bytes went back.',
  ])
})

test('the curl command goes through the proxy, quotes all, and leaves out every secret', () => {
  const { curl } = told({
    client: { name: 'crawler', address: '127.0.0.1' },
    method: 'POST',
    url: 'https://api.example.com/v1/items?name=[a]&api_key=hunter2',
    messages: {
      request: {
        headers: [
          ...['Host', 'api.example.com', 'Content-Length', '7', 'X-Note', "it's $HOME"],
          ...['Authorization', 'Bearer [redacted]', 'content-type', 'application/json'],
        ],
        body: { text: `{"a":1}`, size: 7, cut: false },
      },
      response: undefined,
    },
  })
  expect(curl).toBe(
    [
      'curl --globoff -x http://127.0.0.1:8080 --proxy-user crawler',
      "--cacert '/etc/cup bearer/ca.pem' -X POST",
      `-H 'X-Note: it'\\''s $HOME' -H 'content-type: application/json' --data-binary '{"a":1}'`,
      "'https://api.example.com/v1/items?name=[a]&api_key=[redacted]'",
    ].join(' '),
  )
})

test('a body that was cut or holds a secret is not in the command, nor is there one for a renewal', () => {
  const request = (body: { text: string; size: number; cut: boolean }) =>
    told({ messages: { request: { headers: [], body }, response: undefined } }).curl
  expect(request({ text: 'abc', size: 9, cut: true })).not.toContain('--data')
  expect(request({ text: 'p=[redacted]', size: 9, cut: false })).not.toContain('--data')
  expect(told({ kind: 'refresh' }).curl).toBeNull()
})
