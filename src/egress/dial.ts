import { lookup } from 'node:dns/promises'
import { connect, isIP, type Socket } from 'node:net'
import type { Authority } from '../lib/authority.ts'
import { denied } from './failure.ts'

export interface DialOptions {
  readonly signal: AbortSignal
  /** Address to dial instead of what DNS says. */
  readonly override: string | undefined
  /** Asked with each address before it is dialled; what is not permitted is never dialled. */
  readonly permitted: (address: string, port: number) => boolean
  /** Told how long the name's resolution took, ms; not for an address. */
  readonly resolved?: ((ms: number) => void) | undefined
  /** Address to bind. */
  readonly localAddress?: string
}

/** How long one address may take before the next is tried beside it (RFC 8305 §5). */
const ATTEMPT_DELAY_MS = 250
const KEEP_ALIVE_MS = 60_000

/**
 * Connects by TCP to the first address that answers. Names are resolved here and only literal addresses are
 * dialled, so that the address judged is the address dialled, whatever DNS says next.
 */
export async function dial(target: Authority, options: DialOptions): Promise<Socket> {
  options.signal.throwIfAborted()
  const found = await resolve(options.override ?? target.host, options)
  const addresses = found.filter((address) => options.permitted(address, target.port))
  if (addresses.length === 0) throw denied(target)
  const { localAddress } = options
  const usable =
    localAddress === undefined
      ? addresses
      : addresses.filter((address) => isIP(address) === isIP(localAddress))
  return connectFirst(usable, target.port, options)
}

async function resolve(host: string, { signal, resolved }: DialOptions): Promise<string[]> {
  if (isIP(host) !== 0) return [host]
  const startedAt = performance.now()
  // getaddrinfo cannot be cancelled: its late answer is dropped.
  const results = await abortable(lookup(host, { all: true }), signal)
  resolved?.(performance.now() - startedAt)
  return interleave(results.map((result) => result.address))
}

/** Alternates the families, beginning with the resolver's first choice (RFC 8305 §4). */
function interleave(addresses: string[]): string[] {
  const first = addresses.filter((address) => isIP(address) === isIP(addresses[0] ?? ''))
  const second = addresses.filter((address) => isIP(address) !== isIP(addresses[0] ?? ''))
  const mixed: string[] = []
  for (let i = 0; i < Math.max(first.length, second.length); i++) {
    mixed.push(...first.slice(i, i + 1), ...second.slice(i, i + 1))
  }
  return mixed
}

function abortable<Value>(promise: Promise<Value>, signal: AbortSignal): Promise<Value> {
  return new Promise((resolve, reject) => {
    const abort = () => reject(signal.reason)
    signal.addEventListener('abort', abort, { once: true })
    promise.then(resolve, reject).finally(() => signal.removeEventListener('abort', abort))
  })
}

/** A reset that nobody listens for yet must not end the process; `close` follows it anyway. */
function ignore(): void {}

function connectFirst(addresses: string[], port: number, options: DialOptions): Promise<Socket> {
  return new Promise((resolve, reject) => {
    const { signal, localAddress } = options
    const racing = new Set<Socket>()
    let firstError: unknown
    let next = 0
    let timer: NodeJS.Timeout | undefined

    const finish = (winner?: Socket) => {
      clearTimeout(timer)
      signal.removeEventListener('abort', abort)
      for (const socket of racing) {
        socket.removeAllListeners('connect').removeAllListeners('error').on('error', ignore)
        if (socket !== winner) socket.destroy()
      }
    }
    const abort = () => {
      finish()
      reject(signal.reason)
    }
    const attempt = () => {
      clearTimeout(timer)
      const host = addresses[next++]
      if (host === undefined) {
        if (racing.size > 0) return
        finish()
        reject(firstError ?? new Error('no address of the family of the local address'))
        return
      }
      const socket = connect({
        host,
        port,
        ...(localAddress === undefined ? {} : { localAddress }),
        noDelay: true,
        keepAlive: true,
        keepAliveInitialDelay: KEEP_ALIVE_MS,
      })
      racing.add(socket)
      socket.once('connect', () => {
        finish(socket)
        resolve(socket)
      })
      socket.once('error', (error) => {
        firstError ??= error
        racing.delete(socket)
        attempt()
      })
      if (next < addresses.length) timer = setTimeout(attempt, ATTEMPT_DELAY_MS)
    }
    signal.addEventListener('abort', abort, { once: true })
    if (signal.aborted) abort()
    else attempt()
  })
}
