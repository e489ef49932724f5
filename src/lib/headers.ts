/**
 * Header lists as the wire has them: a flat array `[name, value, name, value, …]` that keeps case, order and
 * duplicates. Values are latin1 strings, so bytes ≥ 0x80 survive.
 */
export type RawHeaders = string[]

/** Fields of one connection, never forwarded (RFC 9110 §7.6.1), plus those that proxies speak among themselves. */
export const HOP_BY_HOP: ReadonlySet<string> = new Set([
  'connection',
  'keep-alive',
  'proxy-connection',
  'proxy-authenticate',
  'proxy-authorization',
  'proxy-authentication-info',
  'te',
  'transfer-encoding',
  'upgrade',
])

export function headerValue(headers: readonly string[], lowerName: string): string | undefined {
  for (let i = 0; i < headers.length; i += 2) {
    const name = headers[i] as string
    if (name.length === lowerName.length && name.toLowerCase() === lowerName) return headers[i + 1]
  }
  return undefined
}

export function headerValues(headers: readonly string[], lowerName: string): string[] {
  const values: string[] = []
  for (let i = 0; i < headers.length; i += 2) {
    const name = headers[i] as string
    if (name.length === lowerName.length && name.toLowerCase() === lowerName) {
      values.push(headers[i + 1] as string)
    }
  }
  return values
}

export function withoutHeader(headers: readonly string[], lowerName: string): RawHeaders {
  const kept: RawHeaders = []
  for (let i = 0; i < headers.length; i += 2) {
    const name = headers[i] as string
    if (name.toLowerCase() !== lowerName) kept.push(name, headers[i + 1] as string)
  }
  return kept
}

/** Names listed in `Connection`, lower-cased; undefined when only keep-alive or close stand there. */
export function connectionListed(headers: readonly string[]): Set<string> | undefined {
  let listed: Set<string> | undefined
  for (let i = 0; i < headers.length; i += 2) {
    const name = headers[i] as string
    if (name.length !== 10 || name.toLowerCase() !== 'connection') continue
    for (const part of (headers[i + 1] as string).split(',')) {
      const option = part.trim().toLowerCase()
      if (option === '' || option === 'keep-alive' || option === 'close') continue
      listed ??= new Set()
      listed.add(option)
    }
  }
  return listed
}
