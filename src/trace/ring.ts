import type { AttemptRecord, ExchangeRecord, RecordedMessages } from '../events.ts'

/**
 * The last `capacity` records. Each is copied into a slot that is there already, so that a record dies young:
 * kept as it is, every one would outlive two collections and be moved by both.
 */
export class Ring {
  readonly #capacity: number
  readonly #maxText: number
  readonly #slots: ExchangeRecord[] = []
  /** Slot that is written next: the oldest record's, once the ring is full. */
  #next = 0
  /** Slots that hold messages, oldest first, and how much text each has. */
  readonly #texts = new Map<ExchangeRecord, number>()
  #text = 0

  /** `maxText` bounds what recorded messages hold altogether, in characters: the oldest are dropped. */
  constructor(capacity: number, maxText: number) {
    this.#capacity = capacity
    this.#maxText = maxText
  }

  get size(): number {
    return this.#slots.length
  }

  /** Keeps a copy; gives it back. */
  add(record: ExchangeRecord): ExchangeRecord {
    let slot = this.#slots[this.#next]
    if (slot) copyInto(slot, record)
    else {
      slot = copyOf(record)
      this.#slots[this.#next] = slot
    }
    this.#next = (this.#next + 1) % this.#capacity
    if (slot.messages || this.#texts.size > 0) this.#keepMessages(slot)
    return slot
  }

  *newestFirst(): Generator<ExchangeRecord> {
    const { length } = this.#slots
    for (let age = 1; age <= length; age++) {
      yield this.#slots[(this.#next - age + length) % length] as ExchangeRecord
    }
  }

  #keepMessages(slot: ExchangeRecord): void {
    this.#drop(slot)
    if (!slot.messages) return
    const size = textOf(slot.messages)
    this.#texts.set(slot, size)
    this.#text += size
    for (const oldest of this.#texts.keys()) {
      if (this.#text <= this.#maxText) return
      this.#drop(oldest)
      oldest.messages = undefined
    }
  }

  #drop(slot: ExchangeRecord): void {
    this.#text -= this.#texts.get(slot) ?? 0
    this.#texts.delete(slot)
  }
}

function textOf({ request, response }: RecordedMessages): number {
  let size = 0
  for (const message of [request, response]) {
    size += message?.body?.text.length ?? 0
    for (const text of message?.headers ?? []) size += text.length
  }
  return size
}

function copyOf(record: ExchangeRecord): ExchangeRecord {
  const attempts = record.attempts.map((each) => ({ ...each }))
  return { ...record, bytes: { ...record.bytes }, attempts }
}

function copyInto(slot: ExchangeRecord, record: ExchangeRecord): void {
  slot.id = record.id
  slot.time = record.time
  slot.kind = record.kind
  slot.client = record.client
  slot.method = record.method
  slot.url = record.url
  slot.protocol = record.protocol
  slot.pool = record.pool
  slot.status = record.status
  slot.durationMs = record.durationMs
  slot.waitMs = record.waitMs
  slot.verdict = record.verdict
  slot.skipped = record.skipped
  slot.skippedMore = record.skippedMore
  slot.refresh = record.refresh
  slot.replay = record.replay
  slot.bytes.in = record.bytes.in
  slot.bytes.out = record.bytes.out
  slot.error = record.error
  slot.parent = record.parent
  slot.span = record.span
  slot.messages = record.messages
  const [kept] = slot.attempts
  const [attempt] = record.attempts
  if (kept && attempt && record.attempts.length === 1) {
    slot.attempts.length = 1
    copyAttempt(kept, attempt)
  } else {
    slot.attempts = record.attempts.map((each) => ({ ...each }))
  }
}

function copyAttempt(kept: AttemptRecord, attempt: AttemptRecord): void {
  kept.credential = attempt.credential
  kept.generation = attempt.generation
  kept.egress = attempt.egress
  kept.egressAddress = attempt.egressAddress
  kept.address = attempt.address
  kept.status = attempt.status
  kept.verdict = attempt.verdict
  kept.startMs = attempt.startMs
  kept.sentMs = attempt.sentMs
  kept.dnsMs = attempt.dnsMs
  kept.connectMs = attempt.connectMs
  kept.tlsMs = attempt.tlsMs
  kept.firstByteMs = attempt.firstByteMs
  kept.totalMs = attempt.totalMs
  kept.reused = attempt.reused
  kept.protocol = attempt.protocol
  kept.call = attempt.call
  kept.fault = attempt.fault
}
