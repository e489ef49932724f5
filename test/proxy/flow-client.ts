import { once } from 'node:events'
import { FieldDecoder } from '../../src/lib/http2/field-decoder.ts'
import type { TestApp } from '../support/app.ts'
import {
  ACK,
  END_HEADERS,
  END_STREAM,
  FRAME,
  type Frame,
  FrameClient,
  frame,
  PADDED,
  PING,
  requestFrame,
  setting,
  u32,
} from '../support/http2-frames.ts'
import { until } from '../support/until.ts'

/** RFC 9113 §6.5.2 and §6.9.2. */
const INITIAL_WINDOW_SIZE = 4
const FIRST_WINDOW = 65_535
const MAX_FRAME = 16_384

/** One request, and what the client's books say of it. */
export interface FlowStream {
  readonly id: number
  /** What the proxy may still send, and what the client may. */
  takes: number
  sends: number
  readonly blocks: string[][]
  readonly parts: Buffer[]
  received: number
  ended: boolean
}

/** A client that keeps the books of flow control (RFC 9113 §6.9), and notes whatever does not agree with them. */
export class FlowClient implements AsyncDisposable {
  readonly faults: string[] = []
  readonly streams: FlowStream[] = []
  /** On the connection as a whole. */
  takes = FIRST_WINDOW
  sends = FIRST_WINDOW
  /** What a stream's `sends` began with, and the connection's. */
  readonly first = { stream: FIRST_WINDOW, connection: FIRST_WINDOW }
  readonly #client: FrameClient
  readonly #cuts: readonly number[]
  #cut = 0
  readonly #decoder = new FieldDecoder({ tableSize: 4096, maxBlock: 2 ** 20 })
  /** Initial windows that the proxy has not acknowledged, and the one that it has. */
  readonly #told: number[] = []
  #initial = FIRST_WINDOW
  #pings = 0
  #seen = 0
  #left = false
  #out: Buffer[] = []

  private constructor(client: FrameClient, cuts: readonly number[]) {
    this.#client = client
    this.#cuts = cuts
    client.socket.on('data', () => {
      while (this.#seen < client.received.length) this.#on(client.received[this.#seen++] as Frame)
    })
    void client.closed.then(() => {
      if (!this.#left) this.faults.push('the connection is closed')
    })
  }

  /** `cuts`: the lengths of the pieces in which everything is written, over and over. */
  static async connect(
    app: TestApp,
    authority: string,
    options: { initial?: number; cuts?: readonly number[] } = {},
  ): Promise<FlowClient> {
    const client = await FrameClient.connect(app, authority)
    client.greet()
    const flow = new FlowClient(client, options.cuts ?? [])
    flow.#told.push(FIRST_WINDOW)
    if (options.initial !== undefined) flow.initialWindow(options.initial)
    // What the proxy says first comes before the answer.
    await flow.barrier()
    flow.first.connection = flow.sends
    return flow
  }

  get socket(): FrameClient['socket'] {
    return this.#client.socket
  }

  /** Begins a request; only a POST has a body. */
  open(path: string, method = 'GET'): FlowStream {
    const id = 2 * this.streams.length + 1
    const stream = { id, takes: this.#initial, sends: this.first.stream, received: 0, ended: false }
    this.streams.push({ ...stream, blocks: [], parts: [] })
    this.#write(requestFrame(this.#client.authority, id, { method, path }))
    return this.streams.at(-1) as FlowStream
  }

  /** Lets the proxy send more on a stream. */
  grant(stream: FlowStream, size: number): void {
    stream.takes += size
    // After its end it is of no use to anybody.
    if (!stream.ended) this.#write(frame(FRAME.windowUpdate, 0, stream.id, u32(size)))
  }

  /** Lets the proxy send more on the connection. */
  widen(size: number): void {
    this.takes += size
    this.#write(frame(FRAME.windowUpdate, 0, 0, u32(size)))
  }

  /** Changes all streams' windows: when the proxy has acknowledged it, not before. */
  initialWindow(size: number): void {
    this.#told.push(size)
    this.#write(setting(INITIAL_WINDOW_SIZE, size))
  }

  /** Sends a piece of a body, padded where `padding` says so. */
  upload(stream: FlowStream, piece: Buffer, end: boolean, padding?: number): void {
    const padded = padding !== undefined
    const flags = (end ? END_STREAM : 0) | (padded ? PADDED : 0)
    const payload = padded
      ? Buffer.concat([Buffer.from([padding]), piece, Buffer.alloc(padding)])
      : piece
    stream.sends -= payload.length
    this.sends -= payload.length
    this.#write(frame(FRAME.data, flags, stream.id, payload))
  }

  /** Until the proxy has read all that was sent so far. */
  async barrier(): Promise<void> {
    const before = this.#pings
    this.#write(PING)
    this.flush()
    await this.until(() => this.#pings > before)
  }

  /** Until all has come that the windows allow. */
  quiet(): Promise<void> {
    const isDone = ({ ended, takes, blocks }: FlowStream) =>
      ended || (blocks.length > 0 && (takes <= 0 || this.takes <= 0))
    return this.until(() => this.#told.length === 0 && this.streams.every(isDone))
  }

  async until(condition: () => boolean): Promise<void> {
    this.flush()
    await until(() => condition() || this.faults.length > 0)
  }

  /** Until more has come from the proxy. */
  moved(): Promise<unknown> {
    this.flush()
    return Promise.race([once(this.socket, 'data').catch(() => {}), this.#client.closed])
  }

  #write(bytes: Buffer): void {
    this.#out.push(bytes)
    if (this.#cuts.length === 0) this.flush()
  }

  /** Each piece is a TLS record of its own: the proxy reads it by itself. */
  flush(): void {
    let bytes = Buffer.concat(this.#out)
    this.#out = []
    while (bytes.length > 0) {
      const size = this.#cuts[this.#cut++ % this.#cuts.length] ?? bytes.length
      this.#client.send(bytes.subarray(0, size))
      bytes = bytes.subarray(size)
    }
  }

  #on({ type, flags, stream: id, payload }: Frame): void {
    if (payload.length > MAX_FRAME) this.faults.push(`a frame of ${payload.length} bytes`)
    const stream = this.streams[(id - 1) / 2]
    if (type === FRAME.ping && flags === ACK) this.#pings += 1
    else if (type === FRAME.settings) this.#onSettings(flags, payload)
    else if (type === FRAME.windowUpdate) this.#onGrant(stream, payload.readUInt32BE(0))
    else if (type === FRAME.headers && stream) this.#onHeaders(stream, flags, payload)
    else if (type === FRAME.data && stream) this.#onData(stream, flags, payload)
    else this.faults.push(`a frame of type ${type} on stream ${id}: ${payload.toString('hex')}`)
  }

  #onSettings(flags: number, payload: Buffer): void {
    if (flags === ACK) {
      const size = this.#told.shift() ?? 0
      for (const stream of this.streams) stream.takes += size - this.#initial
      this.#initial = size
      return
    }
    for (let at = 0; at < payload.length; at += 6) {
      const value = payload.readUInt32BE(at + 2)
      if (payload.readUInt16BE(at) === INITIAL_WINDOW_SIZE) this.first.stream = value
    }
    this.#write(frame(FRAME.settings, ACK))
  }

  #onGrant(stream: FlowStream | undefined, size: number): void {
    const owner = stream ?? this
    owner.sends += size
    const first = stream ? this.first.stream : this.first.connection
    // The first one on the connection enlarges its window.
    const isFirst = !stream && first === FIRST_WINDOW
    if (owner.sends > first && !isFirst) {
      this.faults.push(`${owner.sends - first} more granted than was sent on ${stream?.id ?? 0}`)
    }
  }

  #onHeaders(stream: FlowStream, flags: number, payload: Buffer): void {
    if (!(flags & END_HEADERS)) this.faults.push('a block in several frames')
    const found: string[] = []
    const sink = { field: (name: string, value: string) => found.push(name, value) }
    this.#decoder.decode(payload, 0, payload.length, sink)
    stream.blocks.push(found)
    const trailing = stream.blocks.length > 1
    if (trailing && !(flags & END_STREAM)) this.faults.push(`a second head on ${stream.id}`)
    this.#advance(stream, flags)
  }

  #onData(stream: FlowStream, flags: number, payload: Buffer): void {
    const { length } = payload
    const { id } = stream
    if (length > 0 && length > stream.takes) this.faults.push(`${length} for ${stream.takes} (${id})`)
    if (length > 0 && length > this.takes) this.faults.push(`${length} for ${this.takes} in all`)
    if (length === 0 && flags === 0) this.faults.push(`DATA of nothing on ${id}`)
    if (stream.blocks.length !== 1) this.faults.push(`DATA out of place on ${id}`)
    stream.takes -= length
    this.takes -= length
    stream.received += length
    stream.parts.push(payload)
    this.#advance(stream, flags)
  }

  #advance(stream: FlowStream, flags: number): void {
    if (stream.ended) this.faults.push(`more after the end of ${stream.id}`)
    if (flags & END_STREAM) stream.ended = true
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#left = true
    await this.#client[Symbol.asyncDispose]()
  }
}
