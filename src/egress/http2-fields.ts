import type { Http2Stream } from 'node:http2'
import type { RawHeaders } from '../lib/headers.ts'
import { CONNECTION_SPECIFIC } from '../lib/http2/request-fields.ts'

/** A field block as node:http2 takes it: names in lower case, an array where a field repeats. */
export type FieldBlock = Record<string, string | string[] | number>

/**
 * Makes an empty block. It inherits nothing, so that any name is a field's; other than `Object.create(null)` it
 * costs no hash table, which node:http2 would copy once more.
 */
export const FieldBlock = function FieldBlock() {} as unknown as new () => FieldBlock
FieldBlock.prototype = Object.create(null)

/** Fields that node:http2 refuses to send twice. */
const SINGLE: ReadonlySet<string> = new Set([
  'access-control-allow-credentials',
  'access-control-max-age',
  'access-control-request-method',
  'age',
  'authorization',
  'content-encoding',
  'content-language',
  'content-length',
  'content-location',
  'content-md5',
  'content-range',
  'content-type',
  'date',
  'dnt',
  'etag',
  'expires',
  'from',
  'host',
  'if-match',
  'if-modified-since',
  'if-none-match',
  'if-range',
  'if-unmodified-since',
  'last-modified',
  'location',
  'max-forwards',
  'proxy-authorization',
  'range',
  'referer',
  'retry-after',
  'te',
  'tk',
  'upgrade-insecure-requests',
  'user-agent',
  'x-content-type-options',
])

/** node:http2 hands the block over with NULs between its parts; RFC 9113 §8.2.1 forbids CR and LF as well. */
const UNSAFE = /[^\t\x20-\x7e\x80-\xff]/

/**
 * Adds fields to a block in their order, without those of one HTTP/1 connection and without `dropped`.
 * Throws `TypeError` for a value that would break out of its field.
 */
export function addFields(block: FieldBlock, headers: readonly string[], dropped = ''): void {
  for (let i = 0; i < headers.length; i += 2) {
    const name = (headers[i] as string).toLowerCase()
    const value = headers[i + 1] as string
    if (UNSAFE.test(value)) throw new TypeError('a field would break the block that it stands in')
    if (name === dropped || CONNECTION_SPECIFIC.has(name)) continue
    // The one word that `te` may say here (RFC 9113 §8.2.2).
    if (name === 'te' && value !== 'trailers') continue
    const before = block[name]
    if (before === undefined) block[name] = value
    else if (Array.isArray(before)) before.push(value)
    // RFC 9110 §5.3: a repeated field means the same as one with all its values.
    else if (!SINGLE.has(name)) block[name] = [String(before), value]
    else if (before !== value) block[name] = `${before}, ${value}`
  }
}

/** The fields of a block that came, without the pseudo fields that it begins with (RFC 9113 §8.3). */
export function regularFields(raw: readonly string[]): RawHeaders {
  let start = 0
  while (start < raw.length && (raw[start] as string).startsWith(':')) start += 2
  return raw.slice(start)
}

/**
 * Resets a stream, once nghttp2 is not at work on it: from within its callbacks that ends the process with some
 * versions of Node. What has not ended yet is not ended before, as node:http2 would do it: what was cut short
 * would look whole to the peer.
 */
export function resetStream(stream: Http2Stream, code: number): void {
  if (!stream.writableEnded) stream._final = (done) => done()
  setImmediate(() => {
    if (!stream.destroyed) stream.close(code)
  })
}
