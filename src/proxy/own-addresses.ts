import { type AddressInfo, isIP } from 'node:net'
import { networkInterfaces } from 'node:os'
import { normalizeHost } from '../lib/authority.ts'

const ANY = new Set(['0.0.0.0', '::'])

/**
 * The listeners that the proxy must not be led to: by the address that is dialled, in every spelling that
 * ends at one of them.
 */
export class OwnAddresses {
  readonly #listeners: { readonly address: string; readonly port: number }[] = []

  add({ address, port }: Pick<AddressInfo, 'address' | 'port'>): void {
    this.#listeners.push({ address: plain(address), port })
  }

  get all(): readonly { readonly address: string; readonly port: number }[] {
    return this.#listeners
  }

  /** Whether a dialled address, or a host name that means this machine, is one of ours. */
  includes(host: string, port: number): boolean {
    return this.#listeners.some(
      (listener) => listener.port === port && leadsTo(plain(host), listener.address),
    )
  }
}

function leadsTo(host: string, listener: string): boolean {
  if (host === listener || host === 'localhost' || host.endsWith('.localhost')) return true
  // Dialling the unspecified address reaches this machine's loopback.
  if (ANY.has(host)) return true
  return ANY.has(listener) && isIP(host) !== 0 && isLocal(host)
}

function isLocal(address: string): boolean {
  if (address.startsWith('127.') || address === '::1') return true
  return Object.values(networkInterfaces()).some((list) =>
    list?.some((each) => each.address === address),
  )
}

/** The one spelling, without a zone. IPv4-mapped IPv6 is the IPv4 address (RFC 4291 §2.5.5.2). */
function plain(text: string): string {
  const bare = text.split('%', 1)[0] as string
  const address = normalizeHost(bare) ?? bare
  const hex = /^::ffff:([0-9a-f]{1,4}):([0-9a-f]{1,4})$/.exec(address)
  if (!hex) return address
  const high = Number.parseInt(hex[1] as string, 16)
  const low = Number.parseInt(hex[2] as string, 16)
  return `${high >> 8}.${high & 255}.${low >> 8}.${low & 255}`
}
