import { once } from 'node:events'
import {
  type ClientHttp2Session,
  type ClientHttp2Stream,
  connect,
  constants,
  type IncomingHttpHeaders,
  type OutgoingHttpHeaders,
  type SecureClientSessionOptions,
} from 'node:http2'
import { connect as tlsConnect } from 'node:tls'
import type { TestApp } from './app.ts'

export interface Http2Answer {
  readonly status: number
  readonly headers: string[]
  readonly trailers: string[]
  /** Status and fields of interim responses. */
  readonly interim: { status: number; headers: string[] }[]
  readonly body: Buffer
}

/** What a stream brings, while it comes. */
export class Http2Call {
  readonly stream: ClientHttp2Stream
  readonly interim: Http2Answer['interim'] = []
  status = 0
  headers: string[] = []
  trailers: string[] = []
  readonly begun: Promise<this>
  readonly whole: Promise<Http2Answer>

  constructor(stream: ClientHttp2Stream) {
    this.stream = stream
    const chunks: Buffer[] = []
    stream.on('headers', (fields: IncomingHttpHeaders, _flags: number, raw: string[]) => {
      this.interim.push({ status: Number(fields[':status']), headers: raw.slice(2) })
    })
    stream.on('trailers', (_fields: object, _flags: number, raw: string[]) => {
      this.trailers = raw
    })
    this.begun = new Promise((resolve, reject) => {
      stream.on('response', (fields: { ':status'?: number }, _flags: number, raw: string[]) => {
        this.status = fields[':status'] ?? 0
        this.headers = raw.slice(2)
        resolve(this)
      })
      stream.on('error', reject)
      stream.on('close', () => reject(new Error(`reset with ${stream.rstCode}`)))
    })
    this.whole = new Promise((resolve, reject) => {
      stream.on('data', (chunk: Buffer) => chunks.push(chunk))
      stream.on('error', reject)
      stream.on('close', () => {
        if (stream.rstCode !== constants.NGHTTP2_NO_ERROR || this.status === 0) {
          reject(new Error(`reset with ${stream.rstCode}`))
          return
        }
        const { status, headers, trailers, interim } = this
        resolve({ status, headers, trailers, interim, body: Buffer.concat(chunks) })
      })
    })
    this.begun.catch(() => {})
    this.whole.catch(() => {})
  }
}

/** A client's HTTP/2 connection to an authority through the proxy. */
export class Http2Client implements AsyncDisposable {
  readonly session: ClientHttp2Session
  readonly #authority: string

  private constructor(session: ClientHttp2Session, authority: string) {
    this.session = session
    this.#authority = authority
    session.on('error', () => {})
  }

  static async connect(
    app: TestApp,
    authority: string,
    options: SecureClientSessionOptions & { auth?: string; servername?: string } = {},
  ): Promise<Http2Client> {
    const { auth, servername, ...rest } = options
    const { socket, status } = await app.client({ ...(auth && { auth }) }).tunnel(authority)
    if (status !== 200) throw new Error(`CONNECT was answered with ${status}`)
    const secure = tlsConnect({
      socket,
      ca: app.ca,
      servername: servername ?? authority.replace(/:\d+$/, ''),
      checkServerIdentity: () => undefined,
      ALPNProtocols: ['h2'],
    })
    await once(secure, 'secureConnect')
    const session = connect(`https://${authority}`, { ...rest, createConnection: () => secure })
    return new Http2Client(session, authority)
  }

  /** Begins a request; without `body` and unless told otherwise it ends with its head. */
  open(
    headers: OutgoingHttpHeaders,
    options: { endStream?: boolean; waitForTrailers?: boolean } = {},
  ): Http2Call {
    const stream = this.session.request(
      { ':authority': this.#authority, ...headers },
      { endStream: options.endStream ?? true, waitForTrailers: options.waitForTrailers ?? false },
    )
    return new Http2Call(stream)
  }

  get(path: string, headers: OutgoingHttpHeaders = {}): Promise<Http2Answer> {
    return this.open({ ':path': path, ...headers }).whole
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.session.destroyed) return
    this.session.destroy()
    await once(this.session, 'close')
  }
}
