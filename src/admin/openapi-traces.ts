import {
  closed,
  inPath,
  inQuery,
  integer,
  json,
  listOf,
  number,
  orNull,
  record,
  schema,
  text,
  time,
} from './openapi-parts.ts'

const KIND = { enum: ['exchange', 'websocket', 'tunnel', 'denied', 'lease', 'refresh'] }
const PROTOCOL = { enum: ['h1', 'h2', null] }

const attempt = record({
  credential: orNull('string'),
  generation: orNull('integer'),
  egress: text,
  egressAddress: { ...orNull('string'), description: 'What targets see of that egress' },
  address: orNull('string'),
  status: orNull('integer'),
  verdict: text,
  startMs: { ...orNull('number'), description: 'From the request’s arrival' },
  sentMs: { ...orNull('number'), description: 'Until its first byte left, connecting included' },
  dnsMs: { ...orNull('number'), description: 'Part of connectMs' },
  connectMs: orNull('number'),
  tlsMs: orNull('number'),
  firstByteMs: orNull('number'),
  totalMs: number,
  reused: { type: 'boolean' },
  protocol: PROTOCOL,
  call: { ...record({ method: text, url: text }), description: 'Of a renewal: what was asked' },
  fault: { enum: ['token', 'egress', 'request', 'upstream', null] },
})

const call = record({
  method: text,
  url: text,
  status: { ...integer, description: 'Missing where no answer came' },
  startMs: number,
  ms: number,
})

const body = record({
  text,
  size: { ...integer, description: 'Bytes that passed' },
  cut: { type: 'boolean', description: 'Whether there was more' },
})
const headers = { ...listOf(text), description: 'Flat: name, value, …' }

export const trace = record({
  id: text,
  time,
  kind: KIND,
  client: record({ name: orNull('string'), address: text }),
  method: text,
  url: { ...text, description: 'Secret parts are masked' },
  protocol: { ...PROTOCOL, description: 'What the client speaks' },
  pool: orNull('string'),
  status: orNull('integer'),
  durationMs: number,
  waitMs: number,
  verdict: text,
  skipped: {
    ...listOf(record({ credential: text, why: text })),
    description: 'Candidates that could not be had, where the first choice was not at hand',
  },
  skippedMore: { ...integer, description: 'How many more there were' },
  attempts: listOf(attempt),
  refresh: record({
    role: { enum: ['led', 'joined'] },
    ms: number,
    result: text,
    startMs: number,
    trace: { ...text, description: 'The renewal’s own trace' },
    calls: listOf(call),
  }),
  replay: record({ done: { type: 'boolean' }, why: text }),
  bytes: record({ in: integer, out: integer }),
  error: record({ code: text, message: text }),
  parent: { ...text, description: 'The client’s traceparent, with trace.otlp' },
  span: { ...listOf(text), description: 'Trace and span id that upstream was told' },
  messages: {
    ...record({
      request: record({ headers, body }),
      response: record({ reason: text, headers, body }),
    }),
    description: 'With trace.headers, trace.bodies or trace.har; secrets are replaced',
  },
  story: { ...listOf(text), description: 'In plain words; of one trace only' },
  curl: { ...orNull('string'), description: 'Sends it again through the proxy; of one trace only' },
})

const filters = [
  inQuery('pool', 'Of this pool'),
  inQuery('credential', 'Tried with this credential'),
  inQuery('status', 'Answered with this status', integer),
  inQuery('verdict', 'Ended with this verdict'),
  inQuery('client', 'From this client, by name or address'),
  inQuery('kind', 'Of this kind', KIND),
  inQuery('since', 'Arrived at this time or later', time),
]

export const tracePaths = {
  '/api/traces': {
    get: closed(
      'The latest requests, newest first',
      { 200: json('Traces', record({ traces: listOf(schema('Trace')) })) },
      [...filters, inQuery('limit', 'At most so many', { ...integer, default: 100 })],
    ),
  },
  '/api/traces.har': {
    get: closed(
      'The latest requests as an HTTP archive',
      { 200: json('HAR 1.2, oldest first', record({ log: record({}) })) },
      [...filters, inQuery('limit', 'At most so many', integer)],
    ),
  },
  '/api/traces/{id}': {
    get: closed('One request', { 200: json('Trace', schema('Trace')) }, [
      inPath('id', 'As in the response’s Cupbearer-Trace field'),
    ]),
  },
}
