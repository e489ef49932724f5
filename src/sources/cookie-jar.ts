import { isIP } from 'node:net'

interface Cookie {
  readonly name: string
  readonly value: string
  readonly domain: string
  /** Whether the host must be `domain` itself, not one below it. */
  readonly hostOnly: boolean
  readonly path: string
  readonly secure: boolean
  /** ms since the epoch. */
  readonly expiresAt: number
}

/** RFC 6265 §6.1 asks for no less than 50 of 4096 bytes each. */
const MAX_COOKIES = 100
const MAX_COOKIE_LENGTH = 4096

/** Second levels that belong to nobody, such as co.uk; a whole list of public suffixes would be stale soon. */
const PUBLIC_SECOND_LEVEL = /^(?:co|com|org|net|gov|edu|ac|or|ne|go|mil|nom|gob)\.[a-z]{2}$/

/** The cookies of one login: the part of RFC 6265 that tells where a cookie may go. */
export class CookieJar {
  /** In order of creation. */
  #cookies: Cookie[] = []

  /** Takes the `Set-Cookie` lines of an answer from `url`; what it may not set is dropped. */
  store(lines: readonly string[], url: URL, now: number): void {
    for (const line of lines) {
      const cookie = parseCookie(line, url, now)
      if (!cookie) continue
      const others = this.#cookies.filter(
        ({ name, domain, path }) =>
          name !== cookie.name || domain !== cookie.domain || path !== cookie.path,
      )
      if (cookie.expiresAt > now) others.push(cookie)
      this.#cookies = others.slice(-MAX_COOKIES)
    }
  }

  /** The value of `Cookie` for a request (§5.4), longer paths first; empty when there is none. */
  header(url: URL, now: number): string {
    const host = url.hostname.toLowerCase()
    return this.#cookies
      .filter(
        (cookie) =>
          (cookie.hostOnly ? host === cookie.domain : isWithin(host, cookie.domain)) &&
          pathMatches(url.pathname, cookie.path) &&
          (!cookie.secure || url.protocol === 'https:') &&
          cookie.expiresAt > now,
      )
      .sort((a, b) => b.path.length - a.path.length)
      .map(({ name, value }) => `${name}=${value}`)
      .join('; ')
  }
}

/** Name and value of a `Set-Cookie` line, whatever its attributes are (§5.2). */
export function cookiePair(line: string): { name: string; value: string } | undefined {
  const pair = line.split(';', 1)[0] as string
  const equals = pair.indexOf('=')
  const name = pair.slice(0, Math.max(0, equals)).trim()
  const value = pair.slice(equals + 1).trim()
  return name === '' || /[\x00-\x1f\x7f]/.test(pair) ? undefined : { name, value }
}

function parseCookie(line: string, url: URL, now: number): Cookie | undefined {
  const pair = cookiePair(line)
  if (!pair || pair.name.length + pair.value.length > MAX_COOKIE_LENGTH) return undefined
  const attributes = new Map<string, string>()
  for (const part of line.split(';').slice(1)) {
    const equals = part.indexOf('=')
    const name = (equals === -1 ? part : part.slice(0, equals)).trim().toLowerCase()
    attributes.set(name, equals === -1 ? '' : part.slice(equals + 1).trim())
  }
  const host = url.hostname.toLowerCase()
  const asked = attributes.get('domain')?.replace(/^\./, '').toLowerCase() ?? ''
  // §5.3 step 6: a host may set cookies for itself and for the domains above it, not for another.
  if (asked !== '' && !isWithin(host, asked)) return undefined
  const shared = asked !== '' && isIP(host) === 0 && !isPublic(asked)
  const secure = attributes.has('secure')
  if (secure && url.protocol !== 'https:') return undefined
  const path = attributes.get('path') ?? ''
  return {
    ...pair,
    domain: shared ? asked : host,
    hostOnly: !shared,
    path: path.startsWith('/') ? path : defaultPath(url),
    secure,
    expiresAt: expiryOf(attributes, now),
  }
}

/** §5.1.3; an address matches itself only. */
function isWithin(host: string, domain: string): boolean {
  return host === domain || (host.endsWith(`.${domain}`) && isIP(host) === 0)
}

/** §5.3 step 5: such a cookie would go to other people's sites; it stays with its host. */
function isPublic(domain: string): boolean {
  return !domain.includes('.') || PUBLIC_SECOND_LEVEL.test(domain)
}

/** §5.1.4 */
function pathMatches(path: string, cookiePath: string): boolean {
  if (!path.startsWith(cookiePath)) return false
  return (
    path.length === cookiePath.length || cookiePath.endsWith('/') || path[cookiePath.length] === '/'
  )
}

/** §5.1.4: the folder of the request's path. */
function defaultPath({ pathname }: URL): string {
  return pathname.slice(0, Math.max(1, pathname.lastIndexOf('/')))
}

/** §5.2.1 and §5.2.2: Max-Age has precedence; without either it lasts as long as the jar. */
function expiryOf(attributes: ReadonlyMap<string, string>, now: number): number {
  const maxAge = attributes.get('max-age')
  if (maxAge !== undefined && /^-?\d+$/.test(maxAge)) return now + Number(maxAge) * 1000
  const expires = Date.parse(
    (attributes.get('expires') ?? '').replace(/(\d)-([A-Za-z]{3})-/, '$1 $2 '),
  )
  return Number.isNaN(expires) ? Number.POSITIVE_INFINITY : expires
}
