import { describe, expect, it } from 'vitest'
import { SourceError } from '../../src/errors.ts'
import { Secret } from '../../src/lib/secret.ts'
import type { TokenSet } from '../../src/token/token.ts'
import { sourceOf } from '../support/login-source.ts'
import { json, type ScriptedEndpoint, startScriptedEndpoint } from '../support/scripted-endpoint.ts'
import { sourceContext } from '../support/source-context.ts'

const ALICE = { user: 'alice', password: 'secret' }
const previous: TokenSet = {
  token: new Secret('old-token'),
  refreshToken: new Secret('old-refresh'),
  issuedAt: 0,
}

/** A site of the kind whose refresh refuses requests that carry the expired bearer. */
function startSite(
  refresh: (response: Parameters<typeof json>[0]) => void = (response) =>
    json(response, 200, { token: 'refreshed', refresh: 'new-refresh', ms: 900_000 }),
): Promise<ScriptedEndpoint> {
  return startScriptedEndpoint((response, { url, headers, body }) => {
    if (url === '/login') {
      return json(response, 200, { token: 'logged-in', refresh: 'first-refresh', ms: 900_000 })
    }
    if (headers.authorization) return json(response, 401, { error: 'token_expired' })
    if (!body.includes('old-refresh')) return json(response, 400, { error: 'no_refresh_token' })
    refresh(response)
  })
}

const extract = {
  token: { json: '/token' },
  REFRESH: { json: '/refresh', optional: true },
  MS: { json: '/ms' },
}
const login = (url: string, more: object = {}, step: object = {}) =>
  sourceOf(
    {
      type: 'login',
      steps: [{ url: `${url}/login`, json: { u: '{user}', p: '{password}' }, extract }],
      token: '{token}',
      refreshToken: '{REFRESH}',
      expiresIn: '{MS}ms',
      refresh: {
        steps: [{ url: `${url}/refresh`, json: { refresh: '{refreshToken}' }, extract, ...step }],
        ...more,
      },
    },
    ALICE,
  )

const paths = (site: ScriptedEndpoint) => site.requests.map(({ url }) => url)

describe('a refresh', () => {
  it('takes its own steps, and carries the old bearer only where they say so', async () => {
    await using site = await startSite()
    const token = await login(site.url).obtain(previous, sourceContext())
    expect(token.token.reveal()).toBe('refreshed')
    expect(token.refreshToken?.reveal()).toBe('new-refresh')
    expect((token.expiresAt ?? 0) - token.issuedAt).toBe(900_000)
    expect(paths(site)).toEqual(['/refresh'])
    expect(site.requests[0]?.headers.authorization).toBeUndefined()

    const headers = { authorization: 'Bearer {token}' }
    await login(site.url, {}, { headers }).obtain(previous, sourceContext())
    expect(site.requests[1]?.headers.authorization).toBe('Bearer old-token')
  })

  it('keeps the refresh token that is not replaced', async () => {
    await using site = await startSite((response) => json(response, 200, { token: 'r', ms: 1000 }))
    const token = await login(site.url).obtain(previous, sourceContext())
    expect(token.refreshToken?.reveal()).toBe('old-refresh')
  })

  it('can find its token elsewhere than the login does', async () => {
    await using site = await startSite((response) =>
      response.writeHead(200, { 'x-token': 'from-header', 'x-ttl': '60' }).end(),
    )
    const token = await login(
      site.url,
      { token: '{T}', expiresIn: '{TTL}' },
      { extract: { T: { header: 'x-token' }, TTL: { header: 'x-ttl' } } },
    ).obtain(previous, sourceContext())
    expect(token.token.reveal()).toBe('from-header')
    expect((token.expiresAt ?? 0) - token.issuedAt).toBe(60_000)
  })

  it('is a full login at first, and where there is no refresh token', async () => {
    await using site = await startSite()
    const { refreshToken: _, ...without } = previous
    for (const before of [undefined, without]) {
      const token = await login(site.url).obtain(before, sourceContext())
      expect(token.token.reveal()).toBe('logged-in')
    }
    expect(paths(site)).toEqual(['/login', '/login'])
  })

  it.each<[string, (response: Parameters<typeof json>[0]) => void]>([
    ['401', (response) => json(response, 401, { error: 'invalid_token' })],
    ['400', (response) => json(response, 400, { error: 'invalid_grant' })],
    ['403 with a web page', (response) => response.writeHead(403).end('<html>')],
    ['500', (response) => response.writeHead(500).end()],
    ['a failure in a 200', (response) => json(response, 200, { ok: false })],
    ['a web page in a 200', (response) => response.end('<!doctype html><html></html>')],
  ])('that fails by %s is followed by a full login', async (_how, answer) => {
    await using site = await startSite(answer)
    const token = await login(site.url).obtain(previous, sourceContext())
    expect(token.token.reveal()).toBe('logged-in')
    expect(token.refreshToken?.reveal()).toBe('first-refresh')
    expect(paths(site)).toEqual(['/refresh', '/login'])
  })

  it.each<[string, (response: Parameters<typeof json>[0]) => void]>([
    ['the connection breaks', (response) => void response.destroy()],
    ['the server has no time', (response) => response.writeHead(503).end()],
    ['it is limited', (response) => response.writeHead(429, { 'retry-after': '7' }).end()],
  ])('is tried again, and no login is spent, when %s', async (_how, answer) => {
    await using site = await startSite(answer)
    const error = await login(site.url)
      .obtain(previous, sourceContext())
      .catch((reason: unknown) => reason)
    expect(error).toMatchObject({ kind: 'transient' })
    expect(paths(site)).not.toContain('/login')
  })

  it('that finds no token does not take the old one for it', async () => {
    await using site = await startSite((response) => json(response, 200, { ms: 1000 }))
    const found = { ...extract, token: { json: '/token', optional: true } }
    const token = await login(site.url, {}, { extract: found }).obtain(previous, sourceContext())
    expect(token.token.reveal()).toBe('logged-in')
    expect(paths(site)).toEqual(['/refresh', '/login'])
  })

  it('is not followed by a login when the egress is down', async () => {
    const down = new SourceError('egress', 'egress berlin is down')
    const asked: string[] = []
    const fetch = (url: string | URL) => {
      asked.push(String(url))
      return Promise.reject(down)
    }
    await expect(
      login('http://login.test').obtain(previous, sourceContext({ fetch })),
    ).rejects.toBe(down)
    expect(asked).toHaveLength(1)
  })
})
