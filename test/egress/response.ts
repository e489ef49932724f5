import type { Duplex } from 'node:stream'
import type {
  Dispatcher,
  ResponseHandler,
  Sending,
  SentInfo,
  UpstreamRequest,
} from '../../src/egress/upstream.ts'
import type { UpstreamError } from '../../src/errors.ts'
import type { RawHeaders } from '../../src/lib/headers.ts'

/** A request sent by a dispatcher, and all that was heard of its response. */
export class Response implements ResponseHandler {
  status = 0
  reason = ''
  headers: RawHeaders = []
  trailers: RawHeaders = []
  readonly interim: { status: number; reason: string; headers: RawHeaders }[] = []
  readonly chunks: Buffer[] = []
  /** How often the request began to leave, and by what. */
  readonly departures: SentInfo[] = []
  stream: Duplex | undefined
  /** False asks for a pause after each piece. */
  wants = true
  bytes = 0
  readonly sending: Sending
  /** The status is there. */
  readonly begun: Promise<this>
  /** The response is whole, or the connection has changed to another protocol. */
  readonly whole: Promise<this>
  #begin!: (response: this) => void
  #finish!: (response: this) => void
  #refuse: (error: UpstreamError) => void

  constructor(dispatcher: Dispatcher, request: Partial<UpstreamRequest> & { origin: string }) {
    let refuseBegun!: (error: UpstreamError) => void
    let refuseWhole!: (error: UpstreamError) => void
    this.begun = new Promise((resolve, reject) => {
      this.#begin = resolve
      refuseBegun = reject
    })
    this.whole = new Promise((resolve, reject) => {
      this.#finish = resolve
      refuseWhole = reject
    })
    this.begun.catch(() => {})
    this.whole.catch(() => {})
    this.#refuse = (error) => {
      refuseBegun(error)
      refuseWhole(error)
    }
    const headers = ['Host', new URL(request.origin).host]
    this.sending = dispatcher.dispatch(
      { method: 'GET', path: '/', headers, body: null, ...request },
      this,
    )
  }

  get text(): string {
    return Buffer.concat(this.chunks).toString('latin1')
  }

  sent(info: SentInfo): void {
    this.departures.push(info)
  }

  informational(status: number, reason: string, headers: RawHeaders): void {
    this.interim.push({ status, reason, headers })
  }

  head(status: number, reason: string, headers: RawHeaders): void {
    this.status = status
    this.reason = reason
    this.headers = headers
    this.#begin(this)
  }

  data(chunk: Buffer): boolean {
    this.bytes += chunk.length
    this.chunks.push(chunk)
    return this.wants
  }

  end(trailers: RawHeaders): void {
    this.trailers = trailers
    this.#finish(this)
  }

  upgraded(status: number, reason: string, headers: RawHeaders, stream: Duplex): void {
    this.head(status, reason, headers)
    this.stream = stream
    this.#finish(this)
  }

  failed(error: UpstreamError): void {
    this.#refuse(error)
  }
}
