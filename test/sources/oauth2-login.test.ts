import type { ServerResponse } from 'node:http'
import { describe, expect, it } from 'vitest'
import type { OAuth2SourceConfig } from '../../src/config/schema.ts'
import { SourceError } from '../../src/errors.ts'
import { Secret } from '../../src/lib/secret.ts'
import type { Source, SourceContext } from '../../src/sources/source.ts'
import { createSource } from '../../src/sources/table.ts'
import { TestDialogue } from '../support/dialogue.ts'
import { startLoginServer } from '../support/login-server.ts'
import { ManualClock } from '../support/manual-clock.ts'
import { json, type ScriptedEndpoint, startScriptedEndpoint } from '../support/scripted-endpoint.ts'
import { sourceContext } from '../support/source-context.ts'

type Given = Partial<OAuth2SourceConfig>

const oauth2 = (grant: 'device_code' | 'authorization_code', given: Given): Source =>
  createSource({ type: 'oauth2', grant, clientId: 'client', ...given })

const login = (source: Source, dialogue: TestDialogue, context: Partial<SourceContext> = {}) => {
  if (!source.login) throw new Error('the source takes no login')
  const token = source.login(dialogue, sourceContext({ name: 'api/alice', ...context }))
  token.catch(() => {})
  return token
}

const granted = { access_token: 'access', refresh_token: 'refresh', expires_in: 60 }

describe('the device flow', () => {
  const DEVICE = {
    device_code: 'the-device-code',
    user_code: 'ABCD-EFGH',
    verification_uri: 'https://login.test/device',
    expires_in: 300,
    interval: 5,
  }

  /** A server whose token endpoint gives these answers in turn, the last one again and again. */
  const server = (
    polls: readonly ((response: ServerResponse) => void)[],
    device: object | ((response: ServerResponse) => void) = DEVICE,
  ) => {
    let poll = 0
    return startScriptedEndpoint((response, { url }) => {
      if (url === '/token') polls[Math.min(poll++, polls.length - 1)]?.(response)
      else if (typeof device === 'function') device(response)
      else json(response, 200, device)
    })
  }
  const says =
    (error: string, status = 400) =>
    (response: ServerResponse) =>
      json(response, status, { error })
  const gives = (response: ServerResponse) => json(response, 200, granted)

  const begin = (endpoint: ScriptedEndpoint) => {
    const clock = new ManualClock()
    const dialogue = new TestDialogue()
    const source = oauth2('device_code', {
      tokenUrl: `${endpoint.url}/token`,
      deviceUrl: `${endpoint.url}/device/auth`,
      scope: 'read',
    })
    const abort = new AbortController()
    const token = login(source, dialogue, { clock, signal: abort.signal })
    let settled = false
    const settle = () => {
      settled = true
    }
    token.then(settle, settle)
    return {
      clock,
      dialogue,
      token,
      abort,
      /** Moves the clock, lets the poll that it may have set off come back, and counts the polls. */
      async wait(seconds: number): Promise<number> {
        clock.advance(seconds * 1000)
        // Between two polls a timer waits.
        while (clock.pending === 0 && !settled) await new Promise((r) => setImmediate(r))
        return endpoint.requests.filter(({ url }) => url === '/token').length
      },
    }
  }

  it('shows address and code, and polls no faster than told', async () => {
    await using endpoint = await server([
      says('authorization_pending'),
      says('slow_down'),
      says('authorization_pending'),
      gives,
    ])
    const { clock, dialogue, token, wait } = begin(endpoint)
    const step = await dialogue.step('device')
    expect(step).toEqual({
      step: 'device',
      userCode: 'ABCD-EFGH',
      verificationUri: 'https://login.test/device',
      verificationUriComplete: undefined,
      expiresInSeconds: 300,
    })
    expect(await wait(4.9)).toBe(0)
    expect(await wait(0.1)).toBe(1)
    expect(await wait(5)).toBe(2)
    // RFC 8628 §3.5: slow_down adds five seconds, for good.
    expect(await wait(9.9)).toBe(2)
    expect(await wait(0.1)).toBe(3)
    await wait(10)
    expect(await token).toMatchObject({ scopes: ['read'], subject: undefined })
    expect((await token).refreshToken?.reveal()).toBe('refresh')
    expect(Object.fromEntries(endpoint.requests[0]?.form ?? [])).toEqual({
      client_id: 'client',
      scope: 'read',
    })
    expect(Object.fromEntries(endpoint.requests[1]?.form ?? [])).toEqual({
      client_id: 'client',
      device_code: 'the-device-code',
      grant_type: 'urn:ietf:params:oauth:grant-type:device_code',
    })
    expect(clock.pending).toBe(0)
  })

  it.each([
    ['is denied', says('access_denied'), /refused the login \(access_denied\)/],
    ['expires', says('expired_token'), /nobody confirmed the login in time/],
    [
      'is answered with another error',
      says('invalid_client', 401),
      /answered 401 \(invalid_client\)/,
    ],
  ])('that %s ends with a clear error', async (_what, answer, message) => {
    await using endpoint = await server([answer])
    const { clock, dialogue, token } = begin(endpoint)
    await dialogue.step('device')
    clock.advance(5000)
    await expect(token).rejects.toThrow(message)
    expect(clock.pending).toBe(0)
  })

  it('outlives a server that stumbles, with growing pauses', async () => {
    await using endpoint = await server([
      (response) => response.destroy(),
      (response) => json(response, 503, {}),
      gives,
    ])
    const { clock, dialogue, token, wait } = begin(endpoint)
    await dialogue.step('device')
    expect(await wait(5)).toBe(1)
    expect(await wait(9.9)).toBe(1)
    expect(await wait(0.1)).toBe(2)
    expect(await wait(19.9)).toBe(2)
    clock.advance(100)
    await expect(token).resolves.toBeDefined()
  })

  it('ends when the server answers nothing but garbage', async () => {
    await using endpoint = await server([
      (response) => response.writeHead(200).end('<h1>Sign in</h1>'),
    ])
    const { dialogue, token, wait } = begin(endpoint)
    await dialogue.step('device')
    for (const seconds of [5, 10, 20, 40, 60, 60]) await wait(seconds)
    await expect(token).rejects.toThrow(/other than JSON/)
    expect(endpoint.requests.length).toBeLessThan(10)
  })

  it('ends when the code is over, whatever the server says', async () => {
    await using endpoint = await server([says('authorization_pending')], {
      ...DEVICE,
      expires_in: 12,
    })
    const { clock, dialogue, token, wait } = begin(endpoint)
    await dialogue.step('device')
    expect(await wait(5)).toBe(1)
    expect(await wait(5)).toBe(2)
    clock.advance(5000)
    await expect(token).rejects.toThrow(/nobody confirmed/)
    expect(endpoint.requests).toHaveLength(3)
  })

  it('ends at once when it is given up', async () => {
    await using endpoint = await server([says('authorization_pending')])
    const { clock, dialogue, token, abort } = begin(endpoint)
    await dialogue.step('device')
    abort.abort(new SourceError('transient', 'given up'))
    await expect(token).rejects.toThrow('given up')
    expect(clock.pending).toBe(0)
  })

  it.each<[string, object | ((response: ServerResponse) => void), RegExp]>([
    [
      'HTML',
      (r) => void r.writeHead(200).end('<h1>Hi</h1>'),
      /device authorization endpoint .* other than JSON/,
    ],
    ['10 MB', (r) => void r.writeHead(200).end(Buffer.alloc(10_000_000, 0x20)), /more than 1 MiB/],
    [
      'a redirect',
      (r) => void r.writeHead(302, { location: '/device/auth' }).end(),
      /redirect \(302\)/,
    ],
    ['500', (r) => void r.writeHead(500).end(), /answered 500/],
    ['no end', { ...DEVICE, expires_in: undefined }, /without what it must hold/],
    ['no code', { ...DEVICE, user_code: undefined }, /without what it must hold/],
    ['a code of escape sequences', { ...DEVICE, user_code: '\u001b[2J' }, /no readable code/],
    [
      'an address to run',
      { ...DEVICE, verification_uri: 'javascript:alert(1)' },
      /no address to open/,
    ],
    [
      'a refusal',
      (r) => json(r, 400, { error: 'invalid_scope' }),
      /answered 400 \(invalid_scope\)/,
    ],
  ])('that begins with %s ends with a clear error', async (_what, device, message) => {
    await using endpoint = await server([gives], device)
    const { clock, dialogue, token } = begin(endpoint)
    await expect(token).rejects.toThrow(message)
    await expect(token).rejects.toBeInstanceOf(SourceError)
    expect(dialogue.steps).toEqual([])
    expect(endpoint.requests).toHaveLength(1)
    expect(clock.pending).toBe(0)
  })

  it('does not wait for an endpoint that hangs', async () => {
    let asked = () => {}
    const arrived = new Promise<void>((resolve) => {
      asked = resolve
    })
    await using endpoint = await server([gives], () => asked())
    const clock = new ManualClock()
    const source = oauth2('device_code', {
      tokenUrl: `${endpoint.url}/token`,
      deviceUrl: `${endpoint.url}/device/auth`,
    })
    const token = login(source, new TestDialogue(), { clock, requestTimeoutMs: 30_000 })
    await arrived
    clock.advance(30_000)
    await expect(token).rejects.toThrow(/did not answer in time/)
    expect(clock.pending).toBe(0)
  })
})

describe('the authorization code flow', () => {
  const codeServer = async (given: Given = {}) => {
    const server = await startLoginServer()
    const source = oauth2('authorization_code', {
      issuer: server.issuer,
      clientId: server.publicClientId,
      scope: 'openid offline_access api:read',
      extra: { prompt: 'consent' },
      ...given,
    })
    const dialogue = new TestDialogue()
    return { server, source, dialogue, token: login(source, dialogue) }
  }

  it('sends the person away and takes the code that comes back, with PKCE', async () => {
    const { server, source, dialogue, token } = await codeServer()
    await using _server = server
    const { url, redirectUri } = await dialogue.step('open')
    const asked = new URL(url)
    expect(asked.origin + asked.pathname).toBe(`${server.issuer}/auth`)
    expect(Object.fromEntries(asked.searchParams)).toEqual({
      client_id: server.publicClientId,
      response_type: 'code',
      redirect_uri: 'http://127.0.0.1:4711/callback',
      scope: 'openid offline_access api:read',
      prompt: 'consent',
      state: expect.stringMatching(/^[\w-]{43}$/),
      code_challenge: expect.stringMatching(/^[\w-]{43}$/),
      code_challenge_method: 'S256',
    })
    const back = await server.browse(url)
    expect(back?.startsWith(redirectUri)).toBe(true)
    dialogue.give(back as string)
    const first = await token
    expect(server.isActive(first.token.reveal())).toBe(true)
    // From here on it lives alone.
    const second = await source.obtain(first, sourceContext())
    expect(server.isActive(second.token.reveal())).toBe(true)
    expect(server.calls.map(({ form }) => form.get('grant_type'))).toEqual([
      'authorization_code',
      'refresh_token',
    ])
  })

  it('takes the code alone, as it is copied over SSH', async () => {
    const { server, dialogue, token } = await codeServer()
    await using _server = server
    const back = await server.browse((await dialogue.step('open')).url)
    dialogue.give(`  ${new URL(back as string).searchParams.get('code')}\n`)
    expect(server.isActive((await token).token.reveal())).toBe(true)
  })

  it('leaves aside what belongs to another login, and what is no answer', async () => {
    const { server, dialogue, token } = await codeServer()
    await using _server = server
    const { url } = await dialogue.step('open')
    dialogue.give('http://127.0.0.1:4711/callback?code=stolen&state=other')
    expect((await dialogue.step('note')).message).toMatch(/another login/)
    dialogue.give('what should I type here?')
    expect((await dialogue.step('note', 2)).message).toMatch(/neither an address nor a code/)
    expect(server.calls).toEqual([])
    dialogue.give((await server.browse(url)) as string)
    await expect(token).resolves.toBeDefined()
  })

  it('ends when the answer comes from another issuer, or from none', async () => {
    for (const issuer of ['https://evil.test', undefined]) {
      const { server, dialogue, token } = await codeServer()
      await using _server = server
      const back = new URL((await server.browse((await dialogue.step('open')).url)) as string)
      if (issuer) back.searchParams.set('iss', issuer)
      else back.searchParams.delete('iss')
      dialogue.give(back.href)
      await expect(token).rejects.toThrow(/another issuer/)
      expect(server.calls).toEqual([])
    }
  })

  it('ends when the person refuses', async () => {
    const { server, dialogue, token } = await codeServer()
    await using _server = server
    server.account = undefined
    const back = await server.browse((await dialogue.step('open')).url)
    dialogue.give(back as string)
    await expect(token).rejects.toThrow(/refused the login \(access_denied\)/)
  })

  it('ends when the code is wrong, and says so', async () => {
    const { server, dialogue, token } = await codeServer()
    await using _server = server
    await dialogue.step('open')
    dialogue.give('not-the-code')
    await expect(token).rejects.toThrow(/invalid_grant: the code is wrong/)
  })

  it('binds the code to the key with DPoP', async () => {
    const { server, dialogue, token } = await codeServer({ dpop: true })
    await using _server = server
    const { url } = await dialogue.step('open')
    const thumbprint = new URL(url).searchParams.get('dpop_jkt')
    dialogue.give((await server.browse(url)) as string)
    expect((await token).claims?.cnf).toEqual({ jkt: thumbprint })
  })

  it.each([
    ['http://127.0.0.1/path', 'http://127.0.0.1:4711/path'],
    ['http://localhost:9999/cb', 'http://localhost:9999/cb'],
    ['https://app.test/cb', 'https://app.test/cb'],
  ])('with the redirect URI %s is sent back to %s', async (redirectUri, expected) => {
    const { server, dialogue } = await codeServer({ redirectUri })
    await using _server = server
    expect((await dialogue.step('open')).redirectUri).toBe(expected)
  })

  it('ends after ten minutes without an answer', async () => {
    const clock = new ManualClock()
    const dialogue = new TestDialogue()
    const source = oauth2('authorization_code', {
      tokenUrl: 'https://login.test/token',
      authorizationUrl: 'https://login.test/authorize',
    })
    const token = login(source, dialogue, { clock })
    await dialogue.step('open')
    clock.advance(600_000)
    await expect(token).rejects.toThrow(/nobody confirmed/)
    expect(clock.pending).toBe(0)
  })

  it('needs an endpoint and a way back', async () => {
    await using endpoint = await startScriptedEndpoint((response, request) => {
      const issuer = `http://${request.headers.host}`
      json(response, 200, { issuer, token_endpoint: `${issuer}/token` })
    })
    const unnamed = oauth2('authorization_code', { issuer: endpoint.url })
    await expect(login(unnamed, new TestDialogue())).rejects.toThrow(/no authorization endpoint/)
    const device = oauth2('device_code', { issuer: endpoint.url })
    await expect(login(device, new TestDialogue())).rejects.toThrow(/no device authorization/)
  })
})

describe('without a person', () => {
  const source = oauth2('device_code', {
    tokenUrl: 'https://login.test/token',
    deviceUrl: 'https://login.test/device',
  })
  const previous = (expiresAt: number) => ({ token: new Secret('t'), issuedAt: 0, expiresAt })

  it('the first token needs a login, and the message names the command', async () => {
    const failing = source.obtain(undefined, sourceContext({ name: 'api/alice' }))
    await expect(failing).rejects.toMatchObject({ kind: 'revoked' })
    await expect(failing).rejects.toThrow('login needed, run: cupbearer login api/alice')
  })

  it('a token without a refresh token serves to its end', async () => {
    const clock = new ManualClock()
    const context = sourceContext({ clock, serving: true })
    const early = source.obtain(previous(clock.now() + 5000), context)
    await expect(early).rejects.toMatchObject({ kind: 'transient', retryAfterMs: 5000 })
    await expect(early).rejects.toThrow(/login needed/)
    const late = source.obtain(previous(clock.now()), context)
    await expect(late).rejects.toMatchObject({ kind: 'revoked' })
    const refused = source.obtain(previous(clock.now() + 5000), sourceContext({ clock }))
    await expect(refused).rejects.toMatchObject({ kind: 'revoked' })
  })

  it('a dead refresh token needs a login', async () => {
    await using endpoint = await startScriptedEndpoint((response) =>
      json(response, 400, { error: 'invalid_grant' }),
    )
    const failing = oauth2('authorization_code', {
      tokenUrl: endpoint.url,
      authorizationUrl: endpoint.url,
      refreshToken: new Secret('from elsewhere'),
    }).obtain(undefined, sourceContext({ name: 'api/alice' }))
    await expect(failing).rejects.toMatchObject({ kind: 'revoked' })
    await expect(failing).rejects.toThrow(/invalid_grant.*run: cupbearer login api\/alice/)
    expect(endpoint.requests[0]?.form.get('refresh_token')).toBe('from elsewhere')
  })
})
