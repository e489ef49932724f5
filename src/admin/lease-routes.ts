import type { FastifyInstance } from 'fastify'
import type { OpenLease } from '../exchange/remote-leases.ts'
import type { AdminBackend } from './backend.ts'
import { type JsonObject, takeJsonObjects } from './body.ts'
import type { LeaseAsker } from './guard.ts'
import { readAsk, readReport } from './lease-request.ts'
import { AdminError } from './problem.ts'

declare module 'fastify' {
  interface FastifyRequest {
    /** Set on routes of the access `lease`. */
    asker: LeaseAsker | null
  }
}

/** A report may bring a body of 64 KiB, written as JSON once more. */
const MAX_BODY_BYTES = 160 * 1024

/**
 * Leases for workers that cannot use the proxy: `POST …/leases` hands out a token and the egress that it must
 * leave by, `POST /api/leases/ID` says what came of it.
 */
export function addLeaseRoutes(server: FastifyInstance, backend: AdminBackend): void {
  const access = { config: { access: 'lease' as const } }
  server.decorateRequest('asker', null)

  server.register(async (scope) => {
    takeJsonObjects(scope, MAX_BODY_BYTES)

    scope.post<{ Params: { name: string }; Body: JsonObject }>(
      '/api/pools/:name/leases',
      access,
      async (request, reply) => {
        const { client, hints } = request.asker as LeaseAsker
        const ask = readAsk(request.body, hints)
        const gone = new AbortController()
        reply.raw.once('close', () => gone.abort())
        const lease = await backend.leases.open(request.params.name, client, ask, gone.signal)
        if (!lease) throw new AdminError('NOT_FOUND', 'no such pool')
        return reply.code(201).send(formatLease(lease))
      },
    )

    scope.post<{ Params: { id: string }; Body: JsonObject }>(
      '/api/leases/:id',
      access,
      async (request) => {
        const { client } = request.asker as LeaseAsker
        const { id } = request.params
        const end = await backend.leases.report(id, client, readReport(request.body))
        if (end === 'unknown') throw new AdminError('NOT_FOUND', 'no such lease')
        if (end === 'reported') throw new AdminError('LEASE_OVER', 'it has been reported before')
        if (end === 'expired') throw new AdminError('LEASE_OVER', 'the lease has expired')
        const { verdict, recovery, trace } = end
        return { lease: id, verdict, trace, ...(recovery && { recovery: recovery.result }) }
      },
    )
  })
}

/** The one answer of this API that holds secrets. */
function formatLease(lease: OpenLease) {
  const { injection, egress } = lease
  const value = injection.value.reveal()
  const { place, name } = injection
  return {
    lease: lease.id,
    credential: lease.credential,
    token: lease.token.reveal(),
    header:
      place === 'query'
        ? null
        : place === 'cookie'
          ? { name: 'Cookie', value: `${name}=${value}` }
          : { name, value },
    query: place === 'query' ? { name, value } : null,
    headers: pairs(lease.headers),
    egress: { name: egress.name, ...(egress.url && { url: egress.url.reveal() }) },
    expiresAt: new Date(lease.expiresAt).toISOString(),
  }
}

function pairs(flat: readonly string[]): Record<string, string> {
  const fields: [string, string][] = []
  for (let i = 0; i < flat.length; i += 2) fields.push([flat[i] as string, flat[i + 1] as string])
  return Object.fromEntries(fields)
}
