import { maxHeaderSize, STATUS_CODES } from 'node:http'
import type { AddressInfo, Socket } from 'node:net'
import fastify, { type FastifyInstance, type FastifyReply, type FastifyRequest } from 'fastify'
import { CupbearerError } from '../errors.ts'
import { formatAuthority } from '../lib/authority.ts'
import { type Clock, systemClock } from '../lib/clock.ts'
import type { Logger } from '../lib/log.ts'
import type { Secret } from '../lib/secret.ts'
import { AuthThrottle } from '../lib/throttle.ts'
import { loadDashboard } from './assets.ts'
import type { AdminBackend } from './backend.ts'
import { checkHost, checkOrigin, isLoopback, SECURITY_HEADERS, TokenGuard } from './guard.ts'
import { LiveStream } from './live.ts'
import { AdminError, type Problem, toProblem } from './problem.ts'
import { addApiRoutes, addOpenRoutes } from './routes.ts'

const MAX_BODY_BYTES = 64 * 1024
const MAX_CONNECTIONS = 512
const REQUEST_TIMEOUT_MS = 15_000
const MAX_THROTTLED_ADDRESSES = 10_000

/** A running admin listener. */
export interface AdminServer {
  /** Where this machine reaches it. */
  readonly url: string
  readonly port: number
  /** Ends event streams and connections. */
  close(): Promise<void>
}

/** Listens for the admin API and the dashboard. Throws `LISTEN_FAILED`. */
export async function startAdmin(options: {
  listen: { host: string; port: number }
  token: Secret
  backend: AdminBackend
  log: Logger
  clock?: Clock
}): Promise<AdminServer> {
  const { listen, backend, log, clock = systemClock } = options
  const throttle = new AuthThrottle(clock, { maxEntries: MAX_THROTTLED_ADDRESSES })
  const guard = new TokenGuard(options.token, throttle)
  const live = new LiveStream(backend, clock)
  const onLoopback = isLoopback(listen.host)
  const server = createServer(log)

  server.addHook('onRequest', async (request, reply) => {
    reply.headers(SECURITY_HEADERS)
    checkHost(request.raw, listen.host)
    const { access } = request.routeOptions.config
    const open = access === 'anybody' || (access === 'loopback' && onLoopback)
    if (!open) guard.check(request.headers.authorization, request.raw.socket)
    if (request.method !== 'GET' && request.method !== 'HEAD') checkOrigin(request.headers)
  })
  addOpenRoutes(server, backend, await loadDashboard())
  addApiRoutes(server, backend, live)

  try {
    await server.listen({ host: listen.host, port: listen.port })
  } catch (cause) {
    await server.close()
    const reason = cause instanceof Error && 'code' in cause ? ` (${cause.code})` : ''
    const message = `cannot listen on ${formatAuthority(listen)} for the admin API${reason}`
    throw new CupbearerError('LISTEN_FAILED', message, { cause })
  }
  const { address, port } = server.server.address() as AddressInfo
  const host = address === '0.0.0.0' ? '127.0.0.1' : address === '::' ? '::1' : address
  return {
    url: `http://${formatAuthority({ host, port })}`,
    port,
    async close() {
      live.close()
      await server.close()
    },
  }
}

function createServer(log: Logger): FastifyInstance {
  const server = fastify({
    logger: false,
    bodyLimit: MAX_BODY_BYTES,
    forceCloseConnections: true,
    requestTimeout: REQUEST_TIMEOUT_MS,
    http: { headersTimeout: REQUEST_TIMEOUT_MS, maxHeaderSize },
    // A credential's id may have 128 characters, percent-encoded.
    routerOptions: { maxParamLength: 512 },
    frameworkErrors: (error, request, reply) => {
      // The router gives up on a malformed path before the hooks run.
      reply.headers(SECURITY_HEADERS)
      answer(error, request, reply)
    },
    clientErrorHandler,
  })
  server.server.maxConnections = MAX_CONNECTIONS
  // Actions take no body; whatever is sent is read up to the limit and dropped.
  server.removeAllContentTypeParsers()
  server.addContentTypeParser('*', { parseAs: 'buffer' }, async () => undefined)
  server.setNotFoundHandler((request) => {
    const known = ['GET', 'POST'].some((method) => server.findRoute({ method, url: request.url }))
    throw known
      ? new AdminError('METHOD_NOT_ALLOWED', 'this path takes another method')
      : new AdminError('NOT_FOUND', 'nothing is here')
  })
  const answer = (error: unknown, request: FastifyRequest, reply: FastifyReply) => {
    const problem = toProblem(error)
    if (problem.code === 'INTERNAL') {
      const stack = error instanceof Error ? error.stack : undefined
      log.error({ route: request.routeOptions.url, stack }, 'an admin request failed')
    }
    if (problem.code === 'UNAUTHENTICATED') reply.header('www-authenticate', 'Bearer')
    if (problem.retryAfterMs !== undefined) {
      reply.header('retry-after', Math.ceil(problem.retryAfterMs / 1000))
    }
    return reply.code(problem.status).send(body(problem))
  }
  server.setErrorHandler(answer)
  return server
}

/** Answers what the HTTP parser refuses; there is no request then, only a socket. */
function clientErrorHandler(error: Error & { code?: string }, socket: Socket): void {
  if (error.code === 'ECONNRESET' || !socket.writable) {
    socket.destroy()
    return
  }
  const status = error.code === 'ERR_HTTP_REQUEST_TIMEOUT' ? 408 : 400
  const code = 'BAD_REQUEST'
  const text = JSON.stringify(body({ code, message: 'the request cannot be read' }))
  socket.end(
    `HTTP/1.1 ${status} ${STATUS_CODES[status]}\r\nContent-Type: application/json; charset=utf-8\r\n` +
      `Content-Length: ${text.length}\r\nConnection: close\r\n\r\n${text}`,
  )
}

function body({ code, message }: Pick<Problem, 'code' | 'message'>) {
  return { error: { code, message } }
}
