import { ConnectionError, ERROR, MAX_FRAME } from './protocol.ts'

/** A field block in more frames than that is a flood. */
const MAX_FRAMES = 32

/** A field block that comes in several frames (RFC 9113 §4.3). */
export class OpenBlock {
  readonly stream: number
  /** Whether the stream ends with it. */
  readonly ends: boolean
  readonly #most: number
  readonly #parts: Buffer[] = []
  #size = 0

  constructor(stream: number, ends: boolean, maxHeaderSize: number) {
    this.stream = stream
    this.ends = ends
    this.#most = maxHeaderSize + MAX_FRAME
  }

  add(bytes: Buffer, start: number, end: number): void {
    this.#parts.push(Buffer.from(bytes.subarray(start, end)))
    this.#size += end - start
    if (this.#parts.length > MAX_FRAMES || this.#size > this.#most) {
      throw new ConnectionError(ERROR.enhanceYourCalm, 'a field block without an end')
    }
  }

  whole(): Buffer {
    return Buffer.concat(this.#parts, this.#size)
  }
}
