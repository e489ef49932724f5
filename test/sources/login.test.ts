import type { ServerResponse } from 'node:http'
import { describe, expect, it } from 'vitest'
import type { TokenSet } from '../../src/token/token.ts'
import { passwordLogin, sourceOf } from '../support/login-source.ts'
import { json, type ReceivedRequest, startScriptedEndpoint } from '../support/scripted-endpoint.ts'
import { clockAt, sourceContext } from '../support/source-context.ts'

const NOW = Date.UTC(2026, 0, 1)
const ALICE = { user: 'alice', password: 'pa"ss&w=rd{user}' }
const context = () => sourceContext({ clock: clockAt(NOW) })

const reveal = ({ token, refreshToken, expiresAt }: TokenSet) => ({
  token: token.reveal(),
  refreshToken: refreshToken?.reveal(),
  expiresAt,
})

describe('a login', () => {
  it('goes through its steps with what the earlier ones found and with their cookies', async () => {
    await using site = await startScriptedEndpoint((response, { url }) => {
      if (url === '/login') {
        response.setHeader('set-cookie', 'session=one; Path=/; HttpOnly')
        response.setHeader('content-type', 'text/html; charset=utf-8')
        response.end('<input name="csrf" value="a&amp;b&#43;c">')
      } else if (url === '/session') {
        response.setHeader('set-cookie', ['session=two; Path=/', 'device=d1; Path=/api'])
        response.writeHead(204).end()
      } else json(response, 200, { data: { access: 'the-token', ttl: 60 } })
    })
    const token = await sourceOf(
      {
        type: 'login',
        steps: [
          {
            url: `${site.url}/login`,
            extract: { CSRF: { regex: 'name="csrf" value="([^"]+)"' } },
          },
          {
            url: `${site.url}/session`,
            form: { user: '{user}', password: '{password}', csrf: '{CSRF}' },
            extract: { DEVICE: { cookie: 'device' } },
          },
          {
            url: `${site.url}/api/token/{DEVICE}?for={user}`,
            headers: { 'x-csrf': '{CSRF}' },
            extract: { TOKEN: { json: '/data/access' }, TTL: { json: '/data/ttl' } },
          },
        ],
        token: '{TOKEN}',
        expiresIn: '{TTL}',
      },
      ALICE,
    ).obtain(undefined, context())

    expect(reveal(token)).toMatchObject({ token: 'the-token', expiresAt: NOW + 60_000 })
    const [first, second, third] = site.requests as [
      ReceivedRequest,
      ReceivedRequest,
      ReceivedRequest,
    ]
    expect([first.method, second.method, third.method]).toEqual(['GET', 'POST', 'GET'])
    expect(second.headers.cookie).toBe('session=one')
    expect(Object.fromEntries(second.form)).toEqual({ ...ALICE, csrf: 'a&b+c' })
    expect(third.url).toBe('/api/token/d1?for=alice')
    expect(third.headers).toMatchObject({ cookie: 'device=d1; session=two', 'x-csrf': 'a&b+c' })
  })

  it('starts each time without cookies', async () => {
    await using site = await startScriptedEndpoint((response) => {
      response.setHeader('set-cookie', 'session=one')
      json(response, 200, { token: 't' })
    })
    const source = sourceOf(passwordLogin(site.url), ALICE)
    await source.obtain(undefined, context())
    await source.obtain(undefined, context())
    expect(site.requests.map(({ headers }) => headers.cookie)).toEqual([undefined, undefined])
  })

  it.each<[string, object, (response: ServerResponse) => void]>([
    [
      'the body, by JSON pointer',
      { json: '/a~1b/0' },
      (response) => json(response, 200, { 'a/b': ['found'] }),
    ],
    [
      'the body, whatever it is, by regular expression',
      { regex: 'token=(\\w+)' },
      (response) => void response.end('ok token=found!'),
    ],
    [
      'a header',
      { header: 'X-Auth-Token' },
      (response) => void response.writeHead(200, { 'x-auth-token': 'found' }).end(),
    ],
    [
      'a part of a header',
      { header: 'authorization', regex: '^Bearer (.+)$' },
      (response) => void response.writeHead(200, { authorization: 'Bearer found' }).end(),
    ],
    [
      'a cookie, also one that may not be sent back',
      { cookie: 'jwt' },
      (response) =>
        void response.writeHead(200, { 'set-cookie': 'jwt=found; Secure; HttpOnly' }).end(),
    ],
  ])('takes a token from %s', async (_where, TOKEN, answer) => {
    await using site = await startScriptedEndpoint(answer)
    const token = await sourceOf(passwordLogin(site.url, {}, { extract: { TOKEN } }), ALICE).obtain(
      undefined,
      context(),
    )
    expect(token.token.reveal()).toBe('found')
  })

  it.each<[string, object, string | Record<string, string>]>([
    [
      'a JSON body',
      { json: { deep: ['{user}', { p: '{password}' }], n: 1 } },
      JSON.stringify({ deep: ['alice', { p: ALICE.password }], n: 1 }),
    ],
    [
      'text that looks like JSON',
      { body: '{"user":"{user}","password":"{password}"}' },
      JSON.stringify(ALICE),
    ],
    [
      'text declared as a form',
      {
        headers: { 'content-type': 'application/x-www-form-urlencoded' },
        body: 'p={password}&u={user}',
      },
      'p=pa%22ss%26w%3Drd%7Buser%7D&u=alice',
    ],
    [
      'XML',
      { headers: { 'content-type': 'text/xml' }, body: '<p a="{password}"/>' },
      '<p a="pa&quot;ss&amp;w=rd{user}"/>',
    ],
    [
      'other text',
      { headers: { 'content-type': 'text/plain' }, body: '{password}' },
      ALICE.password,
    ],
  ])('escapes values in %s', async (_where, body, expected) => {
    await using site = await startScriptedEndpoint((response) =>
      json(response, 200, { token: 't' }),
    )
    await sourceOf(passwordLogin(site.url, {}, { json: undefined, ...body }), ALICE).obtain(
      undefined,
      context(),
    )
    expect(site.requests[0]?.body).toBe(expected)
  })

  it('escapes values in a path and a query', async () => {
    await using site = await startScriptedEndpoint((response) =>
      json(response, 200, { token: 't' }),
    )
    const url = `${site.url}/u/{path}/x?p={password}`
    await sourceOf(passwordLogin(url), { ...ALICE, path: '../a b?c' }).obtain(undefined, context())
    expect(site.requests[0]?.url).toBe('/u/..%2Fa%20b%3Fc/x?p=pa%22ss%26w%3Drd%7Buser%7D')
  })

  it('speaks Basic where only that is answered', async () => {
    await using site = await startScriptedEndpoint((response, { headers }) => {
      const right = `Basic ${Buffer.from(`alice:${ALICE.password}é`).toString('base64')}`
      if (headers.authorization === right) json(response, 201, { token: 'from-basic' })
      else response.writeHead(401, { 'www-authenticate': 'Basic realm="x"' }).end()
    })
    const basic = { username: '{user}', password: '{password}é' }
    const step = { method: 'put', json: undefined, basic }
    const token = await sourceOf(passwordLogin(site.url, {}, step), ALICE).obtain(
      undefined,
      context(),
    )
    expect(token.token.reveal()).toBe('from-basic')
    expect(site.requests[0]?.method).toBe('PUT')
  })

  it('goes on at an address that a page names, but only on a site of its own', async () => {
    await using elsewhere = await startScriptedEndpoint((response) => void response.end())
    let action = '/do?a=1&amp;b=2'
    await using site = await startScriptedEndpoint((response, { url }) => {
      if (url === '/form') {
        response.setHeader('content-type', 'text/html')
        response.end(`<form action="${action}">`)
      } else json(response, 200, { token: 't' })
    })
    const login = {
      type: 'login',
      steps: [
        { url: `${site.url}/form`, extract: { ACTION: { regex: 'action="([^"]+)"' } } },
        {
          url: '{ACTION}',
          form: { password: '{password}' },
          extract: { TOKEN: { json: '/token' } },
        },
      ],
      token: '{TOKEN}',
    }
    await sourceOf(login, ALICE).obtain(undefined, context())
    expect(site.requests[1]?.url).toBe('/do?a=1&b=2')
    for (action of [`${elsewhere.url}/do`, 'javascript:alert(1)', 'http://u:p@127.0.0.1/']) {
      await expect(sourceOf(login, ALICE).obtain(undefined, context())).rejects.toThrow(
        /login step 2: .*cannot be used in url/,
      )
    }
    expect(elsewhere.requests).toHaveLength(0)
  })

  it.each([
    ['a host', 'http://{host}/', { host: 'evil.test/?' }, /no host name cannot be used in url/],
    ['a path', 'http://127.0.0.1:1/a/{dots}/b', { dots: '..' }, /dots cannot be used in url/],
  ])('sends nothing where a value does not fit %s', async (_where, url, vars, message) => {
    const fetch = () => Promise.reject(new Error('was asked'))
    await expect(
      sourceOf(passwordLogin(url), { ...ALICE, ...vars }).obtain(undefined, {
        ...context(),
        fetch,
      }),
    ).rejects.toThrow(message)
  })

  it('puts no line break into a header', async () => {
    await using site = await startScriptedEndpoint((response) =>
      json(response, 200, { token: 't' }),
    )
    const source = sourceOf(passwordLogin(site.url, {}, { headers: { 'x-user': '{user}' } }), {
      ...ALICE,
      user: 'a\r\nx: y',
    })
    await expect(source.obtain(undefined, context())).rejects.toThrow(/cannot be used in x-user/)
    expect(site.requests).toHaveLength(0)
  })

  it('does without a value that may be missing', async () => {
    await using site = await startScriptedEndpoint((response) =>
      json(response, 200, { token: 't' }),
    )
    const extract = {
      TOKEN: { json: '/token' },
      TTL: { json: '/ttl', optional: true },
      REFRESH: { json: '/refresh', optional: true },
    }
    const more = { refreshToken: '{REFRESH}', expiresIn: '{TTL}s' }
    const token = await sourceOf(passwordLogin(site.url, more, { extract }), ALICE).obtain(
      undefined,
      context(),
    )
    expect(reveal(token)).toEqual({ token: 't', refreshToken: undefined, expiresAt: undefined })
  })
})
