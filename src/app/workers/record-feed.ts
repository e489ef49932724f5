import type { Events, ExchangeRecord } from '../../events.ts'
import type { FromWorker } from './messages.ts'
import { RecordEncoder } from './record-code.ts'

/** Records that wait while the primary does not keep up. */
const MAX_KEPT = 1000
const RETRY_MS = 50

/**
 * Hands the stories of requests on to the primary. Where that does not keep up, the oldest are given up: traffic
 * never waits for its own record.
 */
export class RecordFeed {
  readonly #channel: { readonly crowded: boolean; post(message: FromWorker): void }
  readonly #events: Events
  readonly #encoder: RecordEncoder
  #kept: ExchangeRecord[] = []
  #dropped = 0
  #timer: NodeJS.Timeout | undefined

  constructor(
    events: Events,
    channel: { readonly crowded: boolean; post(message: FromWorker): void },
  ) {
    this.#events = events
    this.#channel = channel
    this.#encoder = new RecordEncoder((shape, keys) => channel.post(['shape', shape, keys]))
    events.on('exchange', this.#take)
  }

  /** Hands on what has been kept back, whatever the primary does. */
  close(): void {
    this.#events.off('exchange', this.#take)
    clearTimeout(this.#timer)
    this.#flush()
  }

  readonly #take = (record: ExchangeRecord): void => {
    if (!this.#channel.crowded && this.#kept.length === 0) {
      this.#post(record)
      return
    }
    this.#kept.push(record)
    if (this.#kept.length > 2 * MAX_KEPT) {
      this.#kept = this.#kept.slice(-MAX_KEPT)
      this.#dropped += MAX_KEPT + 1
    }
    this.#timer ??= setTimeout(this.#retry, RETRY_MS)
  }

  readonly #retry = (): void => {
    this.#timer = undefined
    if (this.#channel.crowded) this.#timer = setTimeout(this.#retry, RETRY_MS)
    else this.#flush()
  }

  #post(record: ExchangeRecord): void {
    this.#channel.post(['record', this.#encoder.encode(record)])
  }

  #flush(): void {
    for (const record of this.#kept) this.#post(record)
    this.#kept = []
    if (this.#dropped > 0) this.#channel.post(['dropped', this.#dropped])
    this.#dropped = 0
  }
}
