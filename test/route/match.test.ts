import { posix } from 'node:path'
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { Router } from '../../src/route/match.ts'

/** The pool that serves a URL, by `name: targets`. */
function pick(pools: Record<string, string[]>, url: string): string | undefined {
  const [, scheme = '', host = '', port, path = '/'] =
    /^(https?):\/\/([^/:]+)(?::(\d+))?(\/.*)?$/.exec(url) ?? []
  const router = new Router(
    Object.fromEntries(Object.entries(pools).map(([name, targets]) => [name, { targets }])),
  )
  const defaultPort = scheme === 'https' ? 443 : 80
  const route = router.find(scheme as 'https', { host, port: Number(port ?? defaultPort) })
  return route?.pick(path)
}

describe('a target', () => {
  test('is https on port 443 unless written', () => {
    const pools = { p: ['api.test'] }
    expect(pick(pools, 'https://api.test/')).toBe('p')
    expect(pick(pools, 'http://api.test/')).toBeUndefined()
    expect(pick(pools, 'https://api.test:8443/')).toBeUndefined()
    expect(pick(pools, 'http://api.test:443/')).toBeUndefined()
    expect(pick({ p: ['http://api.test'] }, 'http://api.test/')).toBe('p')
    expect(pick({ p: ['http://api.test'] }, 'https://api.test/')).toBeUndefined()
    expect(pick({ p: ['api.test:8443'] }, 'https://api.test:8443/')).toBe('p')
  })

  test('with a wildcard covers any depth below, and not the apex', () => {
    const pools = { p: ['*.example.test'] }
    expect(pick(pools, 'https://a.example.test/')).toBe('p')
    expect(pick(pools, 'https://a.b.c.example.test/')).toBe('p')
    expect(pick(pools, 'https://example.test/')).toBeUndefined()
    expect(pick(pools, 'https://badexample.test/')).toBeUndefined()
  })

  test('that is more specific wins: exact host, then nearer parent, then longer path', () => {
    const pools = {
      far: ['*.test'],
      near: ['*.example.test'],
      exact: ['a.example.test'],
      path: ['a.example.test/v1/*'],
      deeper: ['a.example.test/v1/special/*'],
    }
    expect(pick(pools, 'https://x.test/')).toBe('far')
    expect(pick(pools, 'https://x.example.test/')).toBe('near')
    expect(pick(pools, 'https://a.example.test/v2')).toBe('exact')
    expect(pick(pools, 'https://a.example.test/v1/x')).toBe('path')
    expect(pick(pools, 'https://a.example.test/v1/special/x')).toBe('deeper')
  })

  test('of the parent domain serves what path-scoped ones of the host leave', () => {
    const pools = { scoped: ['a.example.test/v1/*'], parent: ['*.example.test'] }
    expect(pick(pools, 'https://a.example.test/v1/x')).toBe('scoped')
    expect(pick(pools, 'https://a.example.test/v2')).toBe('parent')
  })
})

describe('a path glob', () => {
  const pools = { p: ['api.test/v1/*', 'api.test/exact', 'api.test/*.json'] }

  test.each([
    ['/v1/', 'p'],
    ['/v1/a/b?c=d', 'p'],
    ['/exact', 'p'],
    ['/exact?query', 'p'],
    ['/deep/x.json', 'p'],
    ['/v1', undefined],
    ['/V1/', undefined],
    ['/exact/more', undefined],
    ['/x-json', undefined],
    ['/other?/v1/x.json', undefined],
  ])('%s: %s', (path, expected) => {
    expect(pick(pools, `https://api.test${path}`)).toBe(expected)
  })

  test.each([
    '/v1/../admin',
    '/v1/%2e%2e/admin',
    '/v1/..%2fadmin',
    '/v1/..;/admin',
    '/v1/..\\admin',
    '/v1/%252e%252e/admin',
    '/admin/../v1/x',
    '//v1/x',
    '/%76%31/x',
  ])('gives no token where readings differ: %s', (path) => {
    expect(pick({ p: ['api.test/v1/*'] }, `https://api.test${path}`)).toBeUndefined()
  })

  test('gives the token where all readings agree', () => {
    for (const path of ['/v1/a%20b', '/v1/a;x=1', '/v1/a/../b', '/v1/%61']) {
      expect([path, pick({ p: ['api.test/v1/*'] }, `https://api.test${path}`)]).toEqual([path, 'p'])
    }
  })

  test('never gives a token that a server would take for another path', () => {
    const piece = fc.constantFrom(
      ...[
        'v1',
        'x',
        '..',
        '.',
        '',
        '/',
        '\\',
        ';',
        ';p',
        '%2e',
        '%2f',
        '%5c',
        '%3b',
        '%252e',
        '%252f',
      ],
    )
    fc.assert(
      fc.property(fc.array(piece, { maxLength: 10 }), (pieces) => {
        const path = `/v1/${pieces.join('')}`
        if (pick({ p: ['api.test/v1/*'] }, `https://api.test${path}`) === undefined) return
        for (const [server, read] of Object.entries(SERVERS)) {
          expect([server, path, read(path).startsWith('/v1/')]).toEqual([server, path, true])
        }
      }),
      { numRuns: 3000 },
    )
  })
})

const decode = (text: string) =>
  text.replace(/%([0-9a-f]{2})/gi, (_, hex) => String.fromCharCode(Number.parseInt(hex, 16)))
const strip = (text: string) => text.replace(/;[^/]*/g, '')
/** RFC 3986 §5.2.4: a last dot segment leaves a slash. */
const normal = (text: string) => posix.normalize(text.replace(/\/\.{1,2}$/, '$&/'))

/** How servers get from a request path to what they serve. */
const SERVERS: Record<string, (path: string) => string> = {
  'a WHATWG URL': (path) => new URL(`http://h${path}`).pathname,
  nginx: (path) => normal(decode(path)),
  'decoding after the dots': (path) => decode(normal(path)),
  'decoding twice': (path) => normal(decode(decode(path))),
  'Tomcat, parameters first': (path) => normal(decode(strip(path))),
  'parameters last': (path) => normal(strip(decode(path))),
  'backslashes too': (path) => normal(decode(path).replaceAll('\\', '/')),
  'Tomcat on backslashes': (path) => normal(decode(strip(path)).replaceAll('\\', '/')),
}
