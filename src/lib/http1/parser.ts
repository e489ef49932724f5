import type { RawHeaders } from '../headers.ts'
import { allowedTrailers, type Fields, readFields, skipText } from './fields.ts'
import { MessageError, type MessageHandler, type MessageHead } from './message.ts'

export interface ParserOptions {
  /** Most bytes of a start line with its fields, and of the trailers. */
  readonly maxHeaderBytes: number
}

/** Empty lines that may stand before a request line (RFC 9112 §2.2). */
const MAX_EMPTY_LINES = 4
/** Of the line with a chunk's size. */
const MAX_CHUNK_LINE = 1024
/** Of all chunk extensions of one message: they carry nothing, and cost. */
const MAX_EXTENSIONS = 16 * 1024
/** RFC 9112 §7.1.1, without white space. */
const EXTENSION =
  /^(?:;[!#$%&'*+\-.^_`|~0-9A-Za-z]+(?:=(?:[!#$%&'*+\-.^_`|~0-9A-Za-z]+|"(?:[\t \x21\x23-\x5b\x5d-\x7e]|\\[\t\x20-\x7e])*"))?)+$/
/** Of all interim responses before one final one, as a multiple of what one head may have. */
const MAX_INTERIM_HEADS = 4
/** Digits of a chunk size, leading zeros included. */
const MAX_SIZE_DIGITS = 16

const CR = 0x0d
const LF = 0x0a
const SEMICOLON = 0x3b
const BLANK_LINE = Buffer.from('\r\n\r\n')
const NO_TRAILERS: readonly string[] = Object.freeze([])

type State =
  /** A message has ended; waits for `next`. */
  | 'held'
  | 'head'
  | 'length'
  | 'until-close'
  | 'chunk-size'
  | 'chunk-data'
  | 'chunk-end'
  | 'trailers'
  | 'stopped'

/**
 * Reads one message after another from whatever pieces its bytes come in, as strictly as RFC 9112 allows. It holds
 * after each until `next`; what has come by then waits inside, for the caller to bound.
 */
export abstract class MessageParser<Head extends MessageHead> {
  readonly #handler: MessageHandler<Head>
  readonly #maxHeaderBytes: number
  #state: State = 'head'
  #running = false
  /** What has come and cannot be read yet. */
  #rest: Buffer | undefined
  /** How far `#rest` has been searched for the end of a head. */
  #searched = 0
  #emptyLines = 0
  /** Bytes to come, of the body or of this chunk. */
  #left = 0
  #extensions = 0
  /** Bytes of interim heads since the last message. */
  #interim = 0

  constructor(handler: MessageHandler<Head>, { maxHeaderBytes }: ParserOptions) {
    this.#handler = handler
    this.#maxHeaderBytes = maxHeaderBytes
  }

  /** Whether a message has ended and the next one is not asked for yet. */
  get held(): boolean {
    return this.#state === 'held'
  }

  /** Whether nothing of the next message has come. */
  get fresh(): boolean {
    return this.#state === 'head' && this.#rest === undefined
  }

  /** Bytes that wait: of a head that is not whole, or behind the message that holds. */
  get waiting(): number {
    return this.#rest?.length ?? 0
  }

  /** Takes what the peer sent; throws `MessageError`, after which nothing may be read any more. */
  execute(chunk: Buffer): void {
    const data = this.#rest ? Buffer.concat([this.#rest, chunk]) : chunk
    if (this.#state === 'held') {
      this.#rest = data
      return
    }
    this.#rest = undefined
    this.#run(data)
  }

  /** Goes on with the next message, after `end`; throws as `execute` does. */
  next(): void {
    if (this.#state !== 'held') return
    this.#state = 'head'
    if (this.#running) return
    const data = this.#rest
    this.#rest = undefined
    if (data) this.#run(data)
  }

  /** The peer has ended: throws where that is within a message. */
  finish(): void {
    if (this.#state === 'held' || this.#state === 'stopped') return
    if (this.#state === 'until-close') this.#end(NO_TRAILERS as RawHeaders)
    else if (this.#state !== 'head' || this.#rest !== undefined) {
      this.stop()
      throw new MessageError('incomplete')
    }
  }

  /** What came behind the last message: of another protocol after an upgrade. */
  takeRest(): Buffer | undefined {
    const rest = this.#rest
    this.#rest = undefined
    return rest
  }

  /** Reads and tells nothing any more. */
  stop(): void {
    this.#state = 'stopped'
    this.#rest = undefined
  }

  /** Reads a start line and its fields; `end` is past the CRLF of the last of them. */
  protected abstract readHead(data: Buffer, at: number, end: number): Head

  /** Whether empty lines before the start line are let through. */
  protected abstract readonly skipsEmptyLines: boolean

  /** Whether this head belongs to no message of its own. */
  protected abstract isInterim(head: Head): boolean

  #run(data: Buffer): void {
    this.#running = true
    try {
      let at = 0
      while (at !== -1 && this.#goesOn(data, at)) at = this.#step(data, at)
    } catch (error) {
      this.stop()
      throw error
    } finally {
      this.#running = false
    }
  }

  /** Whether there is something to read; what a held parser cannot read waits. */
  #goesOn(data: Buffer, at: number): boolean {
    if (at < data.length && this.#state === 'held') this.#rest = data.subarray(at)
    return at < data.length && this.#state !== 'held' && this.#state !== 'stopped'
  }

  /** Reads one part of a message; where the next one begins, or -1 when more bytes are needed. */
  #step(data: Buffer, at: number): number {
    switch (this.#state) {
      case 'head':
        return this.#head(data, at)
      case 'length':
      case 'chunk-data':
        return this.#counted(data, at)
      case 'until-close':
        this.#handler.body(at === 0 ? data : data.subarray(at))
        return data.length
      case 'chunk-size':
        return this.#chunkSize(data, at)
      case 'chunk-end':
        return this.#chunkEnd(data, at)
      case 'trailers':
        return this.#trailers(data, at)
      default:
        return -1
    }
  }

  #head(data: Buffer, from: number): number {
    let at = from
    while (this.skipsEmptyLines && data[at] === CR && data[at + 1] === LF) {
      this.#emptyLines += 1
      if (this.#emptyLines > MAX_EMPTY_LINES) throw new MessageError('start-line')
      at += 2
      if (at === data.length) return -1
    }
    const end = data.indexOf(BLANK_LINE, Math.max(at, this.#searched))
    this.#searched = 0
    if ((end === -1 ? data.length : end + 4) - at > this.#maxHeaderBytes) {
      throw new MessageError('too-large')
    }
    if (end === -1) return this.#awaitHead(data.subarray(at))
    this.#emptyLines = 0
    const head = this.readHead(data, at, end + 2)
    if (this.isInterim(head)) this.#countInterim(end + 4 - at)
    const course = this.#handler.head(head)
    if ((this.#state as State) === 'stopped') return -1
    const next = end + 4
    if (course === 'upgrade') this.#state = 'held'
    else if (course === 'none') this.#endUnlessInterim(head)
    else if (head.framing === 'chunked') {
      this.#extensions = 0
      this.#state = 'chunk-size'
    } else if (head.framing === 'close') this.#state = 'until-close'
    else if (head.length > 0) {
      this.#left = head.length
      this.#state = 'length'
    } else this.#endUnlessInterim(head)
    return next
  }

  /** A head that is on its way shows early that it will be none: nobody waits for its end then. */
  #awaitHead(begun: Buffer): number {
    for (let i = 0; i < begun.length; i++) {
      const byte = begun[i] as number
      const plain = byte >= 0x20 ? byte !== 0x7f : byte === 0x09 || byte === CR || byte === LF
      if (!plain || (byte === LF && begun[i - 1] !== CR)) {
        throw new MessageError(begun.includes('\r\n') ? 'header' : 'start-line')
      }
    }
    this.#searched = Math.max(0, begun.length - 3)
    this.#rest = begun
    return -1
  }

  #endUnlessInterim(head: Head): void {
    if (!this.isInterim(head)) this.#end(NO_TRAILERS as RawHeaders)
  }

  /** Nobody takes them as fast as a flood of them comes: they have no body that could be held back. */
  #countInterim(bytes: number): void {
    this.#interim += bytes
    if (this.#interim > MAX_INTERIM_HEADS * this.#maxHeaderBytes)
      throw new MessageError('too-large')
  }

  #end(trailers: RawHeaders): void {
    this.#interim = 0
    this.#state = 'held'
    this.#handler.end(trailers)
  }

  #counted(data: Buffer, at: number): number {
    const size = Math.min(this.#left, data.length - at)
    this.#left -= size
    const whole = at === 0 && size === data.length
    const piece = whole ? data : data.subarray(at, at + size)
    const done = this.#left === 0
    const chunked = this.#state === 'chunk-data'
    if (done && chunked) this.#state = 'chunk-end'
    this.#handler.body(piece)
    if (done && !chunked && this.#state === 'length') this.#end(NO_TRAILERS as RawHeaders)
    return at + size
  }

  #chunkSize(data: Buffer, from: number): number {
    let at = from
    let size = 0
    for (let digit = hexDigit(data[at]); digit !== -1; digit = hexDigit(data[at])) {
      size = size * 16 + digit
      at += 1
      if (at - from > MAX_SIZE_DIGITS) throw new MessageError('chunk')
    }
    if (at === from || size > Number.MAX_SAFE_INTEGER) throw new MessageError('chunk')
    if (data[at] === SEMICOLON) {
      const start = at
      at = skipText(data, at)
      if (at - start > MAX_CHUNK_LINE) throw new MessageError('chunk')
      if (at + 1 < data.length) this.#checkExtension(data.toString('latin1', start, at))
    }
    if (at < data.length && data[at] !== CR) throw new MessageError('chunk')
    if (at + 1 >= data.length) return this.#await(data, from)
    if (data[at + 1] !== LF) throw new MessageError('chunk')
    this.#left = size
    this.#state = size === 0 ? 'trailers' : 'chunk-data'
    return at + 2
  }

  #checkExtension(text: string): void {
    this.#extensions += text.length
    if (this.#extensions > MAX_EXTENSIONS || !EXTENSION.test(text)) throw new MessageError('chunk')
  }

  #chunkEnd(data: Buffer, at: number): number {
    if (data[at] !== CR) throw new MessageError('chunk')
    if (at + 1 === data.length) return this.#await(data, at)
    if (data[at + 1] !== LF) throw new MessageError('chunk')
    this.#state = 'chunk-size'
    return at + 2
  }

  #trailers(data: Buffer, at: number): number {
    if (data[at] === CR) {
      if (at + 1 === data.length) return this.#await(data, at)
      if (data[at + 1] !== LF) throw new MessageError('trailer')
      this.#end(NO_TRAILERS as RawHeaders)
      return at + 2
    }
    const end = data.indexOf(BLANK_LINE, at)
    if ((end === -1 ? data.length : end + 4) - at > this.#maxHeaderBytes) {
      throw new MessageError('too-large')
    }
    if (end === -1) return this.#await(data, at)
    const text = data.toString('latin1', at, end + 2)
    const { headers } = readTrailers(data, text, at, end + 2)
    this.#end(allowedTrailers(headers))
    return end + 4
  }

  #await(data: Buffer, from: number): number {
    this.#rest = data.subarray(from)
    return -1
  }
}

function readTrailers(data: Buffer, text: string, at: number, end: number): Fields {
  return readFields(data, text, at, at, end, 'trailer')
}

function hexDigit(byte: number | undefined): number {
  if (byte === undefined) return -1
  if (byte >= 0x30 && byte <= 0x39) return byte - 0x30
  const lower = byte | 0x20
  return lower >= 0x61 && lower <= 0x66 ? lower - 0x57 : -1
}
