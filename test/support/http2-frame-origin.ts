import type { Socket } from 'node:net'
import { createServer, type TLSSocket } from 'node:tls'
import { testAuthority } from './certificates.ts'
import { type Frame, FramePeer, PREFACE, resetUnder } from './http2-frames.ts'
import { Listener } from './listener.ts'

export interface FrameOrigin extends AsyncDisposable {
  readonly port: number
  /** The connections that were made, the closed ones too. */
  readonly peers: FramePeer[]
  readonly openConnections: number
  /** Resets the TCP connection of a peer. */
  reset(peer: FramePeer): void
}

/** A server that agrees on HTTP/2 and then says whatever frames it is told to; named as `startOrigin`'s are. */
export async function startFrameOrigin(
  react: (frame: Frame, peer: FramePeer) => void,
  greet: (peer: FramePeer) => void,
): Promise<FrameOrigin> {
  const peers: FramePeer[] = []
  const sockets = new Map<number | undefined, Socket>()
  const certificate = testAuthority().issue(['127.0.0.1', 'api.test', '*.example.test'])
  const server = createServer({ ...certificate, ALPNProtocols: ['h2'] }, (socket: TLSSocket) => {
    const peer: FramePeer = new FramePeer(socket, PREFACE.length, (frame) => react(frame, peer))
    peers.push(peer)
    greet(peer)
  })
  server.on('connection', (socket: Socket) => sockets.set(socket.remotePort, socket))
  server.on('tlsClientError', () => {})
  const listener = new Listener(server)
  const port = await listener.listen('127.0.0.1')
  return {
    port,
    peers,
    get openConnections() {
      return listener.openSockets
    },
    reset: ({ socket }) => resetUnder(sockets.get((socket as TLSSocket).remotePort)),
    [Symbol.asyncDispose]: () => listener.close(),
  }
}
