import type { IncomingMessage, Server, ServerResponse } from 'node:http'
import fastify, { type FastifyInstance, type FastifyReply, type FastifyRequest } from 'fastify'
import type { Clock } from '../lib/clock.ts'
import { type Logger, whereFrom } from '../lib/log.ts'
import type { Secret } from '../lib/secret.ts'
import { AuthThrottle } from '../lib/throttle.ts'
import { loadDashboard } from './assets.ts'
import type { AdminBackend } from './backend.ts'
import { addCaptureRoutes } from './capture-routes.ts'
import { addDashboardRoutes } from './dashboard-routes.ts'
import {
  checkHost,
  checkOrigin,
  identifyAsker,
  isLoopback,
  SECURITY_HEADERS,
  TokenGuard,
} from './guard.ts'
import { addLeaseRoutes } from './lease-routes.ts'
import { LiveStream } from './live.ts'
import { addLoginRoutes } from './login-routes.ts'
import { AdminError, problemBody, toProblem } from './problem.ts'
import { addApiRoutes, addOpenRoutes } from './routes.ts'
import { addSessionRoutes } from './session-routes.ts'
import { Sessions } from './sessions.ts'

const MAX_BODY_BYTES = 64 * 1024
const MAX_THROTTLED_ADDRESSES = 10_000

export interface ApiOptions {
  /** Whose requests are answered; it is opened and closed by its owner. */
  readonly server: Server
  readonly listenHost: string
  /** Further names of the listener: HOST or HOST:PORT. */
  readonly hosts: readonly string[]
  readonly token: Secret
  readonly backend: AdminBackend
  readonly log: Logger
  readonly clock: Clock
}

/** All that is answered on the admin listener. */
export interface Api {
  handle(request: IncomingMessage, response: ServerResponse): void
  /** Ends event streams. */
  close(): Promise<void>
}

/** Makes the admin API and the dashboard. */
export async function createApi(options: ApiOptions): Promise<Api> {
  const { listenHost, hosts, backend, clock } = options
  const throttle = new AuthThrottle(clock, { maxEntries: MAX_THROTTLED_ADDRESSES })
  const sessions = new Sessions(options.token, clock)
  const guard = new TokenGuard(options.token, throttle, sessions)
  const live = new LiveStream(backend, clock)
  const onLoopback = isLoopback(listenHost)
  const instance = createInstance(options.server, options.log)

  instance.addHook('onRequest', async (request, reply) => {
    reply.headers(SECURITY_HEADERS)
    checkHost(request.raw, listenHost, hosts)
    // Before credentials are looked at: no page of a stranger's makes guesses in the operator's name.
    if (request.method !== 'GET' && request.method !== 'HEAD') checkOrigin(request.headers)
    const { access } = request.routeOptions.config
    const open = access === 'anybody' || (access === 'loopback' && onLoopback)
    if (access === 'lease') request.asker = identifyAsker(request.raw, guard, backend)
    else if (!open) {
      guard.check(request.headers.authorization, request.raw.socket, access === 'token')
    }
  })
  addOpenRoutes(instance, backend, await loadDashboard())
  addApiRoutes(instance, backend, live)
  addDashboardRoutes(instance, backend, clock)
  addSessionRoutes(instance, guard, sessions)
  addLoginRoutes(instance, backend)
  addCaptureRoutes(instance, backend)
  addLeaseRoutes(instance, backend)
  await instance.ready()
  return {
    handle: (request, response) => instance.routing(request, response),
    async close() {
      live.close()
      await instance.close()
    },
  }
}

function createInstance(server: Server, log: Logger): FastifyInstance {
  const instance = fastify({
    logger: false,
    bodyLimit: MAX_BODY_BYTES,
    serverFactory: () => server,
    // No route has a schema: what would compile them is the larger part of the library.
    schemaController: {
      compilersFactory: { buildValidator: refuseSchema, buildSerializer: refuseSchema },
    },
    // A credential's id may have 128 characters, percent-encoded.
    routerOptions: { maxParamLength: 512 },
    frameworkErrors: (error, request, reply) => {
      // The router gives up on a malformed path before the hooks run.
      reply.headers(SECURITY_HEADERS)
      answer(error, request, reply)
    },
    // There is no request then, only a socket: its owner answers.
    clientErrorHandler: () => {},
  })
  // Actions take no body; whatever is sent is read up to the limit and dropped.
  instance.removeAllContentTypeParsers()
  instance.addContentTypeParser('*', { parseAs: 'buffer' }, async () => undefined)
  instance.setNotFoundHandler((request) => {
    const known = ['GET', 'POST'].some((method) => instance.findRoute({ method, url: request.url }))
    throw known
      ? new AdminError('METHOD_NOT_ALLOWED', 'this path takes another method')
      : new AdminError('NOT_FOUND', 'nothing is here')
  })
  const answer = (error: unknown, request: FastifyRequest, reply: FastifyReply) => {
    const problem = toProblem(error)
    if (problem.code === 'INTERNAL') {
      log.error({ route: request.routeOptions.url, ...whereFrom(error) }, 'an admin request failed')
    }
    if (problem.code === 'UNAUTHENTICATED') {
      const basic = request.routeOptions.config.access === 'lease'
      reply.header('www-authenticate', basic ? 'Bearer, Basic realm="cupbearer"' : 'Bearer')
    }
    if (problem.retryAfterMs !== undefined) {
      reply.header('retry-after', Math.ceil(problem.retryAfterMs / 1000))
    }
    return reply.code(problem.status).send(problemBody(problem))
  }
  instance.setErrorHandler(answer)
  return instance
}

function refuseSchema(): never {
  throw new Error('routes have no schemas')
}
