import type { Socket } from 'node:net'
import type { Readable } from 'node:stream'
import type { UpstreamError } from '../errors.ts'
import type { RawHeaders } from '../lib/headers.ts'
import { chunkHead, lastChunk } from '../lib/http1/serializer.ts'
import { toUpstreamError, unsendable } from './failure.ts'

export interface BodyWriterOwner {
  /** The peer takes bytes, or took those that waited. */
  progressed(): void
  /** The last byte was handed to the socket. */
  bodySent(): void
  bodyFailed(error: UpstreamError): void
}

/** Writes a request body that streams, as fast as the socket takes it. It never destroys the stream. */
export class BodyWriter {
  readonly #socket: Socket
  readonly #body: Readable
  readonly #owner: BodyWriterOwner
  readonly #trailers: (() => RawHeaders) | undefined
  /** Bytes still to come; undefined for chunked. */
  #left: number | undefined
  /** Whether all of it was handed to the socket. */
  #sent = false
  #over = false

  constructor(
    socket: Socket,
    body: Readable,
    length: number | undefined,
    trailers: (() => RawHeaders) | undefined,
    owner: BodyWriterOwner,
  ) {
    this.#socket = socket
    this.#body = body
    this.#left = length
    this.#trailers = trailers
    this.#owner = owner
  }

  /** May end at once, so the owner must know of it already. */
  start(): void {
    const body = this.#body
    if (body.readableEnded) this.#end()
    else if (body.destroyed) this.#close()
    else {
      body.on('error', this.#fail).on('end', this.#end).on('close', this.#close)
      body.on('data', this.#data).resume()
    }
  }

  /** Whether the peer is the one who is waited for, and not the client. */
  get blocked(): boolean {
    return this.#socket.writableNeedDrain
  }

  /** The socket takes more. */
  drained(): void {
    if (!this.#over) this.#body.resume()
  }

  /** Reads no more of it, and leaves it where it stands. */
  stop(): void {
    if (this.#over) return
    this.#over = true
    const body = this.#body
    body.pause()
    body.off('data', this.#data).off('end', this.#end).off('close', this.#close)
    // It may still break when it is given up, which is nobody's concern any more.
    body.off('error', this.#fail).on('error', ignore)
  }

  readonly #data = (chunk: Buffer) => {
    const size = chunk.length
    if (size === 0 || this.#sent) return
    const socket = this.#socket
    let more: boolean
    if (this.#left === undefined) {
      socket.cork()
      socket.write(chunkHead(size), 'latin1')
      socket.write(chunk)
      more = socket.write('\r\n', 'latin1')
      socket.uncork()
    } else {
      if (size > this.#left) return this.#fail(unsendable(true))
      this.#left -= size
      more = socket.write(chunk)
      if (this.#left === 0) return this.#done()
    }
    if (more) this.#owner.progressed()
    else this.#body.pause()
  }

  readonly #end = () => {
    if (this.#over) return
    if (this.#sent) return this.stop()
    if (this.#left !== undefined && this.#left > 0) return this.#fail(unsendable(true))
    if (this.#left === undefined) {
      try {
        this.#socket.write(lastChunk(this.#trailers?.() ?? []), 'latin1')
      } catch (error) {
        return this.#fail(unsendable(true, error))
      }
    }
    this.stop()
    this.#done()
  }

  /** The stream is read to its end all the same: whoever made it may wait for that. */
  #done(): void {
    this.#sent = true
    this.#owner.bodySent()
  }

  readonly #close = () => {
    this.#fail(this.#body.errored ?? new Error('the request body broke off'))
  }

  readonly #fail = (error: Error) => {
    if (this.#over) return
    this.stop()
    if (!this.#sent) this.#owner.bodyFailed(toUpstreamError(error, true))
  }
}

function ignore(): void {}
