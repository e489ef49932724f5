import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import { type AddressInfo, Server as NetServer, type Socket } from 'node:net'
import type { Duplex } from 'node:stream'
import { type SecureContext, TLSSocket } from 'node:tls'
import { Proxy as MitmProxy } from 'http-mitm-proxy'
import type { ServerConfig } from '../config/schema.ts'
import type { Egresses } from '../egress/egress.ts'
import { CupbearerError, toWireError, WireError } from '../errors.ts'
import type { Events, ExchangeRecord } from '../events.ts'
import type { Exchange } from '../exchange/exchange.ts'
import { newRecord } from '../exchange/record.ts'
import { formatAuthority, formatHost, parseAuthority, type Scheme } from '../lib/authority.ts'
import type { Clock } from '../lib/clock.ts'
import { type Logger, whereFrom } from '../lib/log.ts'
import { absoluteTarget, checkInside, type Inside, pathOf } from './authority-check.ts'
import type { ClientAuth, Identified } from './client-auth.ts'
import { Connections } from './connections.ts'
import { type Destinations, decide } from './decide.ts'
import {
  type Destination,
  Http1Reply,
  Http1Request,
  type OwnFields,
  readOwnFields,
} from './http1.ts'
import { ownAnswerBytes } from './reply.ts'
import { joinSockets, whileOpen } from './tunnel.ts'

/** TLS record type of a handshake (RFC 8446 §5.1): what a ClientHello begins with. */
const TLS_HANDSHAKE = 0x16

/** Slow senders are looked for this often. */
const TIMEOUT_SWEEP_MS = 500

/** What a configuration gives the front; swapped as a whole. */
export interface FrontRuntime extends Destinations {
  readonly auth: ClientAuth
  readonly passthroughEgress: string
  contextFor(host: string): SecureContext
}

export interface FrontOptions {
  readonly server: ServerConfig
  /** Longest silence that an exchange may have by configuration, ms: the client socket outlives it. */
  readonly longestSilence: number
  readonly exchange: Exchange
  readonly egresses: Egresses
  readonly events: Events
  readonly clock: Clock
  readonly log: Logger
  readonly runtime: FrontRuntime
}

/**
 * The front: listener, CONNECT and the hand-over of requests. It builds on http-mitm-proxy's handler chain and
 * replaces what that does behind a CONNECT: TLS ends here, in this process, and the decrypted connection is
 * fed back into the same accept path. The library's own CA and per-host servers never run.
 */
export class Front extends MitmProxy {
  readonly #options: FrontOptions
  #runtime: FrontRuntime
  readonly #server: Server
  /** How long a client may neither send a body it announced nor take what it asked for, ms. */
  readonly #silence: number
  readonly #inside = new WeakMap<Duplex, Inside>()
  readonly #connections = new Connections()

  constructor(options: FrontOptions) {
    super()
    this.#options = options
    this.#runtime = options.runtime
    const { server: limits } = options
    this.#server = createServer({
      maxHeaderSize: limits.maxHeaderSize,
      headersTimeout: limits.headersTimeout,
      requestTimeout: 0,
      keepAliveTimeout: limits.idleTimeout,
      connectionsCheckingInterval: TIMEOUT_SWEEP_MS,
      noDelay: true,
    })
    // A timer per read and write is dear: the socket is timed only where its client can hold things up.
    this.#server.timeout = 0
    this.#silence = Math.max(limits.idleTimeout, options.longestSilence)
    this.#server.maxConnections = limits.maxConnections
    this.httpServer = this.#server
    this.onConnect((request, socket, head) => this.#onConnect(request, socket as Socket, head))
    this.#server
      .on('connection', (socket: Socket) => this.#connections.accepted(socket))
      .on('connect', (request, socket, head) => this._onHttpServerConnect(request, socket, head))
      .on('request', (request, response) => this._onHttpServerRequest(false, request, response))
      .on('clientError', (error: NodeJS.ErrnoException, socket) =>
        this.#onClientError(error, socket as Socket),
      )
  }

  apply(runtime: FrontRuntime): void {
    this.#runtime = runtime
  }

  /** Opens the listener; throws LISTEN_FAILED. */
  open(address: { host: string; port: number }): Promise<AddressInfo> {
    return new Promise((resolve, reject) => {
      const failed = (cause: NodeJS.ErrnoException) => {
        const message = `cannot listen on ${address.host}:${address.port}: ${cause.code}`
        reject(new CupbearerError('LISTEN_FAILED', message, { cause }))
      }
      this.#server.once('error', failed)
      this.#server.listen(address.port, address.host, () => {
        this.#server.off('error', failed)
        resolve(this.#server.address() as AddressInfo)
      })
    })
  }

  /** Connections that clients hold. */
  get connections(): number {
    return this.#connections.size
  }

  /** Takes no more connections and lets what runs end; resolves when the last one is gone. */
  drain(): Promise<void> {
    const closed = new Promise<void>((resolve) => {
      // Past http.Server, whose own close would cut answers that have ended but not left yet.
      NetServer.prototype.close.call(this.#server, () => resolve())
    })
    this.#connections.drain()
    return closed
  }

  /** Cuts every connection and takes none any more. */
  cut(): void {
    this.#server.close()
    this.#connections.cut()
  }

  /** The library prints; what a socket suffers is of no interest beyond debugging. */
  override _onError(kind: string, _context: unknown, error: Error): void {
    this.#options.log.debug(
      { kind, code: (error as NodeJS.ErrnoException).code },
      'client connection failed',
    )
  }

  override _onSocketError(description: string, error: NodeJS.ErrnoException): void {
    this._onError(description, null, error)
  }

  #onConnect(request: IncomingMessage, socket: Socket, head: Buffer): void {
    this.#connections.becomesTunnel(socket)
    const record = this.#newRecord('denied', 'CONNECT', `https://${request.url ?? ''}`, socket)
    try {
      const authority = /^[^/?#@\s]+:\d+$/.test(request.url ?? '')
        ? parseAuthority(request.url as string, 0)
        : undefined
      if (!authority) throw new WireError('BAD_REQUEST', 'CONNECT needs HOST:PORT')
      const { proxyAuthorization } = readOwnFields(request.rawHeaders)
      const identified = this.#inside.has(socket)
        ? this.#identifiedInside(socket)
        : this.#runtime.auth.identify(proxyAuthorization, addressOf(socket))
      record.client.name = identified.client.name
      const decision = decide(this.#runtime, authority)
      if (decision.kind === 'refuse') throw decision.error
      if (decision.kind === 'tunnel')
        return void this.#tunnel(socket, head, authority, identified, record)
      const scheme = (name: Scheme): Destination => ({
        ...identified,
        scheme: name,
        authority,
        origin: `${name}://${formatAuthority(authority)}`,
        host: formatHost(authority, name),
        route: name === 'https' ? decision.https : decision.http,
      })
      this.#intercept(socket, head, request, scheme)
    } catch (error) {
      this.#refuse(socket, record, error)
    }
  }

  #identifiedInside(socket: Duplex): Identified {
    const { client, hints } = this.#inside.get(socket) as Inside
    return { client, hints }
  }

  /** 200, then TLS or plain HTTP by the first byte; the time for both is the time for headers. */
  #intercept(
    socket: Socket,
    head: Buffer,
    request: IncomingMessage,
    scheme: (name: Scheme) => Destination,
  ): void {
    const { headersTimeout } = this.#options.server
    const cancel = this.#options.clock.schedule(headersTimeout, () => socket.destroy())
    socket.once('close', cancel)
    socket.on('error', (error) => this._onSocketError('CLIENT_TO_PROXY_SOCKET', error))
    // The listener lets clients half-close, but nobody reads on here.
    const left = () => socket.destroy()
    socket.once('end', left)
    socket.write('HTTP/1.1 200 Connection established\r\n\r\n')
    this.#pending.set(socket, { scheme, ready: cancel, left })
    if (head.length > 0) this._onHttpServerConnectData(request, socket, head)
    else socket.once('data', (data: Buffer) => this._onHttpServerConnectData(request, socket, data))
  }

  readonly #pending = new WeakMap<
    Duplex,
    { scheme: (name: Scheme) => Destination; ready: () => void; left: () => void }
  >()

  override _onHttpServerConnectData(_request: IncomingMessage, socket: Duplex, head: Buffer): void {
    const pending = this.#pending.get(socket)
    if (!pending) return void socket.destroy()
    this.#pending.delete(socket)
    socket.off('end', pending.left)
    socket.pause()
    socket.unshift(head)
    if (head[0] !== TLS_HANDSHAKE) {
      pending.ready()
      this.#accept(socket, { ...pending.scheme('http'), misdirected: false, agreed: undefined })
      return
    }
    const destination = pending.scheme('https')
    const { host } = destination.authority
    let context: SecureContext
    try {
      context = this.#runtime.contextFor(host)
    } catch (error) {
      // Mapped for http only: there is nothing that TLS could be ended for.
      this.#options.log.debug({ host, code: (error as CupbearerError).code }, 'no certificate')
      socket.destroy()
      return
    }
    const secure = new TLSSocket(socket as Socket, {
      isServer: true,
      secureContext: context,
      ALPNProtocols: ['http/1.1'],
    })
    secure.once('error', (error: NodeJS.ErrnoException) => {
      this.#options.log.debug({ host, code: error.code }, 'TLS with the client failed')
      secure.destroy()
    })
    secure.once('close', () => socket.destroy())
    secure.once('end', pending.left)
    secure.once('secure', () => {
      pending.ready()
      secure.off('end', pending.left)
      const name = (secure as TLSSocket & { servername?: string | false | null }).servername
      const misdirected = typeof name === 'string' && parseAuthority(name, 443)?.host !== host
      this.#accept(secure, { ...destination, misdirected, agreed: undefined })
    })
  }

  #accept(socket: Duplex, inside: Inside): void {
    this.#inside.set(socket, inside)
    this.#server.emit('connection', socket)
    socket.resume()
  }

  override _onHttpServerRequest(
    _isSsl: boolean,
    message: IncomingMessage,
    response: ServerResponse,
  ): void {
    const { socket } = message
    const reply = new Http1Reply(response, this.#silence)
    let request: Http1Request | undefined
    this.#connections.answering(socket, response)
    response.on('close', () => {
      this.#connections.answered(socket)
      if (!response.writableFinished) request?.leave()
    })
    try {
      const fields = readOwnFields(message.rawHeaders)
      const url = message.url as string
      const inside = this.#inside.get(socket)
      const to = inside ? checkInside(inside, url, fields) : this.#absolute(message, url, fields)
      request = new Http1Request(message, to, pathOf(url), fields)
      if (request.body) socket.setTimeout(this.#silence)
      void this.#options.exchange.handle(request, reply)
    } catch (error) {
      const record = this.#newRecord('denied', message.method as string, message.url ?? '', socket)
      const wire = this.#deny(record, error)
      // What follows on this connection cannot be told from the body of what was refused.
      if (wire.code === 'BAD_REQUEST') response.shouldKeepAlive = false
      reply.fail(wire, record.id)
    }
  }

  /** A request in absolute form outside any tunnel (RFC 9112 §3.2.2). */
  #absolute(message: IncomingMessage, url: string, fields: OwnFields): Destination {
    const { scheme, authority } = absoluteTarget(url, fields)
    const identified = this.#runtime.auth.identify(
      fields.proxyAuthorization,
      addressOf(message.socket as Socket),
    )
    if (this.#runtime.isOwn(authority)) {
      throw new WireError('DESTINATION_DENIED', 'the proxy does not connect to itself')
    }
    const route = this.#runtime.router.find(scheme, authority)
    if (!route && this.#runtime.passthrough.refusesName(authority)) {
      throw new WireError(
        'DESTINATION_DENIED',
        `${formatAuthority(authority)} is not a destination that this proxy serves`,
      )
    }
    const origin = `${scheme}://${formatAuthority(authority)}`
    return { ...identified, scheme, authority, origin, host: formatHost(authority, scheme), route }
  }

  async #tunnel(
    socket: Socket,
    head: Buffer,
    authority: Destination['authority'],
    identified: Identified,
    record: ExchangeRecord,
  ): Promise<void> {
    const { egresses, server } = this.#options
    const { passthrough, passthroughEgress } = this.#runtime
    const started = performance.now()
    record.kind = 'tunnel'
    record.verdict = 'tunnel'
    record.client.name = identified.client.name
    try {
      const upstream = await whileOpen(socket, (signal) =>
        egresses.connect(passthroughEgress, authority, {
          signal,
          guard: (address) => passthrough.permits(authority, address),
        }),
      )
      this.#connections.add(upstream)
      record.status = 200
      socket.write('HTTP/1.1 200 Connection established\r\n\r\n')
      if (head.length > 0) upstream.write(head)
      record.bytes = await joinSockets(socket, upstream, server.idleTimeout)
      record.durationMs = performance.now() - started
      this.#options.events.emit('exchange', record)
    } catch (error) {
      record.durationMs = performance.now() - started
      this.#refuse(socket, record, error)
    }
  }

  #refuse(socket: Socket, record: ExchangeRecord, error: unknown): void {
    const wire = this.#deny(record, error)
    socket.on('error', () => {})
    if (!socket.destroyed) socket.end(ownAnswerBytes(wire, record.id), () => socket.destroySoon())
  }

  #deny(record: ExchangeRecord, error: unknown): WireError {
    const wire = toWireError(error)
    if (wire.code === 'INTERNAL') {
      this.#options.log.error({ trace: record.id, ...whereFrom(error) }, 'internal error')
    }
    record.status = wire.status
    record.verdict = wire.code
    record.error = { code: wire.code, message: wire.message }
    this.#options.events.emit('exchange', record)
    return wire
  }

  /** Malformed requests and slow headers end here; nothing of them reaches an origin. */
  #onClientError(error: NodeJS.ErrnoException, socket: Socket): void {
    // Who ends within a request has gone, and waits for no answer.
    const left = error.code === 'ECONNRESET' || error.code === 'HPE_INVALID_EOF_STATE'
    if (left || !socket.writable) return void socket.destroy()
    const timeout = error.code === 'ERR_HTTP_REQUEST_TIMEOUT'
    if (timeout) return void socket.end('HTTP/1.1 408 Request Timeout\r\nConnection: close\r\n\r\n')
    const overflow = error.code === 'HPE_HEADER_OVERFLOW'
    const record = this.#newRecord('denied', '-', '-', socket)
    const wire = this.#deny(
      record,
      new WireError(
        'BAD_REQUEST',
        overflow ? 'the request header is too large' : 'the request is malformed',
        { cause: error },
      ),
    )
    socket.end(ownAnswerBytes(wire, record.id), () => socket.destroySoon())
  }

  #newRecord(
    kind: ExchangeRecord['kind'],
    method: string,
    url: string,
    socket: Duplex,
  ): ExchangeRecord {
    const inside = this.#inside.get(socket)
    return {
      ...newRecord(this.#options.clock.now(), method, url),
      kind,
      client: {
        name: inside?.client.name,
        address: inside?.client.address ?? addressOf(socket as Socket),
      },
    }
  }
}

function addressOf(socket: Socket): string {
  return socket.remoteAddress ?? ''
}
