import {
  createSecureServer,
  type IncomingHttpHeaders,
  type ServerHttp2Session,
  type ServerHttp2Stream,
  type Settings,
} from 'node:http2'
import { testAuthority } from './certificates.ts'
import { Listener } from './listener.ts'

export interface Http2Request {
  readonly headers: IncomingHttpHeaders
  /** Flat, in their order, pseudo fields first. */
  readonly raw: string[]
  /** Number of the connection, counted from 1. */
  readonly connection: number
  readonly session: ServerHttp2Session
}

export interface Http2OriginOptions {
  readonly settings?: Settings
  readonly handler: (stream: ServerHttp2Stream, request: Http2Request) => void | Promise<void>
}

export interface Http2Origin extends AsyncDisposable {
  readonly url: string
  readonly port: number
  readonly requests: Http2Request[]
  /** The sessions that were opened, the closed ones too. */
  readonly sessions: ServerHttp2Session[]
  /** How many streams are open. */
  readonly openStreams: number
  readonly openConnections: number
}

/** A real HTTP/2 server over TLS, named as `startOrigin`'s are; it speaks nothing else. */
export async function startHttp2Origin(options: Http2OriginOptions): Promise<Http2Origin> {
  const names = ['localhost', '127.0.0.1', '::1', 'api.test', '*.example.test']
  const requests: Http2Request[] = []
  const sessions: ServerHttp2Session[] = []
  let openStreams = 0
  const server = createSecureServer({
    ...testAuthority().issue(names),
    ...(options.settings && { settings: options.settings }),
  })
  server.on('sessionError', () => {})
  server.on('session', (session) => {
    sessions.push(session)
    const connection = sessions.length
    session.on('error', () => {})
    session.on(
      'stream',
      (stream: ServerHttp2Stream, headers: IncomingHttpHeaders, _flags: number, raw: string[]) => {
        openStreams += 1
        stream.on('error', () => {})
        stream.on('close', () => {
          openStreams -= 1
        })
        const request = { headers, raw, connection, session }
        requests.push(request)
        Promise.resolve(options.handler(stream, request)).catch(() => stream.close())
      },
    )
  })
  const lifecycle = new Listener(server)
  const port = await lifecycle.listen('127.0.0.1')
  return {
    url: `https://127.0.0.1:${port}`,
    port,
    requests,
    sessions,
    get openStreams() {
      return openStreams
    },
    get openConnections() {
      return lifecycle.openSockets
    },
    [Symbol.asyncDispose]: () => lifecycle.close(),
  }
}

/** The whole body of a request. */
export async function bodyOf(stream: AsyncIterable<Buffer>): Promise<Buffer> {
  const chunks: Buffer[] = []
  for await (const chunk of stream) chunks.push(chunk)
  return Buffer.concat(chunks)
}
