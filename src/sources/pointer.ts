/** The value that a JSON Pointer (RFC 6901) names in a document; undefined where there is none. */
export function readPointer(document: unknown, pointer: string): unknown {
  if (pointer === '') return document
  let value = document
  for (const part of pointer.slice(1).split('/')) {
    // §4: `~1` first, else `~01` would become a slash.
    const key = part.replaceAll('~1', '/').replaceAll('~0', '~')
    if (Array.isArray(value)) {
      value = /^(?:0|[1-9]\d{0,8})$/.test(key) ? value[Number(key)] : undefined
    } else if (typeof value === 'object' && value !== null && Object.hasOwn(value, key)) {
      value = (value as Record<string, unknown>)[key]
    } else {
      return undefined
    }
  }
  return value
}
