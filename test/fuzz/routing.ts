import fc from 'fast-check'
import { expect } from 'vitest'
import { normalizeHost, parseAuthority, parseTarget } from '../../src/lib/authority.ts'
import { formatRequestHead } from '../../src/lib/http1/serializer.ts'
import { Secret } from '../../src/lib/secret.ts'
import { forwardTrailers, Injector } from '../../src/route/inject.ts'
import { compileGlob, Router } from '../../src/route/match.ts'
import { pathReadings } from '../../src/route/path.ts'
import { Judge, type Verdict } from '../../src/route/verdict.ts'
import { someHosts, urlHost } from '../security/hosts.ts'
import { readStrictly } from '../security/strict-reader.ts'
import type { FuzzTarget } from './target.ts'

/** A host that is taken is the one that WHATWG URL reads; patterns, whatever stands in them, are read or refused. */
export const hosts: FuzzTarget = {
  name: 'hosts',
  runs: 2000,
  property: () =>
    fc.property(someHosts, fc.constantFrom('', ':1', ':65536', '/a', ':1/*'), (text, tail) => {
      const target = parseTarget(text + tail)
      if (typeof target !== 'string') expect(normalizeHost(target.host)).toBe(target.host)
      const authority = parseAuthority(text + tail, 443)
      if (authority) expect(normalizeHost(authority.host)).toBe(authority.host)
      const host = normalizeHost(text)
      if (host === undefined) return
      const bare = text.includes(':') && !text.startsWith('[') ? `[${text}]` : text
      expect(host).toBe(urlHost(bare))
    }),
}

const GLOBS = ['/v1/*', '/v1', '/v1/*/items', '/*.json', '/a/../v1/*', '/']
const segment = fc.constantFrom(
  'v1',
  'V1',
  'items',
  'a',
  '.',
  '..',
  '',
  '%2e',
  '%2E%2e',
  '%252e',
  '%2f',
  '%5c',
  '\\',
  '..\\..\\a',
  'a\\..',
  ';',
  '..;',
  ';x=y',
  '%76',
  '?',
  '?/../',
  '%',
  '%zz',
  '.json',
  '%00',
  '~',
  '*',
)
const first = fc.oneof(
  { weight: 3, arbitrary: fc.constant('v1') },
  { weight: 1, arbitrary: segment },
)
const path = fc
  .tuple(first, fc.array(segment, { maxLength: 5 }))
  .map(([head, rest]) => `/${[head, ...rest].join('/')}`)

/** Where a path gets a token, it is covered as it stands, as WHATWG URL resolves it, and decoded. */
export const paths: FuzzTarget = {
  name: 'paths',
  runs: 2000,
  property: () =>
    fc.property(path, fc.constantFrom(...GLOBS), (path, glob) => {
      const router = new Router({ pool: { targets: [`api.test${glob}`] } })
      const route = router.find('https', { host: 'api.test', port: 443 })
      expect(pathReadings(path).length).toBeLessThan(100)
      if (route?.pick(path) === undefined) return
      const pattern = glob === '/' ? /^/ : compileGlob(glob)
      const plain = path.split('?')[0] as string
      const url = new URL(`https://api.test${path}`)
      for (const reading of [plain, url.pathname, decoded(plain), decoded(url.pathname)]) {
        expect(reading, reading).toMatch(pattern)
        expect(new URL(`https://api.test${escaped(reading)}`).pathname).toMatch(pattern)
      }
    }),
}

function decoded(path: string): string {
  return path.replace(/%([0-9a-f]{2})/gi, (_, hex) => String.fromCharCode(Number.parseInt(hex, 16)))
}

/** What would end the path here is part of it there. */
function escaped(path: string): string {
  return path.replace(/[?#\0]/g, (char) => `%${char.charCodeAt(0).toString(16).padStart(2, '0')}`)
}

const name = fc.oneof(
  fc.constantFrom(
    'Host',
    'authorization',
    'AUTHORIZATION',
    'X-Api-Key',
    'x-api-key',
    'Cookie',
    'Connection',
    'Keep-Alive',
    'Proxy-Authorization',
    'Proxy-Connection',
    'TE',
    'Upgrade',
    'Expect',
    'Cupbearer-Session',
    'cupbearer-x',
    'DPoP',
    'Accept',
    'X-A',
    'User-Agent',
  ),
  fc.string({ unit: fc.constantFrom(...'aZ0-_!~'), minLength: 1, maxLength: 6 }),
)
const value = fc.oneof(
  fc.constantFrom(
    'close',
    'x-a, X-API-KEY',
    'authorization, host',
    'token=mine; a=b',
    ' token =mine',
    'trailers',
    'Bearer mine',
    '',
  ),
  fc.string({ unit: fc.constantFrom(...'a ,;=\t"\xff'), maxLength: 8 }).map((text) => text.trim()),
)
const fields = fc.array(fc.tuple(name, value), { maxLength: 8 }).map((all) => all.flat())
const INJECT = [
  { header: 'authorization', value: 'Bearer {token}' },
  { header: 'X-Api-Key', value: '{token}' },
  { cookie: 'token', value: '{token}' },
  { query: 'token', value: '{token}' },
] as const

/** What goes upstream is one request to the dialled host with one token, and nothing of the client's in its place. */
export const headers: FuzzTarget = {
  name: 'headers',
  runs: 2000,
  property: () =>
    fc.property(fields, fields, fc.constantFrom(...INJECT), (sent, trailers, inject) => {
      const profile = ['user-agent', 'ours']
      const request = { path: '/a?b=c&token=mine&t%6Fken=mine', headers: sent }
      const outgoing = new Injector(inject).apply(request, 'api.test', {
        token: new Secret('TOKEN'),
        credential: 'id',
        headers: profile,
        claim: () => '',
      })
      const { path, headers } = outgoing
      const [read, ...more] = readStrictly(formatRequestHead('GET', path, headers))
      expect(more).toEqual([])
      const values = (wanted: string) =>
        read?.headers.filter((_, i) => i % 2 === 1 && read.headers[i - 1]?.toLowerCase() === wanted)
      expect(values('host')).toEqual(['api.test'])
      expect(values('user-agent')).toEqual(['ours'])
      expect(`${path}\n${headers.join('\n')}`.split('TOKEN')).toHaveLength(2)
      const names = headers.filter((_, i) => i % 2 === 0).map((each) => each.toLowerCase())
      for (const gone of [
        'connection',
        'keep-alive',
        'proxy-authorization',
        'upgrade',
        'expect',
        'dpop',
      ]) {
        expect(names).not.toContain(gone)
      }
      expect(names.filter((each) => each.startsWith('cupbearer-'))).toEqual([])
      if ('header' in inject) expect(values(inject.header.toLowerCase())).toHaveLength(1)
      else expect(names).not.toContain('authorization')
      if ('cookie' in inject) {
        const cookies = values('cookie')
          ?.join(';')
          .split(';')
          .map((pair) => pair.split('=')[0]?.trim())
        expect(cookies?.filter((each) => each === 'token')).toHaveLength(1)
      }
      if ('query' in inject) expect(path).toBe('/a?b=c&token=TOKEN')
      const follow = forwardTrailers(trailers, headers)
      for (let i = 0; i < follow.length; i += 2) {
        const lower = follow[i]?.toLowerCase() as string
        expect(names).not.toContain(lower)
        expect(lower.startsWith('cupbearer-')).toBe(false)
      }
    }),
}

const MATCHERS = {
  expired: [
    { status: 401 },
    { status: [200, 400], json: { '/error/code': '/^TOKEN_/', '/a~1b': 1 } },
  ],
  limited: [{ status: 429 }, { status: 503, header: { 'retry-after': '.' } }],
  denied: [
    { status: 403, header: { 'www-authenticate': 'insufficient_scope' } },
    { json: { '/0': null } },
  ],
}
const SPECIAL = ['__proto__', 'constructor', 'error', 'code', 'a/b', '0', 'length']
const json = fc.letrec((tie) => ({
  any: fc.oneof(
    { depthSize: 'small' },
    fc.constantFrom(null, true, 1, 'TOKEN_EXPIRED', 'x'),
    fc.array(tie('any'), { maxLength: 3 }),
    fc.dictionary(fc.constantFrom(...SPECIAL), tie('any'), { maxKeys: 3 }),
  ),
})).any

/** Any answer gets one verdict, the same at a glance as with its body. */
export const verdicts: FuzzTarget = {
  name: 'verdicts',
  runs: 2000,
  property: () => {
    const judge = new Judge(MATCHERS)
    const body = fc.oneof(
      json.map((all) => JSON.stringify(all)),
      fc.string(),
      fc.constant('[null]'),
    )
    const known: readonly Verdict[] = ['ok', 'expired', 'limited', 'denied', 'upstream']
    const head = fc.array(
      fc.tuple(
        fc.constantFrom(
          'content-type',
          'Content-Type',
          'content-encoding',
          'retry-after',
          'WWW-Authenticate',
        ),
        fc.constantFrom(
          'application/json',
          'a/b+json',
          'text/html',
          'gzip',
          'br',
          'deflate',
          'identity',
          '',
          '1',
          'Bearer error="insufficient_scope"',
        ),
      ),
      { maxLength: 4 },
    )
    return fc.property(fc.integer({ min: 100, max: 999 }), head, body, (status, pairs, text) => {
      const headers = pairs.flat()
      const glance = judge.judge(status, headers)
      const verdict = judge.judgeBody(status, headers, Buffer.from(text))
      expect(known).toContain(verdict)
      if (glance !== 'peek') expect(known).toContain(glance)
      if (status === 401) expect([glance, verdict]).toEqual(['expired', 'expired'])
      // Without a body to look at, no body matcher has matched.
      const blind = judge.judgeBody(status, headers, undefined)
      if (glance === 'peek') expect(['ok', 'upstream', 'limited', 'denied']).toContain(blind)
    })
  },
}
