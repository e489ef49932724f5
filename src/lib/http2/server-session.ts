import type { Socket } from 'node:net'
import type { RawHeaders } from '../headers.ts'
import { Feedback } from './feedback.ts'
import { CompressionError, FieldDecoder } from './field-decoder.ts'
import { type FrameHandler, FrameReader } from './frame-reader.ts'
import { broken, checkDependency, checkFrame, contentEnd, contentStart } from './frame-rules.ts'
import { OpenBlock } from './open-block.ts'
import { Past } from './past.ts'
import {
  ConnectionError,
  ERROR,
  FLAG,
  FRAME,
  INITIAL_WINDOW,
  MAX_WINDOW,
  SETTING,
} from './protocol.ts'
import { ReceiveWindow } from './receive-window.ts'
import { RequestFields, TrailerFields } from './request-fields.ts'
import { ServerStream, type StreamHost } from './server-stream.ts'
import { SessionOutput } from './session-output.ts'
import { checkWindow, encodeSettings, readSettings, type SessionSettings } from './settings.ts'

const TABLE_BYTES = 4096

export interface SessionHandler {
  /** A request has begun: it gives the stream its consumer. */
  request(stream: ServerStream): void
  /** A frame has come that costs its sender next to nothing. */
  spent(): void
}

/** The server's side of an HTTP/2 connection (RFC 9113), on a socket that is its own from here on. */
export class ServerSession implements FrameHandler, StreamHost {
  /** Whether the client has said that it speaks HTTP/2. */
  greeted = false
  /** Frames and field blocks that have come whole. */
  count = 0
  readonly #settings: SessionSettings
  readonly #handler: SessionHandler
  readonly #reader = new FrameReader(this)
  readonly #decoder: FieldDecoder
  readonly #output: SessionOutput
  readonly #streams = new Map<number, ServerStream>()
  readonly #past = new Past()
  #lastStream = 0
  /** As the first GOAWAY has told; a later one tells no other. */
  #lastServed: number | undefined
  #block: OpenBlock | undefined
  readonly #receiveWindow: ReceiveWindow
  readonly #feedback = new Feedback()
  /** Of a new stream, as the client's settings have it. */
  #sendWindow = INITIAL_WINDOW
  #pings = 0
  #draining = false
  #over = false

  constructor(socket: Socket, settings: SessionSettings, handler: SessionHandler) {
    this.#settings = settings
    this.#handler = handler
    const { maxHeaderSize, sessionWindow } = settings
    this.#decoder = new FieldDecoder({ tableSize: TABLE_BYTES, maxBlock: maxHeaderSize })
    this.#output = new SessionOutput(socket)
    this.#output.frame(FRAME.settings, 0, 0, encodeSettings(settings))
    this.#receiveWindow = new ReceiveWindow(sessionWindow, (size) => this.#output.grant(0, size))
    socket
      .on('data', (chunk: Buffer) => this.#read(chunk))
      // Who ends here has gone, as in HTTP/1.
      .on('end', () => socket.destroy())
      .on('error', () => {})
      .on('close', () => this.#closed())
  }

  /** Requests under way. */
  get size(): number {
    return this.#streams.size
  }

  /** Whether the head of a request has begun and is not whole, as far as that can be told. */
  get amidHead(): boolean {
    return this.#block !== undefined || (this.#reader.amid && this.#streams.size === 0)
  }

  /** Whether nothing more will be served. */
  get ended(): boolean {
    return this.#over || (this.#draining && this.#streams.size === 0)
  }

  /** Whether the client is to take what it has been sent. */
  get busy(): boolean {
    return this.#output.busy
  }

  /** GOAWAY: what has begun is served, the client knows that the rest is not (RFC 9113 §6.8). */
  drain(): void {
    if (this.#draining || this.#over) return
    this.#draining = true
    this.#lastServed = this.#lastStream
    this.#output.goaway(this.#lastServed, ERROR.noError)
    if (this.#streams.size === 0) this.#output.end()
  }

  /** Ends all of it (RFC 9113 §5.4.1). */
  fail(code: number): void {
    if (this.#over) return
    this.#over = true
    this.#reader.stop()
    this.#output.goaway(this.#lastServed ?? this.#lastStream, code)
    for (const stream of [...this.#streams.values()]) stream.abort()
    this.#output.end()
  }

  /** Has the client's machine say whether it is there. */
  ping(): void {
    if (this.#over) return
    this.#pings += 1
    this.#output.frame(FRAME.ping, 0, 0, Buffer.alloc(8))
  }

  /** Lets memory go while nothing happens. */
  rest(): void {
    this.#output.rest()
  }

  // What streams ask for.

  headers(
    stream: ServerStream,
    status: number | undefined,
    fields: RawHeaders,
    ends: boolean,
  ): void {
    this.#output.headers(stream.id, status, fields, ends)
  }

  pump(stream: ServerStream): void {
    this.#output.pump(stream)
  }

  grant(stream: ServerStream, size: number): void {
    this.#output.grant(stream.id, size)
  }

  reset(stream: ServerStream, code: number): void {
    this.#past.note(stream.id, 'reset')
    this.#output.reset(stream.id, code)
  }

  closed(stream: ServerStream): void {
    if (!this.#streams.delete(stream.id)) return
    this.#past.note(stream.id, 'ended')
    this.#output.forget(stream)
    if (this.#draining && this.#streams.size === 0) this.#output.end()
  }

  #closed(): void {
    this.#over = true
    this.#reader.stop()
    for (const stream of [...this.#streams.values()]) stream.abort()
    this.#output.stop()
  }

  // What comes.

  #read(chunk: Buffer): void {
    if (this.#over) return
    try {
      this.#reader.execute(chunk)
    } catch (error) {
      if (error instanceof ConnectionError) this.fail(error.code)
      else
        this.fail(error instanceof CompressionError ? ERROR.compressionError : ERROR.internalError)
    }
  }

  frame(type: number, flags: number, id: number, bytes: Buffer, start: number, end: number): void {
    const block = this.#block
    if (block && (type !== FRAME.continuation || id !== block.stream)) {
      throw broken('a field block is not whole')
    }
    if (!this.greeted && (type !== FRAME.settings || flags & FLAG.ack)) throw broken('no SETTINGS')
    checkFrame(type, flags, id, end - start)
    if (type === FRAME.data) this.#onData(flags, id, bytes, start, end)
    else if (type === FRAME.headers) this.#onHeaders(flags, id, bytes, start, end)
    else if (type === FRAME.continuation) this.#onContinuation(flags, bytes, start, end)
    else if (type === FRAME.windowUpdate) this.#onWindowUpdate(id, bytes.readUInt32BE(start))
    else if (type === FRAME.settings) this.#onSettings(flags, bytes, start, end)
    else if (type === FRAME.rstStream) this.#onReset(id)
    else if (type === FRAME.ping) this.#onPing(flags, bytes, start, end)
    else {
      if (type === FRAME.goaway) this.drain()
      // Priorities are deprecated (RFC 9113 §5.3), and unknown frames are dropped (§5.5).
      if (type === FRAME.priority) checkDependency(id, bytes, start)
      this.#handler.spent()
    }
    if (!this.#block) this.count += 1
  }

  #onData(flags: number, id: number, bytes: Buffer, from: number, to: number): void {
    const size = to - from
    const start = contentStart(flags & FLAG.padded, id, bytes, from)
    const end = contentEnd(flags, bytes, from, to, start)
    this.#receiveWindow.take(size)
    const ends = (flags & FLAG.endStream) !== 0
    const stream = this.#streams.get(id)
    if (!stream) {
      if (id % 2 === 0 || id > this.#lastStream) throw broken('DATA of no stream')
      this.#afterEnd(id, ends, end > start || ends, ERROR.streamClosed)
      return
    }
    if (stream.remoteEnded) {
      this.#refuse(stream, ERROR.streamClosed)
      return
    }
    stream.receiveWindow -= size
    if (stream.receiveWindow < 0) {
      this.#refuse(stream, ERROR.flowControlError)
      return
    }
    if (end > start) {
      const piece = start === 0 && end === bytes.length ? bytes : bytes.subarray(start, end)
      if (!stream.arrived(piece)) {
        this.#refuse(stream, ERROR.protocolError)
        return
      }
    } else if (!ends) this.#handler.spent()
    if (size > end - start) stream.consumed(size - (end - start))
    if (ends && !stream.closed && !stream.endRemote([])) this.#refuse(stream, ERROR.protocolError)
  }

  /** What came after the end of a stream (RFC 9113 §5.1); `otherwise` is the error where it is long ago. */
  #afterEnd(id: number, ends: boolean, hasCost: boolean, otherwise: number): void {
    const end = this.#past.endOf(id)
    if (end === 'reset') {
      // It was on its way when the proxy reset the stream; nothing is behind the client's own end.
      if (ends) this.#past.finish(id)
      if (!hasCost) this.#handler.spent()
      return
    }
    if (end === 'left') {
      this.#output.reset(id, ERROR.streamClosed)
      this.#handler.spent()
      return
    }
    throw new ConnectionError(end ? ERROR.streamClosed : otherwise, 'the stream has ended')
  }

  #onHeaders(flags: number, id: number, bytes: Buffer, from: number, to: number): void {
    const start = contentStart(flags, id, bytes, from)
    const end = contentEnd(flags, bytes, from, to, start)
    const ends = (flags & FLAG.endStream) !== 0
    if (flags & FLAG.endHeaders) {
      this.#onBlock(id, ends, bytes, start, end)
      return
    }
    this.#block = new OpenBlock(id, ends, this.#settings.maxHeaderSize)
    this.#block.add(bytes, start, end)
  }

  #onContinuation(flags: number, bytes: Buffer, start: number, end: number): void {
    const block = this.#block
    if (!block) throw broken('CONTINUATION without HEADERS')
    block.add(bytes, start, end)
    if (!(flags & FLAG.endHeaders)) return
    this.#block = undefined
    const whole = block.whole()
    this.#onBlock(block.stream, block.ends, whole, 0, whole.length)
  }

  #onBlock(id: number, ends: boolean, bytes: Buffer, start: number, end: number): void {
    const { maxFields, maxHeaderSize } = this.#settings
    const stream = this.#streams.get(id)
    if (stream || id <= this.#lastStream) {
      const trailers = new TrailerFields(maxFields)
      const size = this.#decoder.decode(bytes, start, end, trailers)
      if (!stream) {
        this.#afterEnd(id, ends, false, ERROR.protocolError)
        return
      }
      if (stream.remoteEnded) {
        this.#refuse(stream, ERROR.streamClosed)
        return
      }
      const odd = trailers.malformed || trailers.tooMany || size > maxHeaderSize
      if (odd || !ends || !stream.endRemote(trailers.headers)) {
        this.#refuse(stream, ERROR.protocolError)
      }
      return
    }
    const fields = new RequestFields(maxFields)
    fields.tooLarge = this.#decoder.decode(bytes, start, end, fields) > maxHeaderSize
    fields.tooLarge ||= fields.tooMany
    fields.check(ends)
    if (this.#draining || this.#streams.size >= this.#settings.maxStreams) {
      this.#refuseNew(id, ERROR.refusedStream)
      return
    }
    if (fields.malformed) {
      this.#refuseNew(id, ERROR.protocolError)
      return
    }
    this.#lastStream = id
    const windows = { receive: this.#settings.streamWindow, send: this.#sendWindow }
    const opened = new ServerStream(id, fields, ends, this, windows)
    this.#streams.set(id, opened)
    this.#feedback.begun()
    this.#handler.request(opened)
  }

  /** A request that is not served. */
  #refuseNew(id: number, code: number): void {
    this.#lastStream = id
    this.#past.note(id, 'reset')
    this.#output.reset(id, code)
    this.#handler.spent()
  }

  /** A stream error of the client's (RFC 9113 §5.4.2). */
  #refuse(stream: ServerStream, code: number): void {
    this.reset(stream, code)
    stream.abort()
    this.#handler.spent()
  }

  #onReset(id: number): void {
    if (id % 2 === 0 || id > this.#lastStream) throw broken('RST_STREAM of no stream')
    this.#handler.spent()
    const stream = this.#streams.get(id)
    if (!stream) return
    this.#past.note(id, 'left')
    stream.abort()
  }

  #onWindowUpdate(id: number, value: number): void {
    const size = value & MAX_WINDOW
    this.#onFeedback()
    if (id === 0) {
      if (size === 0) throw broken('WINDOW_UPDATE by 0')
      this.#output.widen(size)
      return
    }
    if (id % 2 === 0 || id > this.#lastStream) throw broken('WINDOW_UPDATE of no stream')
    const stream = this.#streams.get(id)
    if (!stream) return
    if (size === 0) {
      this.#refuse(stream, ERROR.protocolError)
      return
    }
    stream.sendWindow += size
    if (stream.sendWindow > MAX_WINDOW) {
      this.#refuse(stream, ERROR.flowControlError)
      return
    }
    this.#output.pump(stream)
  }

  #onSettings(flags: number, bytes: Buffer, start: number, end: number): void {
    // The first ones are the client's greeting.
    if (this.greeted) this.#handler.spent()
    if (flags & FLAG.ack) return
    let window = this.#sendWindow
    readSettings(bytes, start, end, (setting, value) => {
      if (setting === SETTING.headerTableSize) this.#output.allowTable(value)
      else if (setting === SETTING.initialWindowSize) window = value
    })
    const change = this.#onInitialWindow(window)
    // From here on the client relies on them, and not before (RFC 9113 §6.5.3).
    this.#output.frame(FRAME.settings, FLAG.ack, 0)
    this.greeted = true
    if (change > 0) for (const stream of [...this.#streams.values()]) this.#output.pump(stream)
  }

  /** RFC 9113 §6.9.2: it changes the windows of all streams that are open. */
  #onInitialWindow(value: number): number {
    const change = value - this.#sendWindow
    for (const { sendWindow } of this.#streams.values()) checkWindow(sendWindow + change)
    this.#sendWindow = value
    for (const stream of this.#streams.values()) stream.sendWindow += change
    return change
  }

  #onPing(flags: number, bytes: Buffer, start: number, end: number): void {
    if (flags & FLAG.ack) {
      if (this.#pings === 0) throw broken('an answer to no PING')
      this.#pings -= 1
      return
    }
    this.#output.frame(FRAME.ping, FLAG.ack, 0, bytes, start, end)
    this.#onFeedback()
  }

  #onFeedback(): void {
    if (!this.#feedback.accepts(this.#output.dataFrames)) this.#handler.spent()
  }
}
