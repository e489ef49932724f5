import type { Socket } from 'node:net'
import type { Duplex } from 'node:stream'
import type { UpstreamError, WireError } from '../errors.ts'
import type { ProxyReply } from '../exchange/request.ts'
import { headerValue, type RawHeaders } from '../lib/headers.ts'
import type { Framing, RequestHead } from '../lib/http1/message.ts'
import { chunkHead, formatResponseHead, lastChunk } from '../lib/http1/serializer.ts'
import { ownAnswer, REASONS } from './reply.ts'
import { joinSockets } from './tunnel.ts'

/** A body up to this size is written as one string with what stands before it: one TLS record, one write. */
const ONE_WRITE = 8 * 1024

/** The connection that an answer goes out by. */
export interface ReplyConnection {
  readonly socket: Socket
  readonly idleTimeout: number
  /** Whether the connection may serve another request after an answer whose end the client can tell. */
  keepsAfterAnswer(): boolean
  /** The last byte of the answer has been written. */
  answered(keep: boolean): void
  /** Gives the socket away, with what the client has sent after its request put back into it. */
  release(): Socket
}

/** Writes one answer to an HTTP/1 client. */
export class Http1Reply implements ProxyReply {
  readonly #connection: ReplyConnection
  readonly #socket: Socket
  readonly #minor: 0 | 1
  readonly #isHead: boolean
  readonly #upgrade: string | undefined
  /** The head, until it goes out together with what follows. */
  #head = ''
  #framing: Framing = 'none'
  /** Of the announced length. */
  #left = 0
  #keep = true
  #begun = false
  #ended = false
  #resume: (() => void) | undefined

  constructor(connection: ReplyConnection, head: RequestHead) {
    this.#connection = connection
    this.#socket = connection.socket
    this.#minor = head.minor
    this.#isHead = head.method === 'HEAD'
    this.#upgrade = head.upgrade
  }

  /** Whether a byte of the final answer has gone out. */
  get begun(): boolean {
    return this.#begun
  }

  /** Whether the client is to take what it has been given before it gets more. */
  get blocked(): boolean {
    return this.#socket.writableNeedDrain
  }

  informational(status: number, reason: string, headers: RawHeaders): void {
    // RFC 9110 §15.2: HTTP/1.0 knows none.
    if (this.#minor === 0 || this.#begun || this.#ended) return
    this.#socket.write(formatResponseHead(status, reason, headers), 'latin1')
  }

  head(status: number, reason: string, headers: RawHeaders): void {
    let more = ''
    const length = this.#isHead || status === 204 || status === 304 ? undefined : lengthOf(headers)
    if (this.#isHead || status === 204 || status === 304) this.#framing = 'none'
    else if (length !== undefined) this.#framing = 'length'
    else if (this.#minor === 1) {
      this.#framing = 'chunked'
      more = 'Transfer-Encoding: chunked\r\n'
    } else this.#framing = 'close'
    this.#left = length ?? 0
    this.#keep = this.#framing !== 'close' && this.#connection.keepsAfterAnswer()
    if (!this.#keep) more += 'Connection: close\r\n'
    else if (this.#minor === 0) more += 'Connection: keep-alive\r\n'
    this.#head = formatResponseHead(status, reason, headers, more)
  }

  flush(): void {
    if (this.#head !== '' && !this.#ended) this.#socket.write(this.#takeHead(), 'latin1')
  }

  write(chunk: Buffer): boolean {
    if (this.#ended || chunk.length === 0 || !this.#announced(chunk)) return true
    this.#send(chunk, '')
    return !this.#socket.writableNeedDrain
  }

  onDrain(resume: () => void): void {
    this.#resume = resume
  }

  /** The client has taken what it was given. */
  drained(): void {
    this.#resume?.()
  }

  end(lastPiece: Buffer | undefined, trailers: RawHeaders): void {
    if (this.#ended) return
    const piece = lastPiece && lastPiece.length > 0 ? lastPiece : undefined
    const placed = piece !== undefined && this.#announced(piece)
    // What was announced and never came must not look like an end.
    if (this.#framing === 'length' && this.#left > 0) {
      this.#cut()
      return
    }
    const tail = this.#framing === 'chunked' ? lastChunk(trailers) : ''
    if (placed) this.#send(piece, tail)
    else {
      const text = this.#takeHead() + tail
      if (text !== '') this.#socket.write(text, 'latin1')
    }
    this.#finish()
  }

  abort(_error: UpstreamError): void {
    if (!this.#ended) this.#cut()
  }

  fail(error: WireError, trace: string): void {
    if (this.#ended) return
    if (this.#begun) {
      this.#cut()
      return
    }
    const { status, headers, body } = ownAnswer(error, trace)
    this.head(status, REASONS[status] ?? 'Error', headers)
    this.end(body, [])
  }

  async upgrade(
    status: number,
    reason: string,
    headers: RawHeaders,
    upstream: Duplex,
  ): Promise<{ in: number; out: number }> {
    this.#ended = true
    const more = `Connection: Upgrade\r\nUpgrade: ${this.#upgrade}\r\n`
    const socket = this.#connection.release()
    if (!socket.destroyed) {
      socket.write(formatResponseHead(status, reason, headers, more), 'latin1')
    }
    return joinSockets(socket, upstream, this.#connection.idleTimeout)
  }

  /** Somebody else has answered: nothing of this one goes out any more. */
  forsake(): void {
    this.#ended = true
  }

  #takeHead(): string {
    const head = this.#head
    this.#head = ''
    this.#begun = true
    return head
  }

  /** Whether a piece has its place in the frame that was announced; more than that would be the next answer. */
  #announced(piece: Buffer): boolean {
    if (this.#framing === 'none') return false
    if (this.#framing !== 'length') return true
    this.#left -= piece.length
    if (this.#left >= 0) return true
    this.#cut()
    return false
  }

  #send(piece: Buffer, tail: string): void {
    const socket = this.#socket
    const chunked = this.#framing === 'chunked'
    const before = this.#takeHead() + (chunked ? chunkHead(piece.length) : '')
    const behind = chunked ? `\r\n${tail}` : tail
    if (before === '' && behind === '') socket.write(piece)
    else if (piece.length <= ONE_WRITE) {
      socket.write(before + piece.toString('latin1') + behind, 'latin1')
    } else {
      socket.cork()
      if (before !== '') socket.write(before, 'latin1')
      socket.write(piece)
      if (behind !== '') socket.write(behind, 'latin1')
      socket.uncork()
    }
  }

  #finish(): void {
    if (this.#ended) return
    this.#ended = true
    this.#connection.answered(this.#keep)
  }

  /** The client must see that its answer is not whole. */
  #cut(): void {
    this.#ended = true
    const socket = this.#socket
    // Where the end of the connection is the end of the body, only a reset tells.
    if (this.#framing === 'close' && this.#begun && !('encrypted' in socket)) {
      socket.resetAndDestroy()
    } else socket.destroy()
  }
}

function lengthOf(headers: readonly string[]): number | undefined {
  const text = headerValue(headers, 'content-length')
  return text !== undefined && /^\d+$/.test(text) ? Number(text) : undefined
}
