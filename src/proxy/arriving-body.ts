import { Readable } from 'node:stream'
import type { IncomingBody } from '../exchange/request.ts'
import type { RawHeaders } from '../lib/headers.ts'

const NO_TRAILERS: RawHeaders = []

/** A body that came whole together with its head. */
export function wholeBody(
  chunks: readonly Buffer[],
  length: number | undefined,
  trailers: RawHeaders,
): IncomingBody {
  return { source: joined(chunks), length, trailers: () => trailers }
}

export function joined(chunks: readonly Buffer[]): Buffer {
  return chunks.length === 1 ? (chunks[0] as Buffer) : Buffer.concat(chunks)
}

/** The connection that a body comes by. */
export interface BodySource {
  /** Somebody asks for more. */
  wantsBody(): void
  /** There is enough for now. */
  hasEnough(): void
  /** Nobody wants it any more. */
  letsBodyPass(): void
}

/** A request's body while it comes: its connection is read only as fast as somebody takes it. */
export class ArrivingBody extends Readable implements IncomingBody {
  readonly length: number | undefined
  readonly #from: BodySource
  #trailers = NO_TRAILERS

  constructor(length: number | undefined, from: BodySource) {
    super({ highWaterMark: 128 * 1024 })
    this.length = length
    this.#from = from
    // A client that leaves is heard of elsewhere; nobody may be reading then.
    this.on('error', ignore)
  }

  get source(): Readable {
    return this
  }

  trailers(): RawHeaders {
    return this.#trailers
  }

  /** A piece has come. What nobody wants any more is let through. */
  arrived(chunk: Buffer): void {
    if (!this.destroyed && !this.push(chunk)) this.#from.hasEnough()
  }

  ended(trailers: RawHeaders): void {
    this.#trailers = trailers
    if (!this.destroyed) this.push(null)
  }

  override _read(): void {
    this.#from.wantsBody()
  }

  override _destroy(error: Error | null, done: (error?: Error | null) => void): void {
    this.#from.letsBodyPass()
    done(error)
  }
}

function ignore(): void {}
