import type { FastifyInstance } from 'fastify'
import { type JsonObject, takeJsonObjects } from './body.ts'
import type { TokenGuard } from './guard.ts'
import { AdminError } from './problem.ts'
import type { Handed, Sessions } from './sessions.ts'

const MAX_BODY_BYTES = 1024

/** How the dashboard is entered: `POST /api/dashboard-links` makes a link, `POST /api/sessions` changes it for a session. */
export function addSessionRoutes(
  server: FastifyInstance,
  guard: TokenGuard,
  sessions: Sessions,
): void {
  // The admin token's holder only: a session must not be able to prolong itself.
  server.post('/api/dashboard-links', { config: { access: 'token' } }, (request, reply) => {
    const { value, expiresAt } = sessions.link()
    // After the `#`: what stands there is sent to no server and gets into no log.
    const url = `http://${request.headers.host}/#code=${value}`
    return reply.code(201).send({ url, expiresAt: time(expiresAt) })
  })
  server.register(async (scope) => {
    takeJsonObjects(scope, MAX_BODY_BYTES)
    scope.post<{ Body: JsonObject }>(
      '/api/sessions',
      { config: { access: 'anybody' } },
      (request, reply) => {
        const code = request.body?.code
        if (code === undefined) {
          guard.check(request.headers.authorization, request.raw.socket, true)
          return reply.code(201).send(handed(sessions.start()))
        }
        if (typeof code !== 'string') {
          throw new AdminError('BAD_REQUEST', 'expected {"code": "of a link"}')
        }
        return reply.code(201).send(handed(guard.redeem(code, request.raw.socket)))
      },
    )
  })
}

const handed = ({ value, expiresAt }: Handed) => ({ session: value, expiresAt: time(expiresAt) })

const time = (ms: number) => new Date(ms).toISOString()
