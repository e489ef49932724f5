import { once } from 'node:events'
import type { AddressInfo, Server, Socket } from 'node:net'

/** Everything a test server has open, so that its end leaves nothing behind. */
export class Listener implements AsyncDisposable {
  readonly #server: Server
  readonly #sockets = new Set<Socket>()

  constructor(server: Server) {
    this.#server = server
  }

  /** Listens on a port of `host`, a free one unless told which, and returns it. */
  async listen(host: string, port = 0): Promise<number> {
    this.#server.on('connection', (socket: Socket) => this.track(socket))
    this.#server.listen(port, host)
    await once(this.#server, 'listening')
    return (this.#server.address() as AddressInfo).port
  }

  /** Also close this socket at the end; its errors are nobody's concern. */
  track(socket: Socket): void {
    this.#sockets.add(socket)
    socket.on('error', () => {})
    socket.once('close', () => this.#sockets.delete(socket))
  }

  get openSockets(): number {
    return this.#sockets.size
  }

  async close(): Promise<void> {
    for (const socket of this.#sockets) socket.destroy()
    if (!this.#server.listening) return
    this.#server.close()
    await once(this.#server, 'close')
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close()
  }
}
