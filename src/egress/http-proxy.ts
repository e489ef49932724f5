import type { Socket } from 'node:net'
import { type Authority, formatAuthority } from '../lib/authority.ts'
import type { Secret } from '../lib/secret.ts'
import { egressDown } from './failure.ts'
import {
  dialProxy,
  handOver,
  type OpenOptions,
  type Transport,
  targetForProxy,
} from './transport.ts'

export interface HttpProxy extends Authority {
  /** Speak TLS with the proxy itself. */
  readonly secure: boolean
  /** Value of `Proxy-Authorization`. */
  readonly authorization: Secret | undefined
}

const MAX_HEAD_BYTES = 16 * 1024

/** Reaches targets by CONNECT (RFC 9110 §9.3.6), `http://` targets too, so that every request goes one way. */
export function httpProxy(egress: string, proxy: HttpProxy): Transport {
  return {
    proxied: true,
    async open(target, options) {
      const asked = targetForProxy(target, options)
      const plain = await dialProxy(egress, proxy, options)
      const socket = proxy.secure ? await secure(egress, plain, proxy, options) : plain
      const early = await requestTunnel(egress, socket, asked, proxy, options.signal)
      return handOver(egress, socket, early, options)
    },
  }
}

async function secure(egress: string, socket: Socket, proxy: Authority, options: OpenOptions) {
  try {
    const authority = formatAuthority(proxy)
    return await options.tls.handshake(socket, proxy.host, { signal: options.signal, authority })
  } catch (error) {
    options.signal.throwIfAborted()
    throw egressDown(egress, 'TLS with its proxy failed', error)
  }
}

/** Asks for the tunnel; resolves with the bytes that came after the answer's head. */
function requestTunnel(
  egress: string,
  socket: Socket,
  target: Authority,
  proxy: HttpProxy,
  signal: AbortSignal,
): Promise<Buffer> {
  return new Promise((resolve, reject) => {
    let received: Buffer = Buffer.alloc(0)
    const settle = () => {
      signal.removeEventListener('abort', abort)
      socket.pause()
      socket.off('data', read).off('error', failed).off('close', closed)
    }
    const fail = (error: unknown) => {
      settle()
      socket.destroy()
      reject(error)
    }
    const abort = () => fail(signal.reason)
    const failed = (error: Error) => fail(egressDown(egress, 'its proxy broke off', error))
    const closed = () => fail(egressDown(egress, 'its proxy closed the connection'))
    const read = (chunk: Buffer) => {
      received = received.length === 0 ? chunk : Buffer.concat([received, chunk])
      const start = received.toString('latin1', 0, 7)
      if (!'HTTP/1.'.startsWith(start)) {
        return fail(egressDown(egress, 'its proxy does not speak HTTP'))
      }
      const end = received.indexOf('\r\n\r\n')
      if ((end === -1 ? received.length : end) > MAX_HEAD_BYTES) {
        return fail(egressDown(egress, 'its proxy sent too long an answer'))
      }
      if (end === -1) return
      const status = /^HTTP\/1\.[01] (\d{3})[ \r]/.exec(
        received.toString('latin1', 0, end + 2),
      )?.[1]
      if (status !== '200') {
        const answer = status === undefined ? 'without a status' : `with ${status}`
        return fail(egressDown(egress, `its proxy answered CONNECT ${answer}`))
      }
      settle()
      // A length or coding in the head of this answer means nothing (RFC 9110 §9.3.6).
      resolve(received.subarray(end + 4))
    }
    signal.addEventListener('abort', abort, { once: true })
    socket.on('data', read).on('error', failed).on('close', closed)
    const authority = formatAuthority(target)
    const credentials = proxy.authorization
      ? `Proxy-Authorization: ${proxy.authorization.reveal()}\r\n`
      : ''
    socket.write(`CONNECT ${authority} HTTP/1.1\r\nHost: ${authority}\r\n${credentials}\r\n`)
  })
}
