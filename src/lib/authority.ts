import { isIP } from 'node:net'

/** A host and port as they are dialled. `host` is normalised; IPv6 stands without brackets. */
export interface Authority {
  readonly host: string
  readonly port: number
}

export type Scheme = 'https' | 'http'

export const DEFAULT_PORT: Record<Scheme, number> = { https: 443, http: 80 }

/** Of a name, in the dotted form (RFC 1035 §2.3.4). */
const MAX_NAME = 253
/** Labels of letters, digits, hyphens and underscores: what DNS has, and less than URLs allow. */
const NAME = /^[a-z0-9_-]+(?:\.[a-z0-9_-]+)*$/

/**
 * The one spelling of a host: lower case, IDNA applied, one trailing dot dropped, IP addresses canonical
 * (`0x7f.1` is `127.0.0.1`, as WHATWG URL §3.5 reads it). Undefined for what is no host.
 */
export function normalizeHost(host: string): string | undefined {
  // The common spelling first: this runs for each request.
  if (/^[a-z0-9][a-z0-9-]*(?:\.[a-z0-9-]*[a-z][a-z0-9-]*)*$/.test(host) && /[a-z]/.test(host)) {
    // Part of a number in hexadecimal (`127.0x1`), and names that IDNA has to look at, come further down.
    if (host.length <= MAX_NAME && !/(?:^|\.)(?:0x|xn--)/.test(host)) return host
  }
  if (/[\s/\\?#@%]/.test(host)) return undefined
  const bare = host.startsWith('[') && host.endsWith(']') ? host.slice(1, -1) : host
  const isAddress = isIP(bare) === 6
  if (!isAddress && host.includes(':')) return undefined
  const url = readUrl(isAddress ? `http://[${bare}]/` : `http://${host}/`)
  if (!url || url.username || url.port || url.pathname !== '/') return undefined
  const { hostname } = url
  if (isAddress) return hostname.slice(1, -1)
  const name = hostname.endsWith('.') ? hostname.slice(0, -1) : hostname
  return name.length <= MAX_NAME && NAME.test(name) ? name : undefined
}

/** Not by `URL.canParse`, which Node, once it is hot, asks of the wrong bytes where text isn't ASCII. */
function readUrl(text: string): URL | undefined {
  try {
    return new URL(text)
  } catch {
    return undefined
  }
}

/** `host:port` as CONNECT and Host have it (RFC 9112 §3.2.3); the port falls back to `defaultPort`. */
export function parseAuthority(text: string, defaultPort: number): Authority | undefined {
  const match = /^(\[[^\]]*\]|[^:]*)(?::(\d{1,5}))?$/.exec(text)
  if (!match) return undefined
  const host = normalizeHost(match[1] as string)
  const port = match[2] === undefined ? defaultPort : Number(match[2])
  if (host === undefined || port < 1 || port > 65535) return undefined
  return { host, port }
}

/** `host:port`, with brackets where IPv6 needs them. */
export function formatAuthority({ host, port }: Authority): string {
  return host.includes(':') ? `[${host}]:${port}` : `${host}:${port}`
}

/** The authority as it stands in a `Host` field: without the scheme's own port. */
export function formatHost({ host, port }: Authority, scheme: Scheme): string {
  const name = host.includes(':') ? `[${host}]` : host
  return port === DEFAULT_PORT[scheme] ? name : `${name}:${port}`
}

/** A target pattern, `[scheme://]host[:port][/path-glob]`. */
export interface Target {
  readonly text: string
  readonly scheme: Scheme
  /** Exact host, or the parent domain when `wildcard`. */
  readonly host: string
  /** `*.host`: any depth of subdomain, never the apex. */
  readonly wildcard: boolean
  readonly port: number
  /** Whether the port stands in the pattern; else it is the scheme's own. */
  readonly portWritten: boolean
  /** Path glob that starts with `/`; undefined covers every path. */
  readonly path: string | undefined
}

/** Reads a target pattern; returns what is wrong with it as a string. */
export function parseTarget(text: string): Target | string {
  const match = /^(?:(https?):\/\/)?(\[[^\]]*\]|[^/:[\]]+)(?::(\d{1,5}))?(\/.*)?$/i.exec(text)
  if (!match) return 'expected [scheme://]host[:port][/path-glob]'
  const scheme = (match[1]?.toLowerCase() ?? 'https') as Scheme
  const wildcard = (match[2] as string).startsWith('*.')
  const hostText = wildcard ? (match[2] as string).slice(2) : (match[2] as string)
  const host = hostText.includes('*') ? undefined : normalizeHost(hostText)
  if (host === undefined) return 'expected a host name, an IP address or *.domain'
  if (wildcard && isIP(host) !== 0) return 'a wildcard needs a domain name'
  const port = match[3] === undefined ? DEFAULT_PORT[scheme] : Number(match[3])
  if (port < 1 || port > 65535) return 'expected a port from 1 to 65535'
  const path =
    match[4] === undefined || match[4] === '/' || match[4] === '/*' || match[4] === '/**'
      ? undefined
      : match[4]
  if (path !== undefined && /[?#\s]/.test(path))
    return 'expected a path glob without query or fragment'
  return { text, scheme, host, wildcard, port, portWritten: match[3] !== undefined, path }
}

/** Whether a pattern's host covers a normalised host. */
export function coversHost(target: Pick<Target, 'host' | 'wildcard'>, host: string): boolean {
  return target.wildcard ? host.endsWith(`.${target.host}`) : host === target.host
}
