import type { X509Certificate } from 'node:crypto'
import { cp } from 'node:fs/promises'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { openAuthority } from '../../src/ca/authority.ts'
import { LeafCache } from '../../src/ca/leaf.ts'
import {
  curl,
  DAY,
  handClock,
  handshake,
  options,
  peek,
  serve,
  temporaryFolder,
} from './support.ts'

/** A cache over a fresh CA, and the certificate that a client sees for a host. */
async function mint(dir: string, targets: string[], max?: number) {
  const clock = handClock()
  const authority = await openAuthority({ ...options(dir, ...targets), clock })
  const leaves = new LeafCache(authority, { clock, ...(max === undefined ? {} : { max }) })
  const certificateOf = async (host: string) => {
    await using server = await serve(() => leaves.contextFor(host))
    return await handshake(server.port, host, authority.certificatePem)
  }
  return { clock, authority, leaves, certificateOf }
}

describe('a client that trusts the CA', () => {
  test.each([
    ['an exact name', 'api.example.com', 'api.example.com', 'DNS:api.example.com'],
    ['a wildcard', '*.example.com', 'a.example.com', 'DNS:*.example.com'],
    ['a wildcard, levels down', '*.example.com', 'a.b.example.com', 'DNS:*.b.example.com'],
    ['a wildcard of one label', '*.test', 'api.test', 'DNS:api.test'],
    ['a wildcard of one label, levels down', '*.test', 'a.api.test', 'DNS:*.api.test'],
    ['a single label', 'localhost', 'localhost', 'DNS:localhost'],
    ['an IPv4 address', '192.0.2.7', '192.0.2.7', 'IP Address:192.0.2.7'],
    ['an IPv6 address', '[2001:DB8::7]', '2001:db8::7', 'IP Address:2001:DB8:0:0:0:0:0:7'],
    ['the shortest IPv6 address', '[::]', '::', 'IP Address:0:0:0:0:0:0:0:0'],
    [
      'an IPv6 address without a gap',
      '[1:2:3:4:5:6:7:8]',
      '1:2:3:4:5:6:7:8',
      'IP Address:1:2:3:4:5:6:7:8',
    ],
  ])('accepts the leaf for %s', async (_, target, host, subjectAltName) => {
    await using folder = await temporaryFolder()
    const { certificateOf, leaves } = await mint(folder.path, [target])
    expect((await certificateOf(host)).subjectAltName).toBe(subjectAltName)
    await using server = await serve(() => leaves.contextFor(host))
    const accepted = await curl(host, server.port, ['--cacert', join(folder.path, 'ca.pem')])
    expect(accepted).toEqual({ code: 0, output: 'ok' })
  })

  test('accepts none outside the constraints of its copy', async () => {
    await using folder = await temporaryFolder()
    await using later = await temporaryFolder()
    const old = await mint(folder.path, ['api.example.com'])
    const hosts = ['evil.example.net', '192.0.2.7', '2001:db8::7']
    await cp(folder.path, later.path, { recursive: true })
    const { leaves } = await mint(later.path, ['evil.example.net', '192.0.2.7', '[2001:db8::7]'])
    for (const host of hosts) {
      await using server = await serve(() => leaves.contextFor(host))
      const refused = await curl(host, server.port, ['--cacert', old.authority.certificatePath])
      expect(refused.code).toBe(60)
      expect(refused.output).toMatch(/(permitted|excluded) subtree violation/)
    }
  })

  test('does not get below TLS 1.2', async () => {
    await using folder = await temporaryFolder()
    const { authority, leaves } = await mint(folder.path, ['api.example.com'])
    await using server = await serve(() => leaves.contextFor('api.example.com'))
    const old = { minVersion: 'TLSv1', maxVersion: 'TLSv1.1', ciphers: 'ALL:@SECLEVEL=0' } as const
    await expect(
      handshake(server.port, 'api.example.com', authority.certificatePem, old),
    ).rejects.toMatchObject({ code: 'ERR_SSL_TLSV1_ALERT_PROTOCOL_VERSION' })
  })
})

test('hosts beneath one wildcard share a certificate, exact names have their own', async () => {
  await using folder = await temporaryFolder()
  const { leaves } = await mint(folder.path, ['*.example.com', 'own.example.com'])
  const shared = leaves.contextFor('a.example.com')
  expect(leaves.contextFor('b.example.com')).toBe(shared)
  expect(leaves.contextFor('own.example.com')).not.toBe(shared)
  expect(leaves.contextFor('a.b.example.com')).not.toBe(shared)
  expect(leaves.size).toBe(3)
})

test('mints nothing for a host that no target covers', async () => {
  await using folder = await temporaryFolder()
  const { leaves } = await mint(folder.path, [
    '*.example.com',
    '10.0.0.1',
    'http://plain.example.net',
  ])
  for (const host of ['example.com', 'evil.test', 'plain.example.net', '10.0.0.2', '::1', '']) {
    expect(() => leaves.contextFor(host)).toThrow(expect.objectContaining({ code: 'CA_INVALID' }))
  }
  expect(leaves.size).toBe(0)
})

test('keeps at most as many as it is told, those used last', async () => {
  await using folder = await temporaryFolder()
  const { leaves } = await mint(folder.path, ['*.example.com'], 3)
  const host = (index: number) => `x.n${index}.example.com`
  const first = leaves.contextFor(host(0))
  for (let index = 1; index < 3; index++) leaves.contextFor(host(index))
  expect(leaves.contextFor(host(0))).toBe(first)
  const second = leaves.contextFor(host(1))
  leaves.contextFor(host(3))
  expect(leaves.size).toBe(3)
  expect(leaves.contextFor(host(1))).toBe(second)
  expect(leaves.contextFor(host(0))).toBe(first)
  leaves.contextFor(host(4))
  leaves.contextFor(host(5))
  expect(leaves.contextFor(host(1))).not.toBe(second)
  expect(leaves.size).toBe(3)
})

describe('a leaf', () => {
  const endOf = (certificate: X509Certificate) => Date.parse(certificate.validTo)

  test('is good for at most 30 days, from an hour ago', async () => {
    await using folder = await temporaryFolder()
    const { clock, certificateOf } = await mint(folder.path, ['api.example.com'])
    const certificate = await certificateOf('api.example.com')
    const from = Date.parse(certificate.validFrom)
    expect(from).toBe(Math.floor((clock.now() - 3_600_000) / 1000) * 1000)
    expect(endOf(certificate) - from).toBe(30 * DAY)
    expect(certificate.serialNumber).toMatch(/^[4-7][0-9A-F]{31}$/)
  })

  test('is minted anew when a third of its life is left', async () => {
    await using folder = await temporaryFolder()
    const { clock, leaves } = await mint(folder.path, ['api.example.com'])
    const first = leaves.contextFor('api.example.com')
    clock.advance(19 * DAY)
    expect(leaves.contextFor('api.example.com')).toBe(first)
    clock.advance(DAY)
    const second = leaves.contextFor('api.example.com')
    expect(second).not.toBe(first)
    expect(leaves.contextFor('api.example.com')).toBe(second)
    expect(leaves.size).toBe(1)
  })

  test('is minted anew when the clock was set back to before its begin', async () => {
    await using folder = await temporaryFolder()
    const { clock, leaves } = await mint(folder.path, ['api.example.com'])
    const first = leaves.contextFor('api.example.com')
    clock.advance(-DAY)
    expect(leaves.contextFor('api.example.com')).not.toBe(first)
  })

  test('never outlives the CA, and there is none after it', async () => {
    await using folder = await temporaryFolder()
    const { clock, authority, leaves } = await mint(folder.path, ['api.example.com'])
    clock.advance(authority.notAfter.getTime() - clock.now() - 5 * DAY)
    const last = leaves.contextFor('api.example.com')
    await using server = await serve(() => last)
    const seen = await peek(server.port)
    expect(endOf(seen)).toBe(authority.notAfter.getTime())
    clock.advance(4.9 * DAY)
    expect(leaves.contextFor('api.example.com')).toBe(last)
    clock.advance(0.2 * DAY)
    expect(() => leaves.contextFor('api.example.com')).toThrow(
      expect.objectContaining({ code: 'CA_INVALID', message: expect.stringContaining('expired') }),
    )
  })
})
