import { generateKeyPairSync } from 'node:crypto'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { decodeJwt, decodeProtectedHeader, jwtVerify } from 'jose'
import { describe, expect, it } from 'vitest'
import type { OAuth2SourceConfig } from '../../src/config/schema.ts'
import { Secret } from '../../src/lib/secret.ts'
import { createSource } from '../../src/sources/table.ts'
import { type LoginServer, startLoginServer } from '../support/login-server.ts'
import { json, type ReceivedRequest, startScriptedEndpoint } from '../support/scripted-endpoint.ts'
import { sourceContext } from '../support/source-context.ts'

type Given = Partial<OAuth2SourceConfig> & Pick<OAuth2SourceConfig, 'grant'>

const source = (server: LoginServer, given: Given) =>
  createSource({
    type: 'oauth2',
    clientId: server.clientId,
    clientSecret: new Secret(server.clientSecret),
    ...(given.tokenUrl === undefined ? { issuer: server.issuer } : {}),
    ...given,
  })

/** A client of the server that shows who it is by a signature. */
const keyClient = (server: LoginServer, given: Given) => {
  const { clientId, privateKey, keyId } = server.keyClient
  return createSource({
    type: 'oauth2',
    clientId,
    privateKey: new Secret(privateKey),
    keyId,
    ...(given.tokenUrl === undefined ? { issuer: server.issuer } : {}),
    ...given,
  })
}

/** What a token endpoint is asked by this configuration. */
async function asked(given: Given): Promise<ReceivedRequest> {
  await using endpoint = await startScriptedEndpoint((response) =>
    json(response, 200, { access_token: 'access', token_type: 'Bearer' }),
  )
  await createSource({
    type: 'oauth2',
    clientId: 'client',
    tokenUrl: `${endpoint.url}/token`,
    ...given,
  }).obtain(undefined, sourceContext())
  return endpoint.requests[0] as ReceivedRequest
}

const pem = (bits = 2048) =>
  String(
    generateKeyPairSync('rsa', { modulusLength: bits }).privateKey.export({
      type: 'pkcs8',
      format: 'pem',
    }),
  )

describe('private_key_jwt', () => {
  it.each(['discovery', 'tokenUrl'])('is accepted by oidc-provider, with %s', async (way) => {
    await using server = await startLoginServer()
    const where = way === 'tokenUrl' ? { tokenUrl: server.tokenUrl } : {}
    const client = keyClient(server, { grant: 'client_credentials', scope: 'api:read', ...where })
    const token = await client.obtain(undefined, sourceContext())
    expect(token.claims?.client_id).toBe(server.keyClient.clientId)
    expect(server.isActive(token.token.reveal())).toBe(true)
  })

  it('is signed anew each time, for a short while', async () => {
    const request = await asked({
      grant: 'client_credentials',
      privateKey: new Secret(pem()),
      keyId: 'key-7',
      keyAlgorithm: 'PS384',
    })
    const assertion = request.form.get('client_assertion') ?? ''
    expect(decodeProtectedHeader(assertion)).toEqual({ alg: 'PS384', typ: 'JWT', kid: 'key-7' })
    const { iat, exp, ...claims } = decodeJwt(assertion)
    expect(claims).toEqual({
      iss: 'client',
      sub: 'client',
      aud: `http://${request.headers.host}/token`,
      jti: expect.any(String),
    })
    expect((exp as number) - (iat as number)).toBe(60)
    expect(request.headers.authorization).toBeUndefined()
  })

  it('gives way to a client secret unless it is asked for', async () => {
    const request = await asked({
      grant: 'jwt_bearer',
      clientSecret: new Secret('secret'),
      privateKey: new Secret(pem()),
      assertion: { lifetime: 60_000 },
    })
    expect(request.headers.authorization).toMatch(/^Basic /)
    expect(request.form.has('client_assertion')).toBe(false)
  })
})

describe('the grant password', () => {
  const password = (server: LoginServer, text = server.user.password) =>
    source(server, {
      grant: 'password',
      username: server.user.name,
      password: new Secret(text),
    })

  it('gets a token of the user', async () => {
    await using server = await startLoginServer()
    const token = await password(server).obtain(undefined, sourceContext())
    expect(server.isActive(token.token.reveal())).toBe(true)
    expect(server.calls).toMatchObject([{ form: expect.anything(), status: 200 }])
  })

  it('with a wrong password is revoked, and says what to look at', async () => {
    await using server = await startLoginServer()
    const failing = password(server, 'hidden-wrong').obtain(undefined, sourceContext())
    await expect(failing).rejects.toMatchObject({ kind: 'revoked' })
    await expect(failing).rejects.toThrow(/user name or password are wrong/)
    await expect(failing).rejects.not.toThrow(/hidden-wrong/)
  })

  it('prefers the refresh token it was given, and falls back when that is dead', async () => {
    let dead = false
    await using endpoint = await startScriptedEndpoint((response, { form }) => {
      const refresh = form.get('grant_type') === 'refresh_token'
      if (refresh && dead) json(response, 400, { error: 'invalid_grant' })
      else json(response, 200, { access_token: 'access', refresh_token: refresh ? 'r2' : 'r1' })
    })
    const alice = createSource({
      type: 'oauth2',
      grant: 'password',
      clientId: 'client',
      username: 'alice',
      password: new Secret('secret'),
      tokenUrl: endpoint.url,
    })
    const first = await alice.obtain(undefined, sourceContext())
    const second = await alice.obtain(first, sourceContext())
    dead = true
    const third = await alice.obtain(second, sourceContext())
    expect(third.refreshToken?.reveal()).toBe('r1')
    const grants = endpoint.requests.map(({ form }) => form.get('grant_type'))
    expect(grants).toEqual(['password', 'refresh_token', 'refresh_token', 'password'])
    expect(endpoint.requests[2]?.form.get('refresh_token')).toBe('r2')
  })

  it('is not tried again when the refresh fails for another reason', async () => {
    await using endpoint = await startScriptedEndpoint((response) => json(response, 503, {}))
    const previous = { token: new Secret('old'), refreshToken: new Secret('r'), issuedAt: 0 }
    const failing = createSource({
      type: 'oauth2',
      grant: 'password',
      clientId: 'client',
      username: 'alice',
      password: new Secret('secret'),
      tokenUrl: endpoint.url,
    }).obtain(previous, sourceContext())
    await expect(failing).rejects.toMatchObject({ kind: 'transient' })
    expect(endpoint.requests).toHaveLength(1)
  })
})

describe('the grant jwt_bearer', () => {
  const assertion = { issuer: 'service@example.test', subject: 'bob', lifetime: 60_000 }

  it('makes and signs an assertion that the server accepts', async () => {
    await using server = await startLoginServer()
    const token = await source(server, {
      grant: 'jwt_bearer',
      privateKey: new Secret(server.keyClient.privateKey),
      assertion,
    }).obtain(undefined, sourceContext())
    expect(server.isActive(token.token.reveal())).toBe(true)
  })

  it('signed by another key is revoked', async () => {
    await using server = await startLoginServer()
    const failing = source(server, {
      grant: 'jwt_bearer',
      privateKey: new Secret(pem()),
      assertion,
    }).obtain(undefined, sourceContext())
    await expect(failing).rejects.toMatchObject({ kind: 'revoked' })
    await expect(failing).rejects.toThrow(/assertion is refused/)
  })

  it('says what the operator wants it to say', async () => {
    const { privateKey, publicKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
    const { form } = await asked({
      grant: 'jwt_bearer',
      privateKey: new Secret(String(privateKey.export({ type: 'sec1', format: 'pem' }))),
      assertion: {
        audience: 'https://login.test/',
        lifetime: 3_600_000,
        claims: { scope: 'a b', admin: true, iss: 'not this' },
      },
    })
    const { payload } = await jwtVerify(form.get('assertion') ?? '', publicKey, {
      audience: 'https://login.test/',
      issuer: 'client',
      subject: 'client',
    })
    expect(payload).toMatchObject({ scope: 'a b', admin: true })
    expect((payload.exp as number) - (payload.iat as number)).toBe(3600)
    expect(Object.fromEntries(form)).toMatchObject({
      grant_type: 'urn:ietf:params:oauth:grant-type:jwt-bearer',
      client_id: 'client',
    })
  })

  it('takes an assertion as it is, also from a file that is read each time', async () => {
    const { form } = await asked({ grant: 'jwt_bearer', assertion: new Secret('given') })
    expect(form.get('assertion')).toBe('given')
    const folder = await mkdtemp(join(tmpdir(), 'cupbearer-'))
    const file = join(folder, 'assertion')
    try {
      for (const text of ['first', 'second']) {
        await writeFile(file, `${text}\n`)
        const { form } = await asked({ grant: 'jwt_bearer', assertion: { file } })
        expect(form.get('assertion')).toBe(text)
      }
      await writeFile(file, '\n')
      await expect(asked({ grant: 'jwt_bearer', assertion: { file } })).rejects.toThrow(/empty/)
    } finally {
      await rm(folder, { recursive: true })
    }
    await expect(asked({ grant: 'jwt_bearer', assertion: { file } })).rejects.toThrow(
      /no such|ENOENT/,
    )
  })
})

describe('the grant token_exchange', () => {
  it('gives another token for one that the server knows', async () => {
    await using server = await startLoginServer()
    const subject = await source(server, { grant: 'client_credentials' }).obtain(
      undefined,
      sourceContext(),
    )
    const token = await source(server, {
      grant: 'token_exchange',
      subjectToken: subject.token,
    }).obtain(undefined, sourceContext())
    expect(server.isActive(token.token.reveal())).toBe(true)
    expect(token.token.equals(subject.token)).toBe(false)
  })

  it('of a token that is refused is revoked', async () => {
    await using server = await startLoginServer()
    const failing = source(server, {
      grant: 'token_exchange',
      subjectToken: new Secret('unknown'),
    }).obtain(undefined, sourceContext())
    await expect(failing).rejects.toMatchObject({ kind: 'revoked' })
  })

  it('sends who asks for whom, what for and where', async () => {
    const { form } = await asked({
      grant: 'token_exchange',
      subjectToken: new Secret('subject'),
      subjectTokenType: 'urn:ietf:params:oauth:token-type:jwt',
      actorToken: new Secret('actor'),
      requestedTokenType: 'urn:ietf:params:oauth:token-type:access_token',
      audience: 'backend',
      resource: 'https://api.test/',
      scope: 'read',
      extra: { tenant: 'a' },
    })
    expect(Object.fromEntries(form)).toEqual({
      grant_type: 'urn:ietf:params:oauth:grant-type:token-exchange',
      subject_token: 'subject',
      subject_token_type: 'urn:ietf:params:oauth:token-type:jwt',
      actor_token: 'actor',
      actor_token_type: 'urn:ietf:params:oauth:token-type:access_token',
      requested_token_type: 'urn:ietf:params:oauth:token-type:access_token',
      audience: 'backend',
      resource: 'https://api.test/',
      scope: 'read',
      tenant: 'a',
      client_id: 'client',
    })
  })
})

describe('DPoP at the token endpoint', () => {
  const bound = (server: LoginServer) =>
    source(server, { grant: 'client_credentials', dpop: true, scope: 'api:read' })

  it('binds the token to the credential’s key', async () => {
    await using server = await startLoginServer()
    const first = await bound(server).obtain(undefined, sourceContext())
    expect(first.claims?.cnf).toEqual({ jkt: expect.any(String) })
    // The key goes on with the credential, whatever source object asks.
    const second = await bound(server).obtain(first, sourceContext())
    expect(second.dpopKey).toBe(first.dpopKey)
    expect(second.claims?.cnf).toEqual(first.claims?.cnf)
  })

  it('answers a nonce challenge, and begins with the nonce the next time', async () => {
    await using server = await startLoginServer({ dpopNonce: true })
    const client = bound(server)
    const first = await client.obtain(undefined, sourceContext())
    await client.obtain(first, sourceContext())
    expect(server.calls.map(({ status, error }) => [status, error])).toEqual([
      [400, 'use_dpop_nonce'],
      [200, undefined],
      [200, undefined],
    ])
  })

  it('gives up on a server that wants ever another nonce', async () => {
    let count = 0
    await using endpoint = await startScriptedEndpoint((response) => {
      response.setHeader('dpop-nonce', `nonce-${++count}`)
      json(response, 400, { error: 'use_dpop_nonce' })
    })
    const failing = createSource({
      type: 'oauth2',
      grant: 'client_credentials',
      clientId: 'client',
      tokenUrl: endpoint.url,
      dpop: true,
    }).obtain(undefined, sourceContext())
    await expect(failing).rejects.toMatchObject({ kind: 'transient' })
    await expect(failing).rejects.toThrow(/answered 400 \(use_dpop_nonce\)/)
    expect(count).toBe(2)
  })

  it('refuses a bearer token in place of a bound one', async () => {
    const failing = asked({ grant: 'client_credentials', dpop: true })
    await expect(failing).rejects.toThrow(/bound to no key/)
    await expect(failing).rejects.not.toThrow(/access"/)
  })
})
