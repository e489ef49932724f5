import type { Readable } from 'node:stream'
import type { IncomingBody } from '../exchange/request.ts'
import type { RawHeaders } from '../lib/headers.ts'
import { allowedTrailers } from '../lib/http1/fields.ts'
import { ArrivingBody, type BodySource } from './arriving-body.ts'
import type { Http2Inflow } from './http2-inflow.ts'

const NO_TRAILERS: RawHeaders = []

/** A request's body on its stream: the client sends only as fast as somebody takes it. */
export class Http2Body implements IncomingBody, BodySource {
  readonly length: number | undefined
  readonly #inflow: Http2Inflow
  /** Somebody asks for a body that the client may hold back. */
  readonly #wanted: () => void
  #trailers = NO_TRAILERS
  #arriving: ArrivingBody | undefined
  #hasEnough = false
  #hasEnded = false

  /** `length`: as announced. */
  constructor(inflow: Http2Inflow, length: number | undefined, wanted: () => void) {
    this.length = length
    this.#inflow = inflow
    this.#wanted = wanted
  }

  /** Whole where all of it has come when somebody asks first. */
  get source(): Buffer | Readable {
    if (this.#arriving) return this.#arriving
    if (this.#hasEnded) return this.#inflow.whole
    const arriving = new ArrivingBody(this.length, this)
    this.#arriving = arriving
    this.#inflow.passTo((chunk) => {
      this.#hasEnough = false
      arriving.arrived(chunk)
      return !this.#hasEnough
    })
    return arriving
  }

  trailers(): RawHeaders {
    return this.#trailers
  }

  /** Whether it is the client's turn: it has still to send, and may. */
  get awaited(): boolean {
    return !this.#hasEnded && !this.#inflow.full
  }

  ended(trailers: RawHeaders): void {
    this.#hasEnded = true
    this.#trailers = trailers.length > 0 ? allowedTrailers(trailers) : NO_TRAILERS
    this.#inflow.ended(() => this.#arriving?.ended(this.#trailers))
  }

  /** Nothing more of it comes. */
  destroy(error?: Error): void {
    this.#arriving?.destroy(error)
  }

  wantsBody(): void {
    this.#wanted()
    this.letsBodyPass()
  }

  hasEnough(): void {
    this.#hasEnough = true
  }

  letsBodyPass(): void {
    this.#inflow.more()
  }
}
