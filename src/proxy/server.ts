import { IncomingMessage } from 'node:http'
import { type AddressInfo, createServer, type Server, type Socket } from 'node:net'
import type { Duplex } from 'node:stream'
import { type SecureContext, TLSSocket, type TLSSocketOptions } from 'node:tls'
import { Proxy as MitmProxy } from 'http-mitm-proxy'
import type { ServerConfig } from '../config/schema.ts'
import type { Egresses } from '../egress/egress.ts'
import { CupbearerError, WireError } from '../errors.ts'
import type { Events, ExchangeRecord } from '../events.ts'
import type { Exchange } from '../exchange/exchange.ts'
import type { ProxyReply, ProxyRequest } from '../exchange/request.ts'
import {
  formatAuthority,
  formatHost,
  normalizeHost,
  parseAuthority,
  type Scheme,
} from '../lib/authority.ts'
import type { Clock } from '../lib/clock.ts'
import type { RequestHead } from '../lib/http1/message.ts'
import type { Logger } from '../lib/log.ts'
import { absoluteTarget, checkInside, type Inside } from './authority-check.ts'
import type { ClientAuth, Identified } from './client-auth.ts'
import { Connections } from './connections.ts'
import { type Destinations, decide } from './decide.ts'
import { type Destination, type OwnFields, readOwnFields } from './http1.ts'
import { Http1Connection, type Http1Front } from './http1-connection.ts'
import { Http2Front } from './http2.ts'
import { Refusals } from './refusals.ts'
import { ownAnswerBytes } from './reply.ts'
import { joinSockets, whileOpen } from './tunnel.ts'

/** TLS record type of a handshake (RFC 8446 §5.1): what a ClientHello begins with. */
const TLS_HANDSHAKE = 0x16

/**
 * What may wait in a socket of a client's before the sender is held back. With Node's own 16 KiB each record of a long
 * body would stop it and start it again.
 */
const HIGH_WATER = 128 * 1024

/** Protocols that a client may choose inside a CONNECT, best first (RFC 7301). */
const PROTOCOLS = ['h2', 'http/1.1']

const ESTABLISHED = 'HTTP/1.1 200 Connection established\r\n\r\n'

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

/** A CONNECT that was granted, until the first byte inside it has come. */
interface Pending {
  readonly scheme: (name: Scheme) => Destination
  /** The time for a handshake ends. */
  readonly ready: () => void
  readonly left: () => void
}

/**
 * The front: listener, CONNECT and the hand-over of requests. It builds on http-mitm-proxy's handler chain and
 * replaces what that does around it: HTTP is read by `Http1Connection` and `Http2Front`, TLS ends here, in this
 * process, and the decrypted connection is fed back into the same accept path. The library's own CA and servers
 * never run.
 */
export class Front extends MitmProxy implements Http1Front {
  readonly headersTimeout: number
  readonly idleTimeout: number
  readonly maxHeaderSize: number
  readonly silence: number
  readonly #options: FrontOptions
  #runtime: FrontRuntime
  readonly #server: Server
  readonly #connections: Connections
  readonly #http2: Http2Front
  readonly #refusals: Refusals
  readonly #pending = new WeakMap<Duplex, Pending>()

  constructor(options: FrontOptions) {
    super()
    this.#options = options
    this.#runtime = options.runtime
    const { server: limits, clock, exchange } = options
    this.headersTimeout = limits.headersTimeout
    this.idleTimeout = limits.idleTimeout
    this.maxHeaderSize = limits.maxHeaderSize
    this.silence = Math.max(limits.idleTimeout, options.longestSilence)
    this.#connections = new Connections(clock)
    this.#refusals = new Refusals(options)
    this.#http2 = new Http2Front({
      server: limits,
      silence: this.silence,
      exchange,
      clock,
      connections: this.#connections,
      join: (client, upstream) => joinSockets(client, upstream, limits.idleTimeout),
      refuse: (inside, method, url, error) =>
        this.#refusals.refuse(inside.socket, inside, method, url, error),
    })
    // A tunnel lets one way end before the other (RFC 9110 §9.3.6).
    this.#server = createServer({ allowHalfOpen: true, noDelay: true, highWaterMark: HIGH_WATER })
    this.#server.maxConnections = limits.maxConnections
    this.#server.on('connection', (socket: Socket) => this.take(socket))
    this.onConnect((request, socket, head) => this.#onConnect(request, socket as Socket, head))
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
        // What fails later, for want of file descriptors say, concerns one connection.
        this.#server
          .off('error', failed)
          .on('error', (error) => this._onError('ACCEPT', null, error))
        resolve(this.#server.address() as AddressInfo)
      })
    })
  }

  /** Serves a connection, whichever process has accepted it. */
  take(socket: Socket): void {
    socket.on('error', (error) => this._onSocketError('CLIENT_TO_PROXY_SOCKET', error))
    this.#serve(socket, undefined)
  }

  /** Connections that clients hold. */
  get connections(): number {
    return this.#connections.size
  }

  /** Takes no more connections and lets what runs end; resolves when the last one is gone. */
  drain(): Promise<void> {
    const closed = new Promise<void>((resolve) => {
      this.#server.close(() => resolve())
    })
    this.#connections.drain()
    return Promise.all([closed, this.#connections.emptied()]).then(() => {})
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

  #serve(socket: Socket, inside: Inside | undefined): void {
    this.#connections.add(socket)
    this.#connections.serve(new Http1Connection(socket, inside, this))
  }

  // What its connections ask of it.

  left(connection: Http1Connection): void {
    this.#connections.left(connection)
  }

  handle(request: ProxyRequest, reply: ProxyReply): void {
    void this.#options.exchange.handle(request, reply)
  }

  refuse(
    { socket, inside }: Http1Connection,
    method: string,
    target: string,
    error: unknown,
  ): { error: WireError; trace: string } {
    return this.#refusals.refuse(socket, inside, method, target, error)
  }

  destination({ socket, inside }: Http1Connection, target: string, fields: OwnFields): Destination {
    if (inside) return checkInside(inside, target, fields)
    // A request in absolute form outside any tunnel (RFC 9112 §3.2.2).
    const { scheme, authority } = absoluteTarget(target, fields)
    const identified = this.#runtime.auth.identify(fields.proxyAuthorization, addressOf(socket))
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

  connect({ socket, inside }: Http1Connection, head: RequestHead, rest: Buffer | undefined): void {
    const request = new IncomingMessage(socket)
    request.method = head.method
    request.url = head.target
    request.rawHeaders = head.headers
    if (inside) this.#insides.set(socket, inside)
    this._onHttpServerConnect(request, socket, rest ?? Buffer.alloc(0))
  }

  /** Of connections inside a CONNECT that ask for another one. */
  readonly #insides = new WeakMap<Duplex, Inside>()

  #onConnect(request: IncomingMessage, socket: Socket, head: Buffer): void {
    const target = request.url ?? ''
    const inside = this.#insides.get(socket)
    const record = this.#refusals.record(socket, inside, 'CONNECT', `https://${target}`)
    try {
      const authority = /^[^/?#@\s]+:\d+$/.test(target) ? parseAuthority(target, 0) : undefined
      if (!authority) throw new WireError('BAD_REQUEST', 'CONNECT needs HOST:PORT')
      const { proxyAuthorization } = readOwnFields(request.rawHeaders)
      const { client, hints }: Identified =
        inside ?? this.#runtime.auth.identify(proxyAuthorization, addressOf(socket))
      record.client.name = client.name
      const decision = decide(this.#runtime, authority)
      if (decision.kind === 'refuse') throw decision.error
      if (decision.kind === 'tunnel') return void this.#tunnel(socket, head, authority, record)
      this.#intercept(socket, head, request, (scheme) => ({
        client,
        hints,
        scheme,
        authority,
        origin: `${scheme}://${formatAuthority(authority)}`,
        host: formatHost(authority, scheme),
        route: scheme === 'https' ? decision.https : decision.http,
      }))
    } catch (error) {
      this.#refuse(socket, record, error)
    }
  }

  /** 200, then TLS or plain HTTP by the first byte; the time for both is the time for headers. */
  #intercept(
    socket: Socket,
    head: Buffer,
    request: IncomingMessage,
    scheme: (name: Scheme) => Destination,
  ): void {
    const cancel = this.#options.clock.schedule(this.headersTimeout, () => socket.destroy())
    socket.once('close', cancel)
    // The listener lets clients half-close, but nobody reads on here.
    const left = () => socket.destroy()
    socket.once('end', left)
    socket.write(ESTABLISHED)
    this.#pending.set(socket, { scheme, ready: cancel, left })
    if (head.length > 0) this._onHttpServerConnectData(request, socket, head)
    else
      socket
        .once('data', (data: Buffer) => this._onHttpServerConnectData(request, socket, data))
        .resume()
  }

  override _onHttpServerConnectData(_request: IncomingMessage, socket: Duplex, head: Buffer): void {
    const pending = this.#pending.get(socket)
    if (!pending) return void socket.destroy()
    this.#pending.delete(socket)
    socket.off('end', pending.left)
    socket.pause()
    socket.unshift(head)
    if (head[0] === TLS_HANDSHAKE) {
      this.#endTls(socket as Socket, pending)
      return
    }
    pending.ready()
    this.#accept(socket as Socket, pending.scheme('http'), false)
  }

  #endTls(socket: Socket, pending: Pending): void {
    const destination = pending.scheme('https')
    const { host } = destination.authority
    let secureContext: SecureContext
    try {
      secureContext = this.#runtime.contextFor(host)
    } catch (error) {
      // Mapped for http only: there is nothing that TLS could be ended for.
      this.#options.log.debug({ host, code: (error as CupbearerError).code }, 'no certificate')
      socket.destroy()
      return
    }
    const options: TLSSocketOptions & { highWaterMark: number } = {
      isServer: true,
      secureContext,
      ALPNProtocols: PROTOCOLS,
      highWaterMark: HIGH_WATER,
    }
    const secure = new TLSSocket(socket, options)
    secure.on('error', (error: NodeJS.ErrnoException) => {
      this.#options.log.debug({ host, code: error.code }, 'TLS with the client failed')
      secure.destroy()
    })
    secure.once('close', () => socket.destroy())
    const ended = () => secure.destroy()
    secure.once('end', ended)
    secure.once('secure', () => {
      pending.ready()
      secure.off('end', ended)
      const name = (secure as TLSSocket & { servername?: string | false | null }).servername
      const misdirected = typeof name === 'string' && normalizeHost(name) !== host
      this.#accept(secure, destination, misdirected)
    })
  }

  #accept(socket: Socket, destination: Destination, misdirected: boolean): void {
    const inside: Inside = { ...destination, socket, misdirected, agreed: undefined }
    if (socket instanceof TLSSocket && socket.alpnProtocol === 'h2') {
      this.#connections.add(socket)
      this.#http2.serve(socket, inside)
      return
    }
    this.#serve(socket, inside)
    socket.resume()
  }

  async #tunnel(
    socket: Socket,
    head: Buffer,
    authority: Destination['authority'],
    record: ExchangeRecord,
  ): Promise<void> {
    const { egresses, events } = this.#options
    const { passthrough, passthroughEgress } = this.#runtime
    const started = performance.now()
    record.kind = 'tunnel'
    record.verdict = 'tunnel'
    try {
      const upstream = await whileOpen(socket, (signal) =>
        egresses.connect(passthroughEgress, authority, {
          signal,
          guard: (address) => passthrough.permits(authority, address),
        }),
      )
      this.#connections.add(upstream)
      record.status = 200
      socket.write(ESTABLISHED)
      if (head.length > 0) socket.unshift(head)
      record.bytes = await joinSockets(socket, upstream, this.idleTimeout)
      record.durationMs = performance.now() - started
      events.emit('exchange', record)
    } catch (error) {
      record.durationMs = performance.now() - started
      this.#refuse(socket, record, error)
    }
  }

  #refuse(socket: Socket, record: ExchangeRecord, error: unknown): void {
    const wire = this.#refusals.deny(record, error)
    if (!socket.destroyed) socket.end(ownAnswerBytes(wire, record.id), () => socket.destroySoon())
  }
}

function addressOf(socket: Socket): string {
  return socket.remoteAddress ?? ''
}
