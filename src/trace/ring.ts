import type { AttemptRecord, ExchangeRecord, RecordedMessages } from '../events.ts'

/** Of the record: when, how long, how long it waited. */
const OF_RECORD = 3
/** Of the only attempt of most records. */
const TIMES = [
  'startMs',
  'sentMs',
  'dnsMs',
  'connectMs',
  'tlsMs',
  'firstByteMs',
  'totalMs',
] as const
/** And the length of the URL. */
const NUMBERS = OF_RECORD + TIMES.length + 1

/** Bytes for the URL of each record; one that is longer is kept as a text. */
const URL_BYTES = 256

/**
 * The last `capacity` records. Each is copied into a slot that is there already, so that a record dies young: kept
 * as it is, every one would outlive two collections and be moved by both. For the same reason times, each of which
 * would be an object of its own, go into one flat array, and URLs into one buffer: a URL is a window on the whole
 * request head, which would stay in memory with it.
 */
export class Ring {
  readonly #capacity: number
  readonly #maxText: number
  /** Without the times of records that have one attempt. */
  readonly #slots: ExchangeRecord[] = []
  /** `NUMBERS` for each slot; NaN for what did not happen. Grows with the slots, so that a large ring costs nothing ahead. */
  #numbers: Float64Array
  /** `URL_BYTES` for each slot whose own URL is empty. */
  #urls: Buffer
  /** Slot that is written next: the oldest record's, once the ring is full. */
  #next = 0
  /** Slots that hold messages, oldest first, and how much text each has. */
  readonly #texts = new Map<ExchangeRecord, number>()
  #text = 0

  /** `maxText` bounds what recorded messages hold altogether, in characters: the oldest are dropped. */
  constructor(capacity: number, maxText: number) {
    this.#capacity = capacity
    this.#maxText = maxText
    const places = Math.min(capacity, 256)
    this.#numbers = new Float64Array(places * NUMBERS)
    this.#urls = Buffer.alloc(places * URL_BYTES)
  }

  get size(): number {
    return this.#slots.length
  }

  /** Keeps a copy; gives its place. */
  add(record: ExchangeRecord): number {
    const place = this.#next
    this.#next = (place + 1) % this.#capacity
    let slot = this.#slots[place]
    if (slot) copyInto(slot, record)
    else {
      slot = emptied(record)
      this.#slots[place] = slot
      if (this.#numbers.length < this.#slots.length * NUMBERS) this.#grow()
    }
    this.#copyTimes(place, record, slot)
    this.#copyUrl(place, record, slot)
    if (slot.messages || this.#texts.size > 0) this.#keepMessages(slot)
    return place
  }

  /** Places from the newest record's to the oldest's. */
  *newestFirst(): Generator<number> {
    const { length } = this.#slots
    for (let age = 1; age <= length; age++) yield (this.#next - age + length) % length
  }

  /** What is kept at a place, but for its times and its URL: to look at, and to be amended. */
  glance(place: number): Omit<ExchangeRecord, 'time' | 'durationMs' | 'waitMs' | 'url'> {
    return this.#slots[place] as ExchangeRecord
  }

  /** When the record at a place began, ms since the epoch. */
  timeOf(place: number): number {
    return this.#numbers[place * NUMBERS] as number
  }

  /** The whole record at a place. */
  read(place: number): ExchangeRecord {
    const slot = this.#slots[place] as ExchangeRecord
    const at = place * NUMBERS
    const [time = 0, durationMs = 0, waitMs = 0] = this.#numbers.subarray(at, at + OF_RECORD)
    const url =
      slot.url ||
      this.#urls.toString('latin1', place * URL_BYTES, place * URL_BYTES + this.#lengthAt(place))
    const [only] = slot.attempts
    const attempts =
      only && slot.attempts.length === 1 ? [this.#timed(only, at + OF_RECORD)] : slot.attempts
    return { ...slot, url, time, durationMs, waitMs, bytes: { ...slot.bytes }, attempts }
  }

  #timed(attempt: AttemptRecord, at: number): AttemptRecord {
    const timed = { ...attempt }
    for (const [index, name] of TIMES.entries()) {
      const value = this.#numbers[at + index] as number
      if (name === 'totalMs') timed.totalMs = value
      else timed[name] = Number.isNaN(value) ? undefined : value
    }
    return timed
  }

  #copyTimes(place: number, record: ExchangeRecord, slot: ExchangeRecord): void {
    const numbers = this.#numbers
    const at = place * NUMBERS
    numbers[at] = record.time
    numbers[at + 1] = record.durationMs
    numbers[at + 2] = record.waitMs
    const [attempt] = record.attempts
    const [kept] = slot.attempts
    if (!attempt || !kept || record.attempts.length !== 1) return
    // Undefined becomes NaN.
    numbers[at + 3] = attempt.startMs as number
    numbers[at + 4] = attempt.sentMs as number
    numbers[at + 5] = attempt.dnsMs as number
    numbers[at + 6] = attempt.connectMs as number
    numbers[at + 7] = attempt.tlsMs as number
    numbers[at + 8] = attempt.firstByteMs as number
    numbers[at + 9] = attempt.totalMs
  }

  #lengthAt(place: number): number {
    return this.#numbers[place * NUMBERS + NUMBERS - 1] as number
  }

  #copyUrl(place: number, { kind, url }: ExchangeRecord, slot: ExchangeRecord): void {
    if (kind === 'refresh') slot.url = url
    else if (url.length > URL_BYTES) slot.url = Buffer.from(url, 'latin1').toString('latin1')
    else {
      // What comes from the wire is latin1.
      this.#urls.write(url, place * URL_BYTES, 'latin1')
      this.#numbers[place * NUMBERS + NUMBERS - 1] = url.length
      slot.url = ''
    }
  }

  #grow(): void {
    const places = Math.min(this.#capacity, this.#slots.length * 2)
    const numbers = new Float64Array(places * NUMBERS)
    numbers.set(this.#numbers)
    this.#numbers = numbers
    const urls = Buffer.alloc(places * URL_BYTES)
    this.#urls.copy(urls)
    this.#urls = urls
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

/** A slot for this record and those that come after it: always the same fields, in the same order. */
function emptied(record: ExchangeRecord): ExchangeRecord {
  const slot: ExchangeRecord = {
    id: record.id,
    time: 0,
    kind: record.kind,
    client: record.client,
    method: record.method,
    url: '',
    protocol: undefined,
    pool: undefined,
    status: undefined,
    durationMs: 0,
    waitMs: 0,
    verdict: record.verdict,
    skipped: record.skipped,
    skippedMore: undefined,
    attempts: [],
    refresh: undefined,
    replay: undefined,
    bytes: { in: 0, out: 0 },
    error: undefined,
    parent: undefined,
    span: undefined,
    messages: undefined,
  }
  copyInto(slot, record)
  return slot
}

function copyInto(slot: ExchangeRecord, record: ExchangeRecord): void {
  slot.id = record.id
  slot.kind = record.kind
  slot.client = record.client
  slot.method = record.method
  slot.protocol = record.protocol
  slot.pool = record.pool
  slot.status = record.status
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
  const [attempt] = record.attempts
  if (!attempt || record.attempts.length > 1) {
    slot.attempts = record.attempts.map((each) => ({ ...each }))
    return
  }
  const [kept] = slot.attempts
  if (kept && slot.attempts.length === 1) copyAttempt(kept, attempt)
  else slot.attempts = [copyAttempt(untold(attempt), attempt)]
}

/** An attempt without its times. */
function untold(attempt: AttemptRecord): AttemptRecord {
  return {
    credential: undefined,
    generation: undefined,
    egress: attempt.egress,
    egressAddress: undefined,
    address: undefined,
    status: undefined,
    verdict: attempt.verdict,
    startMs: undefined,
    sentMs: undefined,
    dnsMs: undefined,
    connectMs: undefined,
    tlsMs: undefined,
    firstByteMs: undefined,
    totalMs: 0,
    reused: false,
    protocol: undefined,
    call: undefined,
    fault: undefined,
  }
}

function copyAttempt(kept: AttemptRecord, attempt: AttemptRecord): AttemptRecord {
  kept.credential = attempt.credential
  kept.generation = attempt.generation
  kept.egress = attempt.egress
  kept.egressAddress = attempt.egressAddress
  kept.address = attempt.address
  kept.status = attempt.status
  kept.verdict = attempt.verdict
  kept.reused = attempt.reused
  kept.protocol = attempt.protocol
  kept.call = attempt.call
  kept.fault = attempt.fault
  return kept
}
