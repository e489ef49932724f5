import {
  Agent,
  type ClientRequestArgs,
  request as httpRequest,
  type IncomingMessage,
} from 'node:http'
import { connect, type Socket } from 'node:net'
import { type Duplex, Readable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { connect as tlsConnect } from 'node:tls'

export interface ProxyClientOptions {
  readonly proxyUrl: string
  /** What the client trusts: the CA of the proxy. */
  readonly ca: string
  readonly keepAlive?: boolean
  readonly maxSockets?: number
  /** `user:password` for the proxy. */
  readonly auth?: string
  /** Another name in SNI than the host's own; empty sends none. */
  readonly servername?: string
}

export interface ClientResponse {
  readonly status: number
  readonly reason: string
  readonly headers: IncomingMessage['headers']
  readonly rawHeaders: string[]
  readonly rawTrailers: string[]
  readonly body: Buffer
  json<T = Record<string, unknown>>(): T
}

export interface ClientRequest {
  readonly method?: string
  readonly headers?: Record<string, string | string[]> | string[]
  readonly body?: Buffer | string | AsyncIterable<Buffer>
  readonly signal?: AbortSignal
}

/** An ordinary client that uses the proxy as `HTTPS_PROXY` clients do: CONNECT, then TLS end to end as it believes. */
export class ProxyClient implements AsyncDisposable {
  readonly #options: ProxyClientOptions
  readonly #agent: Agent

  constructor(options: ProxyClientOptions) {
    this.#options = options
    const agent = new Agent({
      keepAlive: options.keepAlive ?? true,
      maxSockets: options.maxSockets ?? 256,
    }) as Agent & { createConnection: unknown }
    agent.createConnection = (
      target: ClientRequestArgs,
      done: (error: Error | null, socket?: Duplex) => void,
    ) => {
      this.connect(`${target.host}:${target.port}`).then(
        (socket) => done(null, socket),
        (error: Error) => done(error),
      )
    }
    this.#agent = agent
  }

  /** The TLS connection to `HOST:PORT` through the proxy. */
  async connect(authority: string): Promise<Duplex> {
    const { socket, status, head } = await this.tunnel(authority)
    if (status !== 200) {
      socket.destroy()
      throw Object.assign(new Error(`CONNECT was answered with ${status}`), { status, head })
    }
    const servername = this.#options.servername ?? authority.replace(/:\d+$/, '')
    const secure = tlsConnect({
      socket,
      ca: this.#options.ca,
      ...(/^[\d.]+$|^\[|^$/.test(servername) ? { host: servername } : { servername }),
      ...(this.#options.servername !== undefined && { checkServerIdentity: () => undefined }),
    })
    await new Promise<void>((resolve, reject) => {
      secure.once('secureConnect', resolve).once('error', reject)
    })
    return secure
  }

  /** A raw CONNECT: the socket after its answer. */
  async tunnel(authority: string): Promise<{ socket: Socket; status: number; head: string }> {
    const { hostname, port } = new URL(this.#options.proxyUrl)
    const socket = connect({
      host: hostname.replace(/^\[|\]$/g, ''),
      port: Number(port),
      noDelay: true,
    })
    const auth = this.#options.auth
      ? `Proxy-Authorization: Basic ${Buffer.from(this.#options.auth).toString('base64')}\r\n`
      : ''
    socket.write(`CONNECT ${authority} HTTP/1.1\r\nHost: ${authority}\r\n${auth}\r\n`)
    let head = ''
    while (!head.includes('\r\n\r\n')) {
      const chunk = await new Promise<Buffer | null>((resolve, reject) => {
        const off = () => {
          socket.off('data', onData).off('error', onError).off('close', onClose)
        }
        const onData = (data: Buffer) => {
          socket.pause()
          off()
          resolve(data)
        }
        const onError = (error: Error) => {
          off()
          reject(error)
        }
        const onClose = () => {
          off()
          resolve(null)
        }
        socket.on('data', onData).on('error', onError).on('close', onClose).resume()
      })
      if (chunk === null) break
      head += chunk.toString('latin1')
    }
    const end = head.indexOf('\r\n\r\n') + 4
    const status = Number(/^HTTP\/1\.1 (\d{3})/.exec(head)?.[1] ?? 0)
    if (status === 200 && head.length > end) socket.unshift(Buffer.from(head.slice(end), 'latin1'))
    return { socket, status, head }
  }

  /** One request to an `https://` URL inside a tunnel, or to an `http://` URL in absolute form. */
  async request(url: string, options: ClientRequest = {}): Promise<ClientResponse> {
    const message = await this.open(url, options)
    const chunks: Buffer[] = []
    for await (const chunk of message) chunks.push(chunk as Buffer)
    const body = Buffer.concat(chunks)
    return {
      status: message.statusCode ?? 0,
      reason: message.statusMessage ?? '',
      headers: message.headers,
      rawHeaders: message.rawHeaders,
      rawTrailers: message.rawTrailers,
      body,
      json: <T>() => JSON.parse(body.toString()) as T,
    }
  }

  /** The same up to the response's headers: the caller reads, or destroys, the message. */
  open(url: string, options: ClientRequest = {}): Promise<IncomingMessage> {
    const { protocol, hostname, port, pathname, search, host } = new URL(url)
    const secure = protocol === 'https:'
    const proxy = new URL(this.#options.proxyUrl)
    const given = options.headers ?? {}
    const headers = Array.isArray(given) ? given : { host, ...given }
    return new Promise((resolve, reject) => {
      const request = httpRequest({
        method: options.method ?? 'GET',
        headers: headers as Record<string, string>,
        ...(options.signal && { signal: options.signal }),
        ...(secure
          ? { agent: this.#agent, host: hostname, port: port || 443, path: pathname + search }
          : { agent: false, host: proxy.hostname, port: proxy.port, path: url }),
      })
      if (!secure && this.#options.auth) {
        request.setHeader(
          'proxy-authorization',
          `Basic ${Buffer.from(this.#options.auth).toString('base64')}`,
        )
      }
      request.once('response', resolve).once('error', reject)
      const { body } = options
      if (body === undefined) request.end()
      else if (typeof body === 'string' || Buffer.isBuffer(body)) request.end(body)
      else void send(body, request)
    })
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#agent.destroy()
  }
}

/** Ends the request too when the body breaks off; a request that has ended takes no more of the body. */
async function send(
  body: AsyncIterable<Buffer>,
  request: ReturnType<typeof httpRequest>,
): Promise<void> {
  await pipeline(Readable.from(body), request).catch(() => {})
}
