import { describe, expect, it } from 'vitest'
import { configSchema, type SourceConfig } from '../../src/config/schema.ts'
import { Secret } from '../../src/lib/secret.ts'
import { sourceFingerprint } from '../../src/sources/table.ts'

function parse(source: Record<string, unknown>): SourceConfig {
  const config = configSchema.parse({
    pools: { api: { targets: ['api.test'], credentials: [{ id: 'a', source }] } },
  })
  return config.pools.api?.credentials[0]?.source as SourceConfig
}

const oauth2 = {
  type: 'oauth2',
  grant: 'client_credentials',
  tokenUrl: 'https://login.test/token',
  clientId: 'client',
  clientSecret: 'secret',
  extra: { b: '2', a: '1' },
}

describe("a source's fingerprint", () => {
  it('is the same whatever the order of keys', () => {
    const turned = Object.fromEntries(Object.entries(oauth2).reverse())
    const fingerprint = sourceFingerprint(parse(oauth2))
    expect(sourceFingerprint(parse({ ...turned, extra: { a: '1', b: '2' } }))).toBe(fingerprint)
    expect(fingerprint).toMatch(/^[0-9a-f]{64}$/)
  })

  it.each([
    ['a secret', { clientSecret: 'other' }],
    ['a member', { scope: 'a' }],
    ['a nested member', { extra: { a: '1', b: '3' } }],
    ['the kind of grant', { grant: 'refresh_token', refreshToken: 'r' }],
  ])('changes with %s', (_what, change) => {
    expect(sourceFingerprint(parse({ ...oauth2, ...change }))).not.toBe(
      sourceFingerprint(parse(oauth2)),
    )
  })

  it('changes with the vars of its credential where it has templates', () => {
    const exec = parse({ type: 'exec', command: ['get-token'] })
    const alice = sourceFingerprint(exec, { user: new Secret('alice') })
    expect(sourceFingerprint(exec, { user: new Secret('alice') })).toBe(alice)
    expect(sourceFingerprint(exec, { user: new Secret('bob') })).not.toBe(alice)
    expect(sourceFingerprint(parse(oauth2), { user: new Secret('bob') })).toBe(
      sourceFingerprint(parse(oauth2)),
    )
  })
})
