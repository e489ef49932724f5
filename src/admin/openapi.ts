import { REPORTABLE } from '../exchange/remote-leases.ts'
import { CREDENTIAL_ACTIONS } from './backend.ts'

/** The API as an OpenAPI 3.1 document, served at `/api/openapi.json`. */

const text = { type: 'string' }
const number = { type: 'number' }
const integer = { type: 'integer' }
const orNull = (type: string) => ({ type: [type, 'null'] })
const time = { type: 'string', format: 'date-time' }
const timeOrNull = { type: ['string', 'null'], format: 'date-time' }
const listOf = (items: object) => ({ type: 'array', items })
const record = (properties: object) => ({ type: 'object', properties })
const schema = (name: string) => ({ $ref: `#/components/schemas/${name}` })

const json = (description: string, content: object) => ({
  description,
  content: { 'application/json': { schema: content } },
})
const plain = (description: string, type: string) => ({
  description,
  content: { [type]: { schema: text } },
})
const inPath = (name: string, description: string) => ({
  name,
  in: 'path',
  required: true,
  description,
  schema: text,
})
const inQuery = (name: string, description: string, type: object = text) => ({
  name,
  in: 'query',
  description,
  schema: type,
})
const open = (summary: string, responses: object) => ({ get: { summary, security: [], responses } })
const failure = json('Refused; `code` says why', schema('Error'))
const closed = (summary: string, responses: object, parameters: object[] = []) => ({
  summary,
  parameters,
  responses: { ...responses, default: failure },
})
/** Open to clients that may lease, too. */
const leasing = (body: string, operation: ReturnType<typeof closed>) => ({
  ...operation,
  security: [{ adminToken: [] }, { client: [] }],
  requestBody: { content: { 'application/json': { schema: schema(body) } } },
})

const pool = inPath('name', 'Name of the pool')
const action = (name: string) => ({
  post: closed(
    `${name[0]?.toUpperCase()}${name.slice(1)} one credential`,
    { 200: json('The credential afterwards', schema('Credential')) },
    [pool, inPath('id', 'Id of the credential')],
  ),
})

const credential = record({
  id: text,
  state: { enum: ['pending', 'active', 'cooling', 'quarantined', 'revoked'] },
  egress: text,
  egressAddress: orNull('string'),
  generation: integer,
  subject: orNull('string'),
  scopes: { type: ['array', 'null'], items: text },
  issuedAt: timeOrNull,
  expiresAt: timeOrNull,
  lifetime: { enum: ['jwt', 'expires_in', 'learned', 'unknown'] },
  refreshAt: timeOrNull,
  uses: integer,
  inFlight: integer,
  limits: listOf(record({ limit: text, used: number, max: number })),
  cooldownUntil: timeOrNull,
  lastError: orNull('string'),
})

const attempt = record({
  credential: orNull('string'),
  generation: orNull('integer'),
  egress: text,
  address: orNull('string'),
  status: orNull('integer'),
  verdict: text,
  connectMs: orNull('number'),
  tlsMs: orNull('number'),
  firstByteMs: orNull('number'),
  totalMs: number,
  reused: { type: 'boolean' },
  fault: { enum: ['token', 'egress', 'request', 'upstream', null] },
})

const trace = record({
  id: text,
  time,
  kind: { enum: ['exchange', 'tunnel', 'denied', 'lease'] },
  client: record({ name: orNull('string'), address: text }),
  method: text,
  url: { ...text, description: 'Secret parts are masked' },
  pool: orNull('string'),
  status: orNull('integer'),
  durationMs: number,
  waitMs: number,
  verdict: text,
  skipped: listOf(record({ credential: text, why: text })),
  attempts: listOf(attempt),
  refresh: record({ role: { enum: ['led', 'joined'] }, ms: number, result: text }),
  replay: record({ done: { type: 'boolean' }, why: text }),
  bytes: record({ in: integer, out: integer }),
  error: record({ code: text, message: text }),
})

const field = record({ name: text, value: text })
const leaseSchemas = {
  LeaseAsk: record({
    session: { ...text, description: 'Stick to one credential' },
    credential: { ...text, description: 'This credential only' },
    scopes: { ...listOf(text), description: 'What the token must hold' },
    path: { ...text, description: 'Of the request, for the pool’s requires' },
    method: { ...text, default: 'GET' },
    waitSeconds: { ...number, minimum: 0, description: 'At most queue.wait, the default' },
    ttlSeconds: { ...number, minimum: 1, maximum: 300, default: 60 },
  }),
  Lease: record({
    lease: text,
    credential: text,
    token: text,
    header: { ...field, type: ['object', 'null'] },
    query: { ...field, type: ['object', 'null'] },
    headers: { type: 'object', additionalProperties: text, description: 'To be sent as well' },
    egress: record({ name: text, url: { ...text, description: 'With its credentials' } }),
    expiresAt: time,
  }),
  LeaseReport: record({
    status: { ...integer, description: 'Of upstream’s answer; or else a verdict' },
    retryAfterSeconds: number,
    headers: { type: 'object', additionalProperties: text, description: 'Of the answer' },
    body: { description: 'Of the answer, JSON or text, for matchers that look at it' },
    verdict: { enum: REPORTABLE, description: 'In place of the matchers' },
  }),
  LeaseEnd: record({
    lease: text,
    verdict: { enum: REPORTABLE },
    recovery: { enum: ['renewed', 'stale', 'failed'], description: 'Of an expired token' },
    trace: text,
  }),
}

export const openApi = {
  openapi: '3.1.0',
  info: {
    title: 'Cupbearer admin API',
    version: '1',
    description:
      'State of pools and credentials, and what each request did. No token but in a lease.',
  },
  security: [{ adminToken: [] }],
  paths: {
    '/healthz': open('Whether the process answers', {
      200: json('It does', record({ status: text })),
    }),
    '/readyz': open('Whether the proxy can serve', {
      200: json('It can', schema('Readiness')),
      503: json('It cannot; reasons are given', schema('Readiness')),
    }),
    '/metrics': open('Prometheus metrics', { 200: plain('Exposition format', 'text/plain') }),
    '/ca.pem': open('The certificate that clients must trust', {
      200: plain('PEM', 'application/x-pem-file'),
    }),
    '/proxy.pac': open('Proxy auto-config: mapped hosts by the proxy, others directly', {
      200: plain('PAC script', 'application/x-ns-proxy-autoconfig'),
    }),
    '/api/openapi.json': { get: closed('This document', { 200: json('OpenAPI 3.1', record({})) }) },
    '/api/pools': {
      get: closed('Every pool', { 200: json('Pools', record({ pools: listOf(schema('Pool')) })) }),
    },
    '/api/pools/{name}': { get: closed('One pool', { 200: json('Pool', schema('Pool')) }, [pool]) },
    ...Object.fromEntries(
      CREDENTIAL_ACTIONS.map((name) => [
        `/api/pools/{name}/credentials/{id}/${name}`,
        action(name),
      ]),
    ),
    '/api/pools/{name}/credentials/{id}/login': {
      post: closed(
        'Get a token afresh, with a person’s help where that is the way. Closing the answer gives it up',
        { 200: plain('Progress, one JSON document a line', 'application/x-ndjson') },
        [pool, inPath('id', 'Id of the credential')],
      ),
    },
    '/api/pools/{name}/capture': {
      post: closed(
        'Wait until a token of the pool is learned from traffic. Logins pass meanwhile; closing the answer gives it up',
        { 200: plain('Progress, one JSON document a line', 'application/x-ndjson') },
        [pool],
      ),
    },
    '/api/logins/{id}': {
      post: closed(
        'Hand over {"redirected": …}: where the browser was sent to, or the code',
        { 200: json('Passed on', record({ accepted: { type: 'boolean' } })) },
        [inPath('id', 'As the login’s first line tells')],
      ),
    },
    '/api/pools/{name}/leases': {
      post: leasing(
        'LeaseAsk',
        closed(
          'A token for one request of a worker’s own, and the egress that it must leave by',
          { 201: json('The lease', schema('Lease')) },
          [pool],
        ),
      ),
    },
    '/api/leases/{id}': {
      post: leasing(
        'LeaseReport',
        closed(
          'Report what came of that request',
          { 200: json('How that was understood', schema('LeaseEnd')) },
          [inPath('id', 'As in the lease')],
        ),
      ),
    },
    '/api/traces': {
      get: closed(
        'The latest requests, newest first',
        { 200: json('Traces', record({ traces: listOf(schema('Trace')) })) },
        [
          inQuery('pool', 'Of this pool'),
          inQuery('credential', 'Tried with this credential'),
          inQuery('status', 'Answered with this status', integer),
          inQuery('verdict', 'Ended with this verdict'),
          inQuery('since', 'Arrived at this time or later', time),
          inQuery('limit', 'At most so many', { ...integer, default: 100 }),
        ],
      ),
    },
    '/api/traces/{id}': {
      get: closed('One request', { 200: json('Trace', schema('Trace')) }, [
        inPath('id', 'As in the response’s Cupbearer-Trace field'),
      ]),
    },
    '/api/events': {
      get: closed('Server-sent events: trace, pool and credential, JSON data', {
        200: plain('Event stream', 'text/event-stream'),
      }),
    },
  },
  components: {
    securitySchemes: {
      adminToken: { type: 'http', scheme: 'bearer' },
      client: { type: 'http', scheme: 'basic', description: 'A client with lease: true' },
    },
    schemas: {
      Error: record({ error: record({ code: text, message: text }) }),
      Readiness: record({ ready: { type: 'boolean' }, reasons: listOf(text) }),
      Pool: record({
        name: text,
        targets: listOf(text),
        status: { enum: ['healthy', 'degraded', 'exhausted'] },
        tokens: record({
          active: integer,
          cooling: integer,
          quarantined: integer,
          pending: integer,
          revoked: integer,
        }),
        avgTtlRemainingSeconds: orNull('number'),
        refreshSuccessRate: orNull('number'),
        requestsPerTokenPerMinute: number,
        authOverhead: number,
        waiting: integer,
        credentials: listOf(schema('Credential')),
      }),
      Credential: credential,
      Trace: trace,
      ...leaseSchemas,
    },
  },
}
