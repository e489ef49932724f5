import diagnostics from 'node:diagnostics_channel'
import type { Socket } from 'node:net'
import type { Readable } from 'node:stream'
import type { Dispatcher } from 'undici'
import { UpstreamError } from '../errors.ts'
import type { RawHeaders } from '../lib/headers.ts'
import { type ConnectTimings, timingsOf, toUpstreamError } from './egress.ts'

export interface UpstreamRequest {
  /** `https://host:port`. */
  readonly origin: string
  readonly method: string
  /** Origin form, query included. */
  readonly path: string
  /** With `host`; a `content-length` frames the body, without one it goes out chunked. */
  readonly headers: RawHeaders
  readonly body: Buffer | Readable | null
}

/** Where a response's body goes. */
export interface BodySink {
  /** False asks for a pause; the sink calls `resume` when it can take more. */
  write(chunk: Buffer): boolean
  onDrain(resume: () => void): void
  /** Nothing of the body is there yet: the headers should go out now. */
  flush(): void
  end(lastChunk: Buffer | undefined, trailers: RawHeaders): void
  /** The body broke off: the client must see that it is incomplete. */
  abort(error: UpstreamError): void
}

export interface AttemptHooks {
  /** The request's first byte leaves now. */
  sent(): void
  /** An interim response (RFC 9110 §15.2), 100 excepted. */
  informational(status: number, reason: string, headers: RawHeaders): void
  /** Trailer fields as they may be passed on. */
  trailers(trailers: RawHeaders): RawHeaders
}

/** A discarded body is read to its end up to this size, so that the connection stays usable. */
const DISCARD_BYTES = 64 * 1024

/**
 * One request sent to an upstream by one dispatcher, and its response. It buffers nothing beyond what arrived
 * together with the headers until somebody takes the body by `pipe`, `peek` or `discard`.
 */
export class Attempt implements Dispatcher.DispatchHandler {
  status = 0
  reason = ''
  headers: RawHeaders = []
  /** Whether a byte of the request may have left. */
  sent = false
  reused = false
  timings: ConnectTimings | undefined
  bytesIn = 0
  readonly startedAt = performance.now()
  firstByteAt: number | undefined
  /** Resolves once the final headers are there; rejects with `UpstreamError`. */
  readonly head: Promise<void>

  readonly #hooks: AttemptHooks
  #resolveHead!: () => void
  #rejectHead!: (error: UpstreamError) => void
  #abort: ((error?: Error) => void) | undefined
  #resume: (() => void) | undefined
  #chunks: Buffer[] = []
  #buffered = 0
  /** How much may be buffered before somebody takes the body. */
  #allowance = 0
  #trailers: RawHeaders | undefined
  #error: UpstreamError | undefined
  #sink: BodySink | undefined
  #changed: (() => void) | undefined
  #discarding = false

  constructor(dispatcher: Dispatcher, request: UpstreamRequest, hooks: AttemptHooks) {
    this.#hooks = hooks
    this.head = new Promise((resolve, reject) => {
      this.#resolveHead = resolve
      this.#rejectHead = reject
    })
    dispatcher.dispatch(request as Dispatcher.DispatchOptions, this)
  }

  /**
   * Hands the body over, what has come already first. Resolves when the last byte went to the sink; undefined
   * when that has happened already, as it has for most short answers.
   */
  pipe(sink: BodySink): Promise<void> | undefined {
    this.#sink = sink
    if (this.#trailers === undefined && !this.#error) sink.onDrain(() => this.#resume?.())
    this.#flush(sink)
    if (this.#trailers !== undefined || this.#error) return undefined
    return new Promise((resolve) => {
      this.#changed = resolve
    })
  }

  /** The whole body if it is no longer than `limit` bytes, else undefined; it can still be piped afterwards. */
  async peek(limit: number): Promise<Buffer | undefined> {
    this.#allowance = limit
    while (this.#trailers === undefined && !this.#error && this.#buffered <= limit) {
      const change = new Promise<void>((resolve) => {
        this.#changed = resolve
      })
      this.#resume?.()
      await change
    }
    if (this.#trailers === undefined || this.#buffered > limit) return undefined
    if (this.#chunks.length > 1) this.#chunks = [Buffer.concat(this.#chunks)]
    return this.#chunks[0] ?? Buffer.alloc(0)
  }

  /** Lets the response go; a short rest is read so that the connection can serve again. */
  discard(): void {
    if (this.#trailers !== undefined || this.#error) return
    this.#discarding = true
    this.#chunks = []
    this.#resume?.()
  }

  /** Why the body broke off, if it did. */
  get failure(): UpstreamError | undefined {
    return this.#error
  }

  abort(error?: Error): void {
    if (this.#trailers !== undefined || this.#error) return
    const reason = error ?? new Error('aborted')
    if (this.#abort) this.#abort(reason)
    else this.onError(reason)
  }

  #flush(sink: BodySink): void {
    const chunks = this.#chunks
    this.#chunks = []
    this.#buffered = 0
    if (this.#trailers !== undefined) {
      const last = chunks.pop()
      for (const chunk of chunks) sink.write(chunk)
      sink.end(last, this.#trailers)
      this.#notify()
      return
    }
    let writable = true
    if (chunks.length === 0 && !this.#error) sink.flush()
    for (const chunk of chunks) writable = sink.write(chunk)
    if (this.#error) {
      sink.abort(this.#error)
      this.#notify()
      return
    }
    if (writable) this.#resume?.()
  }

  #notify(): void {
    const changed = this.#changed
    this.#changed = undefined
    changed?.()
  }

  // undici's handler interface.

  onConnect(abort: (error?: Error) => void): void {
    if (this.#error) {
      abort(this.#error)
      return
    }
    this.#abort = abort
    this.sent = true
    beingWritten = this
    this.#hooks.sent()
  }

  /** undici writes the headers right after onConnect, in the same turn. */
  onSocket(socket: Socket): void {
    this.timings = timingsOf(socket)
    this.reused = served.has(socket)
    served.add(socket)
  }

  onHeaders(status: number, raw: Buffer[], resume: () => void, reason: string): boolean {
    const headers: RawHeaders = new Array(raw.length)
    for (let i = 0; i < raw.length; i++) headers[i] = (raw[i] as Buffer).toString('latin1')
    if (status < 200) {
      this.#hooks.informational(status, reason, headers)
      return true
    }
    this.status = status
    this.reason = reason
    this.headers = headers
    this.#resume = resume
    this.firstByteAt = performance.now()
    this.#resolveHead()
    return true
  }

  onData(chunk: Buffer): boolean {
    this.bytesIn += chunk.length
    if (this.#sink) return this.#sink.write(chunk)
    if (this.#discarding) {
      if (this.bytesIn > DISCARD_BYTES) this.#abort?.(new Error('discarded'))
      return true
    }
    this.#chunks.push(chunk)
    this.#buffered += chunk.length
    this.#notify()
    return this.#buffered < this.#allowance
  }

  onComplete(rawTrailers: Buffer[] | string[] | null): void {
    const trailers = (rawTrailers ?? []).map((part) =>
      typeof part === 'string' ? part : part.toString('latin1'),
    )
    this.#trailers = trailers.length > 0 ? this.#hooks.trailers(trailers) : trailers
    const sink = this.#sink
    if (sink) sink.end(undefined, this.#trailers)
    this.#notify()
  }

  onError(error: Error): void {
    if (this.#error || this.#trailers !== undefined) return
    this.#error = error instanceof UpstreamError ? error : toUpstreamError(error, this.sent)
    // An aborted exchange may have stopped listening.
    this.head.catch(() => {})
    this.#rejectHead(this.#error)
    const sink = this.#sink
    if (sink) sink.abort(this.#error)
    this.#notify()
  }
}

/** Sockets that have carried a request. */
const served = new WeakSet<Socket>()

/** The attempt whose headers undici is about to write: its channel names the socket, its handler doesn't. */
let beingWritten: Attempt | undefined

diagnostics.subscribe('undici:client:sendHeaders', (message) => {
  const attempt = beingWritten
  beingWritten = undefined
  attempt?.onSocket((message as { socket: Socket }).socket)
})
