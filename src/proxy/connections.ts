import type { ServerResponse } from 'node:http'
import type { Socket } from 'node:net'
import { TLSSocket } from 'node:tls'

/**
 * What clients hold open, so that it can be drained or cut. Node's own `closeIdleConnections` would take a
 * connection for idle whose answer has ended but has not left yet, and cut the answer short.
 */
export class Connections {
  readonly #all = new Set<Socket>()
  /** Connections that clients have made and said nothing by, as far as is known. */
  readonly #fresh = new Set<Socket>()
  /** Connections that have asked something by HTTP: how many answers are under way, and the last of them. */
  readonly #answering = new Map<Socket, { count: number; last: ServerResponse }>()
  #draining = false

  get size(): number {
    return this.#all.size
  }

  /** One that a client has made; the decrypted one inside it counts as another. */
  accepted(socket: Socket): void {
    this.add(socket)
    if (!(socket instanceof TLSSocket)) this.#fresh.add(socket)
  }

  /** One that belongs to a client's, the far end of a tunnel say. */
  add(socket: Socket): void {
    this.#all.add(socket)
    socket.once('close', () => {
      this.#all.delete(socket)
      this.#forget(socket)
    })
  }

  /** An answer is under way; while draining it is told to be the connection's last. */
  answering(socket: Socket, response: ServerResponse): void {
    if (this.#draining) response.shouldKeepAlive = false
    const known = this.#answering.get(socket)
    if (known) {
      known.count += 1
      known.last = response
      return
    }
    this.#fresh.delete(socket)
    this.#answering.set(socket, { count: 1, last: response })
  }

  /** An answer has gone out, or its client has gone. */
  answered(socket: Socket): void {
    const known = this.#answering.get(socket)
    if (!known) return
    known.count -= 1
    if (this.#draining && known.count === 0) socket.destroySoon()
  }

  /** From here on the connection speaks something else than HTTP with us. */
  becomesTunnel(socket: Socket): void {
    this.#forget(socket)
  }

  /** Ends what is idle, and tells everybody else to come no more (RFC 9112 §9.6). */
  drain(): void {
    this.#draining = true
    for (const socket of this.#fresh) if (socket.bytesRead === 0) socket.destroySoon()
    for (const [socket, { count, last }] of this.#answering) {
      if (count === 0) socket.destroySoon()
      else if (!last.headersSent) last.shouldKeepAlive = false
    }
  }

  cut(): void {
    for (const socket of this.#all) socket.destroy()
  }

  #forget(socket: Socket): void {
    this.#fresh.delete(socket)
    this.#answering.delete(socket)
  }
}
