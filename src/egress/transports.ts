import { isIP } from 'node:net'
import { type Authority, normalizeHost } from '../lib/authority.ts'
import { Secret } from '../lib/secret.ts'
import { direct } from './direct.ts'
import { httpProxy } from './http-proxy.ts'
import { SOCKS_MAX_TEXT, socks5 } from './socks5.ts'
import type { Transport } from './transport.ts'

/** The kinds of egress, by the scheme of their URL. */
const TRANSPORTS: Record<string, (egress: string, url: string) => Transport> = {
  direct: (egress) => direct(egress),
  local: (egress, url) => {
    const address = url.slice('local://'.length).replace(/^\[(.*)\]$/, '$1')
    if (isIP(address) === 0) throw new Error('expected an IP address after local://')
    return direct(egress, address)
  },
  http: (egress, url) => httpProxy(egress, { ...readHttpProxy(url, 80), secure: false }),
  https: (egress, url) => httpProxy(egress, { ...readHttpProxy(url, 443), secure: true }),
  socks5: (egress, url) => socks5(egress, readSocksProxy(url)),
  socks5h: (egress, url) => socks5(egress, readSocksProxy(url)),
}

/** The way out that an egress URL names. Throws an error with what was expected, never with the URL itself. */
export function createTransport(egress: string, url: Secret): Transport {
  const text = url.reveal()
  const create = TRANSPORTS[/^[a-z0-9]+(?=:)/.exec(text)?.[0] ?? '']
  if (!create) throw new Error('expected direct:, local://…, http://…, https://… or socks5://…')
  return create(egress, text)
}

function readHttpProxy(text: string, defaultPort: number) {
  const url = new URL(text)
  const user = decode(url.username)
  const password = decode(url.password)
  const basic = Buffer.from(`${user}:${password}`).toString('base64')
  return {
    ...readAuthority(url, defaultPort),
    authorization: user || password ? new Secret(`Basic ${basic}`) : undefined,
  }
}

function readSocksProxy(text: string) {
  const url = new URL(text)
  const user = decode(url.username)
  const password = decode(url.password)
  if (Math.max(Buffer.byteLength(user), Buffer.byteLength(password)) > SOCKS_MAX_TEXT) {
    throw new Error(`expected a user and password of at most ${SOCKS_MAX_TEXT} bytes each`)
  }
  return {
    ...readAuthority(url, 1080),
    user: user ? new Secret(user) : undefined,
    password: password ? new Secret(password) : undefined,
  }
}

function readAuthority(url: URL, defaultPort: number): Authority {
  const host = normalizeHost(url.hostname)
  if (host === undefined) throw new Error('expected a host name or an IP address')
  return { host, port: url.port === '' ? defaultPort : Number(url.port) }
}

/** A stray percent sign in a password means itself. */
function decode(text: string): string {
  try {
    return decodeURIComponent(text)
  } catch {
    return text
  }
}
