import { generateKeyPairSync } from 'node:crypto'
import { describe, expect, test } from 'vitest'
import { loadConfig } from '../../src/config/load.ts'
import type { ConfigError } from '../../src/errors.ts'
import { Folder } from './folder.ts'

const rsa = (bits: number) => {
  const { privateKey } = generateKeyPairSync('rsa', { modulusLength: bits })
  return String(privateKey.export({ type: 'pkcs8', format: 'pem' }))
}
const KEY = rsa(2048)
const BASE = { type: 'oauth2', tokenUrl: 'https://login.test/token', clientId: 'client' }
const AT = 'pools.api.credentials[0].source'

const configFor = (source: object, pool: object = {}) => ({
  pools: { api: { targets: ['api.test'], credentials: [{ id: 'a', source }], ...pool } },
})

async function issuesOf(source: object, pool: object = {}): Promise<string[]> {
  await using folder = await Folder.create()
  const file = await folder.write('config.json', configFor({ ...BASE, ...source }, pool))
  return loadConfig(file).then(
    () => [],
    (error: ConfigError) => error.issues.map(({ path, message }) => `${path}: ${message}`),
  )
}

describe('a source that is complete', () => {
  test.each<[string, object]>([
    ['client_credentials', { clientSecret: 's' }],
    ['client_credentials', { privateKey: KEY, keyId: 'k', keyAlgorithm: 'PS256' }],
    ['password', { username: 'u', password: 'p' }],
    ['jwt_bearer', { assertion: 'given' }],
    ['jwt_bearer', { assertion: { file: 'assertion' } }],
    ['jwt_bearer', { assertion: { subject: 'bob', lifetime: '10m' }, privateKey: KEY }],
    ['token_exchange', { subjectToken: 't', actorToken: { file: 'actor' } }],
    ['device_code', { deviceUrl: 'https://login.test/device', dpop: true }],
    ['authorization_code', { authorizationUrl: 'https://login.test/auth', refreshToken: 'r' }],
  ])('is accepted for %s with %o', async (grant, more) => {
    expect(await issuesOf({ grant, ...more })).toEqual([])
  })

  test('has the paths of its tokens from the file on', async () => {
    await using folder = await Folder.create()
    const source = { ...BASE, grant: 'token_exchange', subjectToken: { file: 'tokens/subject' } }
    const file = await folder.write('config.json', configFor(source))
    const config = await loadConfig(file)
    expect(config.pools.api?.credentials[0]?.source).toMatchObject({
      subjectToken: { file: `${folder.path}/tokens/subject` },
    })
  })
})

describe('a source that cannot work is refused', () => {
  test.each<[string, object, string[]]>([
    [
      'password without user',
      { grant: 'password', password: 'p' },
      [`${AT}.username: required for the grant password`],
    ],
    [
      'an assertion for another grant',
      { grant: 'client_credentials', assertion: 'x' },
      [`${AT}.assertion: not used by the grant client_credentials`],
    ],
    [
      'an assertion to sign without a key',
      { grant: 'jwt_bearer', assertion: {} },
      [`${AT}.privateKey: required to sign the assertion`],
    ],
    [
      'an exchange of nothing',
      { grant: 'token_exchange' },
      [`${AT}.subjectToken: required for the grant token_exchange`],
    ],
    [
      'a device flow without endpoint',
      { grant: 'device_code' },
      [`${AT}.deviceUrl: required for the grant device_code with tokenUrl`],
    ],
    [
      'an endpoint that the issuer names',
      {
        grant: 'device_code',
        tokenUrl: undefined,
        issuer: 'https://a.test',
        deviceUrl: 'https://a.test/d',
      },
      [`${AT}.deviceUrl: not used with issuer, which names it`],
    ],
    [
      'private_key_jwt without key',
      { grant: 'client_credentials', clientAuth: 'private_key_jwt' },
      [`${AT}.privateKey: required for private_key_jwt`],
    ],
    [
      'a key beside a secret',
      { grant: 'client_credentials', clientSecret: 's', privateKey: KEY },
      [`${AT}.privateKey: not used by this grant and clientAuth`],
    ],
    [
      'a secret beside private_key_jwt',
      {
        grant: 'client_credentials',
        clientSecret: 's',
        privateKey: KEY,
        clientAuth: 'private_key_jwt',
      },
      [`${AT}.clientSecret: not used with clientAuth private_key_jwt`],
    ],
    [
      'an algorithm of another kind of key',
      { grant: 'client_credentials', privateKey: KEY, keyAlgorithm: 'ES256' },
      [
        `${AT}.keyAlgorithm: expected one that privateKey can sign by: RS256, RS384, RS512, PS256, PS384, PS512`,
      ],
    ],
    [
      'a key id without key',
      { grant: 'client_credentials', keyId: 'k' },
      [`${AT}.keyId: not used without privateKey`],
    ],
    [
      'a redirect URI of another grant',
      { grant: 'client_credentials', redirectUri: 'http://a.test/' },
      [`${AT}.redirectUri: not used by the grant client_credentials`],
    ],
  ])('%s', async (_what, source, expected) => {
    expect(await issuesOf(source)).toEqual(expected)
  })

  test('a key that is none, or too short, and its text is not told', async () => {
    for (const privateKey of ['hidden text', rsa(1024)]) {
      const issues = await issuesOf({ grant: 'client_credentials', privateKey })
      expect(issues).toEqual([expect.stringMatching(/privateKey: expected a private key as PEM/)])
      expect(issues.join()).not.toContain('hidden')
    }
  })

  test('a bound token anywhere but in the authorization header', async () => {
    const source = { grant: 'client_credentials', clientSecret: 's', dpop: true }
    expect(await issuesOf(source, { inject: { query: 'token' } })).toEqual([
      `${AT}.dpop: expected inject to put the token into the authorization header`,
    ])
    expect(await issuesOf(source, { inject: { header: 'Authorization' } })).toEqual([])
  })
})
