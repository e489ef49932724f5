import { ConnectionError, ERROR, FLAG, FRAME } from './protocol.ts'

const PRIORITY_BYTES = 5
const SETTING_BYTES = 6

/**
 * What a frame from a client must be whatever the state of its stream (RFC 9113 §6): its length, and whether it
 * belongs to a stream or to the connection. Throws `ConnectionError`.
 */
export function checkFrame(type: number, flags: number, id: number, length: number): void {
  switch (type) {
    case FRAME.data:
    case FRAME.continuation:
      if (id === 0) throw broken('a frame of a stream on the connection')
      return
    case FRAME.headers:
      if (id % 2 === 0) throw broken('HEADERS on a stream that no client opens')
      return
    case FRAME.priority:
      if (id === 0) throw broken('PRIORITY on the connection')
      if (length !== PRIORITY_BYTES) throw missized(type)
      return
    case FRAME.rstStream:
      if (id === 0) throw broken('RST_STREAM on the connection')
      if (length !== 4) throw missized(type)
      return
    case FRAME.settings:
      if (id !== 0) throw broken('SETTINGS on a stream')
      if (flags & FLAG.ack ? length > 0 : length % SETTING_BYTES !== 0) throw missized(type)
      return
    case FRAME.pushPromise:
      throw broken('PUSH_PROMISE from a client')
    case FRAME.ping:
      if (id !== 0) throw broken('PING on a stream')
      if (length !== 8) throw missized(type)
      return
    case FRAME.goaway:
      if (id !== 0) throw broken('GOAWAY on a stream')
      if (length < 8) throw missized(type)
      return
    case FRAME.windowUpdate:
      if (length !== 4) throw missized(type)
  }
}

/** Where a payload begins behind the length of its padding and behind a priority; both may be there or not. */
export function contentStart(flags: number, id: number, bytes: Buffer, start: number): number {
  const at = flags & FLAG.padded ? start + 1 : start
  if (!(flags & FLAG.priority)) return at
  if (at + 4 <= bytes.length) checkDependency(id, bytes, at)
  return at + PRIORITY_BYTES
}

/** Where it ends before its padding. Throws `ConnectionError` where there is more padding than payload. */
export function contentEnd(
  flags: number,
  bytes: Buffer,
  start: number,
  end: number,
  contentStart: number,
): number {
  const contentEnd = flags & FLAG.padded && end > start ? end - (bytes[start] as number) : end
  if (contentStart > contentEnd) throw broken('too much padding')
  return contentEnd
}

/** RFC 7540 §5.3.1: no stream depends on itself. */
export function checkDependency(id: number, bytes: Buffer, at: number): void {
  if ((bytes.readUInt32BE(at) & 0x7fffffff) === id) throw broken('a stream depends on itself')
}

export function broken(message: string): ConnectionError {
  return new ConnectionError(ERROR.protocolError, message)
}

function missized(type: number): ConnectionError {
  return new ConnectionError(ERROR.frameSizeError, `a frame of type ${type} of a wrong length`)
}
