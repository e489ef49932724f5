import type { Socket } from 'node:net'
import type { UpstreamError } from '../errors.ts'
import { headerValue, headerValues, type RawHeaders } from '../lib/headers.ts'
import {
  type Course,
  MessageError,
  type MessageHandler,
  type ResponseHead,
} from '../lib/http1/message.ts'
import { ResponseParser } from '../lib/http1/response.ts'
import { BodyWriter, type BodyWriterOwner } from './body-writer.ts'
import { broken, notHttp, silent, toUpstreamError, unsendable } from './failure.ts'
import { formatRequest, type Outgoing } from './http1-request.ts'
import type {
  ConnectionOptions,
  ResponseHandler,
  Sending,
  UpstreamConnection,
  UpstreamRequest,
} from './upstream.ts'

const MAX_RESPONSE_HEADER_BYTES = 64 * 1024
const START = Buffer.from('HTTP/1.')
const IDLE_MS = 30_000
/** What the peer may ask to be kept idle for at most, and by how much we are quicker than it. */
const MAX_IDLE_MS = 120_000
const IDLE_MARGIN_MS = 1000

/** One request on an HTTP/1.1 connection. What is left of it afterwards can do no harm to the next one. */
class Turn implements Sending {
  readonly handler: ResponseHandler
  readonly isHead: boolean
  readonly upgrade: boolean
  connection: Http1Connection | undefined

  constructor(request: UpstreamRequest, handler: ResponseHandler) {
    this.handler = handler
    this.isHead = request.method === 'HEAD'
    this.upgrade = request.upgrade !== undefined
  }

  abort(error?: Error): void {
    this.connection?.abort(toUpstreamError(error ?? new Error('aborted'), true))
  }

  resume(): void {
    this.connection?.resume()
  }
}

/**
 * An HTTP/1.1 connection to an origin: one request at a time, and no second one wherever the first leaves any doubt
 * about where its response ended (RFC 9112 §9, §11.2).
 */
export class Http1Connection
  implements UpstreamConnection, MessageHandler<ResponseHead>, BodyWriterOwner
{
  readonly protocol = 'http/1.1'
  idleLimit = IDLE_MS
  readonly #socket: Socket
  readonly #options: ConnectionOptions
  readonly #parser: ResponseParser
  #turn: Turn | undefined
  #writer: BodyWriter | undefined
  #served = 0
  /** Whether the peer said that it keeps the connection, and nothing spoke against it. */
  #keep = true
  #headSeen = false
  /** Whether no more data is wanted, and whether the socket has been told: not for what is whole by then. */
  #choked = false
  #paused = false
  /** The response to this turn is whole; what came behind it is not looked at yet. */
  #answered = false
  #upgraded: ResponseHead | undefined
  #retired = false
  #closed = false
  /** Whether anything happened since the last check, and the time of the check when it did. */
  #stirred = true
  #quietSince = 0

  /** `socket`: connected, and nobody else's; what may have come over it already is refused. */
  constructor(socket: Socket, options: ConnectionOptions) {
    this.#socket = socket
    this.#options = options
    this.#parser = new ResponseParser(this, { maxHeaderBytes: MAX_RESPONSE_HEADER_BYTES })
    socket
      .on('data', this.#onData)
      .on('end', this.#onEnd)
      .on('error', this.#onError)
      .on('close', this.#onClose)
      .on('drain', this.#onDrain)
    // A handshake may have left it paused.
    socket.resume()
  }

  get room(): number {
    const { readable, writable, destroyed } = this.#socket
    return !this.#turn && !this.#retired && readable && writable && !destroyed ? 1 : 0
  }

  get running(): number {
    return this.#turn ? 1 : 0
  }

  send(request: UpstreamRequest, handler: ResponseHandler): Sending {
    const turn = new Turn(request, handler)
    let outgoing: Outgoing
    try {
      outgoing = formatRequest(request)
    } catch (error) {
      handler.failed(unsendable(false, error))
      this.#options.observer.free(this)
      return turn
    }
    turn.connection = this
    this.#turn = turn
    this.#headSeen = false
    this.#answered = false
    this.#stirred = true
    handler.sent({ timings: this.#options.timings, reused: this.#served > 0, protocol: 'h1' })
    this.#served += 1
    // It may have been given up meanwhile.
    if (turn.connection) this.#write(outgoing, request)
    return turn
  }

  check(now: number): void {
    const turn = this.#turn
    if (!turn) return
    const awaitsClient = this.#paused || (this.#writer !== undefined && !this.#writer.blocked)
    if (this.#stirred || awaitsClient) {
      this.#stirred = false
      this.#quietSince = now
      return
    }
    const { headersTimeout, bodyTimeout } = this.#options
    const limit = this.#headSeen ? bodyTimeout : headersTimeout
    if (now - this.#quietSince >= limit) this.#fail(silent(this.#headSeen ? 'body' : 'head'))
  }

  drain(): void {
    this.#retire()
    if (!this.#turn) this.#close()
  }

  destroy(error?: UpstreamError): void {
    if (this.#turn) this.#fail(error ?? broken('upstream closed the connection'))
    else this.#end()
  }

  /** Gives up what is under way. */
  abort(error: UpstreamError): void {
    this.#fail(error)
  }

  resume(): void {
    this.#choked = false
    if (!this.#paused) return
    this.#paused = false
    this.#socket.resume()
  }

  // What the parser finds.

  head(head: ResponseHead): Course {
    const { status, reason, headers, minor, framing } = head
    const turn = this.#turn
    if (!turn) return 'none'
    if (status < 200 && status !== 101) {
      if (!head.keepAlive) this.#keep = false
      if (status !== 100) turn.handler.informational(status, reason, headers)
      return 'none'
    }
    if (status === 101) {
      if (!turn.upgrade) throw new MessageError('start-line')
      this.#upgraded = head
      return 'upgrade'
    }
    // Without a length the answer to HEAD looks like one that goes on until the end.
    const kept =
      head.keepAlive || (turn.isHead && framing === 'close' && !saysClose(minor, headers))
    if (!kept) this.#keep = false
    else this.#readKeepAlive(headers)
    this.#headSeen = true
    turn.handler.head(status, reason, headers)
    // Nobody reads the rest of the request (RFC 9112 §9.3): to go on could cost the response.
    if (!kept && status >= 400) this.#stopBody()
    return turn.isHead || status === 204 || status === 304 ? 'none' : 'body'
  }

  body(chunk: Buffer): void {
    if (this.#turn?.handler.data(chunk) === false) this.#choked = true
  }

  end(trailers: RawHeaders): void {
    const turn = this.#turn
    if (!turn) return
    this.#answered = true
    this.#turn = undefined
    turn.connection = undefined
    this.#stopBody()
    if (!this.#keep) this.#retire()
    turn.handler.end(trailers)
  }

  // What becomes of the request's body.

  progressed(): void {
    this.#stirred = true
  }

  bodySent(): void {
    this.#writer = undefined
    this.#stirred = true
  }

  bodyFailed(error: UpstreamError): void {
    this.#fail(error)
  }

  readonly #onDrain = () => {
    this.#stirred = true
    this.#writer?.drained()
  }

  readonly #onData = (chunk: Buffer) => {
    // An answer that nobody asked for would be taken for the next one's.
    if (!this.#turn) return this.#end()
    this.#stirred = true
    try {
      // Who greets first in a protocol of its own may then wait for us, as long as we for the rest of a head.
      if (this.#parser.fresh && !beginsHttp(chunk)) throw new MessageError('version')
      this.#parser.execute(chunk)
    } catch (error) {
      this.#fail(error instanceof MessageError ? notHttp(error) : toUpstreamError(error, true))
      return
    }
    if (this.#answered) this.#next()
    else if (this.#upgraded) this.#handOver(this.#upgraded)
    else if (this.#choked && this.#turn && !this.#paused) {
      this.#paused = true
      this.#socket.pause()
    }
  }

  readonly #onEnd = () => {
    try {
      if (this.#turn) this.#parser.finish()
    } catch (error) {
      const message =
        this.#headSeen && error instanceof MessageError
          ? 'upstream sent another length than it had announced'
          : 'upstream closed the connection'
      return this.#fail(broken(message, error))
    }
    if (this.#turn) this.#fail(broken('upstream closed the connection'))
    else this.#end()
  }

  readonly #onError = (error: Error) => {
    if (this.#turn) this.#fail(toUpstreamError(error, true))
    else this.#end()
  }

  readonly #onClose = () => {
    if (this.#turn) this.#fail(broken('upstream closed the connection'))
    this.#retire()
    this.#leave()
  }

  /** A head, and whatever of the body is there, in one write. */
  #write({ head, body, tail, length }: Outgoing, request: UpstreamRequest): void {
    const socket = this.#socket
    if (body === undefined) {
      socket.write(head, 'latin1')
      return
    }
    socket.cork()
    socket.write(head, 'latin1')
    if (Buffer.isBuffer(body)) {
      socket.write(body)
      if (tail !== '') socket.write(tail, 'latin1')
      socket.uncork()
      return
    }
    process.nextTick(uncork, socket)
    this.#writer = new BodyWriter(socket, body, length, request.trailers, this)
    this.#writer.start()
  }

  /** After a whole response: the next request, if all that came was the response. */
  #next(): void {
    this.#answered = false
    this.resume()
    if (this.#retired || this.#parser.waiting > 0) {
      this.#retire()
      this.#parser.stop()
      this.#close()
      return
    }
    this.#parser.next()
    this.#options.observer.free(this)
  }

  #handOver({ status, reason, headers }: ResponseHead): void {
    const turn = this.#turn as Turn
    const socket = this.#socket
    this.#turn = undefined
    turn.connection = undefined
    socket
      .off('data', this.#onData)
      .off('end', this.#onEnd)
      .off('error', this.#onError)
      .off('close', this.#onClose)
      .off('drain', this.#onDrain)
    socket.on('error', ignore)
    socket.pause()
    const early = this.#parser.takeRest()
    if (early) socket.unshift(early)
    // A `readable` listener that goes makes it like new: its next reader sets it flowing.
    socket.on('readable', ignore).off('readable', ignore)
    this.#retire()
    this.#leave()
    turn.handler.upgraded(status, reason, headers, socket)
  }

  /** `Keep-Alive: timeout=N`: the peer closes then, and we had better not race it. */
  #readKeepAlive(headers: RawHeaders): void {
    const value = headerValue(headers, 'keep-alive')
    if (value === undefined) return
    const seconds = /(?:^|[,;\s])timeout=(\d{1,6})/i.exec(value)?.[1]
    if (seconds === undefined) return
    const limit = Math.min(Number(seconds) * 1000 - IDLE_MARGIN_MS, MAX_IDLE_MS)
    if (limit > 0) this.idleLimit = limit
    else this.#keep = false
  }

  /** The body goes no further; a request that is not whole leaves its connection unusable. */
  #stopBody(): void {
    if (!this.#writer) return
    this.#writer.stop()
    this.#writer = undefined
    this.#keep = false
  }

  #fail(error: UpstreamError): void {
    const turn = this.#turn
    if (!turn) return
    this.#turn = undefined
    turn.connection = undefined
    this.#stopBody()
    this.#end()
    turn.handler.failed(error)
  }

  /** Closes in order, where no request is left unsent. */
  #close(): void {
    if (this.#socket.writableLength > 0) this.#socket.destroy()
    else this.#socket.destroySoon()
  }

  /** Closes at once. */
  #end(): void {
    this.#parser.stop()
    this.#retire()
    this.#socket.destroy()
  }

  #retire(): void {
    if (this.#retired) return
    this.#retired = true
    this.#options.observer.retired(this)
  }

  #leave(): void {
    if (this.#closed) return
    this.#closed = true
    this.#options.observer.closed(this)
  }
}

function beginsHttp(data: Buffer): boolean {
  const size = Math.min(data.length, START.length)
  for (let i = 0; i < size; i++) if (data[i] !== START[i]) return false
  return true
}

/** Whether the sender closes after this message (RFC 9112 §9.3). */
function saysClose(minor: 0 | 1, headers: RawHeaders): boolean {
  const options = headerValues(headers, 'connection').join().toLowerCase().split(',')
  const said = (option: string) => options.some((each) => each.trim() === option)
  return said('close') || (minor === 0 && !said('keep-alive'))
}

function uncork(socket: Socket): void {
  socket.uncork()
}

function ignore(): void {}
