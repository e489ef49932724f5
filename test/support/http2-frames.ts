import { once } from 'node:events'
import type { Duplex } from 'node:stream'
import { connect as tlsConnect } from 'node:tls'
import type { TestApp } from './app.ts'

/** Frame types and flags (RFC 9113 §6). */
export const FRAME = {
  data: 0,
  headers: 1,
  rstStream: 3,
  settings: 4,
  ping: 6,
  goaway: 7,
  windowUpdate: 8,
  continuation: 9,
} as const
export const END_STREAM = 1
export const END_HEADERS = 4

const PREFACE = 'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n'

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

/** `GET https://AUTHORITY/`, without Huffman coding and without the dynamic table (RFC 7541). */
export function getHeaders(authority: string): Buffer {
  const text = Buffer.from(authority)
  return Buffer.concat([Buffer.from([0x82, 0x87, 0x84, 0x01, text.length]), text])
}

/** A client that says by HTTP/2 whatever frames it is told to. */
export class FrameClient implements AsyncDisposable {
  readonly socket: Duplex
  readonly authority: string
  /** Type, stream and payload of what came. */
  readonly received: { type: number; stream: number; payload: Buffer }[] = []
  readonly closed: Promise<unknown>

  private constructor(socket: Duplex, authority: string) {
    this.socket = socket
    this.authority = authority
    this.closed = new Promise((resolve) => socket.once('close', resolve))
    let rest = Buffer.alloc(0)
    socket.on('error', () => {})
    socket.on('data', (chunk: Buffer) => {
      rest = Buffer.concat([rest, chunk])
      for (let size = 0; rest.length >= 9; rest = rest.subarray(size)) {
        size = 9 + rest.readUIntBE(0, 3)
        if (rest.length < size) break
        this.received.push({
          type: rest[3] as number,
          stream: rest.readUInt32BE(5),
          payload: rest.subarray(9, size),
        })
      }
    })
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
    return new FrameClient(secure, authority)
  }

  /** Preface and empty settings. */
  greet(): this {
    this.socket.write(PREFACE, 'latin1')
    return this.send(frame(FRAME.settings))
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
