import { cp, mkdtemp, readFile, rename, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, describe, expect, test, vi } from 'vitest'
import { startApp, type TestApp } from '../support/app.ts'
import { startHttpProxy } from '../support/http-proxy.ts'
import { startFormLogin, startNodeRed, startVerdaccio } from '../support/login-sites.ts'
import { startOrigin } from '../support/origin.ts'

interface Example {
  pools: Record<string, { credentials: object[] } & object>
}

const EXAMPLES = new URL('../../examples/', import.meta.url)

/** An example as it stands in the folder; what its credentials get besides is the test's. */
async function example(
  name: string,
  env: Record<string, string>,
  credential: object = {},
): Promise<Example> {
  for (const [key, value] of Object.entries(env)) vi.stubEnv(key, value)
  const config = JSON.parse(await readFile(new URL(name, EXAMPLES), 'utf8')) as Example
  for (const pool of Object.values(config.pools)) {
    pool.credentials = pool.credentials.map((each) => ({ ...each, ...credential }))
  }
  return config
}

const credentialOf = async (app: TestApp, pool: string) =>
  (await app.admin(`/api/pools/${pool}`)).credentials[0]

const folders: string[] = []
async function folder(): Promise<string> {
  const made = await mkdtemp(join(tmpdir(), 'cupbearer-login-'))
  folders.push(made)
  return made
}

afterEach(async () => {
  vi.unstubAllEnvs()
  for (const made of folders.splice(0)) await rm(made, { recursive: true, force: true })
})

describe('a registry: Verdaccio', () => {
  test('gets a login by Basic, by the egress of the credential and with its headers', async () => {
    await using registry = await startVerdaccio()
    await using egress = await startHttpProxy()
    const env = {
      REGISTRY: registry.url,
      REGISTRY_USER: 'alice',
      REGISTRY_PASSWORD: registry.password,
    }
    await using app = await startApp({
      ...(await example('login-registry.json', env, { egress: 'other' })),
      egress: { other: egress.url },
    })
    const answer = await app.client().request(`${registry.url}/-/whoami`)
    expect(answer.json()).toEqual({ username: 'alice' })
    const [login, data] = registry.requests
    expect(login).toMatchObject({
      method: 'PUT',
      remoteAddress: '127.0.0.2',
      userAgent: 'npm/10.9.0 node/v22.0.0',
      authorization: expect.stringMatching(/^Basic /),
    })
    expect(data).toMatchObject({
      path: '/-/whoami',
      remoteAddress: '127.0.0.2',
      userAgent: 'npm/10.9.0 node/v22.0.0',
      authorization: expect.stringMatching(/^Bearer eyJ/),
    })
    // The end is in the token: the answer does not tell it.
    const { issuedAt, expiresAt } = await credentialOf(app, 'registry')
    expect(Date.parse(expiresAt) - Date.parse(issuedAt)).toBe(3_600_000)
  })

  test('is asked once with a wrong password, and not again', async () => {
    await using registry = await startVerdaccio()
    const env = { REGISTRY: registry.url, REGISTRY_USER: 'alice', REGISTRY_PASSWORD: 'wrong-one' }
    await using app = await startApp(await example('login-registry.json', env))
    for (let i = 0; i < 3; i++) {
      const answer = await app.client().request(`${registry.url}/-/whoami`)
      expect(answer.status).toBe(503)
      expect(answer.headers['proxy-status'] ?? '').not.toContain('wrong-one')
    }
    const credential = await credentialOf(app, 'registry')
    expect(credential.state).toBe('revoked')
    expect(credential.lastError).toMatch(/^login refused: login step 1 \(PUT 127.*answered 401/)
    expect(registry.requests).toHaveLength(1)
  })
})

describe('an admin API: Node-RED', () => {
  const envFor = (url: string, password: string) => ({
    NODE_RED: url,
    NODE_RED_USER: 'alice',
    NODE_RED_PASSWORD: password,
  })

  test('that takes its token back gets a new login, and the client sees nothing of it', async () => {
    await using red = await startNodeRed()
    await using app = await startApp({
      ...(await example('login-node-red.json', envFor(red.url, red.password))),
    })
    const client = app.client()
    expect((await client.request(`${red.url}/flows`)).json()).toEqual([])
    const bearer = red.requests.at(-1)?.authorization as string
    const revoked = await fetch(`${red.url}/auth/revoke`, {
      method: 'POST',
      headers: { authorization: bearer, 'content-type': 'application/json' },
      body: JSON.stringify({ token: bearer.replace('Bearer ', '') }),
    })
    expect(revoked.status).toBe(200)
    const before = red.requests.length
    expect((await client.request(`${red.url}/flows`)).status).toBe(200)
    const since = red.requests.slice(before)
    expect(since.map(({ path }) => path)).toEqual(['/flows', '/auth/token', '/flows'])
    expect(since[1]?.authorization).toBeUndefined()
    expect(since[2]?.authorization).not.toBe(bearer)

    const wrong = await example('login-node-red.json', envFor(red.url, 'wrong-one'))
    expect(await app.reconfigure(wrong)).toMatchObject({ applied: true })
    await expect
      .poll(async () => (await credentialOf(app, 'flows')).lastError)
      .toMatch(/answered 403 \(invalid_grant\)/)
    expect((await credentialOf(app, 'flows')).state).toBe('revoked')
  })
})

describe('login pages: oidc-provider', () => {
  test('are gone through as a browser would, and the token is renewed without them', async () => {
    await using portal = await startFormLogin()
    const env = {
      PORTAL: portal.url,
      PORTAL_PASSWORD: portal.password,
      PORTAL_SECRET: encodeURIComponent(portal.secret),
    }
    await using app = await startApp(await example('login-form.json', env))
    const answer = await app.client().request(`${portal.url}/me`)
    expect(answer.json()).toEqual({ sub: 'alice' })
    const first = portal.requests.at(-1)?.authorization

    const before = portal.requests.length
    await app.admin('/api/pools/portal/credentials/alice/refresh', 'POST')
    expect(portal.requests.slice(before).map(({ path }) => path)).toEqual(['/token'])
    expect((await app.client().request(`${portal.url}/me`)).json()).toEqual({ sub: 'alice' })
    expect(portal.requests.at(-1)?.authorization).not.toBe(first)
  })
})

describe('a command', () => {
  test('beside the configuration gives a token, and gets its refresh token back', async () => {
    await using origin = await startOrigin()
    const dir = await folder()
    await cp(new URL('exec-command.mjs', EXAMPLES), join(dir, 'exec-command.mjs'))
    const env = { REPORTS: origin.url, ACCOUNT_KEY: 'k{account}' }
    await using app = await startApp(await example('exec-command.json', env), dir)
    const seen = async () =>
      (await app.client().request(origin.url)).json<{ authorization: string }>().authorization
    expect(await seen()).toMatch(/^Bearer nightly@acme\.example\.1\./)
    await app.admin('/api/pools/reports/credentials/nightly/refresh', 'POST')
    expect(await seen()).toMatch(/^Bearer nightly@acme\.example\.2\./)
  })

  test('that is a credential plugin of Kubernetes gives its token', async () => {
    await using origin = await startOrigin()
    const plugin = join(await folder(), 'plugin')
    await writeFile(
      plugin,
      `#!/bin/sh
[ "$1" = get-token ] || exit 1
case "$KUBERNETES_EXEC_INFO" in *'"kind":"ExecCredential"'*) ;; *) exit 2 ;; esac
echo '{"kind":"ExecCredential","status":{"token":"k8s-token","expirationTimestamp":"2099-01-01T00:00:00Z"}}'
`,
      { mode: 0o700 },
    )
    const env = { CLUSTER: origin.url, CREDENTIAL_PLUGIN: plugin }
    await using app = await startApp(await example('exec-kubernetes.json', env))
    const answer = await app.client().request(origin.url)
    expect(answer.json()).toMatchObject({ authorization: 'Bearer k8s-token' })
    expect((await credentialOf(app, 'cluster')).expiresAt).toBe('2099-01-01T00:00:00.000Z')
  })
})

test('a token in a file is replaced with it', async () => {
  await using origin = await startOrigin()
  const dir = await folder()
  const write = async (token: string) => {
    await writeFile(join(dir, 'new.json'), JSON.stringify({ access_token: token }))
    await rename(join(dir, 'new.json'), join(dir, 'token.json'))
  }
  await write('first')
  await using app = await startApp(await example('file-token.json', { REPORTS: origin.url }), dir)
  const seen = async () =>
    (await app.client().request(origin.url)).json<{ authorization: string }>().authorization
  expect(await seen()).toBe('Bearer first')
  await write('second')
  await expect.poll(seen).toBe('Bearer second')
})
