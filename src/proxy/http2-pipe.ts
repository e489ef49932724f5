import { Duplex } from 'node:stream'
import { ERROR } from '../lib/http2/protocol.ts'
import type { ServerStream } from '../lib/http2/server-stream.ts'
import type { Http2Inflow } from './http2-inflow.ts'

/** An HTTP/2 stream as a byte pipe (RFC 8441 §5). */
export class Http2Pipe extends Duplex {
  readonly #stream: ServerStream
  readonly #inflow: Http2Inflow
  #written: (() => void) | undefined

  constructor(stream: ServerStream, inflow: Http2Inflow) {
    super()
    this.#stream = stream
    this.#inflow = inflow
    stream.becomePipe()
    inflow.passTo((chunk) => this.push(chunk))
  }

  ended(): void {
    this.#inflow.ended(() => this.push(null))
  }

  drained(): void {
    const written = this.#written
    this.#written = undefined
    written?.()
  }

  override _read(): void {
    this.#inflow.more()
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
    const stream = this.#stream
    // What both sides have ended goes out by itself, when the connection lets it.
    if (error || !stream.ending || !stream.remoteEnded) stream.reset(ERROR.cancel)
    done(error)
  }
}
