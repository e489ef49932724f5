/** Whatever makes a path readable in more than one way. */
const AMBIGUOUS = /[%\\;]|\/\/|\/\.{1,2}(?:\/|$)/

/**
 * The readings that servers give a request path: as sent, and as lenient ones decode, split and resolve it
 * (RFC 3986 §5.2.4 dot segments, `%2e`, `%2f`, `%5c`, backslashes, doubled slashes, `;` parameters, decoding
 * twice). Most paths have just one. The query is not part of any.
 */
export function pathReadings(pathAndQuery: string): string[] {
  const query = pathAndQuery.indexOf('?')
  const path = query === -1 ? pathAndQuery : pathAndQuery.slice(0, query)
  if (!AMBIGUOUS.test(path)) return [path]
  const readings = new Set([path])
  const once = decode(path)
  const twice = decode(once)
  for (const decoded of [path, once, twice]) {
    readings.add(decoded)
    const slashed = decoded.replaceAll('\\', '/')
    for (const text of [slashed, slashed.replace(/;[^/]*/g, '')]) {
      readings.add(resolveDots(text))
      readings.add(resolveDots(text.replace(/\/{2,}/g, '/')))
    }
  }
  return [...readings]
}

function decode(text: string): string {
  return text.replace(/%([0-9a-fA-F]{2})/g, (_, hex: string) =>
    String.fromCharCode(Number.parseInt(hex, 16)),
  )
}

function resolveDots(path: string): string {
  if (!/\/\.{1,2}(?:\/|$)/.test(path)) return path
  const output: string[] = []
  const segments = path.split('/').slice(1)
  segments.forEach((segment, index) => {
    const last = index === segments.length - 1
    if (segment === '..') output.pop()
    else if (segment !== '.') output.push(segment)
    if (last && (segment === '.' || segment === '..')) output.push('')
  })
  return `/${output.join('/')}`
}
