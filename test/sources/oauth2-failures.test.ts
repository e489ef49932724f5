import type { ServerResponse } from 'node:http'
import { inspect } from 'node:util'
import { describe, expect, it } from 'vitest'
import { SourceError, UpstreamError } from '../../src/errors.ts'
import { Secret } from '../../src/lib/secret.ts'
import type { PinnedFetch } from '../../src/sources/source.ts'
import { createSource } from '../../src/sources/table.ts'
import { type FailMode, startAuthServer } from '../support/auth-server.ts'
import { json, startScriptedEndpoint } from '../support/scripted-endpoint.ts'
import { clockAt, sourceContext } from '../support/source-context.ts'

const SECRETS = /hidden/

const sourceAt = (tokenUrl: string) =>
  createSource({
    type: 'oauth2',
    grant: 'refresh_token',
    clientId: 'client',
    clientSecret: new Secret('hidden-client-secret'),
    refreshToken: new Secret('hidden-refresh-token'),
    tokenUrl,
  })

async function failureOf(
  answer: (response: ServerResponse) => void,
  now = Date.now(),
): Promise<SourceError> {
  await using endpoint = await startScriptedEndpoint(answer)
  const error = await sourceAt(endpoint.url)
    .obtain(undefined, sourceContext({ clock: clockAt(now) }))
    .then(
      () => undefined,
      (reason: unknown) => reason,
    )
  expect(error).toBeInstanceOf(SourceError)
  expect(endpoint.requests).toHaveLength(1)
  expect(inspect(error, { depth: 20, showHidden: true })).not.toMatch(SECRETS)
  return error as SourceError
}

describe('a token endpoint of oidc-provider', () => {
  it.each<[FailMode, RegExp]>([
    ['500', /answered 500$/],
    ['429', /answered 429$/],
    ['403', /answered 403$/],
    ['html', /other than JSON/],
    ['redirect', /redirect \(307\)/],
    ['huge', /more than 1 MiB/],
    ['reset', /ECONNRESET|UND_ERR_SOCKET/],
  ])('that answers by %s costs no refresh token', async (mode, message) => {
    await using server = await startAuthServer()
    const alice = createSource({
      type: 'oauth2',
      grant: 'refresh_token',
      clientId: server.clientId,
      clientSecret: new Secret(server.clientSecret),
      refreshToken: new Secret(await server.issueRefreshToken()),
      tokenUrl: server.tokenUrl,
    })
    server.fail(mode)
    const result = alice.obtain(undefined, sourceContext())
    await expect(result).rejects.toThrow(message)
    await expect(result).rejects.toMatchObject({ kind: 'transient' })
    server.fail(undefined)
    await expect(alice.obtain(undefined, sourceContext())).resolves.toBeDefined()
    expect(server.calls).toHaveLength(2)
  })

  it('that refuses the client is worth another try', async () => {
    await using server = await startAuthServer()
    const result = createSource({
      type: 'oauth2',
      grant: 'client_credentials',
      clientId: server.clientId,
      clientSecret: new Secret('hidden-wrong-secret'),
      tokenUrl: server.tokenUrl,
    }).obtain(undefined, sourceContext())
    await expect(result).rejects.toMatchObject({ kind: 'transient' })
    await expect(result).rejects.toThrow(/answered 401 \(invalid_client\)/)
  })
})

describe('invalid_grant', () => {
  it.each([400, 401])('with status %i is terminal', async (status) => {
    const error = await failureOf((response) => {
      response.setHeader('www-authenticate', 'Basic realm="x"')
      json(response, status, { error: 'invalid_grant', error_description: 'hidden text' })
    })
    expect(error.kind).toBe('revoked')
    expect(error.message).toMatch(/log in again/)
  })

  it.each([
    ['403, as a firewall may say', (r: ServerResponse) => json(r, 403, { error: 'invalid_grant' })],
    ['500', (r: ServerResponse) => json(r, 500, { error: 'invalid_grant' })],
    ['text', (r: ServerResponse) => r.writeHead(400).end('invalid_grant')],
    ['a list', (r: ServerResponse) => json(r, 400, [{ error: 'invalid_grant' }])],
  ])('as %s is not', async (_what, answer) => {
    expect((await failureOf(answer)).kind).toBe('transient')
  })
})

describe('an answer that is no token', () => {
  it.each([
    ['no access token', {}, /without an access token$/],
    ['an access token that is no string', { access_token: 7 }, /without an access token$/],
    ['an error and status 200', { error: 'bad_code' }, /without an access token \(bad_code\)/],
    ['a token with a line break', { access_token: 'hidden\nhidden' }, /header field/],
    ['a list', ['hidden'], /other than JSON/],
  ])('%s', async (_what, body, message) => {
    const error = await failureOf((response) => json(response, 200, body))
    expect(error.kind).toBe('transient')
    expect(error.message).toMatch(message)
  })

  it('tells the error only where it is a plain word', async () => {
    const error = await failureOf((response) => json(response, 400, { error: 'hidden: x' }))
    expect(error.message).toMatch(/answered 400$/)
  })

  it.each([
    ['7', 7000],
    ['Thu, 01 Jan 2026 00:01:00 GMT', 60_000],
    ['Wed, 31 Dec 2025 00:00:00 GMT', 0],
    ['soon', undefined],
  ])('passes on Retry-After %j', async (value, expected) => {
    for (const status of [429, 503]) {
      const error = await failureOf(
        (response) => response.writeHead(status, { 'retry-after': value }).end(),
        Date.UTC(2026, 0, 1),
      )
      expect(error.retryAfterMs).toBe(expected)
    }
  })
})

describe('an answer with oddities still gives its tokens', () => {
  it.each([
    ['without token_type', {}],
    ['with an unknown token_type', { token_type: 'BearerToken' }],
    ['with an id_token of an unknown issuer', { token_type: 'Bearer', id_token: 'a.b.c' }],
    ['with null members', { token_type: null, scope: null, id_token: null, expires_in: null }],
    ['with expires_in as text', { expires_in: '60' }],
    ['with expires_in as a word', { expires_in: 'never' }],
    ['with scope as a list', { scope: ['a', 'b'] }],
  ])('%s', async (_what, members) => {
    await using endpoint = await startScriptedEndpoint((response) =>
      response
        .writeHead(200, { 'content-type': 'text/plain' })
        .end(JSON.stringify({ access_token: 'access', refresh_token: 'rotated', ...members })),
    )
    const token = await sourceAt(endpoint.url).obtain(undefined, sourceContext())
    expect(token.token.reveal()).toBe('access')
    expect(token.refreshToken?.reveal()).toBe('rotated')
  })
})

describe('an endpoint that does not end', () => {
  it.each([
    ['10 MB announced', (response: ServerResponse) => response.end(Buffer.alloc(10_000_000, 0x20))],
    [
      'an endless stream',
      (response: ServerResponse) => {
        const chunk = Buffer.alloc(65_536, 0x20)
        const write = () => {
          while (!response.destroyed && response.write(chunk)) {}
        }
        response.on('drain', write)
        write()
      },
    ],
  ])('is cut off after 1 MiB: %s', async (_what, answer) => {
    const read = { bytes: 0 }
    await using endpoint = await startScriptedEndpoint((response) => answer(response))
    const counting: PinnedFetch = async (url, init) => {
      const response = await fetch(url, init)
      const counter = new TransformStream<Uint8Array, Uint8Array>({
        transform(chunk, controller) {
          read.bytes += chunk.byteLength
          controller.enqueue(chunk)
        },
      })
      return new Response(response.body?.pipeThrough(counter), { status: response.status })
    }
    await expect(
      sourceAt(endpoint.url).obtain(undefined, sourceContext({ fetch: counting })),
    ).rejects.toThrow(/more than 1 MiB/)
    expect(read.bytes).toBeLessThan(1.5 * 2 ** 20)
    await expect.poll(() => endpoint.open).toBe(0)
  })

  it.each([
    ['never answers', (_response: ServerResponse) => {}],
    [
      'stops within its answer',
      (response: ServerResponse) => void response.writeHead(200).write('{'),
    ],
  ])('ends with the signal when it %s', async (_what, answer) => {
    const abort = new AbortController()
    await using endpoint = await startScriptedEndpoint((response) => {
      answer(response)
      setImmediate(() => abort.abort(new DOMException('over', 'TimeoutError')))
    })
    await expect(
      sourceAt(endpoint.url).obtain(undefined, sourceContext({ signal: abort.signal })),
    ).rejects.toMatchObject({ kind: 'transient', message: expect.stringMatching(/in time/) })
    await expect.poll(() => endpoint.open).toBe(0)
  })

  it('ends with the signal even if the body does not heed it', async () => {
    const abort = new AbortController()
    let cancelled = false
    const body = new ReadableStream({
      pull: () => void setImmediate(() => abort.abort()),
      cancel: () => {
        cancelled = true
      },
    })
    const context = sourceContext({ signal: abort.signal, fetch: async () => new Response(body) })
    await expect(sourceAt('https://login.test').obtain(undefined, context)).rejects.toMatchObject({
      kind: 'transient',
    })
    expect(cancelled).toBe(true)
  })

  it('is not even asked when the signal is over', async () => {
    await using endpoint = await startScriptedEndpoint(() => {})
    const signal = AbortSignal.abort()
    await expect(
      sourceAt(endpoint.url).obtain(undefined, sourceContext({ signal })),
    ).rejects.toMatchObject({ kind: 'transient' })
    expect(endpoint.requests).toHaveLength(0)
  })
})

describe('a redirect', () => {
  it.each([301, 302, 303, 307, 308])('of status %i is not followed', async (status) => {
    const error = await failureOf((response) =>
      response.writeHead(status, { location: '/elsewhere' }).end(),
    )
    expect(error.message).toMatch(/redirect/)
  })
})

describe('an egress that is down', () => {
  const down = new SourceError('egress', 'egress berlin is down')
  const upstream = new UpstreamError('EGRESS_DOWN', 'egress berlin is down', { sent: false })

  it.each([
    ['SourceError', down, down],
    ['EGRESS_DOWN', upstream, upstream],
    ['a cause of what fetch throws', new TypeError('fetch failed', { cause: down }), down],
  ])('is told as it is: %s', async (_what, thrown, expected) => {
    for (const at of [{ tokenUrl: 'https://login.test/t' }, { issuer: 'https://login.test' }]) {
      const error = await createSource({
        type: 'oauth2',
        grant: 'client_credentials',
        clientId: 'client',
        ...at,
      })
        .obtain(undefined, sourceContext({ fetch: () => Promise.reject(thrown) }))
        .catch((reason: unknown) => reason)
      expect(error).toBe(expected)
    }
  })

  it('is told apart from an endpoint that cannot be reached', async () => {
    const result = sourceAt('http://127.0.0.1:1/t').obtain(undefined, sourceContext())
    await expect(result).rejects.toMatchObject({ kind: 'transient' })
  })
})
