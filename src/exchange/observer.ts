import { randomBytes } from 'node:crypto'
import type { BodySink } from '../egress/attempt.ts'
import type { UpstreamError } from '../errors.ts'
import type { ExchangeRecord, RecordedBody } from '../events.ts'
import type { RequestBody } from '../lib/body.ts'
import { headerValue, type RawHeaders } from '../lib/headers.ts'
import type { Lease } from '../pool/lease.ts'
import {
  isReadable,
  redactBody,
  redactHeaders,
  type Secrets,
  scrub,
  secretParameters,
  secretValues,
} from './redact.ts'

/** What of the messages is to be recorded. */
export interface Observing extends Secrets {
  readonly messages: boolean
  /** Most bytes of each body; undefined for none. */
  readonly bodies: number | undefined
  /** Whether the client's `traceparent` is kept for the spans. */
  readonly spans: boolean
  /** Whether upstream is told the span of the attempt. */
  readonly propagate: boolean
}

/** W3C Trace Context §3.2.2, version 00 and what later ones begin with. */
const TRACEPARENT =
  /^(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(-|$)/

/**
 * Records what the messages of an exchange say, for traces that are to show it. There is none unless the
 * configuration asks for it, so that requests pay nothing else. Every secret is replaced before it is recorded.
 */
export class Observer {
  readonly #options: Observing
  /** Bodies of running exchanges. */
  readonly #taps = new WeakMap<ExchangeRecord, Tap>()
  /** Secret values that were seen in them: upstream may echo one where its name doesn't tell. */
  readonly #values = new WeakMap<ExchangeRecord, string[]>()

  constructor(options: Observing) {
    this.#options = options
  }

  /** A request has arrived with these headers. */
  arrived(record: ExchangeRecord, headers: readonly string[]): void {
    const { messages, spans } = this.#options
    if (spans) {
      const parent = headerValue(headers, 'traceparent')?.trim()
      if (parent && TRACEPARENT.test(parent)) record.parent = parent
    }
    if (messages) {
      const values = [
        ...secretValues(headers, this.#options),
        ...secretParameters(record.url, this.#options),
      ]
      this.#values.set(record, values)
      const shown = redactHeaders(headers, values, this.#options)
      record.messages = { request: { headers: shown, body: undefined }, response: undefined }
    }
  }

  /** These headers leave with the token of this lease; they may be given the span's `traceparent`. */
  leaving(record: ExchangeRecord, headers: RawHeaders, lease: Lease | undefined): void {
    if (this.#options.propagate) {
      record.span ??= [
        record.parent?.slice(3, 35) ?? randomBytes(16).toString('hex'),
        randomBytes(8).toString('hex'),
      ]
      const flags = record.parent?.slice(53, 55) ?? '01'
      setTraceparent(headers, `00-${record.span[0]}-${record.span[1]}-${flags}`)
    }
    if (!record.messages) return
    const values = this.#valuesOf(record)
    if (lease) values.push(lease.token.reveal())
    record.messages.request.headers = redactHeaders(headers, values, this.#options)
  }

  /** This answer goes to the client, whose body goes into the sink: the one to use instead comes back. */
  answered<Sink extends BodySink>(
    record: ExchangeRecord,
    reason: string,
    headers: readonly string[],
    sink: Sink,
  ): BodySink {
    if (!record.messages) return sink
    const values = this.#valuesOf(record)
    values.push(...secretValues(headers, this.#options))
    const shown = redactHeaders(headers, values, this.#options)
    record.messages.response = { reason: scrub(reason, values), headers: shown, body: undefined }
    const { bodies } = this.#options
    if (bodies === undefined || !isReadable(headers)) return sink
    const tap = new Tap(sink, headers, bodies)
    this.#taps.set(record, tap)
    return tap
  }

  /** The exchange is over; `body` is what the client sent. */
  ended(record: ExchangeRecord, headers: readonly string[], body: RequestBody | undefined): void {
    const { messages } = record
    const { bodies } = this.#options
    if (!messages || bodies === undefined) return
    const values = this.#valuesOf(record)
    if (body && isReadable(headers)) {
      const bytes = body.beginning(bodies)
      messages.request.body = this.#recorded(headers, bytes, body.bytesRead, values)
    }
    const tap = this.#taps.get(record)
    if (tap && messages.response) {
      messages.response.body = this.#recorded(tap.headers, tap.bytes, tap.size, values)
    }
  }

  #valuesOf(record: ExchangeRecord): string[] {
    return this.#values.get(record) ?? []
  }

  #recorded(
    headers: readonly string[],
    bytes: Buffer,
    size: number,
    values: readonly string[],
  ): RecordedBody | undefined {
    const cut = size > bytes.length
    const text = redactBody(headers, bytes, cut, values, this.#options)
    return text === undefined ? undefined : { text, size, cut }
  }
}

function setTraceparent(headers: RawHeaders, value: string): void {
  for (let i = 0; i < headers.length; i += 2) {
    if ((headers[i] as string).toLowerCase() !== 'traceparent') continue
    headers[i + 1] = value
    return
  }
  headers.push('traceparent', value)
}

/** Passes a body on and keeps its beginning. */
class Tap implements BodySink {
  readonly headers: readonly string[]
  size = 0
  readonly #sink: BodySink
  readonly #limit: number
  readonly #chunks: Buffer[] = []
  #kept = 0

  constructor(sink: BodySink, headers: readonly string[], limit: number) {
    this.#sink = sink
    this.headers = headers
    this.#limit = limit
  }

  get bytes(): Buffer {
    return Buffer.concat(this.#chunks)
  }

  write(chunk: Buffer): boolean {
    this.#keep(chunk)
    return this.#sink.write(chunk)
  }

  onDrain(resume: () => void): void {
    this.#sink.onDrain(resume)
  }

  flush(): void {
    this.#sink.flush()
  }

  end(lastChunk: Buffer | undefined, trailers: RawHeaders): void {
    if (lastChunk) this.#keep(lastChunk)
    this.#sink.end(lastChunk, trailers)
  }

  abort(error: UpstreamError): void {
    this.#sink.abort(error)
  }

  #keep(chunk: Buffer): void {
    this.size += chunk.length
    if (this.#kept >= this.#limit) return
    // A copy: what comes from a socket may be a window on something far larger.
    const piece = Buffer.from(chunk.subarray(0, this.#limit - this.#kept))
    this.#chunks.push(piece)
    this.#kept += piece.length
  }
}
