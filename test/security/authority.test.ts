import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { startRawOrigin } from '../egress/raw-origin.ts'
import { RawClient } from '../proxy/raw-client.ts'
import { startApp } from '../support/app.ts'
import { trusting } from '../support/protected-origin.ts'
import { Stage, statuses, TOKEN } from './stage.ts'

let stage: Stage

beforeAll(async () => {
  stage = await Stage.start((port) => ({
    passthrough: { action: 'deny' },
    pools: {
      api: {
        targets: ['api.test', '127.0.0.1', 'bücher.test', 'nameless.test'].map(
          (name) => `${name}:${port}`,
        ),
        credentials: [{ id: 'a', source: { type: 'static', token: TOKEN } }],
      },
      other: {
        targets: [`other.test:${port}`],
        credentials: [{ id: 'b', source: { type: 'static', token: 'token-of-the-other-pool' } }],
      },
    },
  }))
})
afterAll(() => stage[Symbol.asyncDispose]())
beforeEach(() => stage.origin.forget())

const fill = (text: string) => text.replaceAll('PORT', String(stage.origin.port))
const get = (target: string, host: string) =>
  fill(`GET ${target} HTTP/1.1\r\nHost: ${host}\r\nConnection: close\r\n\r\n`)

/** Nothing at all was sent to the origin. */
function expectSilence(): void {
  expect(stage.origin.connections.map(({ sent }) => sent).join('')).toBe('')
}

/** One request went there, to this host, with this token. */
function expectOne(host: string, token = TOKEN): void {
  const heard = stage.heard()
  expect(heard).toHaveLength(1)
  const { headers = [] } = heard[0] ?? {}
  expect(headers.filter((_, i) => headers[i - 1]?.toLowerCase() === 'host')).toEqual([fill(host)])
  expect(headers).toContain(`Bearer ${token}`)
}

describe('inside a tunnel', () => {
  test.each([
    ['api.test:PORT'],
    ['api.test'],
    ['API.Test:PORT'],
    ['api.test.:PORT'],
    ['api.test.'],
  ])('Host %s is the host that is dialled, and is spelled as that', async (host) => {
    const client = await stage.client()
    expect(statuses(await client.say(get('/', host)).rest())).toEqual([200])
    expectOne('api.test:PORT')
  })

  test.each([
    ['other.test:PORT', 421],
    ['other.test', 421],
    ['api.test:443', 421],
    ['api.test:80', 421],
    ['xapi.test:PORT', 421],
    ['api.test.other.test:PORT', 421],
    ['127.0.0.1:PORT', 421],
    ['[::1]:PORT', 421],
    ['[::ffff:127.0.0.1]:PORT', 421],
    ['2130706433:PORT', 421],
    ['b\xfccher.test:PORT', 421],
    ['', 400],
    ['.', 400],
    ['api.test..', 400],
    ['.api.test', 400],
    ['*.test', 400],
    [':PORT', 400],
    ['api.test:', 400],
    ['api.test:0', 400],
    ['api.test:65536', 400],
    ['api.test:+PORT', 400],
    ['api.test: PORT', 400],
    ['api.test :PORT', 400],
    ['api.test:PORT:PORT', 400],
    ['api.test:0x1bb', 400],
    ['other.test@api.test:PORT', 400],
    ['api.test:PORT@other.test', 400],
    ['@api.test', 400],
    ['api.test/', 400],
    ['api.test?', 400],
    ['api.test#', 400],
    ['api.test\\', 400],
    ['api.test;', 400],
    ['api%2etest', 400],
    ['api.test%00', 400],
    ['api.test,other.test', 400],
    ['api.test other.test', 400],
    ['api.test\tother.test', 400],
    ['"api.test"', 400],
    ['[api.test]', 400],
    ['[::1', 400],
    ['[::1%25lo]:PORT', 400],
    ['::1', 400],
    ['https://api.test', 400],
    ['xn--:PORT', 400],
    ['0x7f.0.0.256', 400],
  ])('Host %j gets %i, and nothing is sent', async (host, status) => {
    const client = await stage.client()
    expect(statuses(await client.say(get('/', host)).rest())).toEqual([status])
    expectSilence()
  })

  test.each([
    ['https://api.test:PORT/x', 200],
    ['HTTPS://API.test.:PORT/x', 200],
    ['https://other.test:PORT/x', 421],
    ['https://api.test/x', 421],
    ['http://api.test:PORT/x', 421],
    ['wss://api.test:PORT/x', 400],
    ['https://other.test@api.test:PORT/x', 400],
    ['https://api.test:PORT\\@other.test/x', 400],
    ['https:///x', 400],
    ['https:api.test:PORT/x', 400],
  ])('a target %s gets %i', async (target, status) => {
    const client = await stage.client()
    expect(statuses(await client.say(get(target, 'api.test:PORT')).rest())).toEqual([status])
    if (status === 200) expectOne('api.test:PORT')
    else expectSilence()
  })

  test('a target that begins with two slashes is a path, whatever host it looks like', async () => {
    const client = await stage.client()
    await client.say(get('//other.test/x', 'api.test:PORT')).rest()
    expectOne('api.test:PORT')
    expect(stage.heard()[0]?.target).toBe('//other.test/x')
  })

  test('what agrees once is judged anew for the next request', async () => {
    const client = await stage.client()
    const kept = (host: string) => fill(`GET / HTTP/1.1\r\nHost: ${host}\r\n\r\n`)
    client.say(kept('api.test') + kept('other.test') + get('/', 'api.test'))
    expect(statuses(await client.rest())).toEqual([200, 421, 200])
    expect(stage.heard()).toHaveLength(2)
  })
})

describe('the server name of TLS', () => {
  test.each([
    ['other.test', 421],
    ['api.test.other.test', 421],
    ['127.0.0.1:443', 421],
    ['api.test:443', 421],
    ['api.test..', 421],
    ['api_test', 421],
    ['API.test', 200],
    ['api.test.', 200],
    ['', 200],
  ])('%j gets %i', async (servername, status) => {
    const connected = await stage.app.client({ servername }).connect(stage.authority)
    const client = new RawClient(connected)
    expect(statuses(await client.say(get('/', 'api.test')).rest())).toEqual([status])
    if (status === 200) expectOne('api.test:PORT')
    else expectSilence()
  })

  test('that is another one is told on every request of the connection', async () => {
    const connected = await stage.app.client({ servername: 'other.test' }).connect(stage.authority)
    const client = new RawClient(connected)
    const other = fill('GET / HTTP/1.1\r\nHost: other.test:PORT\r\n\r\n')
    client.say(other + get('/', 'api.test'))
    expect(statuses(await client.rest())).toEqual([421, 421])
    expectSilence()
  })
})

describe('CONNECT', () => {
  const connect = async (authority: string) => {
    const { status, socket } = await stage.app.client().tunnel(fill(authority))
    socket.destroy()
    return status
  }

  test.each([
    ['API.TEST:PORT', 'api.test:PORT'],
    ['api.test.:PORT', 'api.test:PORT'],
    ['xn--bcher-kva.test:PORT', 'xn--bcher-kva.test:PORT'],
    ['XN--BCHER-KVA.test:PORT', 'xn--bcher-kva.test:PORT'],
    ['127.0.0.1.:PORT', '127.0.0.1:PORT'],
    ['2130706433:PORT', '127.0.0.1:PORT'],
    ['0177.0.0.1:PORT', '127.0.0.1:PORT'],
    ['0x7f.0.0.1:PORT', '127.0.0.1:PORT'],
    ['0X7F000001:PORT', '127.0.0.1:PORT'],
    ['127.1:PORT', '127.0.0.1:PORT'],
    ['127.0x1:PORT', '127.0.0.1:PORT'],
    ['127.0.0x1:PORT', '127.0.0.1:PORT'],
  ])('to %s is to %s: there the token goes', async (spelled, meant) => {
    const servername = meant.replace(/:.*/, '')
    const client = new RawClient(await stage.app.client({ servername }).connect(fill(spelled)))
    expect(statuses(await client.say(get('/', meant)).rest())).toEqual([200])
    expectOne(meant)
  })

  test.each([
    ['api.test', 400],
    ['api.test:', 400],
    ['api.test:0', 400],
    ['api.test:65536', 400],
    ['api.test:+PORT', 400],
    ['api.test:0x1bb', 400],
    [':PORT', 400],
    ['/', 400],
    ['*', 400],
    ['api.test..:PORT', 400],
    ['a..api.test:PORT', 400],
    ['*.test:PORT', 400],
    ['a@api.test:PORT', 400],
    ['api.test:PORT@other.test:PORT', 400],
    ['//api.test:PORT', 400],
    ['https://api.test:PORT', 400],
    ['api.test:PORT/', 400],
    ['api.test:PORT#', 400],
    ['api%2etest:PORT', 400],
    ['api.test\\:PORT', 400],
    ['"api.test":PORT', 400],
    ['[api.test]:PORT', 400],
    ['[127.0.0.1]:PORT', 400],
    ['::1:PORT', 400],
    ['[::1%25lo]:PORT', 400],
    ['[::1%lo]:PORT', 400],
    ['[::1]x:PORT', 400],
    ['4294967296:PORT', 400],
    ['127.0.0.256:PORT', 400],
    ['0x7f.0.0.0.1:PORT', 400],
    ['xn--a:PORT', 400],
    ['[::1]:PORT', 403],
    ['[::ffff:127.0.0.1]:PORT', 403],
    ['[::ffff:7f00:1]:PORT', 403],
    ['[::127.0.0.1]:PORT', 403],
    ['api.test:443', 403],
    ['xapi.test:PORT', 403],
    ['api.test.evil:PORT', 403],
    ['b.api.test:PORT', 403],
    ['api-test:PORT', 403],
    ['127.0.0.2:PORT', 403],
  ])('to %s gets %i', async (authority, status) => {
    expect(await connect(authority)).toBe(status)
    expectSilence()
  })

  test('decides alone: its own Host field is nobody’s business', async () => {
    const client = await stage.atListener()
    client.say(fill('CONNECT api.test:443 HTTP/1.1\r\nHost: api.test:PORT\r\n\r\n'))
    expect(statuses(await client.rest())).toEqual([403])
  })
})

describe('in absolute form outside any tunnel', () => {
  test.each([
    ['https://api.test:PORT/x', 'api.test:PORT', 200],
    ['https://API.test.:PORT/x', 'api.test:PORT', 200],
    ['https://api.test:PORT/x', 'other.test:PORT', 421],
    ['https://other.test:PORT/x', 'api.test:PORT', 421],
    // Here a Host without port means the scheme's own.
    ['https://api.test:PORT/x', 'api.test', 421],
    ['https://a@api.test:PORT/x', 'api.test:PORT', 400],
    ['https://api.test:PORT%40other.test/x', 'api.test:PORT', 400],
    ['/x', 'api.test:PORT', 400],
    ['http://api.test:PORT/x', 'api.test:PORT', 403],
    ['http://PROXY/x', 'PROXY', 403],
  ])('%s with Host %s gets %i', async (target, host, status) => {
    const proxy = new URL(stage.app.app.proxyUrl).host
    const client = await stage.atListener()
    client.say(get(target, host).replaceAll('PROXY', proxy))
    expect(statuses(await client.rest())).toEqual([status])
    if (status === 200) expectOne('api.test:PORT')
    else expectSilence()
  })

  test('one connection’s requests go each to its own host, with its own token', async () => {
    const client = await stage.atListener()
    const kept = fill('GET https://other.test:PORT/x HTTP/1.1\r\nHost: other.test:PORT\r\n\r\n')
    client.say(kept + get('https://api.test:PORT/y', 'api.test:PORT'))
    expect(statuses(await client.rest())).toEqual([200, 200])
    const tokens = stage.heard().map(({ target, headers }) => [target, headers.join(' ')] as const)
    for (const [target, headers] of tokens) {
      expect(headers).toContain(target === '/x' ? 'token-of-the-other-pool' : TOKEN)
      expect(headers).not.toContain(target === '/x' ? TOKEN : 'token-of-the-other-pool')
    }
  })
})

describe('a token', () => {
  test('goes to nobody who cannot prove the name that is dialled', async () => {
    const client = await stage.client(fill('nameless.test:PORT'))
    expect(await client.say(get('/', 'nameless.test')).rest()).toContain('"UPSTREAM_TLS"')
    expectSilence()
  })

  test('goes nowhere in the clear where the target did not say so', async () => {
    await using plain = await startRawOrigin((peer) => {
      if (peer.received.startsWith('\x16')) peer.socket.destroy()
      while (peer.take()) peer.write('HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n')
    })
    const authority = `api.test:${new URL(plain.url).port}`
    await using app = await startApp({
      upstream: trusting(['api.test']),
      pools: {
        api: {
          targets: [authority],
          credentials: [{ id: 'a', source: { type: 'static', token: TOKEN } }],
        },
      },
    })
    const text = `GET TARGET HTTP/1.1\r\nHost: ${authority}\r\nConnection: close\r\n\r\n`
    const inside = await RawClient.inside(app, authority)
    await inside.say(text.replace('TARGET', '/')).rest()
    const outside = await RawClient.atListener(app)
    await outside.say(text.replace('TARGET', `http://${authority}/`)).rest()
    const tls = new RawClient(await app.client().connect(authority))
    expect(await tls.say(text.replace('TARGET', '/')).rest()).toMatch(/^HTTP\/1\.1 502 /)
    const received = plain.peers.map((peer) => peer.received).join('')
    expect(received).toContain('GET / ')
    expect(received).not.toContain(TOKEN)
  })
})
