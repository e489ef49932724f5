import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest'
import { type Peer, type RawOrigin, startRawOrigin, until } from '../egress/raw-origin.ts'
import { startApp, type TestApp } from '../support/app.ts'
import { PatientClock } from '../support/patient-clock.ts'
import { trusting } from '../support/protected-origin.ts'
import { RawClient } from './raw-client.ts'

let origin: RawOrigin
let authority: string
let app: TestApp
/** What the origin does once a head has come, by its path. */
let react: Record<string, (peer: Peer, head: string) => void>
/** Heads that the origin has seen. */
let seen: string[]

beforeAll(async () => {
  origin = await startRawOrigin((peer) => {
    for (let head = peer.take(); head !== undefined; head = peer.take()) {
      seen.push(head)
      const path = head.split(' ')[1] ?? ''
      const known = react[path]
      if (known) known(peer, head)
      else peer.write(`HTTP/1.1 200 OK\r\nContent-Length: ${path.length}\r\n\r\n${path}`)
    }
  })
  authority = `plain.test:${new URL(origin.url).port}`
})
afterAll(() => origin[Symbol.asyncDispose]())
afterEach(() => app[Symbol.asyncDispose]())

async function start(server: object = {}, more: object = {}): Promise<void> {
  react = {}
  seen = []
  app = await startApp(
    {
      server,
      upstream: trusting(['plain.test']),
      pools: {
        api: {
          targets: [`http://${authority}`],
          credentials: [{ id: 'a', source: { type: 'static', token: 'token-of-a' } }],
        },
      },
      ...more,
    },
    undefined,
    new PatientClock(),
  )
}

const client = () => RawClient.inside(app, authority)
const get = (path: string, ...fields: string[]) => message('GET', path, fields)
const post = (path: string, ...fields: string[]) => message('POST', path, fields)
function message(method: string, path: string, fields: string[], version = '1.1'): string {
  return [`${method} ${path} HTTP/${version}`, `Host: ${authority}`, ...fields, '', ''].join('\r\n')
}
const says = (text: string) => (peer: Peer) => peer.write(text)
const traces = async () => (await app.admin('/api/traces')).traces

describe('a connection', () => {
  test('serves one request after another, and is told of no end', async () => {
    await start()
    const peer = await client()
    for (const path of ['/1', '/2', '/3']) {
      const answer = await peer.say(get(path)).hears(path)
      expect(answer).toMatch(/^HTTP\/1\.1 200 OK\r\nContent-Length: 2\r\n/)
      expect(answer).not.toMatch(/connection:|transfer-encoding:|date:/i)
    }
    peer.say(get('/last', 'Connection: close'))
    expect(await peer.rest()).toMatch(/Connection: close\r\n\r\n\/last$/)
  })

  test('answers what came ahead of its turn in order, one at a time', async () => {
    await start()
    let underway = 0
    let most = 0
    for (const path of ['/a', '/b', '/c']) {
      react[path] = (peer) => {
        underway += 1
        most = Math.max(most, underway)
        setImmediate(() => {
          underway -= 1
          peer.write(`HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n${path}`)
        })
      }
    }
    const peer = await client()
    peer.say(`${get('/a') + post('/b', 'Content-Length: 3')}xyz${get('/c', 'Connection: close')}`)
    const bodies = [...(await peer.rest()).matchAll(/\r\n\r\n(\/.)/g)].map(([, body]) => body)
    expect(bodies).toEqual(['/a', '/b', '/c'])
    expect(most).toBe(1)
  })

  test('outlives a refused request, and a thousand of them at once', async () => {
    await start()
    const peer = await client()
    const elsewhere = 'GET / HTTP/1.1\r\nHost: other.test\r\n\r\n'
    peer.say(elsewhere.repeat(1000) + get('/last', 'Connection: close'))
    const answer = await peer.rest()
    expect(answer.match(/HTTP\/1\.1 421 Misdirected Request\r\n/g)).toHaveLength(1000)
    expect(answer).toMatch(/\/last$/)
    expect(seen).toHaveLength(1)
  })

  test('takes requests in absolute form, each to a host of its own, and CONNECT after them', async () => {
    await start()
    const peer = await RawClient.atListener(app)
    const absolute = get(`http://${authority}/1`)
    expect(await peer.say(absolute).hears('/1')).toMatch(/^HTTP\/1\.1 200/)
    expect(await peer.say(absolute).hears('/1')).toMatch(/^HTTP\/1\.1 200/)
    peer.say(`CONNECT ${authority} HTTP/1.1\r\n\r\n${get('/2')}`)
    expect(await peer.hears('/2')).toMatch(
      /^HTTP\/1\.1 200 Connection established\r\n\r\nHTTP\/1\.1 200 OK/,
    )
    expect(seen.every((head) => head.includes('Bearer token-of-a'))).toBe(true)
  })
})

describe('an HTTP/1.0 client', () => {
  const old = (path: string, ...fields: string[]) => message('GET', path, fields, '1.0')

  test('has its connection ended, or kept where it asks for that', async () => {
    await start()
    const once = await client()
    expect(await once.say(old('/1')).rest()).toMatch(/Connection: close\r\n\r\n\/1$/)
    const kept = await client()
    for (const path of ['/2', '/3']) {
      const answer = await kept.say(old(path, 'Connection: keep-alive')).hears(path)
      expect(answer).toContain('Connection: keep-alive\r\n')
    }
  })

  test('gets neither chunks nor interim responses, but the end of the connection', async () => {
    await start()
    react['/chunks'] = says(
      'HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n3\r\ndef\r\n0\r\nX-Sum: 1\r\n\r\n',
    )
    const peer = await client()
    const answer = await peer.say(old('/chunks', 'Connection: keep-alive')).rest()
    expect(answer).toMatch(/^HTTP\/1\.1 200 OK\r\n/)
    expect(answer).toMatch(/\r\nConnection: close\r\n\r\nabcdef$/)
    expect(answer).not.toMatch(/chunked|X-Sum/)
  })

  test('can tell an answer that broke off from one that is whole', async () => {
    await start()
    react['/broken'] = (peer) => {
      peer.write('HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n')
      void until(() => seen.length > 1).then(() => peer.socket.destroy())
    }
    const peer = await client()
    await peer.say(old('/broken')).hears('abc')
    const other = await client()
    await other.say(get('/go')).hears('/go')
    await peer.rest()
    expect(peer.error).toBe('ECONNRESET')
  })
})

describe('an answer', () => {
  test.each([
    ['HEAD', 'HTTP/1.1 200 OK\r\nContent-Length: 1234\r\n\r\n', 'Content-Length: 1234'],
    ['HEAD', 'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n', 'HTTP/1.1 200 OK'],
    ['GET', 'HTTP/1.1 204 No Content\r\nX-A: 1\r\n\r\n', 'X-A: 1'],
    ['GET', 'HTTP/1.1 304 Not Modified\r\nContent-Length: 99\r\n\r\n', 'Content-Length: 99'],
  ])('to %s of %j has no body, and the next one follows', async (method, text, expected) => {
    await start()
    react['/none'] = says(text)
    const peer = await client()
    const answer = await peer.say(message(method, '/none', [])).hears('\r\n\r\n')
    expect(answer).toContain(expected)
    expect(answer).not.toMatch(/chunked/i)
    expect(await peer.say(get('/next')).hears('/next')).toMatch(/^HTTP\/1\.1 200/)
  })

  test('keeps its reason, the case, order, duplicates and high bytes of its fields, and its trailers', async () => {
    await start()
    react['/odd'] = says(
      'HTTP/1.1 299 T\xe9st\r\nX-B: 1\r\nx-a: caf\xe9\r\nX-B: 2\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n3\r\nabc\r\n0\r\nX-Sum: \xe9\r\nx-sum: 2\r\n\r\n',
    )
    const peer = await client()
    const answer = await peer.say(get('/odd')).hears('x-sum: 2\r\n\r\n')
    expect(answer).toMatch(
      /^HTTP\/1\.1 299 T\xe9st\r\nX-B: 1\r\nx-a: caf\xe9\r\nX-B: 2\r\nTrailer: X-Sum\r\n/,
    )
    expect(answer).toMatch(/3\r\nabc\r\n0\r\nX-Sum: \xe9\r\nx-sum: 2\r\n\r\n$/)
  })

  test('follows its interim ones', async () => {
    await start()
    react['/hints'] = says(
      'HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok',
    )
    const peer = await client()
    expect(await peer.say(get('/hints')).hears('ok')).toMatch(
      /^HTTP\/1\.1 102 Processing\r\n\r\nHTTP\/1\.1 103 Early Hints\r\nLink: <\/a>\r\n\r\nHTTP\/1\.1 200 OK\r\n/,
    )
  })

  test('that breaks off ends its connection before its announced end', async () => {
    await start()
    react['/short'] = (peer) => {
      peer.write('HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf')
      peer.socket.end()
    }
    const peer = await client()
    expect(await peer.say(get('/short')).rest()).not.toMatch(/HTTP\/1\.1 200[\s\S]*HTTP/)
    expect(peer.closed).toBe(true)
  })
})

test('a request goes on as it came, but for its token and its own hop', async () => {
  await start()
  const peer = await client()
  peer.say(
    `GET /as-is?q=%41 HTTP/1.1\r\nX-b: 1\r\nhOST: ${authority}\r\nConnection: keep-alive, X-Hop\r\nX-Hop: 1\r\nx-A: caf\xe9\r\nAUTHORIZATION: mine\r\nX-b: 2\r\n\r\n`,
  )
  await peer.hears('/as-is?q=%41')
  expect(seen[0]).toBe(
    `GET /as-is?q=%41 HTTP/1.1\r\nX-b: 1\r\nhOST: ${authority}\r\nx-A: caf\xe9\r\nauthorization: Bearer token-of-a\r\nX-b: 2\r\n\r\n`,
  )
})

describe('a request body', () => {
  test('in chunks goes on in chunks, with its trailers but those that may not be', async () => {
    await start()
    const peer = await client()
    peer.say(
      `${post('/up', 'Transfer-Encoding: chunked', 'Trailer: X-Sum')}3\r\nabc\r\n4;x=y\r\ndefg\r\n0\r\nX-Sum: 7\r\nHost: evil\r\nAuthorization: evil\r\n\r\n`,
    )
    await peer.hears('/up')
    const { received } = origin.peers.at(-1) as Peer
    const body = received.slice(received.lastIndexOf('POST /up'))
    expect(body).toMatch(/\r\ntransfer-encoding: chunked\r\n/i)
    expect(body.slice(body.indexOf('\r\n\r\n')).replace(/\r\n[0-9a-f]+\r\n/g, '')).toContain(
      'abcdefg',
    )
    expect(body).toMatch(/\r\n0\r\nX-Sum: 7\r\n\r\n$/)
    expect(body).not.toContain('evil')
  })

  test('is asked for by 100 Continue only when it is wanted', async () => {
    await start()
    react['/up'] = (peer) => {
      void until(() => peer.received.endsWith('hello')).then(() =>
        peer.write('HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok'),
      )
    }
    const peer = await client()
    peer.say(post('/up', 'Content-Length: 5', 'Expect: 100-continue'))
    expect(await peer.hears('\r\n\r\n')).toBe('HTTP/1.1 100 Continue\r\n\r\n')
    expect(await peer.say('hello').hears('ok')).toMatch(
      /^HTTP\/1\.1 200 OK\r\nContent-Length: 2\r\n/,
    )
    // Who sends it unasked is not asked any more.
    peer.say(`${post('/up', 'Content-Length: 5', 'Expect: 100-continue')}hello`)
    expect(await peer.hears('ok')).toMatch(/^HTTP\/1\.1 200 OK/)
    expect(seen.some((head) => /expect/i.test(head))).toBe(false)
  })

  test('of a refused request is not asked for, and the connection ends', async () => {
    await start()
    const peer = await client()
    peer.say(
      'PUT / HTTP/1.1\r\nHost: other.test\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n',
    )
    const answer = await peer.hears('}\n')
    expect(answer).toMatch(/^HTTP\/1\.1 421 /)
    await peer.rest()
    expect(seen).toEqual([])
  })

  test('expected otherwise than by 100-continue is refused with 417', async () => {
    await start()
    const peer = await client()
    peer.say(post('/up', 'Content-Length: 5', 'Expect: 200-ok'))
    expect(await peer.hears('}\n')).toMatch(
      /^HTTP\/1\.1 417 Expectation Failed\r\n[\s\S]*EXPECTATION_FAILED/,
    )
    expect(seen).toEqual([])
  })

  test('that comes on after its answer is let through when it is short', async () => {
    await start()
    react['/early'] = says('HTTP/1.1 413 No\r\nContent-Length: 2\r\n\r\nno')
    const peer = await client()
    peer.say(`${post('/early', 'Content-Length: 100000')}${'x'.repeat(70_000)}`)
    expect(await peer.hears('no')).toMatch(/^HTTP\/1\.1 413 No\r\n/)
    peer.say('x'.repeat(30_000) + get('/next'))
    expect(await peer.hears('/next')).toMatch(/^HTTP\/1\.1 200/)
  })

  test('that comes on and on after its answer costs the connection, not the answer', async () => {
    await start()
    react['/early'] = says('HTTP/1.1 413 No\r\nContent-Length: 2\r\n\r\nno')
    const peer = await client()
    peer.say(`${post('/early', 'Transfer-Encoding: chunked')}10000\r\n${'x'.repeat(65536)}\r\n`)
    expect(await peer.hears('no')).toMatch(/^HTTP\/1\.1 413 No\r\n/)
    while (!peer.closed) {
      peer.say(`10000\r\n${'x'.repeat(65536)}\r\n`)
      await new Promise((resolve) => setImmediate(resolve))
    }
  })
})

describe('a malformed request', () => {
  test('behind a good one is answered after it, and leaves a trace', async () => {
    await start()
    const peer = await client()
    const answer = await peer.say(`${get('/good')}GET / HTTP/1.1\r\nHost : x\r\n\r\n`).rest()
    expect(answer).toMatch(
      /^HTTP\/1\.1 200 OK\r\n[\s\S]*\/goodHTTP\/1\.1 400 Bad Request\r\n[\s\S]*BAD_REQUEST/,
    )
    expect(seen).toHaveLength(1)
    const denied = (await traces()).find((each: { status: number }) => each.status === 400)
    const { error, verdict, method } = denied
    expect({ verdict, method, code: error.code }).toEqual({
      verdict: 'BAD_REQUEST',
      method: '-',
      code: 'BAD_REQUEST',
    })
  })

  test('whose body shows it late is answered, and upstream sees no end of it', async () => {
    await start()
    react['/up'] = () => {}
    const peer = await client()
    peer.say(`${post('/up', 'Transfer-Encoding: chunked')}3\r\nabc\r\n`)
    await until(() => seen.length === 1)
    expect(await peer.say('zz\r\n').rest()).toMatch(/^HTTP\/1\.1 400 Bad Request\r\n/)
    const upstream = origin.peers.at(-1) as Peer
    await until(() => upstream.closed)
    expect(upstream.received).not.toContain('0\r\n\r\n')
  })

  test('in plain text where TLS was meant is told so at once', async () => {
    await start()
    const peer = await RawClient.atListener(app)
    peer.socket.write(Buffer.from('160301020001', 'hex'))
    expect(await peer.rest()).toMatch(/^HTTP\/1\.1 400 /)
  })
})

describe('time', () => {
  test('for a head is bounded, said nothing or half of it', async () => {
    await start({ headersTimeout: '300ms' })
    const half = await client()
    half.say('GET / HTTP/1.1\r\nHo')
    for (const peer of [half, await RawClient.atListener(app)]) {
      expect(await peer.rest()).toMatch(/^HTTP\/1\.1 408 Request Timeout\r\n/)
    }
  })

  test('for a head is absolute: one byte at a time wins nothing', async () => {
    await start({ headersTimeout: '300ms' })
    const peer = await client()
    peer.say(get('/first'))
    await peer.hears('/first')
    const trickle = setInterval(() => peer.say('G'), 20)
    expect(await peer.rest()).toMatch(/^HTTP\/1\.1 4\d\d /)
    clearInterval(trickle)
  })

  test('between requests is bounded, and its end is silent', async () => {
    await start({ idleTimeout: '300ms', headersTimeout: '30s' })
    const peer = await client()
    await peer.say(get('/1')).hears('/1')
    expect(await peer.rest()).toBe('')
  })

  test('without a byte of a body that was announced is bounded', async () => {
    await start(
      { idleTimeout: '300ms' },
      { upstream: { ...trusting(['plain.test']), headersTimeout: '300ms', bodyTimeout: '300ms' } },
    )
    const peer = await client()
    await peer.say(`${post('/up', 'Content-Length: 10')}half`).rest()
    const asked = async () =>
      (await traces()).filter(({ kind }: { kind: string }) => kind === 'exchange')
    await expect.poll(async () => (await asked()).length).toBe(1)
    expect((await asked())[0].verdict).toBe('aborted')
  })
})

test('no more connections are taken than maxConnections', async () => {
  await start({ maxConnections: 2 })
  const peers = [await RawClient.atListener(app), await RawClient.atListener(app)]
  const third = await RawClient.atListener(app)
  expect(await third.rest()).toBe('')
  expect(peers.map(({ closed }) => closed)).toEqual([false, false])
})
