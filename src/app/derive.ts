import { type AddressInfo, isIP } from 'node:net'
import type { Config } from '../config/schema.ts'
import { formatAuthority, parseTarget, type Target } from '../lib/authority.ts'
import { Secret } from '../lib/secret.ts'
import { PassthroughPolicy } from '../route/passthrough.ts'

/** What the parts of the app need to know, read off the configuration. */

export function passthroughOf(config: Config): PassthroughPolicy {
  return new PassthroughPolicy(config.passthrough, {
    privateDenied: !isLoopback(config.listen.host),
  })
}

function isLoopback(host: string): boolean {
  return host === 'localhost' || host === '::1' || (isIP(host) === 4 && host.startsWith('127.'))
}

export function httpsTargets(config: Config): Target[] {
  return Object.values(config.pools)
    .flatMap((pool) => pool.targets.map((text) => parseTarget(text) as Target))
    .filter((target) => target.scheme === 'https')
}

/** Query parameters that carry a token: traces mask them. */
export function injectedParameters(config: Config): ReadonlySet<string> {
  return new Set(
    Object.values(config.pools).flatMap(({ inject }) =>
      'query' in inject ? [inject.query.toLowerCase()] : [],
    ),
  )
}

/** Equal for equal settings; secrets count by value, which never leaves this string. */
export function fingerprintOf(value: unknown): string {
  // `toJSON` has run before a replacer sees a value: the holder still has the secret itself.
  return JSON.stringify({ value }, function (this: Record<string, unknown>, key, each) {
    const raw = this[key]
    return raw instanceof Secret ? raw.reveal() : each
  })
}

export function urlOf({ address, port }: AddressInfo): string {
  const host = address === '0.0.0.0' ? '127.0.0.1' : address === '::' ? '::1' : address
  return `http://${formatAuthority({ host, port })}`
}
