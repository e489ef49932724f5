import type { RawHeaders } from '../headers.ts'
import { MessageError, type MessageFault } from './message.ts'

const TOKEN = 1
const VALUE = 2
const TARGET = 4

/** What each byte may stand in: a token (RFC 9110 §5.6.2), a field value (§5.5), a request target. */
const CLASS = new Uint8Array(256)
for (let byte = 0x20; byte < 256; byte++) {
  if (byte === 0x7f) continue
  CLASS[byte] = byte === 0x20 || byte >= 0x80 ? VALUE : VALUE | TARGET
}
CLASS[0x09] = VALUE
for (const char of "!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz") {
  CLASS[char.charCodeAt(0)] = TOKEN | VALUE | TARGET
}
// A fragment is nobody's but the client's (RFC 9110 §7.1): some servers cut it off, some take it for a path.
CLASS[0x23] = TOKEN | VALUE

/** As many fields may one message have. */
const MAX_FIELDS = 500

const CR = 0x0d
const LF = 0x0a
const COLON = 0x3a
const SP = 0x20
const HT = 0x09

/** The fields of one message, with what they say of its framing and its connection. */
export interface Fields {
  readonly headers: RawHeaders
  /** -1 where none is announced. */
  length: number
  chunked: boolean
  hosts: number
  close: boolean
  keepAlive: boolean
  upgrade: string | undefined
  expect: string | undefined
}

/** Where the bytes of a class that start at `at` end. */
function skip(data: Uint8Array, at: number, kind: number): number {
  let end = at
  while (((CLASS[data[end] as number] as number) & kind) !== 0) end += 1
  return end
}

/** Where the token ends. */
export const skipToken = (data: Uint8Array, at: number): number => skip(data, at, TOKEN)

/** Where the request target ends. */
export const skipTarget = (data: Uint8Array, at: number): number => skip(data, at, TARGET)

/** Where the text without control characters ends: a reason phrase, a chunk's extension. */
export const skipText = (data: Uint8Array, at: number): number => skip(data, at, VALUE)

/**
 * Reads field lines from `at` to `end`, each of them with its CRLF (RFC 9112 §5): no folding, no space before the
 * colon, nothing but CRLF ends a line. `text` is the same as latin1, and begins at `base`.
 */
export function readFields(
  data: Uint8Array,
  text: string,
  base: number,
  from: number,
  end: number,
  fault: MessageFault,
): Fields {
  const headers: RawHeaders = []
  const fields: Fields = {
    headers,
    length: -1,
    chunked: false,
    hosts: 0,
    close: false,
    keepAlive: false,
    upgrade: undefined,
    expect: undefined,
  }
  let upgrade: string | undefined
  let upgradeListed = false
  let at = from
  while (at < end) {
    const nameStart = at
    at = skip(data, at, TOKEN)
    if (at === nameStart || data[at] !== COLON) throw new MessageError(fault)
    const name = text.slice(nameStart - base, at - base)
    do at += 1
    while (data[at] === SP || data[at] === HT)
    const valueStart = at
    at = skip(data, at, VALUE)
    let valueEnd = at
    while (valueEnd > valueStart && (data[valueEnd - 1] === SP || data[valueEnd - 1] === HT))
      valueEnd -= 1
    if (data[at] !== CR || data[at + 1] !== LF) throw new MessageError(fault)
    const lineEnd = at
    at += 2
    const value = text.slice(valueStart - base, valueEnd - base)
    headers.push(name, value)
    switch (name.length) {
      case 4:
        if (name.toLowerCase() === 'host') fields.hosts += 1
        break
      case 6:
        if (name.toLowerCase() === 'expect') fields.expect = value
        break
      case 7:
        if (name.toLowerCase() === 'upgrade') upgrade = value.toLowerCase()
        break
      case 10:
        if (name.toLowerCase() === 'connection' && readConnection(fields, value))
          upgradeListed = true
        break
      case 14:
        if (name.toLowerCase() !== 'content-length') break
        // A list or a repetition is refused even where all agree: nobody sends that by accident.
        if (fields.length !== -1 || !/^\d{1,16}$/.test(value)) throw new MessageError('framing')
        if (hasTab(data, valueEnd, lineEnd)) throw new MessageError('framing')
        fields.length = Number(value)
        if (!Number.isSafeInteger(fields.length)) throw new MessageError('framing')
        break
      case 17:
        if (name.toLowerCase() !== 'transfer-encoding') break
        if (fields.chunked || value.toLowerCase() !== 'chunked') throw new MessageError('framing')
        if (hasTab(data, valueEnd, lineEnd)) throw new MessageError('framing')
        fields.chunked = true
        break
    }
  }
  if (headers.length > 2 * MAX_FIELDS) throw new MessageError('too-large')
  // RFC 9112 §6.3: the way that requests are smuggled.
  if (fields.chunked && fields.length !== -1) throw new MessageError('framing')
  if (upgradeListed) fields.upgrade = upgrade
  return fields
}

/** Behind a frame a tab is legal (RFC 9110 §5.6.3), but not everybody takes it for white space. */
function hasTab(data: Uint8Array, from: number, to: number): boolean {
  for (let at = from; at < to; at++) if (data[at] === HT) return true
  return false
}

/** Whether `upgrade` is among the options. */
function readConnection(fields: Fields, value: string): boolean {
  let listed = false
  for (const part of value.split(',')) {
    const option = part.trim().toLowerCase()
    if (option === 'close') fields.close = true
    else if (option === 'keep-alive') fields.keepAlive = true
    else if (option === 'upgrade') listed = true
  }
  return listed
}

/** Fields that change how the message is framed, routed or authenticated have no place after it (RFC 9110 §6.5.1). */
const NO_TRAILER: ReadonlySet<string> = new Set([
  'authorization',
  'connection',
  'content-encoding',
  'content-length',
  'content-range',
  'content-type',
  'cookie',
  'dpop',
  'expect',
  'host',
  'keep-alive',
  'max-forwards',
  'proxy-authenticate',
  'proxy-authorization',
  'proxy-connection',
  'set-cookie',
  'te',
  'trailer',
  'transfer-encoding',
  'upgrade',
])

/** The trailers that may be passed on. */
export function allowedTrailers(fields: RawHeaders): RawHeaders {
  const kept: RawHeaders = []
  for (let i = 0; i < fields.length; i += 2) {
    const name = fields[i] as string
    if (!NO_TRAILER.has(name.toLowerCase())) kept.push(name, fields[i + 1] as string)
  }
  return kept
}
