import { once } from 'node:events'
import type { Socket } from 'node:net'
import type { Duplex } from 'node:stream'
import { connect as tlsConnect } from 'node:tls'
import type { TestApp } from './app.ts'

/** Frame types and flags (RFC 9113 §6). */
export const FRAME = {
  data: 0,
  headers: 1,
  priority: 2,
  rstStream: 3,
  settings: 4,
  pushPromise: 5,
  ping: 6,
  goaway: 7,
  windowUpdate: 8,
  continuation: 9,
} as const
export const END_STREAM = 1
export const ACK = 1
export const PADDED = 8
export const PRIORITY = 0x20
export const END_HEADERS = 4

export const PREFACE = 'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n'

export function frame(
  type: number,
  flags = 0,
  stream = 0,
  payload: Buffer = Buffer.alloc(0),
): Buffer {
  const head = Buffer.alloc(9)
  head.writeUIntBE(payload.length, 0, 3)
  head[3] = type
  head[4] = flags
  head.writeUInt32BE(stream, 5)
  return Buffer.concat([head, payload])
}

/** Frames that need no thought. */
export const PING = frame(FRAME.ping, 0, 0, Buffer.alloc(8))
export const u32 = (value: number) => {
  const bytes = Buffer.alloc(4)
  bytes.writeUInt32BE(value >>> 0)
  return bytes
}
/** SETTINGS with one value in it (RFC 9113 §6.5.2). */
export const setting = (id: number, value: number) =>
  frame(FRAME.settings, 0, 0, Buffer.concat([Buffer.from([id >> 8, id]), u32(value)]))
export const reset = (stream: number, code: number) => frame(FRAME.rstStream, 0, stream, u32(code))
export const goaway = (last: number, code: number) =>
  frame(FRAME.goaway, 0, 0, Buffer.concat([u32(last), u32(code)]))

/** Fields one after another, without Huffman coding and without the dynamic table (RFC 7541 §6.2.2). */
export function fields(...list: readonly (readonly [string, string])[]): Buffer {
  return Buffer.concat(
    list.flat().flatMap((text, i) => {
      const bytes = Buffer.from(text, 'latin1')
      if (bytes.length > 126) throw new RangeError('only short strings')
      return [Buffer.from(i % 2 === 0 ? [0, bytes.length] : [bytes.length]), bytes]
    }),
  )
}

/** HEADERS of a request; one with a body by its method, POST, does not end with them. */
export function requestFrame(
  authority: string,
  stream: number,
  { method = 'GET', path = '/', more = [] as readonly (readonly [string, string])[] } = {},
): Buffer {
  const block = fields(
    [':method', method],
    [':scheme', 'https'],
    [':path', path],
    [':authority', authority],
    ...more,
  )
  const end = method === 'POST' ? 0 : END_STREAM
  return frame(FRAME.headers, END_HEADERS | end, stream, block)
}

/** `GET https://AUTHORITY/`, without Huffman coding and without the dynamic table (RFC 7541). */
export function getHeaders(authority: string): Buffer {
  const text = Buffer.from(authority)
  return Buffer.concat([Buffer.from([0x82, 0x87, 0x84, 0x01, text.length]), text])
}

export interface Frame {
  readonly type: number
  readonly flags: number
  readonly stream: number
  readonly payload: Buffer
}

/** One end of a connection that says by HTTP/2 whatever frames it is told to. */
export class FramePeer implements AsyncDisposable {
  readonly socket: Duplex
  readonly received: Frame[] = []
  readonly closed: Promise<unknown>

  /** `skip`: bytes that come before the first frame. */
  constructor(socket: Duplex, skip = 0, react: (frame: Frame) => void = () => {}) {
    this.socket = socket
    let preface = skip
    this.closed = new Promise((resolve) => socket.once('close', resolve))
    let rest = Buffer.alloc(0)
    socket.on('error', () => {})
    socket.on('data', (chunk: Buffer) => {
      rest = Buffer.concat([rest, chunk])
      if (rest.length < preface) return
      rest = rest.subarray(preface)
      preface = 0
      for (let size = 0; rest.length >= 9; rest = rest.subarray(size)) {
        size = 9 + rest.readUIntBE(0, 3)
        if (rest.length < size) break
        const frame = {
          type: rest[3] as number,
          flags: rest[4] as number,
          stream: rest.readUInt32BE(5),
          payload: rest.subarray(9, size),
        }
        this.received.push(frame)
        react(frame)
      }
    })
  }

  /** How this stream was reset, if it was. */
  resetOf(stream: number): number | undefined {
    return this.received
      .find((each) => each.type === FRAME.rstStream && each.stream === stream)
      ?.payload.readUInt32BE(0)
  }

  send(...frames: Buffer[]): this {
    if (this.socket.writable) this.socket.write(Buffer.concat(frames))
    return this
  }

  /** The error code of the GOAWAY that came last. */
  get goaway(): number | undefined {
    return this.received.findLast(({ type }) => type === FRAME.goaway)?.payload.readUInt32BE(4)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.socket.destroy()
    await this.closed
  }
}

/**
 * Resets the TCP connection under TLS. Not from within a callback of OpenSSL, as one that ends the handshake is: it
 * would go on with what has been freed by then, and the process ends with SIGSEGV.
 */
export function resetUnder(tcp: Socket | undefined): void {
  setImmediate(() => tcp?.resetAndDestroy())
}

/** A client that says by HTTP/2 whatever frames it is told to. */
export class FrameClient extends FramePeer {
  readonly authority: string
  readonly #tcp: Socket

  private constructor(socket: Duplex, tcp: Socket, authority: string) {
    super(socket)
    this.#tcp = tcp
    this.authority = authority
  }

  static async connect(app: TestApp, authority: string): Promise<FrameClient> {
    const { socket } = await app.client().tunnel(authority)
    const secure = tlsConnect({
      socket,
      ca: app.ca,
      servername: authority.replace(/:\d+$/, ''),
      ALPNProtocols: ['h2'],
    })
    await once(secure, 'secureConnect')
    return new FrameClient(secure, socket, authority)
  }

  /** Resets the TCP connection that all of it goes over. */
  reset(): void {
    resetUnder(this.#tcp)
  }

  /** Preface and empty settings. */
  greet(): this {
    this.socket.write(PREFACE, 'latin1')
    return this.send(frame(FRAME.settings))
  }
}
