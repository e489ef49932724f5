import { describe, expect, test } from 'vitest'
import { Secret } from '../../src/lib/secret.ts'
import { captureSource } from '../../src/sources/capture.ts'
import {
  readRenewal,
  readTokenAnswer,
  readTokenRequest,
  type SeenTokenRequest,
} from '../../src/sources/learned-renewal.ts'
import { startAuthServer } from '../support/auth-server.ts'
import { startOrigin } from '../support/origin.ts'
import { sourceContext } from '../support/source-context.ts'

const URL_ = 'https://auth.test/token?tenant=1'
const NOW = Date.parse('2030-01-01T00:00:00Z')

function seen(
  form: Record<string, string> | string,
  headers: { authorization?: string; origin?: string } = {},
): SeenTokenRequest | undefined {
  const text = new URLSearchParams(form).toString()
  return readTokenRequest(URL_, text, { authorization: undefined, origin: undefined, ...headers })
}

/** What would be asked for a next token, as it stands in the store. */
function renewalAfter(request: SeenTokenRequest | undefined, answer: object): unknown {
  const token = request && readTokenAnswer(request, answer, NOW)
  return token?.renewal && JSON.parse(token.renewal.reveal())
}

const ANSWER = { access_token: 'a1', refresh_token: 'r1', expires_in: 3600, token_type: 'Bearer' }

describe('a token request that came by', () => {
  test('of a page teaches endpoint, client and origin, and nothing of its code', () => {
    const request = seen(
      {
        grant_type: 'authorization_code',
        client_id: 'page',
        code: 'c',
        code_verifier: 'v',
        redirect_uri: 'https://page.test/',
        audience: 'api',
      },
      { origin: 'https://page.test' },
    )
    expect(renewalAfter(request, ANSWER)).toEqual({
      grant: 'refresh_token',
      tokenUrl: URL_,
      clientId: 'page',
      clientAuth: 'none',
      audience: 'api',
      origin: 'https://page.test',
    })
  })

  test.each([
    [
      'Basic, form-encoded (RFC 6749 §2.3.1)',
      { grant_type: 'password', username: 'u', password: 'p' },
      { authorization: `Basic ${btoa('the+client:a%20secret%3A')}` },
      { clientId: 'the client', clientAuth: 'basic', clientSecret: 'a secret:' },
    ],
    [
      'Basic that is not encoded at all',
      { grant_type: 'authorization_code' },
      { authorization: `basic ${btoa('client:100%')}` },
      { clientId: 'client', clientAuth: 'basic', clientSecret: '100%' },
    ],
    [
      'the form',
      { grant_type: 'refresh_token', refresh_token: 'r0', client_id: 'c', client_secret: 's' },
      {},
      { clientId: 'c', clientAuth: 'post', clientSecret: 's', extra: {} },
    ],
  ])('teaches how the client authenticates: by %s', (_how, form, headers, expected) => {
    const renewal = renewalAfter(seen(form, headers), ANSWER)
    expect(renewal).toEqual({ grant: 'refresh_token', tokenUrl: URL_, ...expected })
    expect(JSON.stringify(renewal)).not.toContain('"p"')
  })

  test('of a refresh is repeated with its scope and what else it had', () => {
    const form = { grant_type: 'refresh_token', refresh_token: 'r0', client_id: 'c' }
    const renewal = renewalAfter(seen({ ...form, scope: 'a b', device: 'd' }), ANSWER)
    expect(renewal).toMatchObject({ scope: 'a b', extra: { device: 'd' } })
    const token = readTokenAnswer(seen(form) as SeenTokenRequest, { access_token: 'a' }, NOW)
    expect(token?.refreshToken?.reveal()).toBe('r0')
  })

  test('of a client of its own is repeated as it was', () => {
    const form = { grant_type: 'client_credentials', client_id: 'c', client_secret: 's' }
    expect(renewalAfter(seen(form), { access_token: 'a' })).toMatchObject({
      grant: 'client_credentials',
    })
  })

  test.each([
    ['a signed client', { client_id: 'c', client_assertion: 'e30.e30.x' }, ANSWER],
    ['no client', {}, ANSWER],
    ['no refresh token', { client_id: 'c' }, { ...ANSWER, refresh_token: undefined }],
    [
      'a refresh token with a line break',
      { client_id: 'c' },
      { ...ANSWER, refresh_token: 'r\r\n' },
    ],
  ])('with %s gives a token that cannot be renewed', (_what, form, answer) => {
    const request = seen({ grant_type: 'authorization_code', ...form }) as SeenTokenRequest
    const token = readTokenAnswer(request, answer, NOW)
    expect(token?.token.reveal()).toBe('a1')
    expect(token?.expiresAt).toBe(NOW + 3_600_000)
    expect(token?.renewal).toBeUndefined()
  })

  test.each([
    ['an error', { error: 'invalid_grant' }],
    ['a token bound to a key of the client’s', { ...ANSWER, token_type: 'DPoP' }],
    ['a list', ['a1']],
    ['null', null],
    ['a token that is none', { access_token: { a: 1 } }],
  ])('answered with %s teaches nothing', (_what, answer) => {
    const request = seen({ grant_type: 'refresh_token', client_id: 'c' }) as SeenTokenRequest
    expect(readTokenAnswer(request, answer, NOW)).toBeUndefined()
  })

  test('is told from other forms', () => {
    expect(seen({ user: 'ann' })).toBeUndefined()
    expect(seen('')).toBeUndefined()
  })

  test('whose token holds a line break is refused', () => {
    const request = seen({ grant_type: 'refresh_token', client_id: 'c' }) as SeenTokenRequest
    expect(() => readTokenAnswer(request, { access_token: 'a\r\nb' }, NOW)).toThrow(
      /no header field can carry/,
    )
  })
})

test('what the store holds in a form of another version is no renewal', () => {
  for (const text of ['', 'null', '{}', '{"tokenUrl":"x","clientId":"c"}']) {
    expect(readRenewal(new Secret(text))).toBeUndefined()
  }
})

describe('the source capture', () => {
  const source = () => captureSource({ type: 'capture', authorization: true })

  test('asks for nothing before it has learned how', async () => {
    const context = sourceContext({ name: 'shop/ann' })
    await expect(source().obtain(undefined, context)).rejects.toThrow(
      'nothing has been learned yet, run: cupbearer capture shop',
    )
  })

  test('renews by the learned request, again and again', async () => {
    await using auth = await startAuthServer()
    const { clientId, clientSecret, tokenUrl } = auth
    const basic = [clientId, clientSecret].map((part) => encodeURIComponent(part)).join(':')
    const request = readTokenRequest(tokenUrl, 'grant_type=authorization_code', {
      authorization: `Basic ${btoa(basic)}`,
      origin: undefined,
    }) as SeenTokenRequest
    const first = { access_token: 'a1', refresh_token: await auth.issueRefreshToken() }
    let token = readTokenAnswer(request, first, Date.now())
    const capture = source()
    for (let round = 1; round <= 3; round++) {
      token = await capture.obtain(token, sourceContext())
      expect(await auth.isActive(token.token.reveal())).toBe(true)
    }
    expect(auth.calls).toHaveLength(3)
    expect(auth.reuseDetected).toBe(0)
  })

  test('names the origin of the page, and says when a login is over', async () => {
    await using endpoint = await startOrigin({
      handler: (_request, response) => response.writeHead(400).end('{"error":"invalid_grant"}'),
    })
    const form = 'grant_type=refresh_token&client_id=c&refresh_token=r'
    const request = readTokenRequest(`${endpoint.url}/token`, form, {
      authorization: undefined,
      origin: 'https://page.test',
    }) as SeenTokenRequest
    const token = readTokenAnswer(request, { access_token: 'a' }, Date.now())
    await expect(source().obtain(token, sourceContext({ name: 'shop/ann' }))).rejects.toMatchObject(
      {
        kind: 'revoked',
        message: `token endpoint ${endpoint.host}:${endpoint.port} refuses the learned login, run: cupbearer capture shop`,
      },
    )
    expect(endpoint.requests[0]?.headers.join('\n')).toMatch(/origin\nhttps:\/\/page\.test/i)
  })
})
