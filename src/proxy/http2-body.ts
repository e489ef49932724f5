import type { Readable } from 'node:stream'
import type { IncomingBody } from '../exchange/request.ts'
import type { RawHeaders } from '../lib/headers.ts'
import { allowedTrailers } from '../lib/http1/fields.ts'
import type { ServerStream } from '../lib/http2/server-stream.ts'
import { ArrivingBody, type BodySource, joined } from './arriving-body.ts'
import type { Http2Pipe } from './http2-pipe.ts'

const NO_TRAILERS: RawHeaders = []

/** A request's body on its stream: the client sends only as fast as somebody takes it. */
export class Http2Body implements IncomingBody, BodySource {
  readonly length: number | undefined
  readonly #stream: ServerStream
  /** Somebody asks for a body that the client holds back. */
  readonly #wanted: () => void
  #trailers = NO_TRAILERS
  /** What came before anybody asked. */
  #early: Buffer[] = []
  #arriving: ArrivingBody | undefined
  /** Bytes that wait for somebody to take them. */
  #held = 0
  #enough = false
  #hasEnded = false

  constructor(stream: ServerStream, wanted: () => void) {
    this.length = stream.request.contentLength
    this.#stream = stream
    this.#wanted = wanted
  }

  /** Whole where all of it has come when somebody asks first. */
  get source(): Buffer | Readable {
    if (this.#arriving) return this.#arriving
    if (this.#hasEnded) return joined(this.#early)
    const arriving = new ArrivingBody(this.length, this)
    this.#arriving = arriving
    for (const chunk of this.#early.splice(0)) arriving.arrived(chunk)
    return arriving
  }

  trailers(): RawHeaders {
    return this.#trailers
  }

  /** Whether it is the client's turn: it has still to send, and may. */
  get awaited(): boolean {
    return !this.#hasEnded && !this.#enough
  }

  arrived(chunk: Buffer): void {
    this.#held += chunk.length
    if (this.#arriving) this.#arriving.arrived(chunk)
    else this.#early.push(chunk)
    if (this.#arriving && !this.#enough) this.letsBodyPass()
  }

  ended(trailers: RawHeaders): void {
    this.#hasEnded = true
    this.#trailers = trailers.length > 0 ? allowedTrailers(trailers) : NO_TRAILERS
    this.#arriving?.ended(this.#trailers)
  }

  /** Nothing more of it comes. */
  destroy(error?: Error): void {
    this.#arriving?.destroy(error)
  }

  /** What has come goes to somebody else. */
  passOn(pipe: Http2Pipe): void {
    for (const chunk of this.#early.splice(0)) pipe.arrived(chunk)
    if (this.#hasEnded) pipe.ended()
  }

  wantsBody(): void {
    this.#wanted()
    this.letsBodyPass()
  }

  hasEnough(): void {
    this.#enough = true
  }

  letsBodyPass(): void {
    this.#enough = false
    this.#stream.consumed(this.#held)
    this.#held = 0
  }
}
