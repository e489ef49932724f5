import { REPORTABLE } from '../exchange/remote-leases.ts'
import { CREDENTIAL_ACTIONS } from './backend.ts'
import { SORTS, STATES } from './credential-query.ts'
import {
  closed,
  inPath,
  inQuery,
  integer,
  json,
  leasing,
  listOf,
  number,
  open,
  orNull,
  plain,
  record,
  schema,
  text,
  time,
  timeOrNull,
} from './openapi-parts.ts'
import { trace, tracePaths } from './openapi-traces.ts'

/** The API as an OpenAPI 3.1 document, served at `/api/openapi.json`. */

const pool = inPath('name', 'Name of the pool')
const action = (name: string) => ({
  post: closed(
    `${name[0]?.toUpperCase()}${name.slice(1)} one credential`,
    { 200: json('The credential afterwards', schema('Credential')) },
    [pool, inPath('id', 'Id of the credential')],
  ),
})

const STATE = { enum: STATES }

const credential = record({
  id: text,
  state: STATE,
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

const count = listOf(integer)

const egress = record({
  name: text,
  up: { type: 'boolean' },
  address: { ...orNull('string'), description: 'As upstreams see it, where it is probed' },
  drift: { ...record({ time, from: text, to: text }), type: ['object', 'null'] },
  reason: orNull('string'),
  since: timeOrNull,
  pools: listOf(
    record({ pool: text, ...Object.fromEntries(STATES.map((state) => [state, integer])) }),
  ),
})

const history = record({
  stepSeconds: integer,
  end: { ...time, description: 'Of the last step' },
  steps: integer,
  pools: {
    type: 'object',
    additionalProperties: record({
      ok: count,
      expired: count,
      limited: count,
      denied: count,
      failed: count,
      refreshes: count,
      ttlSeconds: listOf(orNull('number')),
      active: count,
    }),
  },
})

const activity = record({
  seq: integer,
  event: { enum: ['credential', 'egress', 'config'] },
  time,
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
      get: closed('Every pool', { 200: json('Pools', record({ pools: listOf(schema('Pool')) })) }, [
        inQuery('credentials', 'false leaves the credentials out', { type: 'boolean' }),
      ]),
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
    ...tracePaths,
    '/api/events': {
      get: closed(
        'Server-sent events with JSON data: trace, pool, credential, egress, config; omitted counts traces left out',
        { 200: plain('Event stream', 'text/event-stream') },
        [inQuery('traces', 'At most so many in a second; all, unless given', integer)],
      ),
    },
    '/api/pools/{name}/credentials': {
      get: closed(
        'A page of a pool’s credentials',
        {
          200: json(
            'Credentials; total counts all that match',
            record({ total: integer, offset: integer, credentials: listOf(schema('Credential')) }),
          ),
        },
        [
          pool,
          inQuery('state', 'In this state', STATE),
          inQuery('egress', 'Pinned to this egress'),
          inQuery('search', 'With this in id, subject, egress or last error'),
          inQuery('sort', 'Their order', { enum: SORTS, default: 'configured' }),
          inQuery('offset', 'After so many', { ...integer, default: 0 }),
          inQuery('limit', 'At most so many', { ...integer, default: 100, maximum: 1000 }),
        ],
      ),
    },
    '/api/pools/{name}/credentials/{id}': {
      get: closed('One credential', { 200: json('Credential', schema('Credential')) }, [
        pool,
        inPath('id', 'Id of the credential'),
      ]),
    },
    '/api/egresses': {
      get: closed('Every egress, and how many credentials of which pool leave by it', {
        200: json('Egresses', record({ egresses: listOf(egress) })),
      }),
    },
    '/api/history': {
      get: closed(
        'The last hour of each pool in steps of 10 s, oldest first',
        { 200: json('History', history) },
        [inQuery('since', 'Only steps that ended after this time', time)],
      ),
    },
    '/api/activity': {
      get: closed('What last happened to credentials, egresses and the configuration', {
        200: json(
          'Events as the stream tells them, newest first',
          record({ activity: listOf(activity) }),
        ),
      }),
    },
    '/api/dashboard-links': {
      post: closed('A link that signs one browser in, once and within 5 minutes', {
        201: json('The link', record({ url: text, expiresAt: time })),
      }),
    },
    '/api/sessions': {
      post: {
        ...closed(
          'Change {"code": …} of a link, or the admin token, for a session of the dashboard',
          {
            201: json(
              'The session, a bearer that gets no lease',
              record({ session: text, expiresAt: time }),
            ),
          },
        ),
        security: [{ adminToken: [] }, {}],
      },
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
        trouble: orNull('string'),
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
