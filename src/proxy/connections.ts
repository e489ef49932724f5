import type { Socket } from 'node:net'
import type { Clock } from '../lib/clock.ts'

/** Slow and silent clients are looked for this often. */
const SWEEP_MS = 500

/** A client connection as long as somebody serves requests on it. */
export interface Served {
  /** Enforces the time-outs. */
  check(now: number): void
  /** Ends it when it is idle, else after what is under way. */
  drain(): void
}

/** What clients hold open, so that it can be timed, drained or cut. */
export class Connections {
  readonly #clock: Clock
  readonly #sockets = new Set<Socket>()
  readonly #served = new Set<Served>()
  #cancelSweep: (() => void) | undefined
  #draining = false
  #emptied: (() => void) | undefined

  constructor(clock: Clock) {
    this.#clock = clock
  }

  get size(): number {
    return this.#sockets.size
  }

  /** A socket of a client's, or one that belongs to it, the far end of a tunnel say. */
  add(socket: Socket): void {
    this.#sockets.add(socket)
    socket.once('close', () => {
      this.#sockets.delete(socket)
      if (this.#sockets.size === 0) this.#emptied?.()
    })
  }

  serve(connection: Served): void {
    this.#served.add(connection)
    if (this.#draining) connection.drain()
    this.#scheduleSweep()
  }

  /** It has closed, or speaks something else from here on. */
  left(connection: Served): void {
    this.#served.delete(connection)
    if (this.#served.size === 0) {
      this.#cancelSweep?.()
      this.#cancelSweep = undefined
    }
  }

  /** Ends what is idle, and tells everybody else to come no more (RFC 9112 §9.6). */
  drain(): void {
    this.#draining = true
    for (const connection of this.#served) connection.drain()
  }

  /** Resolves when there is none left. */
  emptied(): Promise<void> {
    if (this.#sockets.size === 0) return Promise.resolve()
    return new Promise((resolve) => {
      this.#emptied = resolve
    })
  }

  cut(): void {
    for (const socket of this.#sockets) socket.destroy()
  }

  #scheduleSweep(): void {
    this.#cancelSweep ??= this.#clock.schedule(SWEEP_MS, () => {
      this.#cancelSweep = undefined
      const now = this.#clock.monotonic()
      for (const connection of this.#served) connection.check(now)
      if (this.#served.size > 0) this.#scheduleSweep()
    })
  }
}
