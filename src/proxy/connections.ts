import type { ServerResponse } from 'node:http'
import type { Socket } from 'node:net'
import type { Duplex } from 'node:stream'

/**
 * What clients hold open, so that it can be drained or cut. Node's own `closeIdleConnections` would take a
 * connection for idle whose answer has ended but has not left yet, and cut the answer short.
 */
export class Connections {
  readonly #all = new Set<Duplex>()
  /** Connections that have asked something by HTTP, with the answers under way, oldest first. */
  readonly #answering = new Map<Socket, Set<ServerResponse>>()
  #draining = false

  get size(): number {
    return this.#all.size
  }

  add(socket: Duplex): void {
    this.#all.add(socket)
    socket.once('close', () => {
      this.#all.delete(socket)
      this.#answering.delete(socket as Socket)
    })
  }

  /** An answer is under way; while draining it is told to be the connection's last. */
  answering(socket: Socket, response: ServerResponse): void {
    const answers = this.#answering.get(socket) ?? new Set()
    if (answers.size === 0) this.#answering.set(socket, answers)
    answers.add(response)
    if (this.#draining) response.shouldKeepAlive = false
    response.once('close', () => {
      answers.delete(response)
      if (this.#draining && answers.size === 0) socket.destroySoon()
    })
  }

  /** From here on the connection speaks something else than HTTP with us. */
  becomesTunnel(socket: Socket): void {
    this.#answering.delete(socket)
  }

  /** Ends what is idle, and tells everybody else to come no more (RFC 9112 §9.6). */
  drain(): void {
    this.#draining = true
    for (const socket of this.#all) {
      if ((socket as Socket).bytesRead === 0) (socket as Socket).destroySoon()
    }
    for (const [socket, answers] of this.#answering) {
      const last = [...answers].at(-1)
      if (!last) socket.destroySoon()
      else if (!last.headersSent) last.shouldKeepAlive = false
    }
  }

  cut(): void {
    for (const socket of this.#all) socket.destroy()
  }
}
