import type { FastifyInstance } from 'fastify'
import type { Asset } from './assets.ts'
import { type AdminBackend, CREDENTIAL_ACTIONS } from './backend.ts'
import { formatCredential, formatPool, formatSummary } from './format.ts'
import type { LiveStream } from './live.ts'
import { openApi } from './openapi.ts'
import { proxyAutoConfig } from './pac.ts'
import { AdminError } from './problem.ts'
import { onlyParameters, type Query, readChoice, readInteger } from './query.ts'
import { readTraceQuery } from './trace-query.ts'

/**
 * Who may ask: anybody, anybody while the listener is on loopback, clients that may lease beside the admin token,
 * holders of the admin token alone, or those and sessions of the dashboard (the default).
 */
export type Access = 'anybody' | 'loopback' | 'lease' | 'token'

declare module 'fastify' {
  interface FastifyContextConfig {
    access?: Access
  }
}

/** Health, metrics, CA, PAC and the dashboard's files: what a program without the token may have. */
export function addOpenRoutes(
  server: FastifyInstance,
  backend: AdminBackend,
  assets: readonly Asset[],
): void {
  const anybody = { config: { access: 'anybody' as const } }
  const loopback = { config: { access: 'loopback' as const } }

  server.get('/healthz', anybody, () => ({ status: 'ok' }))
  server.get('/readyz', anybody, (_request, reply) => {
    const { ready, reasons } = backend.ready()
    return reply.code(ready ? 200 : 503).send({ ready, reasons })
  })
  server.get('/metrics', loopback, async (request, reply) => {
    const { text, contentType } = await backend.metrics(request.headers.accept)
    return reply.type(contentType).send(text)
  })
  server.get('/ca.pem', loopback, (_request, reply) =>
    reply
      .type('application/x-pem-file')
      .header('content-disposition', 'attachment; filename="cupbearer-ca.pem"')
      .send(backend.caPem()),
  )
  server.get('/proxy.pac', loopback, (request, reply) => {
    const targets = backend.pools().flatMap((pool) => pool.targets)
    return reply
      .type('application/x-ns-proxy-autoconfig')
      .send(proxyAutoConfig(targets, backend.proxyUrl(), request.hostname))
  })
  for (const { path, contentType, content } of assets) {
    server.get(path, anybody, (_request, reply) => reply.type(contentType).send(content))
  }
}

/** The API proper. */
export function addApiRoutes(
  server: FastifyInstance,
  backend: AdminBackend,
  live: LiveStream,
): void {
  const egressAddress = (egress: string) => backend.egressAddress(egress)
  const findPool = (name: string) => {
    const pool = backend.pools().find((candidate) => candidate.name === name)
    if (!pool) throw new AdminError('NOT_FOUND', 'no such pool')
    return pool
  }

  server.get('/api/openapi.json', () => openApi)
  server.get('/api/pools', (request) => {
    const query = request.query as Query
    onlyParameters(query, ['credentials'])
    const brief = readChoice(query, 'credentials', ['true', 'false']) === 'false'
    return {
      pools: backend
        .pools()
        .map((pool) => (brief ? formatSummary(pool) : formatPool(pool, egressAddress))),
    }
  })
  server.get<{ Params: { name: string } }>('/api/pools/:name', (request) =>
    formatPool(findPool(request.params.name), egressAddress),
  )
  for (const action of CREDENTIAL_ACTIONS) {
    server.post<{ Params: { name: string; id: string } }>(
      `/api/pools/:name/credentials/:id/${action}`,
      async (request) => {
        const { name, id } = request.params
        if ((await backend.act(name, id, action)) === 'unknown') {
          throw new AdminError('NOT_FOUND', 'no such credential')
        }
        const status = findPool(name).credentials.find((credential) => credential.id === id)
        if (!status) throw new AdminError('NOT_FOUND', 'no such credential')
        return formatCredential(status, egressAddress(status.egress))
      },
    )
  }
  server.get('/api/traces', (request) => ({
    traces: backend.traces.list(readTraceQuery(request.query as Record<string, unknown>)),
  }))
  server.get('/api/traces.har', (request, reply) =>
    reply
      .type('application/json')
      .header('content-disposition', 'attachment; filename="cupbearer.har"')
      .send(backend.traces.har(readTraceQuery(request.query as Query))),
  )
  server.get<{ Params: { id: string } }>('/api/traces/:id', (request) => {
    const trace = backend.traces.get(request.params.id)
    if (trace === undefined) throw new AdminError('NOT_FOUND', 'no such trace, or no longer kept')
    return trace
  })
  server.get('/api/events', { exposeHeadRoute: false }, (request, reply) => {
    const query = request.query as Query
    onlyParameters(query, ['traces'])
    const tracesPerSecond = readInteger(query, 'traces', 0, 1_000_000)
    live.admit()
    reply.hijack()
    live.add(reply.raw, tracesPerSecond)
  })
}
