import type { ServerStream } from '../lib/http2/server-stream.ts'
import { joined } from './arriving-body.ts'

/** So many pieces that wait are made one: a client may send them a byte at a time. */
const MANY = 256
/** Pieces of one read that are smaller on average go on as one. */
const SMALL_BYTES = 1024
/** A piece that keeps so many times its bytes in memory, as part of what was read with it, is copied. */
const MOST_KEPT = 4

/** What comes on a stream, until somebody takes it; the client may send as much again only then. */
export class Http2Inflow {
  readonly #stream: ServerStream
  #chunks: Buffer[] = []
  /** Bytes that the client is not granted anew yet. */
  #held = 0
  /** Takes a piece; false asks for a pause, until `more`. */
  #take: ((chunk: Buffer) => boolean) | undefined
  #end: (() => void) | undefined
  #full = false
  #planned = false
  #passing = false

  constructor(stream: ServerStream) {
    this.#stream = stream
  }

  /** All that waits, as one. */
  get whole(): Buffer {
    return joined(this.#chunks)
  }

  /** Whether the client may not send more than it was granted, since nobody takes what it has sent. */
  get full(): boolean {
    return this.#full
  }

  arrived(chunk: Buffer): void {
    this.#chunks.push(ownPiece(chunk))
    this.#held += chunk.length
    if (this.#take && !this.#full) this.#plan()
    else if (this.#chunks.length >= MANY) this.#chunks = [this.whole]
  }

  /** Nothing more comes; `end` is called when the last piece has been taken. */
  ended(end: () => void): void {
    this.#end = end
    if (this.#take && !this.#full) this.#plan()
  }

  /** Somebody takes it from here on. */
  passTo(take: (chunk: Buffer) => boolean): void {
    this.#take = take
    this.#pass()
  }

  /** More can be taken. */
  more(): void {
    this.#full = false
    this.#pass()
  }

  /** What came by one read of the connection goes on together. */
  #plan(): void {
    if (this.#planned) return
    this.#planned = true
    queueMicrotask(this.#pass)
  }

  readonly #pass = (): void => {
    this.#planned = false
    if (!this.#take || this.#passing) return
    this.#passing = true
    let chunks = this.#chunks
    this.#chunks = []
    const bytes = chunks.reduce((sum, { length }) => sum + length, 0)
    if (chunks.length > 1 && bytes < chunks.length * SMALL_BYTES) chunks = [joined(chunks)]
    let taken = 0
    while (taken < chunks.length && !this.#full) {
      this.#full = !this.#take(chunks[taken++] as Buffer)
    }
    this.#passing = false
    this.#chunks = [...chunks.slice(taken), ...this.#chunks]
    if (this.#full) return
    this.#stream.consumed(this.#held)
    this.#held = 0
    this.#end?.()
    this.#end = undefined
  }
}

function ownPiece(chunk: Buffer): Buffer {
  if (chunk.buffer.byteLength <= chunk.length * MOST_KEPT) return chunk
  // Not from Node's pool: whoever waits would keep all of that.
  const copy = Buffer.allocUnsafeSlow(chunk.length)
  copy.set(chunk)
  return copy
}
