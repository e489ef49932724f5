import { FRAME, FRAME_HEAD } from './protocol.ts'

/** Taken at a time; many small answers share one. */
const SLAB_BYTES = 16 * 1024
/** What is left of one, and not worth being kept. */
const SCRAP_BYTES = 512
const NOTHING = Buffer.alloc(0)

/** Frames on their way out, one behind another, until they are taken as one piece. */
export class FrameWriter {
  #bytes = NOTHING
  #from = 0
  #to = 0

  /** Bytes that wait. */
  get pending(): number {
    return this.#to - this.#from
  }

  /** Where frames are written: after `reserve`. */
  get bytes(): Buffer {
    return this.#bytes
  }

  /** Makes room for so many bytes; returns where it begins. */
  reserve(size: number): number {
    if (this.#bytes.length - this.#to < size) {
      const pending = this.pending
      const bytes = Buffer.allocUnsafeSlow(Math.max(SLAB_BYTES, 2 * pending, pending + size))
      this.#bytes.copy(bytes, 0, this.#from, this.#to)
      this.#bytes = bytes
      this.#from = 0
      this.#to = pending
    }
    return this.#to
  }

  /** What was written up to here goes out. */
  commit(end: number): void {
    this.#to = end
  }

  /** Writes the head of a frame (RFC 9113 §4.1) at a place that was reserved. */
  head(at: number, length: number, type: number, flags: number, stream: number): void {
    const bytes = this.#bytes
    bytes[at] = length >> 16
    bytes[at + 1] = length >> 8
    bytes[at + 2] = length
    bytes[at + 3] = type
    bytes[at + 4] = flags
    bytes[at + 5] = stream >>> 24
    bytes[at + 6] = stream >> 16
    bytes[at + 7] = stream >> 8
    bytes[at + 8] = stream
  }

  /** Adds a frame with `payload` from `start` to `end`. */
  frame(
    type: number,
    flags: number,
    stream: number,
    payload: Buffer = NOTHING,
    start = 0,
    end = payload.length,
  ): void {
    const length = end - start
    const at = this.reserve(FRAME_HEAD + length)
    this.head(at, length, type, flags, stream)
    payload.copy(this.#bytes, at + FRAME_HEAD, start, end)
    this.#to = at + FRAME_HEAD + length
  }

  /** Adds a frame whose payload is one number: RST_STREAM or WINDOW_UPDATE. */
  number(
    type: typeof FRAME.rstStream | typeof FRAME.windowUpdate,
    stream: number,
    value: number,
  ): void {
    const at = this.reserve(FRAME_HEAD + 4)
    this.head(at, 4, type, 0, stream)
    this.#to = this.#bytes.writeUInt32BE(value, at + FRAME_HEAD)
  }

  /** GOAWAY (RFC 9113 §6.8). */
  goaway(lastStream: number, code: number): void {
    const at = this.reserve(FRAME_HEAD + 8)
    this.head(at, 8, FRAME.goaway, 0, 0)
    this.#bytes.writeUInt32BE(lastStream, at + FRAME_HEAD)
    this.#to = this.#bytes.writeUInt32BE(code, at + FRAME_HEAD + 4)
  }

  /** All that waits; its memory is the taker's. */
  take(): Buffer {
    const taken = this.#bytes.subarray(this.#from, this.#to)
    this.#from = this.#to
    if (this.#bytes.length - this.#to < SCRAP_BYTES) this.rest()
    return taken
  }

  /** Lets memory go that is not in use. */
  rest(): void {
    if (this.pending > 0) return
    this.#bytes = NOTHING
    this.#from = 0
    this.#to = 0
  }
}
