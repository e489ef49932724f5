import { createHash } from 'node:crypto'

/** What travels: the same bytes at the origin and at the generator, so that either can check the other. */

/** Where the origin speaks HTTP/2; elsewhere it speaks HTTP/1.1. */
export const HTTP2_HOST = 'h2.bench.test'

const row = { id: 4711, sku: 'CUP-4711', name: 'goblet', price: 19.9, stock: 12, tags: ['a', 'b'] }
const json = JSON.stringify({ items: Array.from({ length: 11 }, () => row) })

/** Exactly 1 KiB of JSON. */
export const JSON_BODY = Buffer.from(json.padEnd(1024, ' ').slice(0, 1024))
/** The repeated part of a large body. */
export const CHUNK = Buffer.alloc(
  65_536,
  'the cup goes round, and every guest drinks from it once. ',
)
/** 10 MiB. */
export const LARGE = 160 * CHUNK.length

const large = createHash('sha1')
for (let sent = 0; sent < LARGE; sent += CHUNK.length) large.update(CHUNK)
export const LARGE_SHA1 = large.digest('hex')

/** Short hash of an Authorization value: 16 hex digits. */
export const fingerprint = (authorization) =>
  createHash('sha256').update(authorization).digest('hex').slice(0, 16)
