import { createServer as createHttpServer } from 'node:http'
import { createServer as createTlsServer } from 'node:https'
import { connect, type Socket } from 'node:net'
import { type IssuedCertificate, testAuthority } from './certificates.ts'
import { Listener } from './listener.ts'

export type HttpProxyBehaviour =
  | 'normal'
  | 'refuse-407'
  | 'redirect-302'
  /** Does not speak HTTP. */
  | 'garbage'
  /** Opens the tunnel and speaks into it in the same write. */
  | 'garbage-after-200'
  /** Opens a tunnel to nowhere and speaks into it a little later. */
  | 'garbage-later'
  /** An answer that never ends its header. */
  | 'endless-header'
  | 'hang'
  /** Accepts and closes. */
  | 'close'

export interface HttpProxyOptions {
  readonly host?: string
  /** Where another has been killed; a free one by default. */
  readonly port?: number
  /** Address that it dials from: the one that origins see. */
  readonly outboundAddress?: string
  readonly auth?: { readonly user: string; readonly pass: string }
  /** Speak TLS with its clients. */
  readonly tls?: boolean
  /** A certificate of one's own, a bad one say. */
  readonly certificate?: IssuedCertificate
  readonly behaviour?: HttpProxyBehaviour
}

export interface HttpProxy extends AsyncDisposable {
  /** As the `egress` configuration wants it, credentials included. */
  readonly url: string
  readonly host: string
  readonly port: number
  /** Authorities it was asked for, in order. */
  readonly targets: string[]
  /** Bytes that clients have sent through its tunnels. */
  readonly bytesThrough: number
  readonly openConnections: number
  /** Can be changed at any time; holds for the next CONNECT. */
  behaviour: HttpProxyBehaviour
  close(): Promise<void>
}

/** A real CONNECT proxy that leaves by an address of its own. */
export async function startHttpProxy(options: HttpProxyOptions = {}): Promise<HttpProxy> {
  const host = options.host ?? '127.0.0.2'
  const outbound = options.outboundAddress ?? host
  const targets: string[] = []
  let behaviour = options.behaviour ?? 'normal'
  let bytesThrough = 0
  const credentials = options.auth
    ? Buffer.from(`${options.auth.user}:${options.auth.pass}`).toString('base64')
    : undefined

  const server = options.tls
    ? createTlsServer(options.certificate ?? testAuthority().issue([host]))
    : createHttpServer()
  const lifecycle = new Listener(server)

  const tunnel = (client: Socket, authority: string) => {
    const [, name, port] = /^\[?([^\]]*)\]?:(\d+)$/.exec(authority) ?? []
    const origin = connect({
      host: name ?? '',
      port: Number(port),
      localAddress: outbound,
      noDelay: true,
    })
    lifecycle.track(origin)
    origin.once('error', () => client.end('HTTP/1.1 502 Bad Gateway\r\n\r\n'))
    origin.once('connect', () => {
      client.write('HTTP/1.1 200 Connection established\r\n\r\n')
      client.on('data', (chunk: Buffer) => {
        bytesThrough += chunk.length
      })
      client.pipe(origin).pipe(client)
      client.once('close', () => origin.destroy())
      origin.once('close', () => client.destroy())
    })
  }

  server.on('connect', (request, client: Socket) => {
    const authority = request.url ?? ''
    targets.push(authority)
    client.on('error', () => {})
    client.once('end', () => client.end())
    const authorized =
      credentials === undefined || request.headers['proxy-authorization'] === `Basic ${credentials}`
    if (behaviour === 'refuse-407' || !authorized) {
      client.end('HTTP/1.1 407 Proxy Authentication Required\r\ncontent-length: 0\r\n\r\n')
    } else if (behaviour === 'redirect-302') {
      client.end('HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1/\r\n\r\n')
    } else if (behaviour === 'garbage') {
      client.write('SSH-2.0-not a proxy\r\n')
    } else if (behaviour === 'garbage-after-200') {
      client.write('HTTP/1.1 200 OK\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi')
    } else if (behaviour === 'garbage-later') {
      client.write('HTTP/1.1 200 OK\r\n\r\n')
      client.once('data', () => client.write('HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi'))
    } else if (behaviour === 'endless-header') {
      client.write(`HTTP/1.1 200 OK\r\nx: ${'y'.repeat(20_000)}`)
    } else if (behaviour === 'close') {
      client.destroy()
    } else if (behaviour === 'normal') {
      tunnel(client, authority)
    } else {
      // Reads on, so that it notices when its client leaves.
      client.resume()
    }
  })
  const port = await lifecycle.listen(host, options.port)
  const user = options.auth
    ? `${encodeURIComponent(options.auth.user)}:${encodeURIComponent(options.auth.pass)}@`
    : ''
  const close = () => lifecycle.close()
  return {
    url: `${options.tls ? 'https' : 'http'}://${user}${host}:${port}`,
    host,
    port,
    targets,
    get bytesThrough() {
      return bytesThrough
    },
    get openConnections() {
      return lifecycle.openSockets
    },
    get behaviour() {
      return behaviour
    },
    set behaviour(next) {
      behaviour = next
    },
    close,
    [Symbol.asyncDispose]: close,
  }
}
