import type { AddressInfo, Server, Socket } from 'node:net'
import type { Duplex } from 'node:stream'
import { CommandError, EXIT } from '../command.ts'

/** A server of the demo on a free port, with all its connections; nothing of it is left when it is closed. */
export class Listener {
  readonly #server: Server
  readonly #sockets = new Set<Duplex>()

  constructor(server: Server) {
    this.#server = server
    server.on('connection', (socket: Socket) => this.track(socket))
  }

  /** Resolves with the port. An address that this system does not have ends the demo with a sentence. */
  listen(address: string): Promise<number> {
    return new Promise((resolve, reject) => {
      this.#server.once('error', (cause: NodeJS.ErrnoException) => {
        reject(
          new CommandError(
            EXIT.failed,
            `the demo cannot listen on ${address} (${cause.code ?? 'unknown'})`,
            cause.code === 'EADDRNOTAVAIL'
              ? `it needs this loopback address; on macOS: sudo ifconfig lo0 alias ${address} up`
              : undefined,
            { cause },
          ),
        )
      })
      this.#server.listen(0, address, () => resolve((this.#server.address() as AddressInfo).port))
    })
  }

  /** Closes this one at the end too. */
  track(socket: Duplex): void {
    this.#sockets.add(socket)
    socket.on('error', () => socket.destroy())
    socket.once('close', () => this.#sockets.delete(socket))
  }

  async close(): Promise<void> {
    for (const socket of this.#sockets) socket.destroy()
    if (!this.#server.listening) return
    await new Promise((resolve) => this.#server.close(resolve))
  }
}
