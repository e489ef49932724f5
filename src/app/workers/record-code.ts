import type { AttemptRecord, ExchangeRecord } from '../../events.ts'

/** A value of a record, or in `attempts` a list of coded ones. */
type Coded = readonly unknown[]

/** As they are read for humans: the clock has no more. */
const MICROSECONDS = 1000
/** Texts that come again and again are kept once. */
const MAX_TEXTS = 4096
const MAX_CLIENTS = 1024

/**
 * Records in a short form. Each is a list: the number of its shape, then the values in the shape's order. Nearly
 * all records have one shape, and it is told only once.
 */
export class RecordEncoder {
  readonly #tell: (shape: number, keys: readonly string[]) => void
  readonly #shapes: (readonly string[])[] = []

  /** `tell` hears of each shape before it is used. */
  constructor(tell: (shape: number, keys: readonly string[]) => void) {
    this.#tell = tell
  }

  encode(record: ExchangeRecord): Coded {
    return this.#encode(record)
  }

  #encode(object: ExchangeRecord | AttemptRecord): Coded {
    const keys = Object.keys(object)
    const coded: unknown[] = [this.#shape(keys)]
    for (const key of keys) {
      const value = object[key as keyof typeof object] as unknown
      if (typeof value === 'number') coded.push(shorten(value))
      else if (key === 'attempts')
        coded.push((value as AttemptRecord[]).map((each) => this.#encode(each)))
      else coded.push(value)
    }
    return coded
  }

  #shape(keys: readonly string[]): number {
    const known = this.#shapes.findIndex(
      (shape) => shape.length === keys.length && shape.every((key, at) => key === keys[at]),
    )
    if (known !== -1) return known
    this.#shapes.push(keys)
    this.#tell(this.#shapes.length - 1, keys)
    return this.#shapes.length - 1
  }
}

function shorten(value: number): number {
  return Number.isInteger(value) ? value : Math.round(value * MICROSECONDS) / MICROSECONDS
}

/** The fields of a record in their order, and a record in which they have no values yet. */
interface Shape {
  readonly keys: readonly string[]
  readonly empty: Record<string, unknown>
}

const NO_SHAPE: Shape = { keys: [], empty: {} }

/** Reads what one encoder has written. */
export class RecordDecoder {
  readonly #shapes: Shape[] = []
  readonly #texts = new Map<string, string>()
  readonly #clients = new Map<string, ExchangeRecord['client']>()

  learn(shape: number, keys: readonly string[]): void {
    this.#shapes[shape] = { keys, empty: Object.fromEntries(keys.map((key) => [key, undefined])) }
  }

  decode(coded: Coded): ExchangeRecord {
    const record = this.#decode(coded) as unknown as ExchangeRecord
    record.client = this.#client(record.client)
    return record
  }

  #decode(coded: Coded): Record<string, unknown> {
    const { keys, empty } = this.#shapes[coded[0] as number] ?? NO_SHAPE
    // A copy has all its fields from the start, which is much faster than to add one after another.
    const object = { ...empty }
    for (let at = 0; at < keys.length; at++) {
      const key = keys[at] as string
      const value = coded[at + 1]
      if (typeof value === 'string') object[key] = key === 'id' ? value : this.#text(value)
      // JSON has written null for what was undefined: a record has no null of its own.
      else if (value === null) object[key] = undefined
      else if (key === 'attempts')
        object[key] = (value as Coded[]).map((each) => this.#decode(each))
      else object[key] = value
    }
    return object
  }

  /** Records are kept for a while, thousands of them: what most of them say is to be there once. */
  #text(text: string): string {
    const known = this.#texts.get(text)
    if (known !== undefined) return known
    if (this.#texts.size >= MAX_TEXTS) this.#texts.clear()
    this.#texts.set(text, text)
    return text
  }

  #client(client: ExchangeRecord['client']): ExchangeRecord['client'] {
    const { name, address } = client
    const key = `${address} ${name ?? ''}`
    const known = this.#clients.get(key)
    if (known) return known
    if (this.#clients.size >= MAX_CLIENTS) this.#clients.clear()
    const made = { name, address }
    this.#clients.set(key, made)
    return made
  }
}
