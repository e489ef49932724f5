import { isIP, type Socket } from 'node:net'
import type { Authority } from '../lib/authority.ts'
import { dial } from './dial.ts'
import { denied, egressDown } from './failure.ts'
import type { TlsClient } from './tls.ts'

/** What every way out needs to open one connection. */
export interface OpenOptions {
  /** Ends the try; its reason is what the try then rejects with. */
  readonly signal: AbortSignal
  /** When the signal will end it, ms from now; for libraries with timers of their own. */
  readonly timeoutMs: number
  /** Told how long the resolution of what is dialled took, ms. */
  readonly resolved?: ((ms: number) => void) | undefined
  /** `upstream.resolve`: `host` or `host:port` → address. */
  readonly overrides: ReadonlyMap<string, string>
  /** Addresses that nothing may dial: own listeners. Asked with the address that is dialled. */
  readonly forbidden: (address: string, port: number) => boolean
  /** False refuses a target's address, or its name where a proxy resolves that. */
  readonly guard: ((address: string, port: number) => boolean) | undefined
  readonly tls: TlsClient
  /**
   * What to do with bytes that come before we have spoken: an SSH server may greet through a tunnel, but
   * before our TLS or HTTP they can only be the proxy's.
   */
  readonly early: 'keep' | 'refuse'
}

/** One way to reach a target. `open` rejects with an `UpstreamError`, or with the reason of its signal. */
export interface Transport {
  /** Whether another party dials the target for us. */
  readonly proxied: boolean
  open(target: Authority, options: OpenOptions): Promise<Socket>
}

/** The override for an authority: the one with its port wins, as in curl's `--resolve`. */
export function override(
  { host, port }: Authority,
  overrides: ReadonlyMap<string, string>,
): string | undefined {
  if (overrides.size === 0) return undefined
  return overrides.get(`${host}:${port}`) ?? overrides.get(host)
}

/** Whether the address of a target may be dialled. */
export function permitted(address: string, port: number, options: OpenOptions): boolean {
  return !options.forbidden(address, port) && (options.guard?.(address, port) ?? true)
}

/** The target as a proxy is told it: by name, unless an override says the address. */
export function targetForProxy(target: Authority, options: OpenOptions): Authority {
  const host = override(target, options.overrides) ?? target.host
  const known = isIP(host) !== 0
  const { port } = target
  if (!(known ? permitted(host, port, options) : (options.guard?.(host, port) ?? true))) {
    throw denied(target)
  }
  return { host, port }
}

/** Dials a proxy; whatever goes wrong means that this egress is down. */
export async function dialProxy(
  egress: string,
  proxy: Authority,
  options: OpenOptions,
): Promise<Socket> {
  try {
    return await dial(proxy, {
      signal: options.signal,
      override: override(proxy, options.overrides),
      permitted: (address, port) => !options.forbidden(address, port),
      resolved: options.resolved,
    })
  } catch (error) {
    options.signal.throwIfAborted()
    throw egressDown(egress, 'its proxy cannot be reached', error)
  }
}

/** Hands over a socket that a proxy has connected, with what it said too early put back or refused. */
export function handOver(
  egress: string,
  socket: Socket,
  early: Buffer,
  options: OpenOptions,
): Socket {
  if (options.early === 'keep') {
    if (early.length > 0) socket.unshift(early)
    // The handshake has left it paused; a `readable` listener that goes makes it like new, so that its next
    // reader sets it flowing.
    socket.on('readable', ignore).off('readable', ignore)
    return socket
  }
  if (early.length === 0) return socket
  socket.destroy()
  throw egressDown(egress, 'its proxy sent bytes of its own into the connection')
}

function ignore(): void {}
