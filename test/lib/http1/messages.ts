import fc from 'fast-check'

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

/** One request, mostly well formed. */
export const oneRequest = fc
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
export const mutated = (text: fc.Arbitrary<string>) =>
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

/** In what pieces bytes come. */
export const someSizes = fc.oneof(
  fc.constant([] as number[]),
  fc.array(fc.integer({ min: 1, max: 60 }), { minLength: 1, maxLength: 5 }),
)

/** Up to three requests in a row. */
export const someRequests = mutated(
  fc.array(oneRequest, { minLength: 1, maxLength: 3 }).map((all) => all.join('')),
)

/** One response, with an interim one at times. */
export const someResponse = mutated(
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
