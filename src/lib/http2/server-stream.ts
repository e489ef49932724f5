import type { RawHeaders } from '../headers.ts'
import { ERROR } from './protocol.ts'
import type { RequestFields } from './request-fields.ts'

/** Takes what comes on a stream. */
export interface StreamConsumer {
  /** A piece of the body; it counts against the window until `ServerStream.consumed` says that it is gone. */
  arrived(chunk: Buffer): void
  ended(trailers: RawHeaders): void
  /** All that was written has gone out, after `write` had returned false. */
  drained(): void
  /** It was reset by the client, or went with its connection. */
  aborted(): void
  /** Both sides have ended, or one has reset it; nothing comes or goes any more. Told once. */
  closed(): void
}

/** What a stream needs of its connection. */
export interface StreamHost {
  headers(stream: ServerStream, status: number | undefined, fields: RawHeaders, end: boolean): void
  /** The stream has something to send, or has just ended. */
  pump(stream: ServerStream): void
  /** The client may send so much more. */
  grant(stream: ServerStream, size: number): void
  reset(stream: ServerStream, code: number): void
  closed(stream: ServerStream): void
}

/** Who has not been told of a consumer yet. */
const NOBODY: StreamConsumer = {
  arrived() {},
  ended() {},
  drained() {},
  aborted() {},
  closed() {},
}

/** A request and its answer on one HTTP/2 connection (RFC 9113 §5.1). */
export class ServerStream {
  readonly id: number
  readonly request: RequestFields
  consumer: StreamConsumer = NOBODY
  /** Whether the client has ended its side. */
  remoteEnded: boolean
  /** Whether the final answer's head has gone out. */
  answered = false
  /** Grows with every byte that comes or goes. */
  moved = 0
  /** What the client may still send, and what the proxy may. */
  receiveWindow: number
  sendWindow: number
  readonly #host: StreamHost
  /** Of the body, as announced. */
  #left: number | undefined
  /** Has been taken, and is not granted anew yet. */
  #taken = 0
  readonly #grantAt: number
  /** A client may go on sending after the answer's end: both sides are a byte pipe. */
  #isPipe = false
  readonly #queue: Buffer[] = []
  /** Bytes of the first one that have gone out. */
  #sent = 0
  #queued = 0
  #full = false
  #trailers: RawHeaders | undefined
  #localEnding = false
  #localEnded = false
  #closed = false

  constructor(
    id: number,
    request: RequestFields,
    remoteEnded: boolean,
    host: StreamHost,
    windows: { receive: number; send: number },
  ) {
    this.id = id
    this.request = request
    this.remoteEnded = remoteEnded
    this.#host = host
    this.#left = request.contentLength
    this.receiveWindow = windows.receive
    this.#grantAt = windows.receive / 2
    this.sendWindow = windows.send
  }

  get closed(): boolean {
    return this.#closed
  }

  /** Whether the answer has ended, as far as it is the proxy's to end it. */
  get ending(): boolean {
    return this.#localEnding
  }

  /** Whether there is something for the client that has not gone out: it does not take it, or the connection is full. */
  get blocked(): boolean {
    return !this.#closed && (this.#queued > 0 || (this.#localEnding && !this.#localEnded))
  }

  // What the proxy does.

  /** An interim response (RFC 9113 §8.1). */
  inform(status: number, fields: RawHeaders): void {
    if (!this.#closed && !this.answered) this.#host.headers(this, status, fields, false)
  }

  /** The answer's head. Names are in lower case. */
  respond(status: number, fields: RawHeaders, end = false): void {
    if (this.#closed || this.answered) return
    this.answered = true
    this.#localEnding = end
    this.#host.headers(this, status, fields, end)
    if (end) this.#endLocal()
  }

  /** From here on both sides may end on their own. */
  becomePipe(): void {
    this.#isPipe = true
  }

  /** False asks for a pause, until `drained`. */
  write(chunk: Buffer): boolean {
    if (this.#closed || this.#localEnding) return true
    this.#add(chunk)
    if (this.#queued === 0) return true
    this.#full = true
    return false
  }

  end(chunk?: Buffer, trailers?: RawHeaders): void {
    if (this.#closed || this.#localEnding) return
    this.#localEnding = true
    if (trailers && trailers.length > 0) this.#trailers = trailers
    this.#add(chunk)
  }

  #add(chunk: Buffer | undefined): void {
    if (chunk && chunk.length > 0) {
      this.#queue.push(chunk)
      this.#queued += chunk.length
    }
    this.#host.pump(this)
  }

  /** Nothing more comes or goes. */
  reset(code: number): void {
    if (this.#closed) return
    this.#host.reset(this, code)
    this.#close()
  }

  /** So much of the body is gone: the client may send as much again. */
  consumed(size: number): void {
    if (this.remoteEnded || this.#closed) return
    this.#taken += size
    if (this.#taken < this.#grantAt) return
    this.receiveWindow += this.#taken
    this.#host.grant(this, this.#taken)
    this.#taken = 0
  }

  // What the connection finds.

  /** How much of the body can go out next; 0 where only the end is left. */
  get next(): number {
    const first = this.#queue[0]
    return first ? first.length - this.#sent : 0
  }

  /**
   * Puts the next `size` bytes of the body at a place in `target`. Returns whether they were the last ones, of an
   * answer that ends with them.
   */
  take(size: number, target: Buffer, at: number): boolean {
    const first = this.#queue[0] as Buffer
    first.copy(target, at, this.#sent, this.#sent + size)
    this.#sent += size
    if (this.#sent === first.length) {
      this.#queue.shift()
      this.#sent = 0
    }
    this.#queued -= size
    this.sendWindow -= size
    this.moved += size
    return this.#queued === 0 && this.#localEnding && this.#trailers === undefined
  }

  /** What goes out behind the body; undefined where the end needs no fields. */
  get trailers(): RawHeaders | undefined {
    return this.#trailers
  }

  /** END_STREAM has gone out. */
  wentOut(): void {
    this.#endLocal()
  }

  /** Whoever waits for room may write again. */
  tellDrained(): void {
    if (!this.#full || this.#queued > 0 || this.#closed) return
    this.#full = false
    this.consumer.drained()
  }

  /** A piece of the body has come; false where it is longer than announced. */
  arrived(chunk: Buffer): boolean {
    this.moved += chunk.length
    if (this.#left !== undefined) {
      this.#left -= chunk.length
      if (this.#left < 0) return false
    }
    this.consumer.arrived(chunk)
    return true
  }

  /** The client has ended its side; false where the body is shorter than announced. */
  endRemote(trailers: RawHeaders): boolean {
    if (this.#left !== undefined && this.#left > 0) return false
    this.remoteEnded = true
    this.consumer.ended(trailers)
    if (this.#localEnded) this.#close()
    return true
  }

  /** The client has reset it, or the connection is gone. */
  abort(): void {
    if (this.#closed) return
    this.#shut()
    // Whoever would reset it now has no one to tell (RFC 9113 §5.4.2).
    this.consumer.aborted()
    this.#tellClosed()
  }

  #endLocal(): void {
    this.#localEnded = true
    if (this.remoteEnded) this.#close()
    // RFC 9113 §8.1: after the whole answer, the rest of the request may stay where it is.
    else if (!this.#isPipe) this.reset(ERROR.noError)
  }

  #close(): void {
    if (this.#closed) return
    this.#shut()
    this.#tellClosed()
  }

  #shut(): void {
    this.#closed = true
    this.#queue.length = 0
    this.#queued = 0
  }

  #tellClosed(): void {
    this.#host.closed(this)
    this.consumer.closed()
  }
}
