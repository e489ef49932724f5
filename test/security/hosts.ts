import fc from 'fast-check'

/** `URL.canParse` would be wrong here: once it is hot, Node reads what isn't ASCII in other bytes. */
function parse(text: string): URL | undefined {
  try {
    return new URL(text)
  } catch {
    return undefined
  }
}

/** The host as WHATWG URL §3.5 reads it, without brackets and one trailing dot; undefined where it is more than a host. */
export function urlHost(text: string): string | undefined {
  const url = /[/\\?#@\t\n\r]/.test(text) ? undefined : parse(`http://${text}/`)
  if (!url || url.port || url.username || url.pathname !== '/') return undefined
  return url.hostname.replace(/^\[|\]$/g, '').replace(/\.$/, '')
}

const NUMBERS = [
  '0',
  '1',
  '127',
  '0x7f',
  '0177',
  '0x',
  '256',
  '0xffffffff',
  '2130706433',
  '08',
  '0x1',
]
const LABELS = [
  'api',
  'test',
  'TEST',
  'a-b',
  '-a',
  'a_b',
  'xn--bcher-kva',
  'xn--',
  'xn--a',
  'bücher',
  'ﬁ',
  '。',
  'ａpi',
  'ß',
  '%61',
  '*',
  '',
  '\u00ad',
  '\u200d',
  'a'.repeat(64),
]
/** Names, numbers, and what looks like either. */
export const labels = fc
  .array(fc.constantFrom(...NUMBERS, ...LABELS), { minLength: 1, maxLength: 5 })
  .map((all) => all.join('.'))
/** Addresses as URLs spell them. */
export const literals = fc.oneof(
  fc.ipV4Extended(),
  fc.ipV6().map((text) => `[${text}]`),
  fc.ipV4().map((text) => `[::ffff:${text}]`),
)
const spiced = fc
  .tuple(
    fc.oneof(labels, literals, fc.domain()),
    fc.nat(),
    fc.constantFrom(
      '',
      ' ',
      '.',
      ':',
      '@',
      '%',
      '\0',
      '\t',
      '\\',
      '/',
      '#',
      '?',
      '[',
      ']',
      ',',
      ';',
      'İ',
      '\u3002',
      '\uff0e',
      '\ud800',
      '\x7f',
      '\xfc',
    ),
  )
  .map(([text, at, extra]) => {
    const place = at % (text.length + 1)
    return text.slice(0, place) + extra + text.slice(place)
  })
/** Whatever might stand where a host belongs. */
export const someHosts = fc.oneof(
  spiced,
  labels,
  literals,
  fc.webAuthority(),
  fc.string({ unit: 'binary', maxLength: 12 }),
)
