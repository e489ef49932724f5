import { request as httpRequest, type IncomingMessage, METHODS, Server } from 'node:http'
import fc from 'fast-check'
import { expect, test } from 'vitest'
import { type Found, latin1, pieces, readRequests, readResponse, Wire } from './support.ts'

/**
 * Whatever our parser takes for a message, Node's own (llhttp) must take for the same message: what two servers
 * in a row read differently is how requests are smuggled.
 */

const RUNS = 10_000

async function bodyOf(message: IncomingMessage): Promise<string> {
  let body = ''
  for await (const chunk of message) body += (chunk as Buffer).toString('latin1')
  return body
}

/** The requests that Node finds, up to the first that it finds wrong. */
async function nodeRequests(bytes: Buffer, sizes: readonly number[]): Promise<Found[]> {
  const found: Promise<Found | undefined>[] = []
  const server = new Server({ maxHeaderSize: 16 * 1024 }, (message, response) => {
    const { method, url, httpVersion, rawHeaders } = message
    const start = `${method} ${url} ${httpVersion}`
    found.push(
      bodyOf(message).then(
        (body) => {
          response.end()
          return { start, headers: rawHeaders, body, trailers: message.rawTrailers }
        },
        () => undefined,
      ),
    )
  })
  // The peer's end is no reason to drop what it asked before.
  Object.assign(server, { httpAllowHalfOpen: true })
  server.on('checkContinue', (message, response) => server.emit('request', message, response))
  server.on('checkExpectation', (message, response) => server.emit('request', message, response))
  // Messages that came whole before the fault are read first.
  server.on('clientError', (_, socket) => setImmediate(() => setImmediate(() => socket.destroy())))
  const wire = new Wire(pieces(bytes, sizes))
  server.emit('connection', wire)
  // Everything happens in this process: once nothing more is read, a few turns are enough.
  for (let turns = 0, before = -1; turns < 20 && !wire.destroyed; turns++) {
    await new Promise(setImmediate)
    if (wire.reads !== before) turns = 0
    before = wire.reads
  }
  wire.destroy()
  const all = await Promise.all(found)
  const end = all.indexOf(undefined)
  return (end === -1 ? all : all.slice(0, end)) as Found[]
}

async function nodeResponse(bytes: Buffer, sizes: readonly number[]): Promise<Found | undefined> {
  const wire = new Wire(pieces(bytes, sizes))
  try {
    const message = await new Promise<IncomingMessage>((resolve, reject) => {
      const asked = httpRequest({ createConnection: () => wire as never })
      asked
        .once('response', resolve)
        .once('error', reject)
        .on('error', () => {})
      asked.once('upgrade', () => reject(new Error('upgrade')))
      asked.end()
    })
    const body = await bodyOf(message)
    const { httpVersion, statusCode, statusMessage, rawHeaders, rawTrailers } = message
    const start = `${httpVersion} ${statusCode} ${statusMessage}`
    return { start, headers: rawHeaders, body, trailers: rawTrailers }
  } catch {
    return undefined
  } finally {
    wire.destroy()
  }
}

/** Trailers that our parser drops are no difference. */
function comparable({ start, headers, body }: Found) {
  return { start, headers, body }
}

const FIELDS = [
  'Content-Length: 0',
  'Content-Length: 5',
  'content-length: 5, 5',
  'Content-Length: 05',
  'Content-Length : 5',
  'Transfer-Encoding: chunked',
  'Transfer-Encoding: Chunked ',
  'Transfer-Encoding: gzip, chunked',
  'Transfer-Encoding: chunked, identity',
  'transfer-encoding:\tchunked',
  'Connection: close',
  'Connection: keep-alive',
  'Connection: upgrade',
  'Upgrade: websocket',
  'X-A: 1',
  'X-B:\t caf\xe9 ',
  'X-C:',
  ' folded',
  'Expect: 100-continue',
  'X-D: a\x01b',
]
const BODIES = [
  '',
  'hello',
  '5\r\nhello\r\n0\r\n\r\n',
  '05\r\nhello\r\n0\r\n\r\n',
  '5;a=b\r\nhello\r\n0;c\r\nX-T: 1\r\n\r\n',
  '5 \r\nhello\r\n0\r\n\r\n',
  '1\r\na\r\n0\r\n\r\n',
  'F\r\n0123456789abcde\r\n00\r\n\r\n',
]
const SPICE = [
  '\r',
  '\n',
  '\r\n',
  ' ',
  '\t',
  '\0',
  ':',
  ';',
  ',',
  '0',
  '5',
  'x',
  '\x7f',
  '\xff',
  'G',
]

const fields = fc
  .array(fc.constantFrom(...FIELDS), { maxLength: 4 })
  .map((lines) => lines.map((line) => `${line}\r\n`).join(''))

const oneRequest = fc
  .record({
    method: fc.constantFrom('GET', 'POST', 'HEAD', 'DELETE', 'OPTIONS'),
    target: fc.constantFrom('/', '*', '/a?b=c', 'http://a.test/x', '/caf\xe9', '/%00', '/#f'),
    version: fc.constantFrom('1.1', '1.1', '1.1', '1.0'),
    host: fc.constantFrom('Host: a\r\n', 'Host: a\r\n', ''),
    fields,
    body: fc.constantFrom(...BODIES),
  })
  .map(
    ({ method, target, version, host, fields, body }) =>
      `${method} ${target} HTTP/${version}\r\n${host}${fields}\r\n${body}`,
  )

/** Bytes with a few of them changed, dropped or added. */
const mutated = (text: fc.Arbitrary<string>) =>
  fc
    .record({
      text,
      changes: fc.array(
        fc.record({
          at: fc.nat(),
          drop: fc.nat({ max: 2 }),
          add: fc.constantFrom('', ...SPICE),
        }),
        { maxLength: 2 },
      ),
    })
    .map(({ text, changes }) =>
      changes.reduce((now, { at, drop, add }) => {
        const place = at % (now.length + 1)
        return now.slice(0, place) + add + now.slice(place + drop)
      }, text),
    )

const sizes = fc.oneof(
  fc.constant([] as number[]),
  fc.array(fc.integer({ min: 1, max: 60 }), { minLength: 1, maxLength: 5 }),
)

test('requests that we accept mean the same to Node', { timeout: 60_000 }, async () => {
  const requests = mutated(
    fc.array(oneRequest, { minLength: 1, maxLength: 3 }).map((all) => all.join('')),
  )
  let accepted = 0
  await fc.assert(
    fc.asyncProperty(requests, sizes, async (text, sizes) => {
      const bytes = latin1(text)
      const { messages, heads } = readRequests(bytes, sizes)
      // Behind a request to upgrade, Node waits for what becomes of it.
      const upgrade = heads.findIndex((head) => head.upgrade !== undefined)
      const known = upgrade === -1 ? messages : messages.slice(0, upgrade)
      // Node knows a list of methods; a name that a mutation made is no matter of framing.
      const strange = known.findIndex(({ start }) => !METHODS.includes(start.split(' ')[0] ?? ''))
      const ours = (strange === -1 ? known : known.slice(0, strange)).map(comparable)
      accepted += ours.length
      if (ours.length === 0) return
      const theirs = (await nodeRequests(bytes, sizes)).map(comparable)
      expect(theirs.slice(0, ours.length)).toEqual(ours)
    }),
    { numRuns: RUNS },
  )
  expect(accepted).toBeGreaterThan(RUNS / 8)
})

test('responses that we accept mean the same to Node', { timeout: 60_000 }, async () => {
  const response = mutated(
    fc
      .record({
        interim: fc.constantFrom('', '', 'HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n'),
        line: fc.constantFrom(
          'HTTP/1.1 200 OK',
          'HTTP/1.1 200 ',
          'HTTP/1.1 200',
          'HTTP/1.0 200 OK',
          'HTTP/1.1 204 No Content',
          'HTTP/1.1 304 Not Modified',
          'HTTP/1.1 404 caf\xe9',
        ),
        fields,
        body: fc.constantFrom(...BODIES),
      })
      .map(({ interim, line, fields, body }) => `${interim}${line}\r\n${fields}\r\n${body}`),
  )
  let accepted = 0
  await fc.assert(
    fc.asyncProperty(response, sizes, async (text, sizes) => {
      const bytes = latin1(text)
      const found = readResponse(bytes, sizes)
      const [ours] = found.messages
      if (!ours || found.heads.some(({ upgrade }) => upgrade !== undefined)) return
      accepted += 1
      const theirs = await nodeResponse(bytes, sizes)
      expect(theirs && comparable(theirs)).toEqual(comparable(ours))
    }),
    { numRuns: RUNS },
  )
  expect(accepted).toBeGreaterThan(RUNS / 8)
})
