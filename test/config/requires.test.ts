import { expect, test } from 'vitest'
import { loadConfig } from '../../src/config/load.ts'
import { ConfigError } from '../../src/errors.ts'
import { Folder } from './folder.ts'

/** What is wrong with a pool that has these settings. */
async function issuesOf(more: object): Promise<string[]> {
  const credentials = [{ id: 'a', source: { type: 'static', token: 't' } }]
  await using folder = await Folder.create()
  const file = await folder.write('config.json', {
    pools: { api: { targets: ['api.test'], credentials, ...more } },
  })
  try {
    await loadConfig(file, {})
    return []
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error
    return error.issues.map(({ path, message }) => `${path}: ${message}`)
  }
}

test('requirements take methods, a path, scopes and claims of every plain kind', async () => {
  const claims = { tenant: 'acme', level: 3, mfa: true, '/realm_access/roles': 'admin' }
  const rule = { methods: ['GET', 'POST'], path: '/items/*', scopes: ['read:items'], claims }
  expect(await issuesOf({ requires: [rule, { scopes: ['openid'] }] })).toEqual([])
})

test.each([
  [{}, 'pools.api.requires[0]: expected scopes or claims to require'],
  [{ scopes: [] }, 'pools.api.requires[0]: expected scopes or claims to require'],
  [{ scopes: ['two words'] }, 'pools.api.requires[0].scopes[0]: expected one scope'],
  [{ scopes: ['a'], path: 'items' }, 'pools.api.requires[0].path: expected a path'],
  [
    { scopes: ['a'], methods: ['get'] },
    'pools.api.requires[0].methods[0]: expected a method such as "POST"',
  ],
  [
    { claims: { roles: ['admin'] } },
    'pools.api.requires[0].claims.roles: expected a string, a number, true or false',
  ],
])('a requirement %j is refused', async (rule, issue) => {
  expect(await issuesOf({ requires: [rule] })).toEqual([issue])
})

test('verify needs to know whose keys to verify by', async () => {
  const issue =
    'pools.api.verify: expected issuer or jwks beside it: tokens are verified by its keys'
  expect(await issuesOf({ verify: true })).toEqual([issue])
  expect(await issuesOf({ verify: { audience: 'x' } })).toEqual([issue])
  expect(await issuesOf({ verify: false })).toEqual([])
  expect(await issuesOf({ verify: true, issuer: 'https://issuer.test' })).toEqual([])
  const verify = { issuer: 'x', audience: ['a', 'b'] }
  expect(await issuesOf({ verify, jwks: 'https://issuer.test/keys' })).toEqual([])
})
