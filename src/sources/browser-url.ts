/** No address of a page that is looked for is longer. */
const MAX_LENGTH = 8192

/**
 * What a URL glob covers: `*` is any text, but none that would reach from the host into the path. The query
 * counts where the glob has one; the fragment never does.
 */
export function parseUrlGlob(glob: string): (url: string) => boolean {
  const [, origin = '', rest = ''] = /^([^/]*\/\/[^/?#]*)(.*)$/s.exec(glob) ?? []
  const pattern = new RegExp(
    `^${translate(origin, '[^/?#]*')}${translate(rest || '/', '.*')}$`,
    'is',
  )
  const withQuery = rest.includes('?')
  return (url) => {
    if (url.length > MAX_LENGTH) return false
    const whole = url.split('#', 1)[0] as string
    return pattern.test(withQuery ? whole : (whole.split('?', 1)[0] as string))
  }
}

function translate(glob: string, any: string): string {
  return glob
    .split('*')
    .map((text) => text.replace(/[.+?^${}()|[\]\\]/g, '\\$&'))
    .join(any)
}
