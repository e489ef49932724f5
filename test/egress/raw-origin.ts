import { createServer, type Socket } from 'node:net'
import { createServer as createTlsServer } from 'node:tls'
import { testAuthority } from '../support/certificates.ts'
import { Listener } from '../support/listener.ts'

/** One connection to a raw origin. */
export class Peer {
  readonly socket: Socket
  /** Number of the connection, counted from 1. */
  readonly number: number
  /** All bytes that came, as latin1. */
  received = ''
  closed = false
  #taken = 0

  constructor(socket: Socket, number: number) {
    this.socket = socket
    this.number = number
  }

  /** What has come and was not taken yet, up to and with `end`; undefined while that has not come. */
  take(end = '\r\n\r\n'): string | undefined {
    const at = this.received.indexOf(end, this.#taken)
    if (at === -1) return undefined
    const text = this.received.slice(this.#taken, at + end.length)
    this.#taken = at + end.length
    return text
  }

  write(text: string): void {
    this.socket.write(text, 'latin1')
  }
}

export interface RawOrigin extends AsyncDisposable {
  readonly url: string
  readonly peers: Peer[]
}

/** A server that records the bytes it gets and answers with bytes: `react` is called whenever some have come. */
export async function startRawOrigin(
  react: (peer: Peer) => void,
  options: { readonly tls?: boolean } = {},
): Promise<RawOrigin> {
  const peers: Peer[] = []
  const accept = (socket: Socket) => {
    const peer = new Peer(socket, peers.length + 1)
    peers.push(peer)
    socket.on('error', () => {})
    socket.on('close', () => {
      peer.closed = true
    })
    socket.on('data', (chunk) => {
      peer.received += chunk.toString('latin1')
      react(peer)
    })
  }
  const server = options.tls
    ? createTlsServer(
        { ...testAuthority().issue(['127.0.0.1']), ALPNProtocols: ['http/1.1'] },
        accept,
      )
    : createServer(accept)
  const listener = new Listener(server)
  const port = await listener.listen('127.0.0.1')
  return {
    url: `${options.tls ? 'https' : 'http'}://127.0.0.1:${port}`,
    peers,
    [Symbol.asyncDispose]: () => listener.close(),
  }
}

/** Answers each request, told by its head, with the next of these texts; the last one is used again. */
export function answers(...texts: string[]): (peer: Peer) => void {
  let next = 0
  return (peer) => {
    while (peer.take()) peer.write(texts[Math.min(next++, texts.length - 1)] as string)
  }
}

/** Waits until it holds. */
export async function until(holds: () => boolean): Promise<void> {
  while (!holds()) await new Promise((resolve) => setImmediate(resolve))
}

export const OK = 'HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok'
