import { readFields, skipTarget } from './fields.ts'
import { MessageError, type RequestHead } from './message.ts'
import { MessageParser } from './parser.ts'
import { endOfLine, readVersion } from './start-line.ts'

const SP = 0x20
const SLASH = 0x2f
const MAX_METHOD = 32
/** What a proxy is asked (RFC 9112 §3.2.2). */
const ABSOLUTE = /^[a-z]+:\/\/[\w.~%:[\]-]+(?:[/?].*)?$/i

/** Reads the requests of one connection. */
export class RequestParser extends MessageParser<RequestHead> {
  protected override readonly skipsEmptyLines = true

  protected override isInterim(): boolean {
    return false
  }

  protected override readHead(data: Buffer, start: number, end: number): RequestHead {
    const text = data.toString('latin1', start, end)
    let at = start
    // Methods are case-sensitive (RFC 9110 §9.1), and a lenient upstream might take `trace` for what it is not.
    while (isMethodByte(data[at] as number)) at += 1
    if (at === start || at - start > MAX_METHOD || data[at] !== SP) {
      throw new MessageError('start-line')
    }
    const method = text.slice(0, at - start)
    const targetStart = at + 1
    at = skipTarget(data, targetStart)
    if (at === targetStart || data[at] !== SP) throw new MessageError('start-line')
    const target = text.slice(targetStart - start, at - start)
    const minor = readVersion(data, at + 1)
    at = endOfLine(data, at + 9)
    if (data[targetStart] !== SLASH && !isOtherForm(method, target)) {
      throw new MessageError('start-line')
    }
    const { headers, length, chunked, hosts, close, keepAlive, upgrade, expect } = readFields(
      data,
      text,
      start,
      at,
      end,
      'header',
    )
    // RFC 9112 §3.2; what CONNECT says in Host is nobody's business.
    if (hosts > 1 || (hosts === 0 && minor === 1 && method !== 'CONNECT')) {
      throw new MessageError('header')
    }
    // RFC 9112 §6.1: HTTP/1.0 has no chunks.
    if (chunked && minor === 0) throw new MessageError('framing')
    if (method === 'CONNECT' && (chunked || length > 0)) throw new MessageError('framing')
    return {
      minor,
      headers,
      framing: chunked ? 'chunked' : length === -1 ? 'none' : 'length',
      length: length === -1 ? 0 : length,
      keepAlive: minor === 1 ? !close : keepAlive && !close,
      // RFC 9110 §7.8: of an HTTP/1.0 request it is ignored.
      upgrade: minor === 1 ? upgrade : undefined,
      method,
      target,
      expect: minor === 1 ? expect : undefined,
    }
  }
}

/** Authority form, asterisk form, absolute form; the first two are of one method each (RFC 9112 §3.2). */
function isOtherForm(method: string, target: string): boolean {
  if (method === 'CONNECT') return true
  return target === '*' ? method === 'OPTIONS' : ABSOLUTE.test(target)
}

/** Upper case, digits, `-` and `_`. */
function isMethodByte(byte: number): boolean {
  return (
    (byte >= 0x41 && byte <= 0x5a) ||
    byte === 0x2d ||
    byte === 0x5f ||
    (byte >= 0x30 && byte <= 0x39)
  )
}
