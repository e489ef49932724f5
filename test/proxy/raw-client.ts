import { once } from 'node:events'
import { connect } from 'node:net'
import type { Duplex } from 'node:stream'
import type { TestApp } from '../support/app.ts'

/** A client that says bytes and keeps what it hears, as latin1. */
export class RawClient {
  readonly socket: Duplex
  heard = ''
  closed = false
  error: string | undefined

  constructor(socket: Duplex) {
    this.socket = socket
    socket.on('data', (chunk: Buffer) => {
      this.heard += chunk.toString('latin1')
    })
    socket.on('error', (error: NodeJS.ErrnoException) => {
      this.error = error.code
    })
    socket.on('close', () => {
      this.closed = true
    })
    socket.resume()
  }

  /** Inside a CONNECT to this authority, without TLS. */
  static async inside(app: TestApp, authority: string): Promise<RawClient> {
    const { socket, status } = await app.client().tunnel(authority)
    if (status !== 200) throw new Error(`CONNECT was answered with ${status}`)
    return new RawClient(socket)
  }

  /** Right at the proxy's listener. */
  static async atListener(app: TestApp): Promise<RawClient> {
    const { hostname, port } = new URL(app.app.proxyUrl)
    const socket = connect(Number(port), hostname)
    await once(socket, 'connect')
    return new RawClient(socket)
  }

  say(text: string): this {
    this.socket.write(Buffer.from(text, 'latin1'))
    return this
  }

  /** What it has heard, once that ends like this or the connection has ended. */
  async hears(end: string | RegExp): Promise<string> {
    const there = () => (typeof end === 'string' ? this.heard.endsWith(end) : end.test(this.heard))
    await this.until(() => there() || this.closed)
    return this.take()
  }

  /** All that comes until the connection ends. */
  async rest(): Promise<string> {
    await this.until(() => this.closed)
    return this.take()
  }

  take(): string {
    const text = this.heard
    this.heard = ''
    return text
  }

  async until(holds: () => boolean): Promise<void> {
    while (!holds()) await new Promise((resolve) => setImmediate(resolve))
  }
}
