import { ConnectionError, ERROR, FRAME_HEAD, MAX_FRAME, PREFACE } from './protocol.ts'

/** Takes the frames of a connection, whole, in their order; the payload is `bytes` from `start` to `end`. */
export interface FrameHandler {
  frame(
    type: number,
    flags: number,
    stream: number,
    bytes: Buffer,
    start: number,
    end: number,
  ): void
}

/**
 * Cuts what a client sends into frames (RFC 9113 §4.1), after its preface. A frame that came in one piece is not
 * copied; of one that did not, no more is held than the frame itself. Throws `ConnectionError`.
 */
export class FrameReader {
  readonly #handler: FrameHandler
  /** Bytes of the preface that have come. */
  #greeting = 0
  /** A frame, or its head, that has come in part. */
  #partial: Buffer | undefined
  #have = 0
  #stopped = false

  constructor(handler: FrameHandler) {
    this.#handler = handler
  }

  /** Whether a frame has begun that is not whole yet. */
  get amid(): boolean {
    return this.#partial !== undefined
  }

  /** Hands over no more frames. */
  stop(): void {
    this.#stopped = true
    this.#partial = undefined
  }

  execute(chunk: Buffer): void {
    let at = this.#greeting < PREFACE.length ? this.#greet(chunk) : 0
    if (this.#partial) at = this.#complete(chunk, at)
    while (!this.#stopped && at < chunk.length) {
      const left = chunk.length - at
      const size = left < FRAME_HEAD ? FRAME_HEAD : FRAME_HEAD + lengthAt(chunk, at)
      if (left < size) {
        this.#partial = Buffer.allocUnsafe(size)
        this.#have = chunk.copy(this.#partial, 0, at)
        return
      }
      this.#hand(chunk, at, at + size)
      at += size
    }
  }

  #greet(chunk: Buffer): number {
    const count = Math.min(PREFACE.length - this.#greeting, chunk.length)
    const expected = PREFACE.subarray(this.#greeting, this.#greeting + count)
    if (!chunk.subarray(0, count).equals(expected)) {
      throw new ConnectionError(ERROR.protocolError, 'no connection preface')
    }
    this.#greeting += count
    return count
  }

  /** Adds to what has come in part; returns where in the chunk the next frame begins. */
  #complete(chunk: Buffer, from: number): number {
    let at = from
    while (this.#partial) {
      const partial: Buffer = this.#partial
      const count = chunk.copy(partial, this.#have, at)
      this.#have += count
      at += count
      if (this.#have < partial.length) return at
      this.#partial = undefined
      const size = FRAME_HEAD + lengthAt(partial, 0)
      if (size === partial.length) this.#hand(partial, 0, size)
      else {
        // That was its head alone.
        this.#partial = Buffer.allocUnsafe(size)
        this.#have = partial.copy(this.#partial)
      }
    }
    return at
  }

  #hand(bytes: Buffer, at: number, end: number): void {
    const type = bytes[at + 3] as number
    const flags = bytes[at + 4] as number
    // The reserved bit has no meaning (RFC 9113 §4.1).
    const stream = bytes.readUInt32BE(at + 5) & 0x7fffffff
    this.#handler.frame(type, flags, stream, bytes, at + FRAME_HEAD, end)
  }
}

function lengthAt(bytes: Buffer, at: number): number {
  const length = bytes.readUIntBE(at, 3)
  if (length > MAX_FRAME) throw new ConnectionError(ERROR.frameSizeError, 'a frame is too large')
  return length
}
