import { randomBytes, timingSafeEqual } from 'node:crypto'
import { once, setMaxListeners } from 'node:events'
import {
  createServer,
  request as httpRequest,
  type IncomingMessage,
  type Server,
  type ServerResponse,
} from 'node:http'
import type { AddressInfo } from 'node:net'
import { type Duplex, pipeline } from 'node:stream'
import { CupbearerError, SourceError } from '../errors.ts'
import { type Authority, parseAuthority } from '../lib/authority.ts'
import { Secret } from '../lib/secret.ts'
import type { PinnedConnect } from './source.ts'

/** What Chromium sends of its own accord from within a page, and has no switch against: form fields, to Google. */
const NOT_THE_PAGES = new Set(['content-autofill.googleapis.com'])

/** One page's browser has no need for more (Chromium keeps to 32 for a proxy). */
const MAX_CONNECTIONS = 128

/** Fields of one connection (RFC 9110 §7.6.1), and the credential that is meant for this hop. */
const HOP_BY_HOP = new Set(
  'connection keep-alive te trailer transfer-encoding upgrade proxy-connection proxy-authorization'.split(
    ' ',
  ),
)

/**
 * A proxy on the loopback for one browser: whatever this asks for is dialled by the pinned egress, so that names,
 * overrides and refused addresses are as for all other traffic. It lives as long as the login, and answers
 * only who knows its password.
 */
export class Bridge {
  readonly password = new Secret(randomBytes(24).toString('base64url'))
  readonly username = 'login'
  readonly #server: Server
  readonly #connect: PinnedConnect
  readonly #streams = new Set<Duplex>()
  readonly #ended = new AbortController()
  /** Told when the egress turns out to be down; nothing more can come of the login then. */
  readonly #down: (error: SourceError) => void
  #problem: string | undefined

  /** Listens on a free port of 127.0.0.1. */
  static async open(connect: PinnedConnect, down: (error: SourceError) => void): Promise<Bridge> {
    const bridge = new Bridge(connect, down)
    bridge.#server.listen(0, '127.0.0.1')
    await once(bridge.#server, 'listening')
    return bridge
  }

  private constructor(connect: PinnedConnect, down: (error: SourceError) => void) {
    this.#connect = connect
    this.#down = down
    // Each connection that is being made has one.
    setMaxListeners(MAX_CONNECTIONS, this.#ended.signal)
    this.#server = createServer({ maxHeaderSize: 128 * 1024, noDelay: true })
    this.#server.maxConnections = MAX_CONNECTIONS
    this.#server
      .on('connection', (socket) => this.#track(socket))
      .on('clientError', (_error, socket) => socket.destroy())
      .on('connect', (request, socket, head) => void this.#tunnel(request, socket, head))
      .on('request', (request, response) => void this.#forward(request, response))
  }

  get url(): string {
    return `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}`
  }

  /** Why a connection could not be made, the latest one. */
  get problem(): string | undefined {
    return this.#problem
  }

  async close(): Promise<void> {
    this.#ended.abort()
    for (const stream of this.#streams) stream.destroy()
    await new Promise((resolve) => this.#server.close(resolve))
  }

  /** CONNECT (RFC 9110 §9.3.6), which Chromium uses for https and WebSockets. */
  async #tunnel(request: IncomingMessage, client: Duplex, head: Buffer): Promise<void> {
    if (!this.#knows(request)) return void client.end(`${refusal()}content-length: 0\r\n\r\n`)
    const upstream = await this.#dial(parseAuthority(request.url ?? '', 443))
    if (!upstream) return void client.end('HTTP/1.1 502 Bad Gateway\r\ncontent-length: 0\r\n\r\n')
    client.write('HTTP/1.1 200 OK\r\n\r\n')
    if (head.length > 0) upstream.write(head)
    // What was ended in order may still be on its way.
    client.once('close', () => upstream.destroy())
    upstream.once('close', () => client.writableEnded || client.destroy())
    client.pipe(upstream).pipe(client)
  }

  /** A request for `http://`, in absolute form (RFC 9112 §3.2.2). */
  async #forward(request: IncomingMessage, response: ServerResponse): Promise<void> {
    if (!this.#knows(request)) {
      response.writeHead(407, { 'proxy-authenticate': CHALLENGE, 'content-length': 0 }).end()
      return
    }
    const text = request.url ?? ''
    const url = /^http:/i.test(text) && URL.canParse(text) ? new URL(text) : undefined
    const socket = url && (await this.#dial(parseAuthority(url.host, 80)))
    // An answer of ours would be shown as the page's own.
    if (!socket) return void response.destroy()
    const outgoing = httpRequest({
      createConnection: () => socket,
      method: request.method,
      path: url.pathname + url.search,
      headers: endToEnd(request.rawHeaders),
      setHost: false,
    })
    outgoing.once('response', (incoming) => {
      response.writeHead(
        incoming.statusCode ?? 502,
        incoming.statusMessage,
        endToEnd(incoming.rawHeaders),
      )
      pipeline(incoming, response, () => socket.destroy())
    })
    outgoing.once('error', () => response.destroy())
    response.once('close', () => socket.destroy())
    pipeline(request, outgoing, () => {})
  }

  async #dial(target: Authority | undefined): Promise<Duplex | undefined> {
    if (!target || NOT_THE_PAGES.has(target.host)) return undefined
    try {
      const stream = await this.#connect(target, this.#ended.signal)
      this.#track(stream)
      if (this.#ended.signal.aborted) stream.destroy()
      return stream
    } catch (error) {
      if (this.#ended.signal.aborted || !(error instanceof CupbearerError)) return undefined
      this.#problem = error.message
      if (error.code === 'EGRESS_DOWN') {
        this.#down(new SourceError('egress', error.message, { cause: error }))
      }
      return undefined
    }
  }

  #track(stream: Duplex): void {
    this.#streams.add(stream)
    stream.on('error', () => stream.destroy())
    stream.once('close', () => this.#streams.delete(stream))
  }

  #knows(request: IncomingMessage): boolean {
    const pair = Buffer.from(`${this.username}:${this.password.reveal()}`).toString('base64')
    const expected = Buffer.from(`Basic ${pair}`)
    const given = Buffer.from(request.headers['proxy-authorization'] ?? '')
    return given.length === expected.length && timingSafeEqual(given, expected)
  }
}

const CHALLENGE = 'Basic realm="login"'

function refusal(): string {
  return `HTTP/1.1 407 Proxy Authentication Required\r\nproxy-authenticate: ${CHALLENGE}\r\n`
}

function endToEnd(raw: readonly string[]): string[] {
  const kept: string[] = []
  for (let i = 0; i < raw.length; i += 2) {
    const name = raw[i] as string
    if (!HOP_BY_HOP.has(name.toLowerCase())) kept.push(name, raw[i + 1] as string)
  }
  return kept
}
