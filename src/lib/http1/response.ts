import { readFields, skipText } from './fields.ts'
import { type Framing, MessageError, type ResponseHead } from './message.ts'
import { MessageParser } from './parser.ts'
import { endOfLine, readVersion } from './start-line.ts'

const SP = 0x20
const CR = 0x0d

/** Reads the responses of one connection; whoever asked says by `head` which have no body whatever they say. */
export class ResponseParser extends MessageParser<ResponseHead> {
  protected override readonly skipsEmptyLines = false

  protected override isInterim({ status }: ResponseHead): boolean {
    return status < 200
  }

  protected override readHead(data: Buffer, start: number, end: number): ResponseHead {
    const text = data.toString('latin1', start, end)
    const minor = readVersion(data, start)
    if (data[start + 8] !== SP) throw new MessageError('start-line')
    let status = 0
    for (let i = start + 9; i < start + 12; i++) {
      const digit = (data[i] as number) - 0x30
      if (!(digit >= 0 && digit <= 9)) throw new MessageError('start-line')
      status = status * 10 + digit
    }
    // HTTP/1.0 has no interim responses (RFC 9110 §15.2).
    if (status < 100 || (status < 200 && minor === 0)) throw new MessageError('start-line')
    let at = start + 12
    let reason = ''
    // RFC 9112 §4: the space must stand there even before no reason, but many leave it out.
    if (data[at] === SP) {
      const reasonEnd = skipText(data, at + 1)
      reason = text.slice(at + 1 - start, reasonEnd - start)
      at = reasonEnd
    } else if (data[at] !== CR) throw new MessageError('start-line')
    at = endOfLine(data, at)
    const { headers, length, chunked, close, keepAlive, upgrade } = readFields(
      data,
      text,
      start,
      at,
      end,
      'header',
    )
    const framing = framingOf(status, chunked, length)
    return {
      minor,
      headers,
      framing,
      length: framing === 'length' ? length : 0,
      keepAlive:
        (minor === 1 ? !close : keepAlive && !close) &&
        framing !== 'close' &&
        !isDoubtful(status, minor, chunked, length),
      upgrade,
      status,
      reason,
    }
  }
}

/** RFC 9112 §6.3. */
function framingOf(status: number, chunked: boolean, length: number): Framing {
  if (status < 200 || status === 204 || status === 304) return 'none'
  if (chunked) return 'chunked'
  return length === -1 ? 'close' : 'length'
}

/** A frame where none may be (RFC 9112 §6.1, RFC 9110 §8.6): the peer may well send what it announces. */
function isDoubtful(status: number, minor: number, chunked: boolean, length: number): boolean {
  if (chunked) return minor === 0 || status < 200 || status === 204
  return length > 0 && (status < 200 || status === 204)
}
