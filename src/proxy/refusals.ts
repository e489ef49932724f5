import type { Socket } from 'node:net'
import { toWireError, type WireError } from '../errors.ts'
import type { Events, ExchangeRecord } from '../events.ts'
import { newRecord } from '../exchange/record.ts'
import type { Clock } from '../lib/clock.ts'
import { type Logger, whereFrom } from '../lib/log.ts'
import type { Inside } from './authority-check.ts'

/** What is said and recorded of requests that never become an exchange. */
export class Refusals {
  readonly #events: Events
  readonly #clock: Clock
  readonly #log: Logger

  constructor({ events, clock, log }: { events: Events; clock: Clock; log: Logger }) {
    this.#events = events
    this.#clock = clock
    this.#log = log
  }

  /** A record for a request that comes by this connection. */
  record(socket: Socket, inside: Inside | undefined, method: string, url: string): ExchangeRecord {
    return {
      ...newRecord(this.#clock.now(), method, url),
      kind: 'denied',
      client: {
        name: inside?.client.name,
        address: inside?.client.address ?? socket.remoteAddress ?? '',
      },
    }
  }

  /** Ends a record by what went wrong; gives what the client may know of it. */
  deny(record: ExchangeRecord, error: unknown): WireError {
    const wire = toWireError(error)
    if (wire.code === 'INTERNAL') {
      this.#log.error({ trace: record.id, ...whereFrom(error) }, 'internal error')
    }
    record.status = wire.status
    record.verdict = wire.code
    record.error = { code: wire.code, message: wire.message }
    this.#events.emit('exchange', record)
    return wire
  }

  /** Both at once. */
  refuse(
    socket: Socket,
    inside: Inside | undefined,
    method: string,
    url: string,
    error: unknown,
  ): { error: WireError; trace: string } {
    const record = this.record(socket, inside, method, url)
    return { error: this.deny(record, error), trace: record.id }
  }
}
