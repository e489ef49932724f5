import {
  createServer,
  type IncomingMessage,
  maxHeaderSize,
  type Server,
  type ServerResponse,
  STATUS_CODES,
} from 'node:http'
import type { AddressInfo, Socket } from 'node:net'
import { CupbearerError } from '../errors.ts'
import { formatAuthority } from '../lib/authority.ts'
import { type Clock, systemClock } from '../lib/clock.ts'
import { type Logger, whereFrom } from '../lib/log.ts'
import type { Secret } from '../lib/secret.ts'
import type { Api } from './api.ts'
import type { AdminBackend } from './backend.ts'
import { problemBody } from './problem.ts'

const MAX_CONNECTIONS = 512
const REQUEST_TIMEOUT_MS = 15_000
const KEEP_ALIVE_MS = 72_000

/** A running admin listener. */
export interface AdminServer {
  /** Where this machine reaches it. */
  readonly url: string
  /** What it is bound to. */
  readonly address: string
  readonly port: number
  /** Ends event streams and connections. */
  close(): Promise<void>
}

/** Listens for the admin API and the dashboard. Throws `LISTEN_FAILED`. */
export async function startAdmin(options: {
  listen: { host: string; port: number }
  /** Further names it is reached by: HOST or HOST:PORT. */
  hosts?: readonly string[]
  token: Secret
  backend: AdminBackend
  log: Logger
  clock?: Clock
}): Promise<AdminServer> {
  const { listen, hosts = [], token, backend, log, clock = systemClock } = options
  const server = createServer({
    headersTimeout: REQUEST_TIMEOUT_MS,
    requestTimeout: REQUEST_TIMEOUT_MS,
    keepAliveTimeout: KEEP_ALIVE_MS,
    maxHeaderSize,
  })
  server.maxConnections = MAX_CONNECTIONS
  server.on('clientError', answerUnreadable)

  // What answers is loaded by the first request: until then it would only take time to start, and memory.
  let api: Promise<Api> | undefined
  const load = async () => {
    const { createApi } = await import('./api.ts')
    return createApi({ server, listenHost: listen.host, hosts, token, backend, log, clock })
  }
  server.on('request', (request: IncomingMessage, response: ServerResponse) => {
    api ??= load()
    Promise.all([api, backend.caughtUp?.()]).then(
      ([{ handle }]) => handle(request, response),
      (error: Error) => {
        api = undefined
        log.error(whereFrom(error), 'the admin API cannot be loaded')
        response.writeHead(500, { connection: 'close' }).end()
      },
    )
  })

  await open(server, listen)
  const { address, port } = server.address() as AddressInfo
  const host = address === '0.0.0.0' ? '127.0.0.1' : address === '::' ? '::1' : address
  return {
    url: `http://${formatAuthority({ host, port })}`,
    address,
    port,
    async close() {
      const closed = new Promise((resolve) => server.close(resolve))
      const loaded = await api?.catch(() => undefined)
      await loaded?.close()
      server.closeAllConnections()
      await closed
    },
  }
}

function open(server: Server, listen: { host: string; port: number }): Promise<void> {
  return new Promise((resolve, reject) => {
    const failed = (cause: NodeJS.ErrnoException) => {
      const reason = cause.code === undefined ? '' : ` (${cause.code})`
      const message = `cannot listen on ${formatAuthority(listen)} for the admin API${reason}`
      reject(new CupbearerError('LISTEN_FAILED', message, { cause }))
    }
    server.once('error', failed)
    server.listen(listen.port, listen.host, () => {
      // What fails later, for want of file descriptors say, concerns one connection.
      server.off('error', failed).on('error', () => {})
      resolve()
    })
  })
}

/** Answers what the HTTP parser refuses; there is no request then, only a socket. */
function answerUnreadable(error: Error & { code?: string }, socket: Socket): void {
  if (error.code === 'ECONNRESET' || !socket.writable) {
    socket.destroy()
    return
  }
  const status = error.code === 'ERR_HTTP_REQUEST_TIMEOUT' ? 408 : 400
  const code = 'BAD_REQUEST'
  const text = JSON.stringify(problemBody({ code, message: 'the request cannot be read' }))
  socket.end(
    `HTTP/1.1 ${status} ${STATUS_CODES[status]}\r\nContent-Type: application/json; charset=utf-8\r\n` +
      `Content-Length: ${text.length}\r\nConnection: close\r\n\r\n${text}`,
  )
}
