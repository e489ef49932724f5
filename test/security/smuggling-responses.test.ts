import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { type RawOrigin, startRawOrigin, until } from '../egress/raw-origin.ts'
import { RawClient } from '../proxy/raw-client.ts'
import { startApp, type TestApp } from '../support/app.ts'
import { startHttp2Origin } from '../support/http2-origin.ts'
import { trusting } from '../support/protected-origin.ts'
import { statuses } from './stage.ts'

const EVIL = 'HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil'
const ok = (body: string) => `HTTP/1.1 200 OK\r\nContent-Length: ${body.length}\r\n\r\n${body}`
const fields = (...lines: string[]) => `HTTP/1.1 200 OK\r\n${lines.join('\r\n')}\r\n\r\n`

/** What the origin answers to `/N`: anything else it answers with its path. */
const ANSWERS: [what: string, bytes: string, heard: number[]][] = [
  ['a second response in the same bytes', ok('one') + EVIL, [200, 200]],
  ['a length and chunks', fields('Content-Length: 4', 'Transfer-Encoding: chunked'), [502, 200]],
  ['two lengths', fields('Content-Length: 0', 'Content-Length: 4'), [502, 200]],
  ['the same length twice', fields('Content-Length: 0', 'Content-Length: 0'), [502, 200]],
  ['a list of lengths', fields('Content-Length: 0, 0'), [502, 200]],
  ['a signed length', fields('Content-Length: +0'), [502, 200]],
  ['a coding that is none', fields('Transfer-Encoding: xchunked'), [502, 200]],
  ['chunked twice', fields('Transfer-Encoding: chunked, chunked'), [502, 200]],
  ['a folded field', fields('X-A: b', ' c', 'Content-Length: 0'), [502, 200]],
  ['a NUL in a value', fields('X-A: \0', 'Content-Length: 0'), [502, 200]],
  ['a bare CR in a value', fields('X-A: b\rSet-Cookie: c', 'Content-Length: 0'), [502, 200]],
  ['a bare LF in a value', fields('X-A: b\nSet-Cookie: c', 'Content-Length: 0'), [502, 200]],
  ['space before a colon', fields('Content-Length : 0'), [502, 200]],
  ['a bare LF behind each line', ok('').replaceAll('\r\n', '\n'), [502, 200]],
  ['a NUL in its reason', 'HTTP/1.1 200 O\0K\r\nContent-Length: 0\r\n\r\n', [502, 200]],
  ['HTTP/2 in its line', 'HTTP/2 200 OK\r\nContent-Length: 0\r\n\r\n', [502, 200]],
  ['a status of two digits', 'HTTP/1.1 20 OK\r\nContent-Length: 0\r\n\r\n', [502, 200]],
  ['a status of four digits', 'HTTP/1.1 2000 OK\r\nContent-Length: 0\r\n\r\n', [502, 200]],
  ['a status below 100', 'HTTP/1.1 099 OK\r\nContent-Length: 0\r\n\r\n', [502, 200]],
  ['a switch that nobody asked for', 'HTTP/1.1 101 Fine\r\nUpgrade: x\r\n\r\n', [502, 200]],
  ['bytes before its head', `evil${ok('')}`, [502, 200]],
  ['204 and a body', `HTTP/1.1 204 No\r\nContent-Length: 70\r\n\r\n${EVIL}`, [204, 200]],
  ['204 and chunks', `HTTP/1.1 204 No\r\nTransfer-Encoding: chunked\r\n\r\n${EVIL}`, [204, 200]],
  ['304 and a body', `HTTP/1.1 304 No\r\nContent-Length: 70\r\n\r\n${EVIL}`, [304, 200]],
  [
    'an interim one with a length',
    `HTTP/1.1 103 H\r\nContent-Length: 60\r\n\r\n${ok('')}`,
    [103, 200, 200],
  ],
  ['an interim one of HTTP/1.0', `HTTP/1.0 103 Hints\r\n\r\n${ok('')}`, [502, 200]],
  ['a chunk without its end', `${fields('Transfer-Encoding: chunked')}4\r\nevilX`, [200]],
  ['a signed chunk', `${fields('Transfer-Encoding: chunked')}+4\r\nevil\r\n0\r\n\r\n`, [200]],
  ['a bare LF behind a chunk', `${fields('Transfer-Encoding: chunked')}1\r\nx\n0\r\n\r\n`, [200]],
  ['a folded trailer', `${fields('Transfer-Encoding: chunked')}0\r\nA: b\r\n c\r\n\r\n`, [200]],
]

let origin: RawOrigin
let app: TestApp
let authority: string
let doubtful: string

beforeAll(async () => {
  origin = await startRawOrigin(
    (peer) => {
      for (let head = peer.take(); head !== undefined; head = peer.take()) {
        const [method, path = ''] = head.split(' ')
        const known = ANSWERS[Number(path.slice(1) || 'NaN')]
        if (known) peer.write(known[1])
        else if (path === '/doubtful') peer.write(doubtful)
        else if (method === 'HEAD') peer.write(`${fields('Content-Length: 70')}${EVIL}`)
        else if (path === '/flood') {
          const hint = `HTTP/1.1 103 Early Hints\r\nLink: ${'x'.repeat(1000)}\r\n\r\n`
          peer.write(hint.repeat(5000) + ok('/flood'))
        } else peer.write(ok(path))
      }
    },
    { tls: true },
  )
  authority = new URL(origin.url).host
  app = await startApp({
    upstream: trusting(),
    pools: {
      api: {
        targets: [authority],
        credentials: [{ id: 'a', source: { type: 'static', token: 'token-of-a' } }],
      },
    },
  })
})
afterAll(async () => {
  await app[Symbol.asyncDispose]()
  await origin[Symbol.asyncDispose]()
})

const client = async () => new RawClient(await app.client().connect(authority))
const ask = (path: string, method = 'GET', ...more: string[]) =>
  [`${method} ${path} HTTP/1.1`, `Host: ${authority}`, ...more, '', ''].join('\r\n')

describe('a response with', () => {
  test.each(ANSWERS.map(([what, , heard], i) => [what, i, heard] as const))(
    '%s answers no other request',
    async (_, i, heard) => {
      const peer = await client()
      peer.say(ask(`/${i}`) + ask('/after', 'GET', 'Connection: close'))
      const answer = await peer.rest()
      // What breaks within its body is cut, before its head was passed on or behind it.
      if (heard.length > 1) expect(statuses(answer)).toEqual(heard)
      else expect([heard, []]).toContainEqual(statuses(answer))
      if (heard.length > 1) {
        expect(answer).toMatch(/\r\n\r\n\/after$/)
        expect(answer).not.toContain('evil')
      } else expect(answer).not.toMatch(/0\r\n\r\n$/)
    },
  )

  test.each([
    ['204 and a length', 'HTTP/1.1 204 No\r\nContent-Length: 70\r\n\r\n'],
    ['204 and chunks', 'HTTP/1.1 204 No\r\nTransfer-Encoding: chunked\r\n\r\n'],
    [
      'chunks of HTTP/1.0',
      'HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n',
    ],
  ])('%s leaves its connection to nobody, even where no body comes', async (_, bytes) => {
    doubtful = bytes
    const peer = await client()
    peer.say(ask('/doubtful') + ask('/after', 'GET', 'Connection: close'))
    expect(await peer.rest()).toMatch(/\r\n\r\n\/after$/)
    const used = origin.peers.findLast(({ received }) => received.includes('/doubtful'))
    await until(() => used?.closed === true)
    expect(used?.received).toMatch(/\/doubtful HTTP/)
    expect(used?.received).not.toMatch(/\/doubtful.*\/after/s)
  })

  test('a body to HEAD answers no other request', async () => {
    const peer = await client()
    peer.say(ask('/', 'HEAD') + ask('/after', 'GET', 'Connection: close'))
    const answer = await peer.rest()
    expect(statuses(answer)).toEqual([200, 200])
    expect(answer).toMatch(/\r\n\r\n\/after$/)
    expect(answer).not.toContain('evil')
  })

  test('an answer ahead of the request’s body leaves that body to nobody', async () => {
    const inner = ask('/smuggled')
    const peer = await client()
    peer.say(ask('/early', 'POST', `Content-Length: ${inner.length + 70_000}`))
    await peer.hears('/early')
    peer.say(inner + 'x'.repeat(70_000) + ask('/after', 'GET', 'Connection: close'))
    const answer = await peer.rest()
    expect(statuses(answer)).toEqual([200])
    expect(answer).toMatch(/\r\n\r\n\/after$/)
    const heads = origin.peers.flatMap(({ received }) => received.match(/^[A-Z]+ \S+ HTTP/gm) ?? [])
    const early = origin.peers.find(({ received }) => received.includes('/early'))
    expect(early?.received.split('/early')[1]?.match(/ HTTP\/1\.1\r\n/g)).toHaveLength(1)
    expect(heads).not.toContain('GET /smuggled HTTP')
  })
})

/** 256 KiB of them pass; a GET is tried twice. */
describe('a flood of interim responses', () => {
  test('ends with a 502, far from all of it passed on', async () => {
    const peer = await client()
    peer.say(ask('/flood', 'GET', 'Connection: close'))
    const heard = statuses(await peer.rest())
    expect(heard.at(-1)).toBe(502)
    expect(heard.length).toBeLessThan(600)
  })

  test('ends with a 502 where upstream speaks HTTP/2', async () => {
    await using flooding = await startHttp2Origin({
      handler(stream) {
        for (let i = 0; i < 5000 && !stream.closed; i++) {
          stream.additionalHeaders({ ':status': 103, link: 'x'.repeat(1000) })
        }
        stream.respond({ ':status': 200 })
        stream.end('whole')
      },
    })
    await using proxy = await startApp({
      upstream: trusting(['api.test']),
      pools: {
        api: {
          targets: [`api.test:${flooding.port}`],
          credentials: [{ id: 'a', source: { type: 'static', token: 'token-of-a' } }],
        },
      },
    })
    const peer = new RawClient(await proxy.client().connect(`api.test:${flooding.port}`))
    peer.say(`GET / HTTP/1.1\r\nHost: api.test:${flooding.port}\r\nConnection: close\r\n\r\n`)
    const heard = statuses(await peer.rest())
    expect(heard.at(-1)).toBe(502)
    expect(heard.length).toBeLessThan(600)
  })
})

describe('a response by HTTP/2', () => {
  test.each([
    ['longer than it announced', 'hello, and evil', 5],
    ['shorter than it announced', 'hello', 50],
  ])('that is %s is cut, and the next one is its own', async (_, body, length) => {
    await using strange = await startHttp2Origin({
      handler(stream, { headers }) {
        if (headers[':path'] === '/after') return void stream.end('/after')
        stream.respond({ ':status': 200, 'content-length': length })
        stream.end(body)
      },
    })
    await using proxy = await startApp({
      upstream: trusting(['api.test']),
      pools: {
        api: {
          targets: [`api.test:${strange.port}`],
          credentials: [{ id: 'a', source: { type: 'static', token: 'token-of-a' } }],
        },
      },
    })
    const peer = new RawClient(await proxy.client().connect(`api.test:${strange.port}`))
    peer.say(`GET / HTTP/1.1\r\nHost: api.test:${strange.port}\r\n\r\n`)
    peer.say(`GET /after HTTP/1.1\r\nHost: api.test:${strange.port}\r\nConnection: close\r\n\r\n`)
    const answer = await peer.rest()
    expect(answer).not.toContain('evil')
    // Either cut before its head was passed on, or behind it.
    expect([[502, 200], [200]]).toContainEqual(statuses(answer))
  })
})
