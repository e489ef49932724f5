import { describe, expect, it } from 'vitest'
import { CookieJar } from '../../src/sources/cookie-jar.ts'

const NOW = Date.UTC(2026, 0, 1)

/** What a jar that got these cookies from a URL sends to another. */
function sent(lines: string[], from: string, to: string, later = 0): string {
  const jar = new CookieJar()
  jar.store(lines, new URL(from), NOW)
  return jar.header(new URL(to), NOW + later)
}

describe('a cookie jar', () => {
  it.each<[string, string, string, string, boolean]>([
    ['its own host', 'a=1', 'https://login.test/', 'https://login.test/x', true],
    ['another host', 'a=1', 'https://login.test/', 'https://other.test/', false],
    ['a host below', 'a=1', 'https://login.test/', 'https://x.login.test/', false],
    [
      'a host below, by Domain',
      'a=1; Domain=.login.test',
      'https://login.test/',
      'https://x.login.test/',
      true,
    ],
    [
      'a host beside, by Domain',
      'a=1; domain=login.test',
      'https://x.login.test/',
      'https://y.login.test/',
      true,
    ],
    [
      'a longer name',
      'a=1; Domain=login.test',
      'https://login.test/',
      'https://evil-login.test/',
      false,
    ],
    ['a public suffix', 'a=1; Domain=co.uk', 'https://shop.co.uk/', 'https://bank.co.uk/', false],
    [
      'its host, though it named a public suffix',
      'a=1; Domain=co.uk',
      'https://shop.co.uk/',
      'https://shop.co.uk/',
      true,
    ],
    ['a top level', 'a=1; Domain=test', 'https://a.test/', 'https://b.test/', false],
    [
      'a domain that is not its own',
      'a=1; Domain=bank.test',
      'https://evil.test/',
      'https://bank.test/',
      false,
    ],
    ['an address', 'a=1; Domain=127.0.0.1', 'http://127.0.0.1/', 'http://127.0.0.1/', true],
    [
      'an address that ends alike',
      'a=1; Domain=0.0.1',
      'http://127.0.0.1/',
      'http://9.0.0.1/',
      false,
    ],
    ['plain http, if secure', 'a=1; Secure', 'https://login.test/', 'http://login.test/', false],
    ['https, if secure', 'a=1; Secure', 'https://login.test/', 'https://login.test/', true],
    [
      'https, if secure but set by http',
      'a=1; Secure',
      'http://login.test/',
      'https://login.test/',
      false,
    ],
    ['its path', 'a=1; Path=/api', 'https://login.test/', 'https://login.test/api/x', true],
    [
      'a path that begins alike',
      'a=1; Path=/api',
      'https://login.test/',
      'https://login.test/apis',
      false,
    ],
    ['the folder it came from', 'a=1', 'https://login.test/in/x', 'https://login.test/in/y', true],
    ['above that folder', 'a=1', 'https://login.test/in/x', 'https://login.test/', false],
    ['another port', 'a=1', 'http://login.test:1/', 'http://login.test:2/', true],
  ])('sends to %s: %s', (_where, line, from, to, is) => {
    expect(sent([line], from, to)).toBe(is ? 'a=1' : '')
  })

  it.each<[string, number, boolean]>([
    ['a=1; Max-Age=60', 59_000, true],
    ['a=1; Max-Age=60', 60_000, false],
    ['a=1; Max-Age=0', 0, false],
    ['a=1; Expires=Thu, 01 Jan 2026 00:01:00 GMT', 59_000, true],
    ['a=1; Expires=Thu, 01-Jan-2026 00:01:00 GMT', 61_000, false],
    ['a=1; Expires=Thu, 01 Jan 1970 00:00:00 GMT', 0, false],
    ['a=1; Expires=Thu, 01 Jan 1970 00:00:00 GMT; Max-Age=60', 1, true],
    ['a=1; Expires=never', 1e12, true],
  ])('keeps %s for its time (%i)', (line, later, is) => {
    expect(sent([line], 'https://a.test/', 'https://a.test/', later)).toBe(is ? 'a=1' : '')
  })

  it('replaces a cookie, removes it, and puts longer paths first', () => {
    const url = 'https://a.test/x/y'
    expect(sent(['a=1', 'a=2'], url, url)).toBe('a=2')
    expect(sent(['a=1', 'a=; Max-Age=0'], url, url)).toBe('')
    expect(sent(['a=1; Path=/', 'b=2; Path=/x', 'a=3; Path=/x/y'], url, url)).toBe('a=3; b=2; a=1')
  })

  it.each(['', '=1', 'a', 'a=\u0000', `a=${'x'.repeat(5000)}`])('drops %j', (line) => {
    expect(sent([line], 'https://a.test/', 'https://a.test/')).toBe('')
  })

  it('holds a hundred cookies and no more', () => {
    const lines = Array.from({ length: 1000 }, (_, index) => `c${index}=1`)
    const cookies = sent(lines, 'https://a.test/', 'https://a.test/').split('; ')
    expect(cookies).toHaveLength(100)
    expect(cookies.at(-1)).toBe('c999=1')
  })
})
