import type { ClientHttp2Stream } from 'node:http2'
import type { Readable } from 'node:stream'

export interface Http2BodyOwner {
  /** The peer takes bytes, or took those that waited. */
  progressed(): void
  failed(error: Error): void
}

/** Sends a request body that streams, as fast as the peer takes it. It never destroys the body. */
export class Http2Body {
  readonly #stream: ClientHttp2Stream
  readonly #body: Readable
  readonly #owner: Http2BodyOwner
  #over = false

  constructor(stream: ClientHttp2Stream, body: Readable, owner: Http2BodyOwner) {
    this.#stream = stream
    this.#body = body
    this.#owner = owner
  }

  start(): void {
    const body = this.#body
    if (body.readableEnded || body.destroyed) {
      if (body.readableEnded) this.#end()
      else this.#close()
      return
    }
    body.on('error', this.#fail).on('end', this.#end).on('close', this.#close)
    body.on('data', this.#data)
    this.#stream.on('drain', this.#drained)
    body.resume()
  }

  /** Whether the client is the one who is waited for, and not the peer. */
  get awaitsClient(): boolean {
    return !this.#over && !this.#stream.writableNeedDrain
  }

  /** Reads no more of it; tells whether any was left. */
  stop(): boolean {
    if (this.#over) return false
    this.#over = true
    const body = this.#body
    body.pause()
    body.off('data', this.#data).off('end', this.#end).off('close', this.#close)
    // It may still break when it is given up, which is nobody's concern any more.
    body.off('error', this.#fail).on('error', ignore)
    this.#stream.off('drain', this.#drained)
    return true
  }

  readonly #data = (chunk: Buffer): void => {
    if (this.#stream.write(chunk)) this.#owner.progressed()
    else this.#body.pause()
  }

  readonly #drained = (): void => {
    this.#owner.progressed()
    if (!this.#over) this.#body.resume()
  }

  readonly #end = (): void => {
    if (!this.stop()) return
    this.#owner.progressed()
    this.#stream.end()
  }

  readonly #close = (): void => {
    this.#fail(this.#body.errored ?? new Error('the request body broke off'))
  }

  readonly #fail = (error: Error): void => {
    if (this.stop()) this.#owner.failed(error)
  }
}

function ignore(): void {}
