import type { Socket } from 'node:net'
import { WireError } from '../errors.ts'
import type { IncomingBody, ProxyReply, ProxyRequest } from '../exchange/request.ts'
import type { RawHeaders } from '../lib/headers.ts'
import type { Course, MessageHandler, RequestHead } from '../lib/http1/message.ts'
import { RequestParser } from '../lib/http1/request.ts'
import { ArrivingBody, type BodySource, wholeBody } from './arriving-body.ts'
import { type Inside, pathOf } from './authority-check.ts'
import type { Served } from './connections.ts'
import {
  type Destination,
  Http1Request,
  type OwnFields,
  readOwnFields,
  upgradeOf,
} from './http1.ts'
import { Http1Reply, type ReplyConnection } from './http1-reply.ts'
import { asWireError, ownAnswerBytes } from './reply.ts'

/** What the connections of a front have in common. */
export interface Http1Front {
  readonly headersTimeout: number
  readonly idleTimeout: number
  readonly maxHeaderSize: number
  /** How long a client may neither send a body it announced nor take what it asked for, ms. */
  readonly silence: number
  /** Where a request goes; throws `WireError`. */
  destination(connection: Http1Connection, target: string, fields: OwnFields): Destination
  handle(request: ProxyRequest, reply: ProxyReply): void
  /** The connection is the caller's, paused, with what came behind the CONNECT in `rest`. */
  connect(connection: Http1Connection, head: RequestHead, rest: Buffer | undefined): void
  /** Records a request that is refused before any exchange. */
  refuse(
    connection: Http1Connection,
    method: string,
    target: string,
    error: unknown,
  ): { error: WireError; trace: string }
  /** It serves no more: closed, or somebody else's. */
  left(connection: Http1Connection): void
}

/** Of requests that came ahead of their turn; then the client is read no further. */
const MAX_WAITING = 16 * 1024
/** Of a body that nobody wants any more: longer ones cost the connection. */
const MAX_UNWANTED = 256 * 1024
/** A client gets that long to take the last bytes before the connection goes, ms. */
const LINGER_MS = 2000

const TIMED_OUT = 'HTTP/1.1 408 Request Timeout\r\nConnection: close\r\nContent-Length: 0\r\n\r\n'
const CONTINUE = 'HTTP/1.1 100 Continue\r\n\r\n'

type Phase =
  /** Between requests, or within the head of one. */
  | 'idle'
  /** A request is under way. */
  | 'exchange'
  /** Its answer is out, its body still comes. */
  | 'unwanted-body'
  /** The last answer is out; what comes is of no interest. */
  | 'closing'
  /** Closed, or somebody else's. */
  | 'gone'

/** Serves the HTTP/1 requests of one client connection, one after another (RFC 9112 §9.3). */
export class Http1Connection
  implements Served, ReplyConnection, BodySource, MessageHandler<RequestHead>
{
  readonly socket: Socket
  /** Set inside a CONNECT. */
  readonly inside: Inside | undefined
  readonly #front: Http1Front
  readonly #parser: RequestParser
  #phase: Phase = 'idle'
  #served = false
  /** Whether the client wants the connection to go on after this request. */
  #keeps = false
  #draining = false
  #pumping = false
  /** A head that has been read, until its request begins. */
  #head: RequestHead | undefined
  /** What came of the body in the same go. */
  #early: Buffer[] = []
  /** Whether the body ended in the same go. */
  #trailers: RawHeaders | undefined
  #body: ArrivingBody | undefined
  #request: Http1Request | undefined
  #reply: Http1Reply | undefined
  /** Whether the client waits for a 100 before it sends its body (RFC 9110 §10.1.1). */
  #awaitsContinue = false
  #unwanted = 0
  /** Since when nothing has moved, as far as the sweeps have seen. */
  #since: number | undefined
  #unsent = 0

  constructor(socket: Socket, inside: Inside | undefined, front: Http1Front) {
    this.socket = socket
    this.inside = inside
    this.#front = front
    this.#parser = new RequestParser(this, { maxHeaderBytes: front.maxHeaderSize })
    socket
      .on('data', this.#onData)
      .on('end', this.#onEnd)
      .on('drain', this.#onDrain)
      .on('close', this.#onClose)
  }

  get idleTimeout(): number {
    return this.#front.idleTimeout
  }

  /** Ends it when it is idle, else after the answer that is under way. */
  drain(): void {
    this.#draining = true
    const unspoken = this.#served || (!this.inside && this.socket.bytesRead === 0)
    if (this.#phase === 'idle' && this.#parser.fresh && unspoken) this.#close()
  }

  /** Enforces the time-outs; called every now and then. They begin at the first call that finds nothing moving. */
  check(now: number): void {
    const limit = this.#limit()
    if (limit === undefined || this.socket.writableLength !== this.#unsent) this.#since = undefined
    this.#unsent = this.socket.writableLength
    if (limit === undefined) return
    this.#since ??= now
    if (now - this.#since >= limit) this.#expire()
  }

  /** How long nothing may move now; undefined where it isn't the client's turn. */
  #limit(): number | undefined {
    const { headersTimeout, idleTimeout, silence } = this.#front
    switch (this.#phase) {
      case 'idle':
        return this.#served && this.#parser.fresh ? idleTimeout : headersTimeout
      case 'exchange': {
        const sends = this.#body && !this.#parser.held && !this.socket.isPaused()
        return sends || this.#reply?.blocked ? silence : undefined
      }
      case 'unwanted-body':
        return headersTimeout
      case 'closing':
        return this.socket.writableFinished ? LINGER_MS : silence
      default:
        return undefined
    }
  }

  #expire(): void {
    if (this.#phase !== 'idle') this.socket.destroy()
    else if (this.#served && this.#parser.fresh) this.#close()
    else {
      this.socket.write(TIMED_OUT)
      this.#close()
    }
  }

  readonly #onData = (chunk: Buffer): void => {
    if (this.#phase === 'closing') return
    // Within a head the time counts from its first byte, and of a new connection from its start.
    if (this.#phase !== 'idle' || (this.#served && this.#parser.fresh)) this.#since = undefined
    try {
      this.#parser.execute(chunk)
    } catch (error) {
      this.#malformed(error)
      return
    }
    this.#pump()
    if (this.#phase === 'exchange' && this.#parser.held && this.#parser.waiting > MAX_WAITING) {
      this.socket.pause()
    }
  }

  /** Who ends within an exchange has gone, and waits for no answer. */
  readonly #onEnd = (): void => {
    if (this.#phase === 'exchange') this.socket.destroy()
    else this.socket.destroySoon()
  }

  readonly #onDrain = (): void => {
    this.#reply?.drained()
  }

  readonly #onClose = (): void => {
    if (this.#phase === 'gone') return
    this.#detach()
    this.#parser.stop()
    this.#request?.leave()
    this.#body?.destroy(new WireError('UPSTREAM_RESET', 'the client has gone'))
    this.#front.left(this)
  }

  #detach(): void {
    this.#phase = 'gone'
    this.socket
      .off('data', this.#onData)
      .off('end', this.#onEnd)
      .off('drain', this.#onDrain)
      .off('close', this.#onClose)
  }

  // What the parser finds.

  head(head: RequestHead): Course {
    this.#head = head
    this.#early = []
    this.#trailers = undefined
    return head.method === 'CONNECT' ? 'upgrade' : 'body'
  }

  body(chunk: Buffer): void {
    this.#awaitsContinue = false
    if (this.#head) this.#early.push(chunk)
    else if (this.#phase === 'unwanted-body') this.#skip(chunk)
    else this.#body?.arrived(chunk)
  }

  end(trailers: RawHeaders): void {
    if (this.#head) this.#trailers = trailers
    else this.#body?.ended(trailers)
    if (this.#phase === 'unwanted-body') this.#ready()
  }

  // What becomes of it.

  /** Begins what can be begun; a loop, since refusals are over at once. */
  #pump(): void {
    if (this.#pumping) return
    this.#pumping = true
    try {
      while (this.#phase === 'idle') {
        if (!this.#head && this.#parser.held) this.#parser.next()
        const head = this.#head
        if (!head) break
        this.#head = undefined
        this.#begin(head)
      }
    } catch (error) {
      this.#malformed(error)
    } finally {
      this.#pumping = false
    }
  }

  #begin(head: RequestHead): void {
    this.#since = undefined
    if (head.method === 'CONNECT') {
      const rest = this.#parser.takeRest()
      this.#give()
      this.#front.connect(this, head, rest)
      return
    }
    this.#phase = 'exchange'
    this.#keeps = head.keepAlive
    this.#awaitsContinue = head.expect !== undefined && this.#isToCome()
    const reply = new Http1Reply(this, head)
    this.#reply = reply
    try {
      const fields = readOwnFields(head.headers)
      const to = this.#front.destination(this, head.target, fields)
      const upgrade = upgradeOf(head)
      const body = this.#bodyOf(head)
      const request = new Http1Request(head, to, pathOf(head.target), fields, body, upgrade)
      this.#request = request
      this.#front.handle(request, reply)
    } catch (error) {
      const refused = this.#front.refuse(this, head.method, head.target, error)
      // What follows on this connection cannot be told from the body of what was refused.
      if (refused.error.code === 'BAD_REQUEST') this.#draining = true
      reply.fail(refused.error, refused.trace)
    }
  }

  /** Whether nothing of the body has come. */
  #isToCome(): boolean {
    return this.#trailers === undefined && this.#early.length === 0
  }

  #bodyOf(head: RequestHead): IncomingBody | undefined {
    const { framing, expect } = head
    if (expect !== undefined && expect.toLowerCase() !== '100-continue') {
      throw new WireError('EXPECTATION_FAILED', 'the request expects more than 100-continue')
    }
    if (framing === 'none' || (framing === 'length' && head.length === 0)) return undefined
    const length = framing === 'length' ? head.length : undefined
    const early = this.#early
    this.#early = []
    if (this.#trailers) return wholeBody(early, length, this.#trailers)
    const body = new ArrivingBody(length, this)
    this.#body = body
    for (const chunk of early) body.arrived(chunk)
    return body
  }

  wantsBody(): void {
    if (this.#phase !== 'exchange') return
    if (this.#awaitsContinue && !this.#reply?.begun) this.socket.write(CONTINUE)
    this.#awaitsContinue = false
    this.letsBodyPass()
  }

  hasEnough(): void {
    if (this.#phase === 'exchange') this.socket.pause()
  }

  letsBodyPass(): void {
    if (this.#phase === 'exchange' && this.socket.isPaused()) this.socket.resume()
  }

  keepsAfterAnswer(): boolean {
    // A client that was never told to send its body may send it or not (RFC 9110 §10.1.1).
    return !this.#draining && !this.#awaitsContinue && this.#keeps
  }

  answered(keep: boolean): void {
    if (this.#phase !== 'exchange') return
    this.#request = undefined
    this.#reply = undefined
    this.#served = true
    this.#since = undefined
    if (!keep || this.#draining) this.#close()
    else if (this.#parser.held) this.#ready()
    else {
      this.#phase = 'unwanted-body'
      this.#unwanted = 0
      this.#body?.destroy()
      if (this.socket.isPaused()) this.socket.resume()
    }
  }

  release(): Socket {
    const { socket } = this
    const rest = this.#parser.takeRest()
    this.#give()
    if (rest && !socket.destroyed) socket.unshift(rest)
    return socket
  }

  /** From here on the connection is another's. */
  #give(): void {
    this.socket.pause()
    if (this.#phase !== 'gone') {
      this.#detach()
      this.#front.left(this)
    }
    this.#parser.stop()
  }

  #skip(chunk: Buffer): void {
    this.#unwanted += chunk.length
    if (this.#unwanted > MAX_UNWANTED) this.#close()
  }

  /** The request and its answer are over. */
  #ready(): void {
    this.#phase = 'idle'
    this.#body = undefined
    if (this.socket.isPaused()) this.socket.resume()
    this.#pump()
  }

  /**
   * Ends the connection once everything is out. Bytes that nobody reads would reset it, and cost the client the
   * answer (RFC 9112 §9.6): then they are still taken for a while.
   */
  #close(): void {
    const unread = !this.#parser.held && !this.#parser.fresh
    this.#phase = 'closing'
    this.#since = undefined
    if (!unread && this.#parser.waiting === 0) this.socket.destroySoon()
    else this.socket.end()
    if (this.socket.isPaused()) this.socket.resume()
  }

  /** Nothing of such a request reaches an origin, but for what of its body was sent on before. */
  #malformed(cause: unknown): void {
    const request = this.#request
    const reply = this.#reply
    const { error, trace } = this.#front.refuse(this, '-', '-', asWireError(cause))
    this.#head = undefined
    this.#request = undefined
    this.#reply = undefined
    const begun = this.#phase === 'unwanted-body' || reply?.begun === true
    reply?.forsake()
    request?.leave()
    this.#body?.destroy(error)
    if (begun) {
      this.socket.destroy()
      return
    }
    this.socket.write(ownAnswerBytes(error, trace))
    this.#close()
  }
}
