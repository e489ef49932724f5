import { createHash, generateKeyPairSync } from 'node:crypto'
import { calculateJwkThumbprint, decodeJwt, EmbeddedJWK, jwtVerify } from 'jose'
import { describe, expect, it } from 'vitest'
import { readPrivateKey, signingAlgorithms } from '../../src/lib/private-key.ts'
import { Secret } from '../../src/lib/secret.ts'
import { DpopKey } from '../../src/token/dpop.ts'
import { signJwt } from '../../src/token/sign.ts'

const token = new Secret('the-token')
const request = {
  method: 'POST',
  origin: 'https://api.test',
  path: '/orders?page=2#top',
  token,
  now: Date.parse('2030-01-01T00:00:00.900Z'),
}

const verify = (proof: string) =>
  jwtVerify(proof, EmbeddedJWK, { typ: 'dpop+jwt', currentDate: new Date(request.now) })

describe('a proof', () => {
  it('is signed by the key it shows, and names method, address without query, time and token', async () => {
    const { payload, protectedHeader } = await verify(DpopKey.generate().prove(request))
    expect(protectedHeader).toMatchObject({ typ: 'dpop+jwt', alg: 'ES256' })
    expect(Object.keys(protectedHeader.jwk ?? {}).sort()).toEqual(['crv', 'kty', 'x', 'y'])
    expect(payload).toEqual({
      jti: expect.stringMatching(/^[\w-]{36}$/),
      htm: 'POST',
      htu: 'https://api.test/orders',
      iat: 1893456000,
      ath: createHash('sha256').update('the-token').digest('base64url'),
    })
  })

  it('is never the same twice', () => {
    const key = DpopKey.generate()
    const ids = Array.from({ length: 50 }, () => decodeJwt(key.prove(request)).jti)
    expect(new Set(ids).size).toBe(50)
  })

  it('carries the latest nonce of that origin, and of no other', () => {
    const key = DpopKey.generate()
    key.learn('https://api.test', 'one')
    key.learn('https://api.test', 'two')
    expect(decodeJwt(key.prove(request)).nonce).toBe('two')
    expect(decodeJwt(key.prove({ ...request, origin: 'https://b.test' })).nonce).toBeUndefined()
    key.learn('https://api.test', undefined)
    key.learn('https://api.test', 'x'.repeat(2000))
    expect(decodeJwt(key.prove(request)).nonce).toBe('two')
  })

  it('remembers the nonces of a bounded number of origins', () => {
    const key = DpopKey.generate()
    for (let i = 0; i < 100; i++) key.learn(`https://${i}.test`, `nonce-${i}`)
    const nonceOf = (i: number) =>
      decodeJwt(key.prove({ ...request, origin: `https://${i}.test` })).nonce
    expect(nonceOf(99)).toBe('nonce-99')
    expect(nonceOf(0)).toBeUndefined()
  })
})

it('a key that was kept proves the same as before, and shows itself to nobody', async () => {
  const key = DpopKey.generate()
  const again = DpopKey.read(key.secret)
  const thumbprint = async (each: DpopKey) => {
    const { protectedHeader } = await verify(each.prove(request))
    return calculateJwkThumbprint(protectedHeader.jwk as object)
  }
  expect(await thumbprint(again)).toBe(await thumbprint(key))
  expect(String(key.secret)).toBe('[redacted]')
  expect(JSON.stringify(key)).toBe('{}')
})

describe('a private key', () => {
  const rsa = generateKeyPairSync('rsa', { modulusLength: 2048 })
  const keys = {
    rsa,
    p256: generateKeyPairSync('ec', { namedCurve: 'P-256' }),
    p384: generateKeyPairSync('ec', { namedCurve: 'P-384' }),
    p521: generateKeyPairSync('ec', { namedCurve: 'P-521' }),
    ed25519: generateKeyPairSync('ed25519'),
  }

  it.each([
    ['rsa', ['RS256', 'RS384', 'RS512', 'PS256', 'PS384', 'PS512']],
    ['p256', ['ES256']],
    ['p384', ['ES384']],
    ['p521', ['ES512']],
    ['ed25519', ['EdDSA']],
  ] as const)('of kind %s signs by each algorithm that it is good for', async (kind, expected) => {
    const { privateKey, publicKey } = keys[kind]
    expect(signingAlgorithms(privateKey)).toEqual(expected)
    for (const alg of expected) {
      const signed = signJwt({ alg, kid: 'k' }, { sub: 'alice' }, privateKey)
      const { payload, protectedHeader } = await jwtVerify(signed, publicKey)
      expect(payload).toEqual({ sub: 'alice' })
      expect(protectedHeader).toEqual({ alg, kid: 'k' })
    }
  })

  it('is read as PKCS #8, PKCS #1, SEC 1 and JWK', () => {
    const texts = [
      rsa.privateKey.export({ type: 'pkcs8', format: 'pem' }),
      rsa.privateKey.export({ type: 'pkcs1', format: 'pem' }),
      keys.p256.privateKey.export({ type: 'sec1', format: 'pem' }),
      JSON.stringify(keys.p256.privateKey.export({ format: 'jwk' })),
    ]
    for (const text of texts) expect(readPrivateKey(String(text))?.type).toBe('private')
  })

  it.each([
    ['a public one', String(rsa.publicKey.export({ type: 'spki', format: 'pem' }))],
    ['a public JWK', JSON.stringify(rsa.publicKey.export({ format: 'jwk' }))],
    ['no key at all', 'hello'],
    ['broken JSON', '{"kty":'],
  ])('is not %s', (_what, text) => {
    expect(readPrivateKey(text)).toBeUndefined()
  })

  it('that is too short is good for nothing', () => {
    const short = generateKeyPairSync('rsa', { modulusLength: 1024 }).privateKey
    expect(signingAlgorithms(short)).toEqual([])
  })
})
