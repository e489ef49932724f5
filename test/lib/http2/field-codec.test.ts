import { once } from 'node:events'
import { type ClientHttp2Session, connect, type IncomingHttpHeaders } from 'node:http2'
import { type AddressInfo, createServer, type Socket } from 'node:net'
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import {
  CompressionError,
  type FieldBlockSink,
  FieldDecoder,
} from '../../../src/lib/http2/field-decoder.ts'
import { FieldEncoder } from '../../../src/lib/http2/field-encoder.ts'
import type { TableField } from '../../../src/lib/http2/field-table.ts'
import { FrameReader } from '../../../src/lib/http2/frame-reader.ts'
import { ACK, END_HEADERS, END_STREAM, FRAME, frame } from '../../support/http2-frames.ts'
import { ANSWERS_C5, EVERY_BYTE_CODED } from './hpack-vectors.ts'

interface Told {
  readonly name: string
  readonly value: string
  readonly entry: TableField | undefined
}

function decode(decoder: FieldDecoder, block: Buffer | string): { size: number; told: Told[] } {
  const bytes = typeof block === 'string' ? Buffer.from(block.replace(/\s/g, ''), 'hex') : block
  const told: Told[] = []
  const sink: FieldBlockSink = { field: (name, value, entry) => told.push({ name, value, entry }) }
  return { size: decoder.decode(bytes, 0, bytes.length, sink), told }
}

const newDecoder = (maxBlock = 2 ** 24, tableSize = 4096) =>
  new FieldDecoder({ tableSize, maxBlock })
const pairs = ({ told }: { told: readonly Told[] }) =>
  told.flatMap((each) => [each.name, each.value])

function encode(encoder: FieldEncoder, fields: readonly string[], status?: number): Buffer {
  const bytes = Buffer.alloc(encoder.bound(fields))
  return bytes.subarray(0, encoder.encode(status, fields, bytes, 0))
}

/** A string literal (RFC 7541 §5.2), not coded. */
function literal(text: string): Buffer {
  const bytes = Buffer.from(text, 'latin1')
  let rest = bytes.length - 127
  if (rest < 0) return Buffer.concat([Buffer.from([bytes.length]), bytes])
  const head = [127]
  for (; rest >= 128; rest >>= 7) head.push((rest & 127) | 128)
  return Buffer.concat([Buffer.from([...head, rest]), bytes])
}
const PLAIN = 0x00
const ADDED = 0x40
const field = (kind: number, name: string, value: string) =>
  Buffer.concat([Buffer.from([kind]), literal(name), literal(value)])

describe('what is decoded', () => {
  test('is RFC 7541, C.5: answers without Huffman coding and a table of 256 bytes', () => {
    const decoder = newDecoder(2 ** 24, 256)
    decode(decoder, '3fe101')
    const [first, second, third] = ANSWERS_C5.map((block) => decode(decoder, block))
    const rest = ['cache-control', 'private', 'date', 'Mon, 21 Oct 2013 20:13:21 GMT']
    rest.push('location', 'https://www.example.com')
    expect(pairs(first as { told: Told[] })).toEqual([':status', '302', ...rest])
    expect(pairs(second as { told: Told[] })).toEqual([':status', '307', ...rest])
    expect(pairs(third as { told: Told[] })).toEqual([
      ...[':status', '200', 'cache-control', 'private', 'date', 'Mon, 21 Oct 2013 20:13:22 GMT'],
      ...['location', 'https://www.example.com', 'content-encoding', 'gzip'],
      ...['set-cookie', 'foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1'],
    ])
    // RFC 9113 §6.5.2.
    expect(first?.size).toBe(222)
  })

  test('is every byte, coded or not', () => {
    const every = String.fromCharCode(...Array.from({ length: 256 }, (_, code) => code))
    const coded = Buffer.from(EVERY_BYTE_CODED, 'base64')
    const size = coded.length - 127
    const head = Buffer.from([0x00, 0x01, 0x78, 0xff, (size & 127) | 128, size >> 7])
    expect(pairs(decode(newDecoder(), Buffer.concat([head, coded])))).toEqual(['x', every])
    // The shortest code: eight characters in five bytes, and 4000 of these.
    const long = Buffer.from(`000178ffa11e${'18c6318c63'.repeat(800)}`, 'hex')
    expect(pairs(decode(newDecoder(), long))).toEqual(['x', 'a'.repeat(6400)])
    for (let length = 0; length < 20; length++) {
      const value = every.slice(250 - length, 250)
      expect(pairs(decode(newDecoder(), field(PLAIN, 'x', value)))).toEqual(['x', value])
    }
  })

  test("comes with the table's own entry, the same one each time, but for what no table keeps", () => {
    const decoder = newDecoder()
    const [entry] = decode(decoder, field(ADDED, 'x-a', 'kept')).told.map((each) => each.entry)
    expect(entry).toMatchObject({ name: 'x-a', value: 'kept', size: 39 })
    // :method: GET, x-a: kept, then two literals that are not kept.
    const block = Buffer.concat([Buffer.from('82be', 'hex'), field(0, 'a', ''), field(16, 'b', '')])
    const entries = decode(decoder, block).told.map((each) => each.entry)
    expect(entries[1]).toBe(entry)
    expect(entries.slice(2)).toEqual([undefined, undefined])
    expect(decode(newDecoder(), '82').told[0]?.entry).toBe(entries[0])
  })

  test('may announce two sizes, and the lesser one empties the table (RFC 7541 §4.2)', () => {
    const decoder = newDecoder()
    decode(decoder, field(ADDED, 'x-a', 'kept'))
    expect(pairs(decode(decoder, '3fe11f3fe11fbe'))).toEqual(['x-a', 'kept'])
    expect(pairs(decode(decoder, '203fe11f82'))).toEqual([':method', 'GET'])
    expect(() => decode(decoder, 'be')).toThrow(CompressionError)
  })

  test('empties the table where it is larger than that (RFC 7541 §4.4)', () => {
    const decoder = newDecoder()
    decode(decoder, field(ADDED, 'x-a', 'kept'))
    const large = 'v'.repeat(5000)
    expect(pairs(decode(decoder, field(ADDED, 'x-b', large)))).toEqual(['x-b', large])
    expect(() => decode(decoder, 'be')).toThrow(CompressionError)
  })

  test('never makes the table larger than 4096, whatever was agreed', () => {
    expect(() => decode(newDecoder(2 ** 24, 65_536), '3fe23f')).toThrow(CompressionError)
  })

  test('holds the most entries there can be, and each is where its index says', () => {
    const decoder = newDecoder()
    for (let i = 0; i < 300; i++) decode(decoder, field(ADDED, '', ''))
    // 128 entries of 32 bytes: 62 to 189.
    expect(pairs(decode(decoder, 'ff3e'))).toEqual(['', ''])
    expect(() => decode(decoder, 'ff3f')).toThrow(CompressionError)
  })
})

describe('beyond its bound a block', () => {
  const text = fc.string({
    unit: fc.integer({ min: 0, max: 0xff }).map((code) => String.fromCharCode(code)),
    maxLength: 40,
  })
  const coded = fc.constantFrom('8cf1e3c2e5f23a6ba0ab90f4ff', '86a8eb10649cbf', '8118', '82ffff')
  const piece = fc.oneof(
    { weight: 3, arbitrary: fc.integer({ min: 0x80, max: 0xc2 }).map((byte) => Buffer.of(byte)) },
    fc
      .tuple(fc.constantFrom(PLAIN, 0x10, ADDED), text, text)
      .map(([kind, name, value]) => field(kind, name, value)),
    fc
      .tuple(fc.constantFrom(0x01, 0x11, 0x41, 0x7e), text)
      .map(([first, value]) => Buffer.concat([Buffer.of(first), literal(value)])),
    fc
      .tuple(fc.constantFrom(0x04, 0x44), coded)
      .map(([first, value]) => Buffer.concat([Buffer.of(first), Buffer.from(value, 'hex')])),
    fc.uint8Array({ maxLength: 3 }).map((bytes) => Buffer.from(bytes)),
  )
  const blocks = fc.array(
    fc.array(piece, { maxLength: 12 }).map((pieces) => Buffer.concat(pieces)),
    { maxLength: 8 },
  )

  test('is counted, checked and kept as any other, and only not told', () => {
    const attempt = (decoder: FieldDecoder, block: Buffer) => {
      try {
        return decode(decoder, block)
      } catch (error) {
        expect(error).toBeInstanceOf(CompressionError)
        return undefined
      }
    }
    fc.assert(
      fc.property(blocks, fc.nat(400), (list, maxBlock) => {
        const whole = newDecoder()
        const bounded = newDecoder(maxBlock)
        for (const block of list) {
          const all = attempt(whole, block)
          const some = attempt(bounded, block)
          expect(some?.size).toBe(all?.size)
          if (!all || !some) return
          let size = 0
          const within = all.told.filter((each) => {
            size += each.name.length + each.value.length + 32
            return size <= maxBlock
          })
          expect(pairs(some)).toEqual(pairs({ told: within }))
        }
      }),
      { numRuns: 1000 },
    )
  })
})

describe('what is encoded', () => {
  test.each([
    [200, '88'],
    [204, '89'],
    [206, '8a'],
    [304, '8b'],
    [400, '8c'],
    [404, '8d'],
    [500, '8e'],
    [103, '0803313033'],
    [503, '0803353033'],
  ])('has %i as %s', (status, block) => {
    expect(encode(new FieldEncoder(), [], status).toString('hex')).toBe(block)
  })

  test.each([
    ...['age', 'content-length', 'content-range', 'cupbearer-trace', 'date', 'etag', 'expires'],
    ...['last-modified', 'location', 'traceparent', 'x-request-id'],
  ])('never puts %s into a table', (name) => {
    const encoder = new FieldEncoder()
    const blocks = [1, 2].map(() => encode(encoder, [name, 'same']))
    expect(blocks[1]).toEqual(blocks[0])
    expect((blocks[0]?.[0] as number) & 0xf0).toBe(0)
  })

  test.each(['authorization', 'proxy-authorization', 'set-cookie'])(
    'forbids everybody to put %s into a table (RFC 7541 §6.2.3)',
    (name) => {
      const encoder = new FieldEncoder()
      const blocks = ['a', 'a', 'a'.repeat(300)].map((value) => encode(encoder, [name, value]))
      for (const block of blocks) expect((block[0] as number) & 0xf0).toBe(0x10)
    },
  )

  test('goes into the table up to 128 bytes of value, and 64 of name', () => {
    const again = (name: string, value: string) => {
      const encoder = new FieldEncoder()
      encode(encoder, [name, value])
      return encode(encoder, [name, value]).length
    }
    expect(again('x-a', 'v'.repeat(128))).toBe(1)
    expect(again('x-a', 'v'.repeat(129))).toBeGreaterThan(129)
    expect(again('n'.repeat(64), 'v')).toBe(1)
    expect(again('n'.repeat(65), 'v')).toBeGreaterThan(65)
  })

  test('keeps nothing of the heads that it was cut from', () => {
    setFlagsFromString('--expose-gc')
    const collect = runInNewContext('gc') as () => void
    const held = () => {
      collect()
      return process.memoryUsage().heapUsed
    }
    const encoder = new FieldEncoder()
    const target = Buffer.alloc(2 ** 17)
    const before = held()
    for (let i = 0; i < 200; i++) {
      // As a parser has it: the fields are slices of a head in one string.
      const head = `${Buffer.alloc(60_000, 'p').toString('latin1')}x-a-long-name-${i}: a long value ${i}`
      const colon = head.indexOf(':')
      encoder.encode(200, [head.slice(60_000, colon), head.slice(colon + 2)], target, 0)
      encoder.encode(200, [head.slice(i, 50_000 + i), ''], target, 0)
    }
    expect(held() - before).toBeLessThan(4e6)
    // It is still there, and in step.
    expect(encode(encoder, ['x-a-long-name-199', 'a long value 199']).length).toBe(1)
  })
})

test("node:http2's client reads hundreds of answers, however it changes its table in between", async () => {
  const names = ['server', 'x-a', 'x-b', 'content-type', 'vary', 'etag', 'x-long-name-of-an-origin']
  const answer = (n: number) => {
    const fields = names.filter((_, i) => (n * 7 + i * 3) % 5 > 0)
    const list = fields.flatMap((name, i) => [name, `${name} ${(n >> i) % 4}`])
    if (n % 11 === 0) list.push('x-large', 'l'.repeat(n * 20), 'x-latin1', '\u00e9\u00ff')
    return [...list, `x-${n % 90}`, `only ${n % 3}`, 'x-last', '1']
  }
  const TABLE = 1
  const server = createServer((socket: Socket) => {
    const encoder = new FieldEncoder()
    let count = 0
    socket.on('error', () => {})
    const reader = new FrameReader({
      frame(type, flags, stream, bytes, start, end) {
        if (type === FRAME.settings && (flags & ACK) === 0) {
          for (let at = start; at < end; at += 6) {
            if (bytes.readUInt16BE(at) === TABLE) encoder.allow(bytes.readUInt32BE(at + 2))
          }
          socket.write(frame(FRAME.settings, ACK))
        }
        if (type !== FRAME.headers) return
        const n = count++
        const block = encode(encoder, answer(n), n % 13 === 0 ? 418 : 200)
        socket.write(frame(FRAME.headers, END_HEADERS | END_STREAM, stream, block))
      },
    })
    socket.write(frame(FRAME.settings))
    socket.on('data', (chunk) => reader.execute(chunk))
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as AddressInfo
  const session = connect(`http://127.0.0.1:${port}`, { settings: { headerTableSize: 200 } })
  session.on('error', () => {})
  try {
    for (let n = 0; n < 300; n++) {
      if (n % 30 === 29) {
        for (const headerTableSize of [[0, 4096], [100], [4096], [65_536, 64, 1000]][n % 4] ?? []) {
          session.settings({ headerTableSize })
        }
      }
      const { ':status': status, ...headers } = await get(session)
      expect(status).toBe(n % 13 === 0 ? 418 : 200)
      const expected = answer(n)
      expect(Object.entries(headers).flat()).toEqual(expected)
    }
  } finally {
    session.destroy()
    server.close()
  }
})

async function get(session: ClientHttp2Session): Promise<IncomingHttpHeaders> {
  const stream = session.request({ ':path': '/' })
  const [headers] = (await once(stream, 'response')) as [IncomingHttpHeaders]
  stream.resume()
  return headers
}
