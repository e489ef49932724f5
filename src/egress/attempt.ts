import type { Duplex } from 'node:stream'
import type { UpstreamError } from '../errors.ts'
import type { Protocol } from '../events.ts'
import type { RawHeaders } from '../lib/headers.ts'
import type { ConnectTimings } from './connector.ts'
import { toUpstreamError } from './failure.ts'
import type { Dispatcher, ResponseHandler, Sending, SentInfo, UpstreamRequest } from './upstream.ts'

export type { UpstreamRequest } from './upstream.ts'

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
export class Attempt implements ResponseHandler {
  status = 0
  reason = ''
  headers: RawHeaders = []
  reused = false
  timings: ConnectTimings | undefined
  bytesIn = 0
  readonly startedAt = performance.now()
  /** When the request's first byte left. */
  sentAt: number | undefined
  firstByteAt: number | undefined
  /** What is spoken with upstream. */
  protocol: Protocol | undefined
  /** Resolves once the final headers are there; rejects with `UpstreamError`. */
  readonly answered: Promise<void>

  readonly #hooks: AttemptHooks
  #resolve!: () => void
  #reject!: (error: UpstreamError) => void
  readonly #sending: Sending | undefined
  /** The connection itself, after a 101, until somebody takes it. */
  #stream: Duplex | undefined
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
    this.answered = new Promise((resolve, reject) => {
      this.#resolve = resolve
      this.#reject = reject
    })
    this.#sending = dispatcher.dispatch(request, this)
  }

  /**
   * Hands the body over, what has come already first. Resolves when the last byte went to the sink; undefined
   * when that has happened already, as it has for most short answers.
   */
  pipe(sink: BodySink): Promise<void> | undefined {
    this.#sink = sink
    if (this.#trailers === undefined && !this.#error) sink.onDrain(() => this.#sending?.resume())
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
      this.#sending?.resume()
      await change
    }
    if (this.#trailers === undefined || this.#buffered > limit) return undefined
    if (this.#chunks.length > 1) this.#chunks = [Buffer.concat(this.#chunks)]
    return this.#chunks[0] ?? Buffer.alloc(0)
  }

  /** Lets the response go; a short rest is read so that the connection can serve again. */
  discard(): void {
    this.takeUpgraded()?.destroy()
    if (this.#trailers !== undefined || this.#error) return
    this.#discarding = true
    this.#chunks = []
    this.#sending?.resume()
  }

  /** Why the body broke off, if it did. */
  get failure(): UpstreamError | undefined {
    return this.#error
  }

  abort(error?: Error): void {
    this.takeUpgraded()?.destroy()
    if (this.#trailers !== undefined || this.#error) return
    const reason = error ?? new Error('aborted')
    if (this.#sending) this.#sending.abort(reason)
    else this.failed(toUpstreamError(reason, this.sentAt !== undefined))
  }

  /** The connection, where upstream has changed to another protocol (101): whoever takes it ends it. */
  takeUpgraded(): Duplex | undefined {
    const stream = this.#stream
    this.#stream = undefined
    return stream
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
    if (writable) this.#sending?.resume()
  }

  #notify(): void {
    const changed = this.#changed
    this.#changed = undefined
    changed?.()
  }

  // What the connection tells.

  sent(info: SentInfo): void {
    this.sentAt = performance.now()
    this.timings = info.timings
    this.reused = info.reused
    this.protocol = info.protocol
    this.#hooks.sent()
  }

  informational(status: number, reason: string, headers: RawHeaders): void {
    this.#hooks.informational(status, reason, headers)
  }

  head(status: number, reason: string, headers: RawHeaders): void {
    this.status = status
    this.reason = reason
    this.headers = headers
    this.firstByteAt = performance.now()
    this.#resolve()
  }

  data(chunk: Buffer): boolean {
    this.bytesIn += chunk.length
    if (this.#sink) return this.#sink.write(chunk)
    if (this.#discarding) {
      if (this.bytesIn > DISCARD_BYTES) this.#sending?.abort(new Error('discarded'))
      return true
    }
    this.#chunks.push(chunk)
    this.#buffered += chunk.length
    this.#notify()
    return this.#buffered < this.#allowance
  }

  end(trailers: RawHeaders): void {
    this.#trailers = trailers.length > 0 ? this.#hooks.trailers(trailers) : trailers
    this.#sink?.end(undefined, this.#trailers)
    this.#notify()
  }

  upgraded(status: number, reason: string, headers: RawHeaders, stream: Duplex): void {
    this.#stream = stream
    this.#trailers = []
    this.head(status, reason, headers)
  }

  failed(error: UpstreamError): void {
    if (this.#error || this.#trailers !== undefined) return
    this.#error = error
    // An aborted exchange may have stopped listening.
    this.answered.catch(() => {})
    this.#reject(error)
    this.#sink?.abort(error)
    this.#notify()
  }
}
