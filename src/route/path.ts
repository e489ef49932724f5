/** Whatever makes a path readable in more than one way. */
const AMBIGUOUS = /[%\\;]|\/\/|\/\.{1,2}(?:\/|$)/

/** What servers do to a path before they use it, in whatever order and however often. */
const STEPS: readonly ((path: string) => string)[] = [
  decode,
  (path) => path.replaceAll('\\', '/'),
  (path) => path.replace(/;[^/]*/g, ''),
  (path) => path.replace(/\/{2,}/g, '/'),
  resolveDots,
]

/** A path that can be read in more ways is meant to deceive. */
const MAX_READINGS = 64

/**
 * The readings that servers give a request path: as sent, and as lenient ones decode, split and resolve it
 * (RFC 3986 §5.2.4 dot segments, `%2e`, `%2f`, `%5c`, backslashes, doubled slashes, `;` parameters, decoding
 * twice), the steps in any order. Most paths have just one. Where there is no end of them the last is empty,
 * which no path is. The query is not part of any.
 */
export function pathReadings(pathAndQuery: string): string[] {
  const query = pathAndQuery.indexOf('?')
  const path = query === -1 ? pathAndQuery : pathAndQuery.slice(0, query)
  if (!AMBIGUOUS.test(path)) return [path]
  const readings = new Set([path])
  // The set grows while it is walked; each step shortens a path or leaves it, so that ends.
  for (const reading of readings) {
    for (const step of STEPS) readings.add(step(reading))
    if (readings.size > MAX_READINGS) return [...readings, '']
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
