import { headerValue, type RawHeaders } from '../headers.ts'
import type { FieldBlockSink } from './field-decoder.ts'
import type { TableField } from './field-table.ts'

/** RFC 9113 §8.2.1, and RFC 9110 §5.6.2 without upper case. */
const NAME = /^[!#$%&'*+\-.^_`|~0-9a-z]+$/
/** RFC 9113 §8.2.1: no control characters, no white space at either end. */
const VALUE = /^(?:[\x21-\x7e\x80-\xff](?:[\t\x20-\x7e\x80-\xff]*[\x21-\x7e\x80-\xff])?)?$/
const DIGITS = /^\d{1,15}$/

/** What HTTP/1 says of one connection has no place in HTTP/2 (RFC 9113 §8.2.2). */
export const CONNECTION_SPECIFIC: ReadonlySet<string> = new Set([
  'connection',
  'http2-settings',
  'keep-alive',
  'proxy-connection',
  'transfer-encoding',
  'upgrade',
])

/** What is found out about a field once, and kept with the table's entry. */
const REGULAR = 1
const MALFORMED = 2
const PSEUDO = 3
const LENGTH = 4

function kindOf(name: string, value: string): number {
  if (name.charCodeAt(0) === 0x3a) return VALUE.test(value) ? PSEUDO : MALFORMED
  if (!NAME.test(name) || !VALUE.test(value) || CONNECTION_SPECIFIC.has(name)) return MALFORMED
  if (name === 'te') return value.toLowerCase() === 'trailers' ? REGULAR : MALFORMED
  if (name === 'content-length') return DIGITS.test(value) ? LENGTH : MALFORMED
  return REGULAR
}

/** Reads a message's field block. */
abstract class Fields implements FieldBlockSink {
  readonly headers: RawHeaders = []
  /** RFC 9113 §8.1.1: what stands here cannot be a message. */
  malformed = false
  readonly #maxFields: number
  #count = 0

  constructor(maxFields: number) {
    this.#maxFields = maxFields
  }

  /** Whether there were more fields than one message may have. */
  get tooMany(): boolean {
    return this.#count > this.#maxFields
  }

  field(name: string, value: string, entry: TableField | undefined): void {
    if (++this.#count > this.#maxFields) return
    let kind = entry?.mark ?? 0
    if (kind === 0) {
      kind = kindOf(name, value)
      if (entry) entry.mark = kind
    }
    if (kind === REGULAR) this.headers.push(name, value)
    else if (kind === MALFORMED) this.malformed = true
    else if (kind === PSEUDO) this.pseudo(name, value)
    else this.length(name, value)
  }

  protected abstract pseudo(name: string, value: string): void
  protected abstract length(name: string, value: string): void
}

/** The field block of a request (RFC 9113 §8.3.1, RFC 8441 §4). */
export class RequestFields extends Fields {
  method: string | undefined
  scheme: string | undefined
  path: string | undefined
  authority: string | undefined
  protocol: string | undefined
  /** `content-length`. */
  contentLength: number | undefined
  /** Whether the block was larger than the settings allow: what was beyond is not there. */
  tooLarge = false

  protected override pseudo(name: string, value: string): void {
    // They come before all others, each of them once.
    if (this.headers.length > 0) this.malformed = true
    else if (name === ':method' && this.method === undefined) this.method = value
    else if (name === ':scheme' && this.scheme === undefined) this.scheme = value
    else if (name === ':path' && this.path === undefined) this.path = value
    else if (name === ':authority' && this.authority === undefined) this.authority = value
    else if (name === ':protocol' && this.protocol === undefined) this.protocol = value
    else this.malformed = true
  }

  protected override length(name: string, value: string): void {
    if (this.contentLength !== undefined) this.malformed = true
    this.contentLength = Number(value)
    this.headers.push(name, value)
  }

  /** Looks at the whole; `ends` where no body follows. */
  check(ends: boolean): void {
    const { method, scheme, path, authority, protocol } = this
    if (this.tooLarge || this.malformed) return
    if (method === 'CONNECT' && protocol === undefined) {
      this.malformed = scheme !== undefined || path !== undefined || authority === undefined
    } else {
      const rooted = path?.startsWith('/') || (path === '*' && method === 'OPTIONS')
      const named = authority ?? headerValue(this.headers, 'host')
      this.malformed =
        !method || !scheme || !rooted || named === undefined || this.#isOddConnect(authority)
    }
    if (ends && this.contentLength) this.malformed = true
  }

  #isOddConnect(authority: string | undefined): boolean {
    if (this.protocol === undefined) return false
    return this.method !== 'CONNECT' || authority === undefined
  }
}

/** The field block behind a body (RFC 9113 §8.1). */
export class TrailerFields extends Fields {
  protected override pseudo(): void {
    this.malformed = true
  }

  /** RFC 9110 §6.5.1: nothing that frames. */
  protected override length(): void {
    this.malformed = true
  }
}
