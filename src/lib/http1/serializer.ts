/** Tab, visible ASCII and obs-text; no character beyond latin1, whose low byte might be a line's end. */
const UNSAFE = /[^\t\x20-\x7e\x80-\xff]/
const UNSAFE_NAME = /[^!#$%&'*+\-.^_`|~0-9A-Za-z]/
const UNSAFE_TARGET = /[^\x21-\x7e\x80-\xff]/

/** A request's start line and fields, as latin1; throws for what would break out of its line. */
export function formatRequestHead(
  method: string,
  target: string,
  headers: readonly string[],
  more = '',
): string {
  if (UNSAFE_NAME.test(method) || target === '' || UNSAFE_TARGET.test(target)) unsafe()
  return `${method} ${target} HTTP/1.1\r\n${formatFields(headers)}${more}\r\n`
}

/** A response's start line and fields, as latin1; `more` are whole lines of the sender's own. */
export function formatResponseHead(
  status: number,
  reason: string,
  headers: readonly string[],
  more = '',
): string {
  if (UNSAFE.test(reason)) unsafe()
  return `HTTP/1.1 ${status} ${reason}\r\n${formatFields(headers)}${more}\r\n`
}

/** Field lines, each with its CRLF. */
export function formatFields(headers: readonly string[]): string {
  let text = ''
  for (let i = 0; i < headers.length; i += 2) {
    const name = headers[i] as string
    const value = headers[i + 1] as string
    if (UNSAFE_NAME.test(name) || UNSAFE.test(value)) unsafe()
    text += `${name}: ${value}\r\n`
  }
  return text
}

/** What stands before a chunk of that size; behind it stands a CRLF. */
export function chunkHead(size: number): string {
  return `${size.toString(16)}\r\n`
}

/** What ends a chunked body. */
export function lastChunk(trailers: readonly string[]): string {
  return trailers.length === 0 ? '0\r\n\r\n' : `0\r\n${formatFields(trailers)}\r\n`
}

function unsafe(): never {
  throw new TypeError('a field would break the message that it stands in')
}
