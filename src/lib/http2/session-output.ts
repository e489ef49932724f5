import type { Socket } from 'node:net'
import type { RawHeaders } from '../headers.ts'
import { FieldEncoder } from './field-encoder.ts'
import { FrameWriter } from './frame-writer.ts'
import { FLAG, FRAME, FRAME_HEAD, INITIAL_WINDOW, MAX_FRAME } from './protocol.ts'
import type { ServerStream } from './server-stream.ts'
import { checkWindow } from './settings.ts'

/** So much is put into frames ahead of what the socket takes. */
const AHEAD_BYTES = 64 * 1024
/** A client that makes the proxy say so much, and takes none of it, is read no further. */
const MOST_BYTES = 256 * 1024

/**
 * What goes out on a connection. All that came up in one turn of the event loop leaves by one write; streams that have
 * much to say take turns, a frame each.
 */
export class SessionOutput {
  /** As many as have gone out; ends of streams count, too. */
  dataFrames = 0
  readonly #socket: Socket
  readonly #writer = new FrameWriter()
  readonly #encoder = new FieldEncoder()
  /** What the client still takes on the connection as a whole. */
  #window = INITIAL_WINDOW
  /** Streams that could go on at once, but for the connection. */
  readonly #waiting = new Set<ServerStream>()
  #pumping = false
  #scheduled = false
  #ending = false

  constructor(socket: Socket) {
    this.#socket = socket
    socket.on('drain', () => this.#flush())
  }

  /** Whether anything waits for the client to take it. */
  get busy(): boolean {
    return this.#writer.pending > 0 || this.#socket.writableLength > 0
  }

  get #full(): boolean {
    return this.#writer.pending >= AHEAD_BYTES || this.#socket.writableNeedDrain
  }

  /** A frame of the connection's own, or of a stream that nobody else speaks for. */
  frame(
    type: number,
    flags: number,
    stream: number,
    payload?: Buffer,
    start?: number,
    end?: number,
  ): void {
    this.#writer.frame(type, flags, stream, payload, start, end)
    this.#schedule()
  }

  reset(stream: number, code: number): void {
    this.#writer.number(FRAME.rstStream, stream, code)
    this.#schedule()
  }

  /** The client may send so much more; on the connection where the stream is 0. */
  grant(stream: number, size: number): void {
    this.#writer.number(FRAME.windowUpdate, stream, size)
    this.#schedule()
  }

  goaway(lastStream: number, code: number): void {
    this.#writer.goaway(lastStream, code)
    this.#schedule()
  }

  /** A field block; without a status it is one of trailers. */
  headers(stream: number, status: number | undefined, fields: RawHeaders, ends: boolean): void {
    const writer = this.#writer
    const at = writer.reserve(FRAME_HEAD + this.#encoder.bound(fields))
    const end = this.#encoder.encode(status, fields, writer.bytes, at + FRAME_HEAD)
    const length = end - at - FRAME_HEAD
    const flags = ends ? FLAG.endStream : 0
    if (length <= MAX_FRAME) {
      writer.head(at, length, FRAME.headers, flags | FLAG.endHeaders, stream)
      writer.commit(end)
    } else {
      const block = Buffer.from(writer.bytes.subarray(at + FRAME_HEAD, end))
      writer.frame(FRAME.headers, flags, stream, block, 0, MAX_FRAME)
      for (let from = MAX_FRAME; from < length; from += MAX_FRAME) {
        const to = Math.min(from + MAX_FRAME, length)
        writer.frame(FRAME.continuation, to < length ? 0 : FLAG.endHeaders, stream, block, from, to)
      }
    }
    this.#schedule()
  }

  /** What the client's table of fields may hold (RFC 9113 §6.5.2). */
  allowTable(size: number): void {
    this.#encoder.allow(size)
  }

  /** The client takes so much more on the connection. */
  widen(size: number): void {
    this.#window += size
    checkWindow(this.#window)
    this.#pumpAll()
  }

  /** A stream may have something that can go out. */
  pump(stream: ServerStream): void {
    if (!isReady(stream)) return
    this.#waiting.add(stream)
    // Else each of them would look at all the others.
    if (stream.next === 0 || this.#window > 0) this.#pumpAll()
  }

  forget(stream: ServerStream): void {
    this.#waiting.delete(stream)
  }

  /** Ends the connection once all is out. */
  end(): void {
    this.#ending = true
    this.#schedule()
  }

  /** The connection is gone. */
  stop(): void {
    this.#waiting.clear()
    this.#writer.take()
    this.#writer.rest()
  }

  /** Lets memory go while nothing is said. */
  rest(): void {
    this.#writer.rest()
  }

  #pumpAll(): void {
    if (this.#pumping) return
    this.#pumping = true
    // A stream that is added anew comes to the end, and has its turn again.
    for (const stream of this.#waiting) {
      if (this.#full) break
      if (stream.next > 0 && this.#window <= 0) continue
      this.#waiting.delete(stream)
      // SETTINGS may have taken its window away since (RFC 9113 §6.9.2).
      if (isReady(stream)) this.#sendFrame(stream)
      if (isReady(stream)) this.#waiting.add(stream)
      else stream.tellDrained()
    }
    this.#pumping = false
    if (this.#writer.pending > 0) this.#schedule()
  }

  #sendFrame(stream: ServerStream): void {
    const { next, id } = stream
    this.dataFrames += 1
    if (next > 0) {
      const size = Math.min(next, stream.sendWindow, this.#window, MAX_FRAME)
      const writer = this.#writer
      const at = writer.reserve(FRAME_HEAD + size)
      const last = stream.take(size, writer.bytes, at + FRAME_HEAD)
      writer.head(at, size, FRAME.data, last ? FLAG.endStream : 0, id)
      writer.commit(at + FRAME_HEAD + size)
      this.#window -= size
      if (last) stream.wentOut()
      return
    }
    const { trailers } = stream
    if (trailers) this.headers(id, undefined, trailers, true)
    else this.#writer.frame(FRAME.data, FLAG.endStream, id)
    stream.wentOut()
  }

  #schedule(): void {
    if (this.#scheduled) return
    this.#scheduled = true
    setImmediate(this.#flush)
  }

  readonly #flush = (): void => {
    this.#scheduled = false
    const socket = this.#socket
    if (socket.destroyed) return
    // What would be said after the end is of no interest.
    if (socket.writableEnded) {
      this.#writer.take()
      return
    }
    if (!socket.writableNeedDrain) {
      if (this.#writer.pending > 0) socket.write(this.#writer.take())
      if (this.#waiting.size > 0) this.#pumpAll()
      if (this.#ending && this.#writer.pending === 0) socket.end()
    }
    if (this.#writer.pending > MOST_BYTES) socket.pause()
    else if (socket.isPaused()) socket.resume()
  }
}

/** Whether it has something that its own window lets go out. */
function isReady(stream: ServerStream): boolean {
  return stream.next > 0 ? stream.sendWindow > 0 : stream.blocked
}
