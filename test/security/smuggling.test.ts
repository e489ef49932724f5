import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { Stage, statuses, TOKEN } from './stage.ts'

let stage: Stage

beforeAll(async () => {
  stage = await Stage.start()
})
afterAll(() => stage[Symbol.asyncDispose]())
beforeEach(() => stage.origin.forget())

/** What an attacker wants to get past the proxy as a request of its own. */
const inner = () => `GET /smuggled HTTP/1.1\r\nHost: ${stage.authority}\r\n\r\n`
const head = (line: string, ...fields: string[]) =>
  [line, `Host: ${stage.authority}`, ...fields, '', ''].join('\r\n')
const post = (...fields: string[]) => head('POST /outer HTTP/1.1', ...fields)
const chunked = (body: string) => post('Transfer-Encoding: chunked') + body

/** Says it all, and hears all until the proxy ends the connection; nothing else ends it. */
async function refusal(text: string): Promise<number[]> {
  const client = await stage.client()
  return statuses(await client.say(text).rest())
}

const FRAMING: Record<string, string[]> = {
  'a length and chunks': ['Content-Length: 5', 'Transfer-Encoding: chunked'],
  'chunks and a length': ['Transfer-Encoding: chunked', 'Content-Length: 5'],
  'a length of 0 and chunks': ['Content-Length: 0', 'Transfer-Encoding: chunked'],
  'two lengths': ['Content-Length: 5', 'Content-Length: 6'],
  'the same length twice': ['Content-Length: 5', 'Content-Length: 5'],
  'a list of lengths': ['Content-Length: 5, 5'],
  'a list without spaces': ['Content-Length: 5,5'],
  'a signed length': ['Content-Length: +5'],
  'a negative length': ['Content-Length: -5'],
  'a negative zero': ['Content-Length: -0'],
  'a hexadecimal length': ['Content-Length: 0x5'],
  'a length with an exponent': ['Content-Length: 5e0'],
  'a length with a fraction': ['Content-Length: 5.0'],
  'a length with an underscore': ['Content-Length: 1_0'],
  'two numbers': ['Content-Length: 5 5'],
  'an empty length': ['Content-Length:'],
  'a quoted length': ['Content-Length: "5"'],
  'a length beyond 64 bits': ['Content-Length: 18446744073709551621'],
  'a length beyond what numbers hold': ['Content-Length: 9007199254740993'],
  'a length with a tab behind it': ['Content-Length: 5\t'],
  'a length in other digits': ['Content-Length: \xb2'],
  'a length with a parameter': ['Content-Length: 5;a=b'],
  'a coding that is none': ['Transfer-Encoding: xchunked'],
  'chunked twice': ['Transfer-Encoding: chunked, chunked'],
  'chunked in two fields': ['Transfer-Encoding: chunked', 'Transfer-Encoding: chunked'],
  'chunked, then identity': ['Transfer-Encoding: chunked', 'Transfer-Encoding: identity'],
  'chunked before another coding': ['Transfer-Encoding: chunked, gzip'],
  'another coding before chunked': ['Transfer-Encoding: gzip, chunked'],
  identity: ['Transfer-Encoding: identity'],
  'identity and a length': ['Transfer-Encoding: identity', 'Content-Length: 5'],
  'no coding': ['Transfer-Encoding:'],
  'a comma before chunked': ['Transfer-Encoding: ,chunked'],
  'a comma behind chunked': ['Transfer-Encoding: chunked,'],
  'a coding with a parameter': ['Transfer-Encoding: chunked;q=1'],
  'a quoted coding': ['Transfer-Encoding: "chunked"'],
  'a vertical tab before the coding': ['Transfer-Encoding: \x0bchunked'],
  'a high byte in the coding': ['Transfer-Encoding: \xa0chunked'],
  'a tab behind the coding': ['Transfer-Encoding: chunked\t'],
  'space before the colon': ['Transfer-Encoding : chunked'],
  'a tab before the colon': ['Content-Length\t: 5'],
  'space before the name': [' Transfer-Encoding: chunked'],
  'a folded coding': ['Transfer-Encoding:', ' chunked'],
  'a folded field': ['X-A: b', ' Content-Length: 5'],
  'a field folded by a tab': ['X-A: b', '\tc'],
  'a bare CR in a value': ['X-A: b\rTransfer-Encoding: chunked'],
  'a bare LF in a value': ['X-A: b\nTransfer-Encoding: chunked'],
  'a NUL in a value': ['X-A: b\0Transfer-Encoding: chunked'],
  'a DEL in a value': ['X-A: \x7f'],
  'a field ended by CR CR LF': ['X-A: b\r'],
  'a NUL in a name': ['X\0A: b'],
  'a high byte in a name': ['X\xa0A: b'],
  'a space in a name': ['X A: b'],
  'a bracket in a name': ['X[A]: b'],
  'an empty name': [': b'],
  'no colon': ['Transfer-Encoding chunked'],
  'a second Host': ['Host: other.test'],
  'the same Host twice': ['HOST: api.test'],
}

describe('a request is refused, and nothing reaches the origin, with', () => {
  test.each(Object.entries(FRAMING))('%s', async (_, fields) => {
    expect(await refusal(`${post(...fields)}0\r\n\r\n${inner()}`)).toEqual([400])
    expect(stage.heard()).toEqual([])
    expect(stage.origin.connections.every(({ sent }) => sent === '')).toBe(true)
  })

  const LINES: Record<string, string> = {
    'a tab in its line': 'GET\t/smuggled HTTP/1.1',
    'two spaces': 'GET  /smuggled HTTP/1.1',
    'space at the end of its line': 'GET /smuggled HTTP/1.1 ',
    'a space in its target': 'GET /a /smuggled HTTP/1.1',
    'a NUL in its target': 'GET /\0 HTTP/1.1',
    'a bare CR in its target': 'GET /\r HTTP/1.1',
    'a bare LF in its target': 'GET /a HTTP/1.1\nX: y /smuggled HTTP/1.1',
    'a DEL in its target': 'GET /\x7f HTTP/1.1',
    'a high byte in its target': 'GET /\xff HTTP/1.1',
    'a fragment': 'GET /a#/smuggled HTTP/1.1',
    'a fragment in absolute form': 'GET https://api.test/a#b HTTP/1.1',
    'no target': 'GET HTTP/1.1',
    'a target that is no path': 'GET smuggled HTTP/1.1',
    'a target that is a host': 'GET api.test HTTP/1.1',
    'a network path by backslash': 'GET \\\\api.test\\a HTTP/1.1',
    'an asterisk for all methods': 'GET * HTTP/1.1',
    'another scheme': 'GET ftp://api.test/ HTTP/1.1',
    'user information': 'GET https://a@api.test/ HTTP/1.1',
    'a small method': 'get / HTTP/1.1',
    'a method with a high byte': 'G\xc9T / HTTP/1.1',
    'a method of 33 letters': `${'A'.repeat(33)} / HTTP/1.1`,
    'space before its method': ' GET / HTTP/1.1',
    'HTTP/0.9': 'GET /',
    'HTTP/2.0': 'GET / HTTP/2.0',
    'HTTP/1.2': 'GET / HTTP/1.2',
    'HTTP/1.10': 'GET / HTTP/1.10',
    'HTTP/01.1': 'GET / HTTP/01.1',
    'http/1.1': 'GET / http/1.1',
    'chunks in HTTP/1.0': 'POST / HTTP/1.0\r\nTransfer-Encoding: chunked',
    'a line of 20,000 bytes': `GET /${'a'.repeat(20_000)} HTTP/1.1`,
    'the preface of HTTP/2': 'PRI * HTTP/2.0',
    'CONNECT with a body': 'CONNECT api.test:443 HTTP/1.1\r\nContent-Length: 5',
  }
  test.each(Object.entries(LINES))('%s', async (_, line) => {
    expect(await refusal(head(line) + inner())).toEqual([400])
    expect(stage.heard()).toEqual([])
  })

  test.each([
    ['five empty lines before it', '\r\n'.repeat(5)],
    ['a bare LF before it', '\n'],
    ['a bare CR before it', '\r'],
    ['a bare LF behind each line', undefined],
  ])('%s', async (_, before) => {
    const text = before === undefined ? inner().replaceAll('\r\n', '\n') : before + inner()
    expect(await refusal(text)).toEqual([400])
    expect(stage.heard()).toEqual([])
  })

  const CHUNKS: Record<string, string> = {
    'a signed size': '+5\r\nhello\r\n0\r\n\r\n',
    'a negative size': '-5\r\nhello\r\n0\r\n\r\n',
    'a size with 0x': '0x5\r\nhello\r\n0\r\n\r\n',
    'space before a size': ' 5\r\nhello\r\n0\r\n\r\n',
    'space behind a size': '5 \r\nhello\r\n0\r\n\r\n',
    'a tab behind a size': '5\t\r\nhello\r\n0\r\n\r\n',
    'an underscore in a size': '1_0\r\nhello\r\n0\r\n\r\n',
    'no size': '\r\nhello\r\n0\r\n\r\n',
    'a size of 17 digits': '00000000000000005\r\nhello\r\n0\r\n\r\n',
    'a size beyond 64 bits': '10000000000000005\r\nhello\r\n0\r\n\r\n',
    'a size beyond what numbers hold': 'fffffffffffffff5\r\nhello\r\n0\r\n\r\n',
    'a bare LF behind a size': '5\nhello\r\n0\r\n\r\n',
    'a bare CR behind a size': '5\rXhello\r\n0\r\n\r\n',
    'nothing behind a chunk': '5\r\nhello0\r\n\r\n',
    'a bare LF behind a chunk': '5\r\nhello\n0\r\n\r\n',
    'two bytes behind a chunk': '5\r\nhelloXX0\r\n\r\n',
    'a chunk longer than its size': '4\r\nhello\r\n0\r\n\r\n',
    'an extension without a name': '5;\r\nhello\r\n0\r\n\r\n',
    'a bare LF in an extension': '5;a\nb\r\nhello\r\n0\r\n\r\n',
    'a CR in an extension': '5;a\rb\r\nhello\r\n0\r\n\r\n',
    'an open quote in an extension': '5;a="b\r\nhello\r\n0\r\n\r\n',
    'an extension of 1 MB': `5;a=${'b'.repeat(2 ** 20)}\r\nhello\r\n0\r\n\r\n`,
    '1 MB of extensions': `${`1;a=${'b'.repeat(1000)}\r\nx\r\n`.repeat(1000)}0\r\n\r\n`,
    'a bare LF behind the last chunk': '5\r\nhello\r\n0\n\r\n',
    'a folded trailer': '5\r\nhello\r\n0\r\nX-A: b\r\n c\r\n\r\n',
    'a trailer with a NUL': '5\r\nhello\r\n0\r\nX-A: \0\r\n\r\n',
    'a trailer with space before its colon': '5\r\nhello\r\n0\r\nX-A : b\r\n\r\n',
    'a trailer ended by a bare LF': '5\r\nhello\r\n0\r\nX-A: b\n\r\n',
    'trailers of 20,000 bytes': `0\r\n${'X-A: b\r\n'.repeat(2500)}\r\n`,
    'a request in place of trailers': `0\r\n${'GET /smuggled HTTP/1.1\r\nHost: a\r\n'}\r\n`,
  }
  test.each(Object.entries(CHUNKS))('%s', async (_, body) => {
    expect(await refusal(chunked(body) + inner())).toEqual([400])
    // What of the body came before the fault may have been on its way: never a whole request.
    expect(stage.heard(true)).toEqual([])
  })
})

describe('a body', () => {
  test.each([
    ['by its length', `POST /outer HTTP/1.1\r\nContent-Length: LENGTH\r\nHost: HOST\r\n\r\nINNER`],
    [
      'in chunks',
      `POST /outer HTTP/1.1\r\nTransfer-Encoding: chunked\r\nHost: HOST\r\n\r\nSIZE\r\nINNER\r\n0\r\n\r\n`,
    ],
    [
      'in chunks with extensions and leading zeros',
      `POST /outer HTTP/1.1\r\ntransfer-encoding: CHUNKED\r\nHost: HOST\r\n\r\n000SIZE;a="b;\\"c";d\r\nINNER\r\n000;x\r\n\r\n`,
    ],
    ['of a GET', `GET /outer HTTP/1.1\r\nContent-Length: LENGTH\r\nHost: HOST\r\n\r\nINNER`],
    [
      'of an HTTP/1.0 client that stays',
      `POST /outer HTTP/1.0\r\nConnection: keep-alive\r\nContent-Length: LENGTH\r\nHost: HOST\r\n\r\nINNER`,
    ],
    [
      'that names Upgrade for something else',
      `POST /outer HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: h2c\r\nContent-Length: LENGTH\r\nHost: HOST\r\n\r\nINNER`,
    ],
    [
      'whose frame Connection lists',
      `POST /outer HTTP/1.1\r\nConnection: content-length, host, authorization\r\nContent-Length: LENGTH\r\nHost: HOST\r\n\r\nINNER`,
    ],
  ])('that looks like a request stays a body: %s', async (_, text) => {
    const body = inner()
    const request = text
      .replace('HOST', stage.authority)
      .replace('LENGTH', String(body.length))
      .replace('SIZE', body.length.toString(16))
      .replace('INNER', () => body)
    const client = await stage.client()
    client.say(request + head('GET /after HTTP/1.1', 'Connection: close'))
    expect(statuses(await client.rest())).toEqual([200, 200])
    const heard = stage.heard()
    expect(heard.map(({ target, body }) => [target, body])).toEqual([
      ['/outer', body],
      ['/after', ''],
    ])
    for (const { headers } of heard) {
      expect(headers.filter((name) => /^authorization$/i.test(name))).toHaveLength(1)
      expect(headers).toContain(`Bearer ${TOKEN}`)
    }
  })

  test('of an Upgrade to WebSocket is refused, and what stands in it is no request', async () => {
    const upgrade = ['Connection: Upgrade', 'Upgrade: websocket', 'Sec-WebSocket-Version: 13']
    for (const frame of [`Content-Length: ${inner().length}`, 'Transfer-Encoding: chunked']) {
      const client = await stage.client()
      client.say(head('GET /outer HTTP/1.1', ...upgrade, frame) + inner())
      expect(statuses(await client.rest())).toEqual([400])
    }
    expect(stage.heard()).toEqual([])
  })

  test('refused for its authority is let pass, not read as a request', async () => {
    const client = await stage.client()
    const body = inner()
    client.say(
      `POST / HTTP/1.1\r\nHost: other.test\r\nContent-Length: ${body.length}\r\n\r\n${body}`,
    )
    client.say(head('GET /after HTTP/1.1', 'Connection: close'))
    expect(statuses(await client.rest())).toEqual([421, 200])
    expect(stage.heard().map(({ target }) => target)).toEqual(['/after'])
  })

  test('in trailers brings neither a credential nor a frame nor a host', async () => {
    const trailers = [
      'Authorization: Bearer mine',
      'Proxy-Authorization: Basic bWluZQ==',
      'Cookie: a=b',
      'DPoP: mine',
      'Host: other.test',
      'Content-Length: 3',
      'Transfer-Encoding: chunked',
      'Connection: close',
      'Cupbearer-Credential: b',
      'X-Kept: yes',
    ]
    for (const trailer of trailers) {
      const client = await stage.client()
      client.say(chunked(`1\r\nx\r\n0\r\n${trailer}\r\n\r\n`))
      await client.hears('/outer 1')
      client.socket.destroy()
    }
    expect(stage.heard()).toHaveLength(trailers.length)
    const sent = stage.origin.connections.map((each) => each.sent).join('')
    expect(sent).not.toMatch(/mine|bWluZQ|a=b|other\.test|: 3|Cupbearer/)
    expect(sent).toContain('X-Kept: yes')
  })

  test('of 200,000 tiny chunks costs bounded time, and the next request is served', async () => {
    const client = await stage.client()
    const before = process.cpuUsage()
    client.say(chunked(`${'1\r\nx\r\n'.repeat(200_000)}0\r\n\r\n`))
    await client.hears('/outer 200000')
    const { user, system } = process.cpuUsage(before)
    // With the origin and the client in the same process.
    expect((user + system) / 1e6).toBeLessThan(15)
    client.say(head('GET /after HTTP/1.1', 'Connection: close'))
    expect(statuses(await client.rest())).toEqual([200])
    expect(stage.heard().map(({ target, body }) => [target, body.length])).toEqual([
      ['/outer', 200_000],
      ['/after', 0],
    ])
  })
})

describe('a pipeline', () => {
  test('is as many requests at the origin as it was, in order', async () => {
    const client = await stage.client()
    let text = ''
    for (let i = 0; i < 50; i++) {
      text += i % 2 ? head(`GET /${i} HTTP/1.1`) : chunked('5\r\nhello\r\n0\r\n\r\n')
    }
    client.say(text + head('GET /last HTTP/1.1', 'Connection: close'))
    expect(statuses(await client.rest())).toEqual(Array(51).fill(200))
    expect(stage.heard()).toHaveLength(51)
  })

  test('ends with the request that is malformed, and with one that says close', async () => {
    const good = head('GET /good HTTP/1.1')
    const bad = post('Content-Length: 1', 'Transfer-Encoding: chunked')
    const first = await stage.client()
    expect(statuses(await first.say(good + good + bad + inner()).rest())).toEqual([200, 200, 400])
    const second = await stage.client()
    second.say(head('GET /good HTTP/1.1', 'Connection: close') + inner())
    expect(statuses(await second.rest())).toEqual([200])
    const third = await stage.client()
    third.say(`GET /good HTTP/1.0\r\n\r\n${inner()}`)
    expect(statuses(await third.rest())).toEqual([200])
    expect(stage.heard().map(({ target }) => target)).toEqual(Array(4).fill('/good'))
  })
})

describe('what comes behind a CONNECT', () => {
  const connect = (authority: string, ...fields: string[]) =>
    [`CONNECT ${authority} HTTP/1.1`, `Host: ${authority}`, ...fields, '', ''].join('\r\n')
  const absolute = () =>
    `GET http://127.0.0.1:${stage.origin.port}/smuggled HTTP/1.1\r\nHost: 127.0.0.1:${stage.origin.port}\r\n\r\n`

  test.each([
    ['that is malformed', () => connect('api.test'), 400],
    ['with a path', () => connect(`${stage.authority}/x`), 400],
    ['with user information', () => connect(`a@${stage.authority}`), 400],
    ['with a body', () => connect(stage.authority, 'Content-Length: 3'), 400],
    ['to the proxy itself', () => connect(new URL(stage.app.app.proxyUrl).host), 403],
    ['to nobody', () => connect('127.0.0.1:1'), 502],
  ])('is never read as a request: %s', async (_, text, status) => {
    const client = await stage.atListener()
    expect(statuses(await client.say(text() + absolute()).rest())).toEqual([status])
    expect(stage.heard()).toEqual([])
  })

  test('is never read as a request where the client is unknown', async () => {
    await using guarded = await Stage.start(() => ({ clients: { worker: { password: 'secret' } } }))
    const client = await guarded.atListener()
    client.say(connect(guarded.authority) + absolute())
    expect(statuses(await client.rest())).toEqual([407])
    expect(guarded.heard()).toEqual([])
    expect(stage.heard()).toEqual([])
  })

  test('a refused one is answered whole, however much came along', async () => {
    for (const size of [1, 1000, 200_000]) {
      const client = await stage.atListener()
      client.say(connect('api.test/x') + '\x16\x03\x01'.padEnd(size, 'x'))
      expect(await client.rest()).toMatch(/^HTTP\/1\.1 400 .*"code":"BAD_REQUEST".*\}\n$/s)
    }
  })
})
