import fc from 'fast-check'
import { expect, test } from 'vitest'
import { normalizeHost, parseAuthority, parseTarget } from '../../src/lib/authority.ts'
import { Router } from '../../src/route/match.ts'
import { labels, literals, someHosts, urlHost } from './hosts.ts'

/** What is judged here is judged with other hosts by the fuzzer. */
const SEED = 7

test('a host that is taken is the one that WHATWG URL reads, and its own only spelling', () => {
  let taken = 0
  fc.assert(
    fc.property(someHosts, (text) => {
      const host = normalizeHost(text)
      if (host === undefined) return
      taken += 1
      // `::1` without brackets is a host of ours, never of a URL.
      const bare = text.includes(':') && !text.startsWith('[') ? `[${text}]` : text
      expect(host).toBe(urlHost(bare))
      expect(normalizeHost(host)).toBe(host)
      expect(normalizeHost(host.includes(':') ? `[${host}]` : `${host}.`)).toBe(host)
      expect(host).toMatch(/^[a-z0-9_-]+(\.[a-z0-9_-]+)*$|^[0-9a-f:]+$/)
    }),
    { seed: SEED, numRuns: 8000 },
  )
  expect(taken).toBeGreaterThan(1000)
})

test('a name of letters, digits and hyphens that WHATWG URL takes is taken', () => {
  fc.assert(
    fc.property(fc.oneof(labels, literals, fc.domain()), (text) => {
      const host = urlHost(text)
      if (host === undefined || !/^[a-z0-9_-]+(\.[a-z0-9_-]+)*$|^[0-9a-f:]+$/.test(host)) return
      // Percent-encoding is for URLs.
      if (text.includes('%')) return
      expect(normalizeHost(text)).toBe(host)
    }),
    { seed: SEED, numRuns: 3000 },
  )
})

test('an authority is taken apart as WHATWG URL does it', () => {
  const ports = fc.oneof(
    fc.constantFrom(
      '',
      ':',
      ':443',
      ':0443',
      ':80',
      ':0',
      ':65535',
      ':65536',
      ':+1',
      ':1e3',
      ': 1',
      ':1 ',
      ':0x1',
      '::1',
    ),
    fc.nat(70_000).map((port) => `:${port}`),
  )
  fc.assert(
    fc.property(someHosts, ports, (host, port) => {
      const text = host + port
      const ours = parseAuthority(text, 443)
      if (!ours) return
      const url = new URL(`https://${text}/`)
      expect(ours.host).toBe(url.hostname.replace(/^\[|\]$/g, '').replace(/\.$/, ''))
      expect(ours.port).toBe(Number(url.port || 443))
    }),
    { seed: SEED, numRuns: 4000 },
  )
})

test('a pool is found exactly where WHATWG URL says that it is the host of a target', () => {
  const targets = [
    'api.test',
    '*.api.test',
    'bücher.test:8443',
    '127.0.0.1',
    '[::1]:444',
    'http://api.test:80',
  ]
  const router = new Router({ pool: { targets } })
  const meant = targets
    .map((text) => parseTarget(text))
    .filter((target) => typeof target !== 'string')
  const near = fc.oneof(
    fc.constantFrom(
      'api.test',
      'API.test.',
      'a.api.test',
      '.api.test',
      'xapi.test',
      'api.test.x',
      'a.b.API.TEST',
      'xn--bcher-kva.test',
      'BÜCHER.test',
      '0x7f.1',
      '127.0x1',
      '2130706433',
      '[::1]',
      '[0:0::1]',
      '[::ffff:7f00:1]',
      'api。test',
      'api.test..',
      'a..api.test',
      '*.api.test',
    ),
    someHosts,
  )
  let found = 0
  fc.assert(
    fc.property(
      near,
      fc.constantFrom(443, 80, 444, 8443),
      fc.constantFrom('https', 'http'),
      (text, port, scheme) => {
        const authority = parseAuthority(`${text}:${port}`, 0)
        const route = authority && router.find(scheme as 'https', authority)
        if (route) found += 1
        const host = urlHost(text)
        const covered = meant.some(
          (target) =>
            target.scheme === scheme &&
            target.port === port &&
            (target.wildcard ? host?.endsWith(`.${target.host}`) : host === target.host),
        )
        // Whatever is no name in the DNS is refused before it is compared.
        if (authority) expect(route !== undefined).toBe(covered)
        else expect(route).toBeUndefined()
      },
    ),
    { seed: SEED, numRuns: 3000 },
  )
  expect(found).toBeGreaterThan(50)
})
