import { describe, expect, it } from 'vitest'
import type { OAuth2SourceConfig } from '../../src/config/schema.ts'
import { Secret } from '../../src/lib/secret.ts'
import { createSource } from '../../src/sources/table.ts'
import type { TokenSet } from '../../src/token/token.ts'
import { type AuthServer, startAuthServer } from '../support/auth-server.ts'
import { json, startScriptedEndpoint } from '../support/scripted-endpoint.ts'
import { clockAt, recordingFetch, sourceContext } from '../support/source-context.ts'

type Given = Partial<OAuth2SourceConfig> & Pick<OAuth2SourceConfig, 'grant'>

const source = (server: AuthServer, given: Given) =>
  createSource({
    type: 'oauth2',
    clientId: server.clientId,
    clientSecret: new Secret(server.clientSecret),
    ...(given.issuer === undefined ? { tokenUrl: server.tokenUrl } : {}),
    ...given,
  })

describe('client credentials', () => {
  it.each(['basic', 'post', undefined] as const)(
    'get a JWT with client authentication %s',
    async (clientAuth) => {
      await using server = await startAuthServer({ accessTokenTtlSeconds: 90 })
      const given: Given = { grant: 'client_credentials', scope: 'api:read' }
      const token = await source(server, clientAuth ? { ...given, clientAuth } : given).obtain(
        undefined,
        sourceContext(),
      )
      expect(token.claims?.client_id).toBe(server.clientId)
      expect((token.expiresAt as number) - token.issuedAt).toBe(90_000)
      expect(token.scopes).toEqual(['api:read'])
      expect(token.refreshToken).toBeUndefined()
      expect(await server.isActive(token.token.reveal())).toBe(true)
      expect(server.calls).toMatchObject([
        { grant: 'client_credentials', remoteAddress: '127.0.0.1' },
      ])
    },
  )

  it('get an opaque token that ends by expires_in', async () => {
    await using server = await startAuthServer({ jwt: false, accessTokenTtlSeconds: 90 })
    const clock = clockAt(1_000_000)
    const token = await source(server, { grant: 'client_credentials' }).obtain(
      undefined,
      sourceContext({ clock }),
    )
    expect(token).toMatchObject({ issuedAt: 1_000_000, expiresAt: 1_090_000 })
    expect(token.claims).toBeUndefined()
    expect(await server.isActive(token.token.reveal())).toBe(true)
    server.revokeAccessTokens()
    expect(await server.isActive(token.token.reveal())).toBe(false)
  })

  it('ask again and ignore a refresh token from before', async () => {
    await using server = await startAuthServer()
    const previous = { token: new Secret('old'), refreshToken: new Secret('old'), issuedAt: 0 }
    const token = await source(server, { grant: 'client_credentials' }).obtain(
      previous,
      sourceContext(),
    )
    expect(token.refreshToken).toBeUndefined()
    expect(server.calls).toMatchObject([{ grant: 'client_credentials' }])
  })

  it('keep no refresh token, even if the server sends one', async () => {
    await using endpoint = await startScriptedEndpoint((response) =>
      json(response, 200, { access_token: 'access', refresh_token: 'needless' }),
    )
    const token = await createSource({
      type: 'oauth2',
      grant: 'client_credentials',
      clientId: 'client',
      tokenUrl: endpoint.url,
    }).obtain(undefined, sourceContext())
    expect(token.refreshToken).toBeUndefined()
  })
})

describe('a refresh token', () => {
  it('rotates through twenty refreshes without a reuse', async () => {
    await using server = await startAuthServer()
    const refreshToken = new Secret(await server.issueRefreshToken('alice'))
    const alice = source(server, { grant: 'refresh_token', refreshToken })
    const used = new Set([refreshToken.reveal()])
    let previous: TokenSet | undefined
    for (let i = 0; i < 20; i++) {
      previous = await alice.obtain(previous, sourceContext())
      used.add(previous.refreshToken?.reveal() as string)
      expect(await server.isActive(previous.token.reveal())).toBe(true)
    }
    expect(previous?.subject).toBe('alice')
    expect(previous?.scopes).toEqual(['api:read', 'api:write'])
    expect(used.size).toBe(21)
    expect(server.calls).toHaveLength(20)
    expect(server.reuseDetected).toBe(0)
  })

  it('is kept when the answer holds no new one', async () => {
    await using endpoint = await startScriptedEndpoint((response) =>
      json(response, 200, { access_token: 'access', token_type: 'Bearer' }),
    )
    const token = await createSource({
      type: 'oauth2',
      grant: 'refresh_token',
      clientId: 'client',
      tokenUrl: endpoint.url,
      refreshToken: new Secret('first'),
    }).obtain({ token: new Secret('old'), issuedAt: 0, scopes: ['a', 'b'] }, sourceContext())
    expect(token.refreshToken?.reveal()).toBe('first')
    expect(token.expiresAt).toBeUndefined()
    expect(token.scopes).toEqual(['a', 'b'])
  })

  it('is used by a client without a secret', async () => {
    await using server = await startAuthServer()
    const clientId = server.publicClientId
    const refreshToken = new Secret(await server.issueRefreshToken('bob', { clientId }))
    const token = await createSource({
      type: 'oauth2',
      grant: 'refresh_token',
      clientId,
      tokenUrl: server.tokenUrl,
      refreshToken,
    }).obtain(undefined, sourceContext())
    expect(token.subject).toBe('bob')
  })

  it('that was used before is revoked with its whole family', async () => {
    await using server = await startAuthServer()
    const refreshToken = new Secret(await server.issueRefreshToken())
    const alice = source(server, { grant: 'refresh_token', refreshToken })
    const first = await alice.obtain(undefined, sourceContext())
    const reuse = await alice.obtain(undefined, sourceContext()).catch((error: unknown) => error)
    expect(reuse).toMatchObject({ kind: 'revoked', code: 'SOURCE_REVOKED' })
    expect((reuse as Error).message).toMatch(/invalid_grant.*log in again/)
    expect((reuse as Error).message).not.toContain(refreshToken.reveal())
    await expect(alice.obtain(first, sourceContext())).rejects.toMatchObject({ kind: 'revoked' })
    expect(server.reuseDetected).toBe(1)
    expect(await server.isActive(first.token.reveal())).toBe(false)
  })

  it('whose rotated successor was lost on the way is revoked at the next try', async () => {
    await using server = await startAuthServer()
    const refreshToken = new Secret(await server.issueRefreshToken())
    const alice = source(server, { grant: 'refresh_token', refreshToken })
    server.fail({ lost: () => {} })
    await expect(alice.obtain(undefined, sourceContext())).rejects.toMatchObject({
      kind: 'transient',
    })
    server.fail(undefined)
    await expect(alice.obtain(undefined, sourceContext())).rejects.toMatchObject({
      kind: 'revoked',
    })
  })
})

describe('an issuer', () => {
  it('is discovered once, by the pinned fetch like the token request', async () => {
    await using server = await startAuthServer()
    const pinned = recordingFetch()
    const client = source(server, { grant: 'client_credentials', issuer: server.issuer })
    await client.obtain(undefined, sourceContext({ fetch: pinned.fetch }))
    await client.obtain(undefined, sourceContext({ fetch: pinned.fetch }))
    expect(pinned.urls).toEqual([
      `${server.issuer}/.well-known/openid-configuration`,
      server.tokenUrl,
      server.tokenUrl,
    ])
  })

  it('without OpenID Connect is discovered by RFC 8414', async () => {
    await using endpoint = await startScriptedEndpoint((response, request) => {
      const issuer = `http://${request.headers.host}`
      if (request.url === '/.well-known/oauth-authorization-server') {
        json(response, 200, { issuer, token_endpoint: `${issuer}/token` })
      } else if (request.url === '/token') {
        json(response, 200, { access_token: 'access', token_type: 'Bearer' })
      } else json(response, 404, {})
    })
    const token = await createSource({
      type: 'oauth2',
      grant: 'client_credentials',
      clientId: 'client',
      issuer: endpoint.url,
    }).obtain(undefined, sourceContext())
    expect(token.token.reveal()).toBe('access')
  })

  it.each([
    ['another issuer', { issuer: 'http://other.test', token_endpoint: 'http://other.test/t' }],
    ['no token endpoint', {}],
    ['a garbled token endpoint', { token_endpoint: 'not a URL' }],
  ])('that names %s is refused before a credential is sent', async (_what, metadata) => {
    await using endpoint = await startScriptedEndpoint((response, request) =>
      json(response, 200, { issuer: `http://${request.headers.host}`, ...metadata }),
    )
    const client = createSource({
      type: 'oauth2',
      grant: 'client_credentials',
      clientId: 'client',
      issuer: endpoint.url,
    })
    const result = client.obtain(undefined, sourceContext())
    await expect(result).rejects.toMatchObject({ code: 'SOURCE_FAILED', kind: 'transient' })
    expect(endpoint.requests.every(({ method }) => method === 'GET')).toBe(true)
  })

  it('on https:// may not send credentials to an http:// endpoint', async () => {
    const urls: string[] = []
    const client = createSource({
      type: 'oauth2',
      grant: 'client_credentials',
      clientId: 'client',
      clientSecret: new Secret('hidden'),
      issuer: 'https://login.test',
    })
    const context = sourceContext({
      fetch: async (url) => {
        urls.push(String(url))
        const metadata = { issuer: 'https://login.test', token_endpoint: 'http://login.test/t' }
        return Response.json(metadata)
      },
    })
    await expect(client.obtain(undefined, context)).rejects.toThrow(/http:\/\/ endpoint/)
    expect(urls).toEqual(['https://login.test/.well-known/openid-configuration'])
  })
})

describe('the token request', () => {
  const ask = async (given: Given) => {
    await using endpoint = await startScriptedEndpoint((response) =>
      json(response, 200, { access_token: 'access', token_type: 'Bearer' }),
    )
    await createSource({
      type: 'oauth2',
      clientId: 'the client',
      tokenUrl: `${endpoint.url}/token?tenant=1`,
      ...given,
    }).obtain(undefined, sourceContext())
    const [request] = endpoint.requests
    if (!request) throw new Error('nothing was asked')
    return request
  }

  it('carries the secret form-encoded in Basic and nowhere else', async () => {
    const request = await ask({
      grant: 'client_credentials',
      clientSecret: new Secret('a:b c%'),
    })
    const basic = `Basic ${Buffer.from('the+client:a%3Ab+c%25').toString('base64')}`
    expect(request).toMatchObject({ method: 'POST', url: '/token?tenant=1' })
    expect(request.headers.authorization).toBe(basic)
    expect([...request.form]).toEqual([['grant_type', 'client_credentials']])
  })

  it('carries the secret in the form with post', async () => {
    const request = await ask({
      grant: 'client_credentials',
      clientSecret: new Secret('a:b c%'),
      clientAuth: 'post',
    })
    expect(request.headers.authorization).toBeUndefined()
    expect(Object.fromEntries(request.form)).toEqual({
      grant_type: 'client_credentials',
      client_id: 'the client',
      client_secret: 'a:b c%',
    })
  })

  it('carries only the client id with none', async () => {
    const request = await ask({
      grant: 'refresh_token',
      refreshToken: new Secret('refresh'),
      clientSecret: new Secret('unused'),
      clientAuth: 'none',
    })
    expect(request.headers.authorization).toBeUndefined()
    expect(Object.fromEntries(request.form)).toEqual({
      grant_type: 'refresh_token',
      client_id: 'the client',
      refresh_token: 'refresh',
    })
  })

  it('carries scope, audience, resource and further parameters', async () => {
    const { form } = await ask({
      grant: 'client_credentials',
      scope: 'a b',
      audience: 'https://api.test',
      resource: 'urn:api',
      extra: { tenant: 'x', grant_type: 'ignored' },
    })
    expect(Object.fromEntries(form)).toEqual({
      grant_type: 'client_credentials',
      client_id: 'the client',
      scope: 'a b',
      audience: 'https://api.test',
      resource: 'urn:api',
      tenant: 'x',
    })
  })

  it("leaves the user agent to the credential's profile", async () => {
    const request = await ask({ grant: 'client_credentials' })
    expect(request.headers['user-agent']).not.toMatch(/openid-client|oauth4webapi/)
  })
})
