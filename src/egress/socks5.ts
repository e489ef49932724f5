import type { Socket } from 'node:net'
import { setImmediate } from 'node:timers/promises'
import { UpstreamError } from '../errors.ts'
import { type Authority, formatAuthority } from '../lib/authority.ts'
import type { Secret } from '../lib/secret.ts'
import { egressDown } from './failure.ts'
import { dialProxy, handOver, type Transport, targetForProxy } from './transport.ts'

export interface Socks5Proxy extends Authority {
  readonly user: Secret | undefined
  readonly password: Secret | undefined
}

/** What a proxy may say of the target (RFC 1928 §6, replies 3 to 5); all else is said of itself. */
const TARGET_VERDICTS: Record<string, string> = {
  NetworkUnreachable: 'is in a network that the proxy cannot reach',
  HostUnreachable: 'cannot be reached by the proxy',
  ConnectionRefused: 'refused the connection',
}
/** A length is one byte on the wire, for names (RFC 1928 §5) as for credentials (RFC 1929 §2). */
export const SOCKS_MAX_TEXT = 255

/** Reaches targets through a SOCKS5 proxy, which resolves their names. */
export function socks5(egress: string, proxy: Socks5Proxy): Transport {
  return {
    proxied: true,
    async open(target, options) {
      const { signal } = options
      const asked = targetForProxy(target, options)
      // The library would throw within an event handler.
      if (asked.host.length > SOCKS_MAX_TEXT) throw rejected(target, 'has too long a name')
      // Loaded by the first connection: most configurations have no such proxy.
      const { SocksClient } = await import('socks')
      const socket = await dialProxy(egress, proxy, options)
      const abort = () => socket.destroy()
      signal.addEventListener('abort', abort, { once: true })
      try {
        const connected = await SocksClient.createConnection({
          command: 'connect',
          destination: asked,
          existing_socket: socket,
          timeout: options.timeoutMs,
          proxy: {
            host: proxy.host,
            port: proxy.port,
            type: 5,
            ...(proxy.user ? { userId: proxy.user.reveal() } : {}),
            ...(proxy.password ? { password: proxy.password.reveal() } : {}),
          },
        })
        const early = await collectEarly(connected.socket)
        signal.throwIfAborted()
        return handOver(egress, connected.socket, early, options)
      } catch (error) {
        socket.destroy()
        signal.throwIfAborted()
        if (error instanceof UpstreamError) throw error
        // The library's error holds the password, so it is not passed on as a cause.
        const text = error instanceof Error ? error.message : ''
        const verdict = TARGET_VERDICTS[/ - (\w+)$/.exec(text)?.[1] ?? '']
        if (verdict !== undefined) throw rejected(target, verdict)
        throw egressDown(egress, 'its proxy did not open the connection')
      } finally {
        signal.removeEventListener('abort', abort)
      }
    },
  }
}

function rejected(target: Authority, verdict: string): UpstreamError {
  return new UpstreamError('UPSTREAM_UNREACHABLE', `${formatAuthority(target)} ${verdict}`, {
    sent: false,
  })
}

/**
 * The library emits what came after the reply as one `data` event in its own setImmediate, queued before this
 * one, and sets the socket flowing: caught here, so that nothing is lost or taken for the target's.
 */
async function collectEarly(socket: Socket): Promise<Buffer> {
  const early: Buffer[] = []
  const collect = (chunk: Buffer) => early.push(chunk)
  socket.on('data', collect)
  socket.pause()
  await setImmediate()
  socket.pause()
  socket.off('data', collect)
  return Buffer.concat(early)
}
