import { Duplex } from 'node:stream'
import { ERROR } from '../lib/http2/protocol.ts'
import type { ServerStream } from '../lib/http2/server-stream.ts'

/** An HTTP/2 stream as a byte pipe (RFC 8441 §5). */
export class Http2Pipe extends Duplex {
  readonly #stream: ServerStream
  /** Bytes that wait to be read. */
  #held = 0
  #written: (() => void) | undefined

  constructor(stream: ServerStream) {
    super()
    this.#stream = stream
    stream.becomePipe()
  }

  arrived(chunk: Buffer): void {
    if (this.push(chunk)) this.#stream.consumed(chunk.length)
    else this.#held += chunk.length
  }

  ended(): void {
    this.push(null)
  }

  drained(): void {
    const written = this.#written
    this.#written = undefined
    written?.()
  }

  override _read(): void {
    this.#stream.consumed(this.#held)
    this.#held = 0
  }

  override _write(chunk: Buffer, _encoding: string, done: () => void): void {
    if (this.#stream.write(chunk)) done()
    else this.#written = done
  }

  override _final(done: () => void): void {
    this.#stream.end()
    done()
  }

  override _destroy(error: Error | null, done: (error?: Error | null) => void): void {
    this.#stream.reset(ERROR.cancel)
    done(error)
  }
}
