import { generateKeyPairSync, sign as signBytes } from 'node:crypto'
import { createLocalJWKSet, type JWTPayload, type JWTVerifyGetKey, SignJWT } from 'jose'
import { beforeAll, describe, expect, test } from 'vitest'
import { readToken } from '../../src/token/jwt.ts'
import { verifyToken } from '../../src/token/verify.ts'
import { makeKey, type SigningKey } from '../support/key-issuer.ts'

const NOW = Date.parse('2030-01-01T00:00:00Z')
const SECONDS = NOW / 1000
const anything = { issuer: undefined, audience: undefined }

let known: SigningKey
let stranger: SigningKey
let keys: JWTVerifyGetKey
beforeAll(async () => {
  known = await makeKey('known')
  stranger = await makeKey('stranger')
  keys = createLocalJWKSet({ keys: [known.jwk] })
})

const check = async (text: string, expected = anything as Parameters<typeof verifyToken>[2]) =>
  verifyToken(readToken(text, { receivedAt: NOW }), keys, expected, NOW)
const signed = (claims: JWTPayload) => known.sign({ exp: SECONDS + 60, ...claims })

describe('a token passes', () => {
  test('with a good signature and a time to live', async () => {
    expect(await check(await signed({}))).toBeUndefined()
    expect(await check(await known.sign({}))).toBeUndefined()
  })

  test('up to two seconds after its end: clocks are no better', async () => {
    expect(await check(await signed({ exp: SECONDS - 1 }))).toBeUndefined()
  })

  test('that is not valid yet: it is kept until then', async () => {
    expect(await check(await signed({ nbf: SECONDS + 30 }))).toBeUndefined()
  })

  test('of the issuer and one of the audiences that are wanted', async () => {
    const expected = { issuer: 'https://issuer.test/', audience: ['api', 'other'] }
    for (const aud of ['api', ['x', 'other']]) {
      expect(await check(await signed({ iss: 'https://issuer.test', aud }), expected)).toBe(
        undefined,
      )
    }
  })

  test('without kid when one of several keys fits', async () => {
    const { publicKey, privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
    const jwk = { ...publicKey.export({ format: 'jwk' }), kid: 'third' }
    const several = createLocalJWKSet({ keys: [known.jwk, stranger.jwk, jwk] })
    const text = await new SignJWT({}).setProtectedHeader({ alg: 'ES256' }).sign(privateKey)
    const token = readToken(text, { receivedAt: NOW })
    expect(await verifyToken(token, several, anything, NOW)).toBeUndefined()
    const fewer = createLocalJWKSet({ keys: [known.jwk, stranger.jwk] })
    expect(await verifyToken(token, fewer, anything, NOW)).toBe('its signature is wrong')
  })
})

describe('a token is refused', () => {
  test.each([
    ['it has expired already', { exp: SECONDS - 10 }],
    ['it has expired already', { nbf: SECONDS + 90, exp: SECONDS + 60 }],
    ['it is of another issuer', { iss: 'https://other.test' }],
    ['it is of another issuer', { iss: undefined }],
    ['it is meant for another audience', { aud: 'x' }],
    ['its claim exp is not right', { exp: 'later' as never }],
  ])('because %s: %j', async (reason, claims) => {
    const expected = { issuer: 'https://issuer.test', audience: ['api'] }
    const text = await signed({ iss: 'https://issuer.test', aud: 'api', ...claims } as JWTPayload)
    expect(await check(text, expected)).toBe(reason)
  })

  test('because of its key, its signature or its kind, never in words of its own', async () => {
    expect(await check(await stranger.sign({}))).toBe('no key of the issuer fits it')
    const [head, body, signature] = (await signed({})).split('.') as [string, string, string]
    const other = `${signature[0] === 'A' ? 'B' : 'A'}${signature.slice(1)}`
    expect(await check(`${head}.${body}.${other}`)).toBe('its signature is wrong')
    const none = Buffer.from(JSON.stringify({ alg: 'none' })).toString('base64url')
    expect(await check(`${none}.${body}.`)).toBe('its algorithm is not accepted')
    const shared = Buffer.from(JSON.stringify({ alg: 'HS256', kid: 'known' })).toString('base64url')
    expect(await check(`${shared}.${body}.${signature}`)).toBe('its algorithm is not accepted')
    expect(await check('opaque')).toBe('it is not a signed JWT')
    expect(await check('a.b.c.d.e')).toBe('it is not a signed JWT')
  })

  test('when it is signed rightly by a key for another purpose', async () => {
    const { publicKey, privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
    const jwk = { ...publicKey.export({ format: 'jwk' }), kid: 'enc', use: 'enc' }
    const head = Buffer.from(JSON.stringify({ alg: 'ES256', kid: 'enc' })).toString('base64url')
    const body = Buffer.from('{}').toString('base64url')
    const signature = signBytes('sha256', Buffer.from(`${head}.${body}`), {
      key: privateKey,
      dsaEncoding: 'ieee-p1363',
    }).toString('base64url')
    const token = readToken(`${head}.${body}.${signature}`, { receivedAt: NOW })
    const set = createLocalJWKSet({ keys: [jwk] })
    expect(await verifyToken(token, set, anything, NOW)).toBe('no key of the issuer fits it')
  })
})
