import { UpstreamError } from '../errors.ts'
import { dial } from './dial.ts'
import { egressDown, errorCode, unreachable } from './failure.ts'
import { override, permitted, type Transport } from './transport.ts'

/** Dials targets from this machine, from `localAddress` where one is given, and from no other then. */
export function direct(egress: string, localAddress?: string): Transport {
  return {
    proxied: false,
    async open(target, options) {
      try {
        return await dial(target, {
          signal: options.signal,
          override: override(target, options.overrides),
          permitted: (address, port) => permitted(address, port, options),
          resolved: options.resolved,
          ...(localAddress === undefined ? {} : { localAddress }),
        })
      } catch (error) {
        options.signal.throwIfAborted()
        if (error instanceof UpstreamError) throw error
        if (localAddress !== undefined && cannotBind(error)) {
          throw egressDown(egress, 'its local address cannot be bound', error)
        }
        throw unreachable(target, error)
      }
    },
  }
}

function cannotBind(error: unknown): boolean {
  if (errorCode(error) === 'EADDRNOTAVAIL') return true
  return error instanceof Error && 'syscall' in error && error.syscall === 'bind'
}
