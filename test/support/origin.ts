import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import { createServer as createTlsServer } from 'node:https'
import type { Server, Socket } from 'node:net'
import type { SecureVersion } from 'node:tls'
import { type IssuedCertificate, testAuthority } from './certificates.ts'
import { Listener } from './listener.ts'

export interface OriginRequest {
  readonly method: string
  readonly url: string
  readonly headers: string[]
  /** Whom the origin sees: tells by which egress the request left. */
  readonly remoteAddress: string
  /** Number of the connection, counted from 1. */
  readonly connection: number
  readonly body: Buffer
}

export interface OriginOptions {
  readonly tls?: boolean
  /** Names in the certificate; `localhost`, 127.0.0.1, ::1, `api.test` and `*.example.test` by default. */
  readonly names?: readonly string[]
  /** A certificate of one's own, a bad one say. */
  readonly certificate?: IssuedCertificate
  /** Newest version of TLS that it speaks. */
  readonly maxVersion?: SecureVersion
  readonly host?: string
  /** Answers instead of the default; the body has not been read then. */
  readonly handler?: (
    request: IncomingMessage,
    response: ServerResponse,
    connection: number,
  ) => void
}

export interface Origin extends AsyncDisposable {
  readonly url: string
  readonly host: string
  readonly port: number
  /** The latest 10,000 requests. */
  readonly requests: OriginRequest[]
  /** How many connections have been accepted. */
  readonly connections: number
  /** How many are open. */
  readonly openConnections: number
  /** Bytes that clients have sent over TCP, TLS records included. */
  readonly bytesReceived: number
  /** How many TLS handshakes resumed a session. */
  readonly resumedSessions: number
  close(): Promise<void>
}

const MAX_REQUESTS = 10_000
const DEFAULT_NAMES = ['localhost', '127.0.0.1', '::1', 'api.test', '*.example.test']

/** A real HTTP(S) server that tags its connections and tells in JSON what it saw. */
export async function startOrigin(options: OriginOptions = {}): Promise<Origin> {
  const host = options.host ?? '127.0.0.1'
  const requests: OriginRequest[] = []
  const tags = new WeakMap<Socket, number>()
  const sockets: Socket[] = []
  let tagged = 0
  let connections = 0
  let resumed = 0
  const tag = (socket: Socket) => {
    let number = tags.get(socket)
    if (number === undefined) {
      number = ++tagged
      tags.set(socket, number)
    }
    return number
  }
  const listener = async (request: IncomingMessage, response: ServerResponse) => {
    const connection = tag(request.socket)
    const record = {
      method: request.method ?? '',
      url: request.url ?? '',
      headers: request.rawHeaders,
      remoteAddress: request.socket.remoteAddress ?? '',
      connection,
      body: Buffer.alloc(0),
    }
    requests.push(record)
    if (requests.length > MAX_REQUESTS) requests.shift()
    if (options.handler) return options.handler(request, response, connection)
    const chunks: Buffer[] = []
    try {
      for await (const chunk of request) chunks.push(chunk)
    } catch {
      return
    }
    record.body = Buffer.concat(chunks)
    response.setHeader('content-type', 'application/json')
    response.end(
      JSON.stringify({
        authorization: request.headers.authorization,
        remoteAddress: record.remoteAddress,
        connection,
        method: record.method,
        path: record.url,
      }),
    )
  }
  const server: Server = options.tls
    ? createTlsServer(
        {
          ...(options.certificate ?? testAuthority().issue(options.names ?? DEFAULT_NAMES)),
          ...(options.maxVersion ? { maxVersion: options.maxVersion } : {}),
        },
        listener,
      ).on('secureConnection', (socket) => {
        if (socket.isSessionReused()) resumed++
      })
    : createServer(listener)
  server.on('connection', (socket: Socket) => {
    connections++
    sockets.push(socket)
  })
  const lifecycle = new Listener(server)
  const port = await lifecycle.listen(host)
  const close = () => lifecycle.close()
  return {
    url: `${options.tls ? 'https' : 'http'}://${host.includes(':') ? `[${host}]` : host}:${port}`,
    host,
    port,
    requests,
    get connections() {
      return connections
    },
    get openConnections() {
      return lifecycle.openSockets
    },
    get bytesReceived() {
      return sockets.reduce((sum, socket) => sum + socket.bytesRead, 0)
    },
    get resumedSessions() {
      return resumed
    },
    close,
    [Symbol.asyncDispose]: close,
  }
}
