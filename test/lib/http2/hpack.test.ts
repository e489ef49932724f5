import { once } from 'node:events'
import { connect } from 'node:http2'
import { type AddressInfo, createServer, type Socket } from 'node:net'
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { CompressionError, FieldDecoder } from '../../../src/lib/http2/field-decoder.ts'
import { FieldEncoder } from '../../../src/lib/http2/field-encoder.ts'
import { DynamicTable, tableField } from '../../../src/lib/http2/field-table.ts'
import { FrameReader } from '../../../src/lib/http2/frame-reader.ts'
import { ACK, FRAME, frame } from '../../support/http2-frames.ts'

/** Decodes blocks of one connection into flat lists. */
function decoderOf(tableSize = 4096, maxBlock = 2 ** 20) {
  const decoder = new FieldDecoder({ tableSize, maxBlock })
  return (block: Buffer | string) => {
    const bytes = typeof block === 'string' ? Buffer.from(block.replace(/\s/g, ''), 'hex') : block
    const fields: string[] = []
    decoder.decode(bytes, 0, bytes.length, { field: (name, value) => fields.push(name, value) })
    return fields
  }
}

/** Encodes blocks of one connection, and never beyond what `bound` says. */
function encoderOf() {
  const encoder = new FieldEncoder()
  return {
    encoder,
    encode(fields: readonly string[], status?: number): Buffer {
      const bytes = Buffer.alloc(encoder.bound(fields))
      const end = encoder.encode(status, fields, bytes, 0)
      expect(end).toBeLessThanOrEqual(bytes.length)
      return bytes.subarray(0, end)
    },
  }
}

const COOKIE = 'foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1'
const DATE = 'Mon, 21 Oct 2013 20:13:21 GMT'
const request = (path: string, scheme: string, ...more: string[]) => [
  ...[':method', 'GET', ':scheme', scheme, ':path', path, ':authority', 'www.example.com'],
  ...more,
]
const answer = (status: string, date: string, ...more: string[]) => [
  ...[':status', status, 'cache-control', 'private', 'date', date],
  ...['location', 'https://www.example.com', ...more],
]
const REQUESTS = [
  request('/', 'http'),
  request('/', 'http', 'cache-control', 'no-cache'),
  request('/index.html', 'https', 'custom-key', 'custom-value'),
]
const ANSWERS = [
  answer('302', DATE),
  answer('307', DATE),
  [
    ...answer('200', DATE.replace(':21 ', ':22 ')),
    ...['content-encoding', 'gzip', 'set-cookie', COOKIE],
  ],
]

describe('the examples of RFC 7541, appendix C', () => {
  test.each([
    [
      'C.3, requests without Huffman coding',
      4096,
      REQUESTS,
      [
        '828684410f7777772e6578616d706c652e636f6d',
        '828684be58086e6f2d6361636865',
        '828785bf400a637573746f6d2d6b65790c637573746f6d2d76616c7565',
      ],
    ],
    [
      'C.4, requests with Huffman coding',
      4096,
      REQUESTS,
      [
        '828684418cf1e3c2e5f23a6ba0ab90f4ff',
        '828684be5886a8eb10649cbf',
        '828785bf408825a849e95ba97d7f8925a849e95bb8e8b4bf',
      ],
    ],
    [
      'C.6, answers with Huffman coding and a table of 256 bytes',
      256,
      ANSWERS,
      [
        `488264025885aec3771a4b6196d07abe941054d444a8200595040b8166e082a62d1bff
         6e919d29ad171863c78f0b97c8e9ae82ae43d3`,
        '4883640effc1c0bf',
        `88c16196d07abe941054d444a8200595040b8166e084a62d1bffc05a839bd9ab
         77ad94e7821dd7f2e6c7b335dfdfcd5b3960d5af27087f3672c1ab270fb5291f9587316065c003ed4ee5b1063d5007`,
      ],
    ],
  ])('%s', (_name, tableSize, expected, blocks) => {
    const decode = decoderOf(tableSize)
    // The table is as large as the example's from the start.
    if (tableSize < 4096) decode('3fe101')
    expect(blocks.map((block) => decode(block))).toEqual(expected)
  })

  test('C.2, each kind of field by itself', () => {
    const decode = decoderOf()
    expect(decode('400a637573746f6d2d6b65790d637573746f6d2d686561646572')).toEqual([
      'custom-key',
      'custom-header',
    ])
    expect(decode('040c2f73616d706c652f70617468')).toEqual([':path', '/sample/path'])
    expect(decode('100870617373776f726406736563726574')).toEqual(['password', 'secret'])
    expect(decode('82')).toEqual([':method', 'GET'])
    expect(decode('be')).toEqual(['custom-key', 'custom-header'])
  })
})

const name = fc.constantFrom(
  ...[
    'content-type',
    'server',
    'x-a',
    'x-b',
    'date',
    'set-cookie',
    'etag',
    'vary',
    'cache-control',
  ],
  ...['x-a-rather-long-name-that-nobody-has-in-a-table', 'authorization', 'content-length', 'via'],
)
const value = fc.oneof(
  fc.constantFrom('', 'a', 'gzip', 'no-cache', 'x'.repeat(127), 'y'.repeat(128), 'z'.repeat(5000)),
  fc.string({
    unit: fc.integer({ min: 0x20, max: 0xff }).map((code) => String.fromCharCode(code)),
  }),
)
const fieldList = fc.array(fc.tuple(name, value), { maxLength: 12 }).map((fields) => fields.flat())

describe('what is encoded', () => {
  test('is decoded to the same, whatever came before and however the table is resized', () => {
    const step = fc.record({
      sizes: fc.array(fc.constantFrom(0, 31, 64, 100, 1000, 4096, 65_536), { maxLength: 3 }),
      status: fc.option(fc.integer({ min: 100, max: 999 }), { nil: undefined }),
      fields: fieldList,
    })
    fc.assert(
      fc.property(fc.array(step, { maxLength: 30 }), (steps) => {
        const { encoder, encode } = encoderOf()
        const decode = decoderOf()
        for (const { sizes, status, fields } of steps) {
          for (const size of sizes) encoder.allow(size)
          const head = status === undefined ? [] : [':status', String(status)]
          expect(decode(encode(fields, status))).toEqual([...head, ...fields])
        }
      }),
      { numRuns: 300 },
    )
  })

  test('repeats in a few bytes, but for what differs in every answer and what nobody may keep', () => {
    const { encode } = encoderOf()
    const fields = (n: number) => [
      ...['content-type', 'application/json', 'server', 'an origin', 'x-request', `${n}`],
      ...['date', DATE],
    ]
    const sizes = Array.from({ length: 10 }, (_, n) => encode(fields(n), 200).length)
    // Two indices, a status, the date, and a name that turned out not to be worth a place.
    expect(sizes.at(-1)).toBeLessThan(3 + 2 + DATE.length + 2 + 'x-request'.length + 3)
    const secret = encode(['set-cookie', 'a', 'set-cookie', 'a'])
    // RFC 7541 §6.2.3: never indexed.
    expect(secret.toString('hex')).toBe('1f2801611f280161')
  })

  test('says how small the table was in between (RFC 7541 §4.2)', () => {
    const { encoder, encode } = encoderOf()
    encode(['x-a', 'kept'])
    encoder.allow(0)
    encoder.allow(4096)
    expect(encode([]).toString('hex')).toBe('203fe11f')
    // What was there has gone.
    expect(encode(['x-a', 'kept']).length).toBeGreaterThan(1)
  })
})

test('a table never holds more than it may, and the newest first', () => {
  const action = fc.oneof(
    fc.record({ add: fc.nat(3000) }),
    fc.record({ limit: fc.constantFrom(0, 32, 33, 64, 500, 4096) }),
  )
  fc.assert(
    fc.property(fc.array(action, { maxLength: 200 }), (actions) => {
      const table = new DynamicTable()
      let model: number[] = []
      let limit = 4096
      const evict = () => {
        while (model.reduce((sum, length) => sum + length + 32, 0) > limit) model.pop()
      }
      for (const each of actions) {
        if ('add' in each) {
          table.add(tableField('', 'v'.repeat(each.add)))
          model = [each.add, ...model]
        } else {
          limit = each.limit
          table.limit(limit)
        }
        evict()
        expect(table.size).toBeLessThanOrEqual(limit)
        expect(
          Array.from({ length: table.count }, (_, age) => table.at(age)?.value.length),
        ).toEqual(model)
        expect(table.at(table.count)).toBeUndefined()
      }
    }),
  )
})

describe('a block is refused', () => {
  test.each([
    ['for index 0', '80'],
    ['for an index beyond both tables', 'be'],
    ['for a name beyond both tables', '7f0001'],
    ['for a number without an end', 'ffffffffffffffffff'],
    ['for a string that is longer than the block', '4005616263'],
    ['that ends within a field', '40'],
    ['that ends behind a name', '400161'],
    ['for a table larger than agreed', '3fe21f'],
    ['for a table size behind a field', '8220'],
    ['for three table sizes', '202020'],
    ['for a code that is padded with zeros', '0001618118'],
    ['for a code that is padded with more than seven bits', '00016182ffff'],
    ['for EOS within a string', '00016184ffffffff'],
  ])('%s', (_why, block) => {
    expect(() => decoderOf()(block)).toThrow(CompressionError)
  })

  test('or decoded, whatever its bytes are, and nothing else happens', () => {
    fc.assert(
      fc.property(fc.array(fc.uint8Array({ maxLength: 300 }), { maxLength: 20 }), (blocks) => {
        const decode = decoderOf()
        for (const block of blocks) {
          try {
            decode(Buffer.from(block))
          } catch (error) {
            expect(error).toBeInstanceOf(CompressionError)
            return
          }
        }
      }),
      { numRuns: 500 },
    )
  })
})

test('a block that grows beyond its bound is counted, not told, and the table stays right', () => {
  const decoder = new FieldDecoder({ tableSize: 4096, maxBlock: 10_000 })
  let told = 0
  const sink = {
    field: () => {
      told += 1
    },
  }
  // One entry of 4 KB, and 60,000 times its index.
  const literal = Buffer.concat([Buffer.from('4001617fa11e', 'hex'), Buffer.alloc(4000, 'v')])
  const bomb = Buffer.concat([literal, Buffer.alloc(60_000, 0xbe)])
  expect(decoder.decode(bomb, 0, bomb.length, sink)).toBe(60_001 * (1 + 4000 + 32))
  expect(told).toBe(2)
  expect(decoder.decode(Buffer.from([0xbe]), 0, 1, sink)).toBe(4033)
})

test('what nghttp2 encodes is decoded to the same: every byte, with and without Huffman coding', async () => {
  const lists: [string, string][][] = []
  for (let code = 0x20; code <= 0xff; code++) {
    if (code === 0x7f) continue
    const byte = String.fromCharCode(code)
    // Long enough for the code to pay even where this byte's is the longest one.
    const fields: [string, string][] = [[`x-${code % 40}`, `${'e'.repeat(40)}${byte}e`]]
    if (code % 3 === 0) fields.push(['x-same', 'again'], ['x-bare', byte.repeat(9).trim()])
    lists.push(fields)
  }
  const decode = decoderOf()
  const heard: string[][] = []
  let done = () => {}
  const all = new Promise<void>((resolve) => {
    done = resolve
  })
  const server = createServer((socket: Socket) => {
    socket.on('error', () => {})
    const reader = new FrameReader({
      frame(type, flags, stream, bytes, start, end) {
        if (type === FRAME.settings && (flags & ACK) === 0) socket.write(frame(type, ACK))
        if (type !== FRAME.headers) return
        heard.push(decode(Buffer.from(bytes.subarray(start, end))))
        // `:status: 200`, and that is all.
        socket.write(frame(type, 5, stream, Buffer.from([0x88])))
        if (heard.length === lists.length) done()
      },
    })
    socket.write(frame(FRAME.settings))
    socket.on('data', (chunk) => reader.execute(chunk))
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const session = connect(`http://127.0.0.1:${(server.address() as AddressInfo).port}`)
  session.on('error', () => {})
  try {
    for (const fields of lists) {
      const stream = session.request({ ':path': '/', ...Object.fromEntries(fields) })
      stream.on('error', () => {}).resume()
    }
    await all
    const told = heard.map((list) => list.slice(list.findIndex((text) => text.startsWith('x-'))))
    expect(told).toEqual(lists.map((fields) => fields.flat()))
  } finally {
    session.destroy()
    server.close()
  }
})
