import { describe, expect, test } from 'vitest'
import { Secret } from '../../src/lib/secret.ts'
import { forwardHeaders, Injector } from '../../src/route/inject.ts'

const TOKEN = 'tok&en/=1'

function values(headers: string[] = []) {
  const claims: Record<string, string> = { tenant: 'acme' }
  return {
    token: new Secret(TOKEN),
    credential: 'alice',
    headers,
    claim: (name: string) => claims[name] ?? '',
  }
}

function inject(
  config: ConstructorParameters<typeof Injector>[0],
  request: { path?: string; headers?: string[] },
  profile: string[] = [],
) {
  const { path = '/', headers = [] } = request
  return new Injector(config).apply({ path, headers }, 'api.test', values(profile))
}

const bearer = { header: 'authorization', value: 'Bearer {token}' }

describe('a header', () => {
  test('takes the place of the client’s own, all of them, and the rest keeps order and case', () => {
    const { headers, path } = inject(bearer, {
      path: '/a?b',
      headers: [
        'X-A',
        '1',
        'AUTHORIZATION',
        'Basic x',
        'x-b',
        '2',
        'Authorization',
        'y',
        'X-a',
        '3',
      ],
    })
    expect(path).toBe('/a?b')
    const injected = ['authorization', `Bearer ${TOKEN}`]
    expect(headers).toEqual(['host', 'api.test', 'X-A', '1', ...injected, 'x-b', '2', 'X-a', '3'])
  })

  test('is added at the end where the client sent none', () => {
    expect(inject(bearer, { headers: ['Accept', '*/*'] }).headers.slice(-2)).toEqual([
      'authorization',
      `Bearer ${TOKEN}`,
    ])
  })

  test('of another name drops the client’s Authorization all the same', () => {
    const { headers } = inject(
      { header: 'X-Api-Key', value: '{token}' },
      { headers: ['Authorization', 'Bearer of-the-client', 'x-api-key', 'of-the-client'] },
    )
    expect(headers).toEqual(['host', 'api.test', 'X-Api-Key', TOKEN])
  })

  test('is a template over token, id and claims', () => {
    const value = '{id}:{claim:tenant}:{claim:none}:{token}:{other}'
    const { headers } = inject({ header: 'x', value }, {})
    expect(headers.at(-1)).toBe(`alice:acme::${TOKEN}:{other}`)
  })

  test('survives being named in Connection, which strips the client’s own fields', () => {
    const { headers } = inject(bearer, {
      headers: [
        'Connection',
        'authorization, x-hop, content-length',
        'X-Hop',
        '1',
        'Content-Length',
        '3',
      ],
    })
    expect(headers).toEqual([
      'host',
      'api.test',
      'Content-Length',
      '3',
      'authorization',
      `Bearer ${TOKEN}`,
    ])
  })
})

describe('a query parameter', () => {
  const config = { query: 'access_token', value: '{token}' }
  const value = encodeURIComponent(TOKEN)

  test.each([
    ['/', `/?access_token=${value}`],
    ['/?', `/?access_token=${value}`],
    ['/a?b=%20c&d', `/a?b=%20c&d&access_token=${value}`],
    ['/a?access_token=mine&b=1', `/a?b=1&access_token=${value}`],
    ['/a?b=1&access%5Ftoken=mine&access_token', `/a?b=1&access_token=${value}`],
    ['/a?x=?access_token=no', `/a?x=?access_token=no&access_token=${value}`],
    ['/a?%zz=1', `/a?%zz=1&access_token=${value}`],
  ])('on %s', (path, expected) => {
    const outgoing = inject(config, { path, headers: ['Authorization', 'Bearer of-the-client'] })
    expect(outgoing).toEqual({ path: expected, headers: ['host', 'api.test'] })
  })
})

describe('a cookie', () => {
  const config = { cookie: 'session', value: '{token}' }

  test('joins the client’s cookies in their place and replaces the one of its name', () => {
    const { headers } = inject(config, {
      headers: [
        'A',
        '1',
        'Cookie',
        'a=b; session=mine;c=d',
        'B',
        '2',
        'cookie',
        'session=x; e=f=g',
      ],
    })
    const cookies = `a=b; c=d; e=f=g; session=${TOKEN}`
    expect(headers).toEqual(['host', 'api.test', 'A', '1', 'Cookie', cookies, 'B', '2'])
  })

  test('stands alone where the client has none', () => {
    expect(inject(config, {}).headers).toEqual(['host', 'api.test', 'Cookie', `session=${TOKEN}`])
  })
})

describe('headers fixed for a credential', () => {
  test('replace the client’s, whatever their case', () => {
    const { headers } = inject(
      bearer,
      { headers: ['USER-AGENT', 'curl', 'Accept', '*/*', 'user-agent', 'curl'] },
      ['User-Agent', 'fixed', 'Accept-Language', 'de'],
    )
    expect(headers.filter((each) => each === 'curl')).toEqual([])
    expect(headers).toEqual(
      expect.arrayContaining(['Accept', '*/*', 'User-Agent', 'fixed', 'Accept-Language', 'de']),
    )
  })
})

test('a request that leaves without a token keeps what the client sent, its own hop aside', () => {
  const headers = forwardHeaders(
    [
      ...[
        'Host',
        'x',
        'Authorization',
        'Bearer mine',
        'Proxy-Authorization',
        'Basic x',
        'TE',
        'gzip, trailers',
      ],
      ...[
        'Cupbearer-Session',
        's',
        'Connection',
        'keep-alive, x-hop',
        'X-Hop',
        '1',
        'Keep-Alive',
        '5',
      ],
      ...['Upgrade', 'h2c', 'Expect', '100-continue', 'Transfer-Encoding', 'chunked', 'X-End', '2'],
    ],
    'api.test:8443',
  )
  expect(headers).toEqual(['Host', 'api.test:8443', 'Authorization', 'Bearer mine', 'X-End', '2'])
})
