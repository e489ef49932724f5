import { parseTarget } from '../lib/authority.ts'

/**
 * A proxy auto-config script: mapped hosts go by the proxy, with no way round it when it is down; others directly.
 * `reachedBy` is the host that the asker used, for a proxy that listens on every address.
 */
export function proxyAutoConfig(
  targets: readonly string[],
  proxyUrl: string,
  reachedBy: string,
): string {
  const proxy = new URL(proxyUrl)
  const everywhere = proxy.hostname === '0.0.0.0' || proxy.hostname === '[::]'
  const host = everywhere ? reachedBy : proxy.hostname
  const exact = new Set<string>()
  const parents = new Set<string>()
  for (const text of targets) {
    const target = parseTarget(text)
    if (typeof target !== 'string') (target.wildcard ? parents : exact).add(target.host)
  }
  const list = (names: Set<string>) => JSON.stringify([...names].sort())
  return `const exact = ${list(exact)}
const parents = ${list(parents)}

function FindProxyForURL(url, host) {
  const name = host.toLowerCase().replace(/\\.$/, '')
  const mapped = exact.includes(name) || parents.some((parent) => name.endsWith('.' + parent))
  return mapped ? ${JSON.stringify(`PROXY ${host}:${proxy.port || 80}`)} : 'DIRECT'
}
`
}
