import type { Socket } from 'node:net'
import { UpstreamError } from '../errors.ts'
import { type Authority, formatAuthority } from '../lib/authority.ts'
import type { Clock } from '../lib/clock.ts'
import { egressDown, shuttingDown, speaksNoTls, timedOut, tlsFailed } from './failure.ts'
import type { SessionCache } from './tls.ts'
import type { OpenOptions, Transport } from './transport.ts'

/** How long a connection took to make, and what was dialled for it: a proxy's address where there is one. */
export interface ConnectTimings {
  /** The name's resolution, as part of `connectMs`; undefined where no name was resolved here. */
  readonly dnsMs: number | undefined
  /** TCP and the proxy's handshake. */
  readonly connectMs: number
  /** TLS with the target; undefined without. */
  readonly tlsMs: number | undefined
  /** `host:port`. */
  readonly address: string
}

const timings = new WeakMap<Socket, ConnectTimings>()

/** The timings of a socket that an egress has connected. */
export function timingsOf(socket: Socket): ConnectTimings | undefined {
  return timings.get(socket)
}

export interface ConnectorOptions extends Pick<OpenOptions, 'overrides' | 'forbidden' | 'tls'> {
  readonly egress: string
  readonly transport: Transport
  readonly connectTimeout: number
  readonly clock: Clock
  /** Told whenever a connection has shown that the egress works, or that it doesn't. */
  readonly outcome: (up: boolean, reason: string) => void
}

export interface ConnectOptions {
  /** Speak TLS with the target. */
  readonly secure: boolean
  readonly early: OpenOptions['early']
  /** ALPN with the target, in the order of preference; HTTP/1.1 alone by default. */
  readonly protocols?: readonly string[] | undefined
  readonly sessions?: SessionCache | undefined
  readonly guard?: OpenOptions['guard']
  readonly signal?: AbortSignal | undefined
}

/** Makes the connections of one egress: TCP, proxy handshake and TLS within one time-out. */
export class Connector {
  readonly #options: ConnectorOptions
  readonly #connecting = new Set<AbortController>()
  #closed = false

  constructor(options: ConnectorOptions) {
    this.#options = options
  }

  /** Rejects with an `UpstreamError` of which nothing was sent, or with the reason of the caller's signal. */
  async connect(target: Authority, options: ConnectOptions): Promise<Socket> {
    if (this.#closed) throw shuttingDown()
    const { connectTimeout, clock, transport, outcome } = this.#options
    const controller = new AbortController()
    let tunnelled = false
    const cancel = clock.schedule(connectTimeout, () =>
      controller.abort(this.#timeout(target, tunnelled)),
    )
    const abort = () => controller.abort(options.signal?.reason)
    options.signal?.addEventListener('abort', abort, { once: true })
    if (options.signal?.aborted) abort()
    this.#connecting.add(controller)
    try {
      const startedAt = clock.monotonic()
      let dnsMs: number | undefined
      const socket = await transport.open(target, {
        ...this.#options,
        signal: controller.signal,
        timeoutMs: connectTimeout,
        resolved: (ms) => {
          dnsMs = ms
        },
        guard: options.guard,
        early: options.early,
      })
      tunnelled = true
      const openedAt = clock.monotonic()
      const address = remote(socket)
      const secured = options.secure
        ? await this.#secure(socket, target, controller.signal, options)
        : socket
      timings.set(secured, {
        dnsMs,
        connectMs: openedAt - startedAt,
        tlsMs: options.secure ? clock.monotonic() - openedAt : undefined,
        address,
      })
      outcome(true, 'connected')
      return secured
    } catch (error) {
      if (error instanceof UpstreamError) {
        if (error.code === 'EGRESS_DOWN') outcome(false, error.message)
        // What a proxy says of a target, and what a target says in TLS, came through the egress.
        else if (error.code === 'UPSTREAM_UNREACHABLE' || error.code === 'UPSTREAM_TLS') {
          outcome(true, 'connected')
        }
      }
      throw error
    } finally {
      cancel()
      options.signal?.removeEventListener('abort', abort)
      this.#connecting.delete(controller)
    }
  }

  /** Ends every connection that is still being made, and makes none any more. */
  close(): void {
    this.#closed = true
    for (const controller of this.#connecting) controller.abort(shuttingDown())
  }

  async #secure(
    socket: Socket,
    target: Authority,
    signal: AbortSignal,
    { sessions, protocols }: ConnectOptions,
  ): Promise<Socket> {
    const { egress, tls, transport } = this.#options
    try {
      const authority = formatAuthority(target)
      return await tls.handshake(socket, target.host, { signal, sessions, authority, protocols })
    } catch (error) {
      signal.throwIfAborted()
      if (transport.proxied && speaksNoTls(error)) {
        throw egressDown(egress, 'its proxy sent bytes of its own into the connection', error)
      }
      throw tlsFailed(target, error)
    }
  }

  /** Until a proxy has opened the way, its silence is its own; after that it is the target's. */
  #timeout(target: Authority, tunnelled: boolean): UpstreamError {
    const { egress, transport } = this.#options
    if (transport.proxied && !tunnelled)
      return egressDown(egress, 'its proxy did not answer in time')
    return timedOut(target, 'connecting')
  }
}

function remote(socket: Socket): string {
  return formatAuthority({ host: socket.remoteAddress ?? '', port: socket.remotePort ?? 0 })
}
