import {
  DynamicTable,
  STATIC_FIELDS,
  STATIC_NAMES,
  TABLE_BYTES,
  tableField,
} from './field-table.ts'

const STATIC_COUNT = STATIC_FIELDS.length - 1
/** RFC 7541 §6: what a field begins with, and the bits of its number. */
const INDEXED = 0x80
const ADDED = 0x40
const TABLE_SIZE = 0x20
const NEVER = 0x10
const PLAIN = 0x00

/** Of one field, beside its name and value: the index and two lengths. */
const FIELD_BYTES = 12
/** A status, and two changes of the table's size. */
const MORE_BYTES = 16
/** Values that are longer would push too much else out of the table. */
const MAX_VALUE = 128
/** A field whose value changed so often in a row is not worth a place in the table. */
const MAX_CHANGES = 3
/** Names that are remembered, and how long each of them may be. */
const MAX_NAMES = 256
const MAX_NAME = 64
/** Strings up to this length are written faster by hand. */
const BY_HAND = 16

/** Different in every answer. */
const VARYING: ReadonlySet<string> = new Set([
  'age',
  'content-length',
  'content-range',
  'cupbearer-trace',
  'date',
  'etag',
  'expires',
  'last-modified',
  'location',
  'traceparent',
  'x-request-id',
])
/** Nobody on the way may put these into a table (RFC 7541 §7.1.3). */
const SENSITIVE: ReadonlySet<string> = new Set([
  'authorization',
  'proxy-authorization',
  'set-cookie',
])

const STATUS = 8
/** Those of the static table. */
const STATUSES = new Map(
  STATIC_FIELDS.flatMap(({ name, value }, index) =>
    name === ':status' ? [[Number(value), index] as const] : [],
  ),
)

/** What is known of a name. */
interface Known {
  readonly name: string
  readonly kind: typeof ADDED | typeof PLAIN | typeof NEVER
  /** In the static table; 0 for none. */
  readonly index: number
  /** The value that was added to the dynamic table last, and how many entries had been added before it. */
  value: string | undefined
  order: number
  changes: number
}

/** A name that is too long to be remembered; all such are written in full. */
const UNKNOWN: Known = { name: '', kind: PLAIN, index: 0, value: undefined, order: 0, changes: 0 }

/** A string that is a piece of another one keeps all of that in memory: fields are pieces of a whole head. */
function ownCopy(text: string): string {
  return Buffer.from(text, 'latin1').toString('latin1')
}

/** Encodes field blocks of one connection (HPACK, RFC 7541), without Huffman coding: that costs more than it saves. */
export class FieldEncoder {
  readonly #table = new DynamicTable()
  readonly #names = new Map<string, Known>()
  /** Entries added so far. */
  #added = 0
  #limit = TABLE_BYTES
  /** The least limit since the last block; undefined where it has not changed. */
  #least: number | undefined
  #at = 0

  /** What the peer's table may hold. Larger than 4096 is not made use of. */
  allow(tableSize: number): void {
    const limit = Math.min(tableSize, TABLE_BYTES)
    if (limit === this.#limit && this.#least === undefined) return
    this.#least = Math.min(this.#least ?? limit, limit)
    this.#limit = limit
  }

  /** No block of these fields is longer. */
  bound(fields: readonly string[]): number {
    let size = MORE_BYTES
    for (let i = 0; i < fields.length; i++) size += (fields[i] as string).length
    return size + (fields.length / 2) * FIELD_BYTES
  }

  /**
   * Writes a block: `:status` where there is one (100 to 999), then name, value, name, value… in latin1, names in
   * lower case. `target` must have `bound` bytes from `offset` on. Returns where the block ends.
   */
  encode(
    status: number | undefined,
    fields: readonly string[],
    target: Buffer,
    offset: number,
  ): number {
    this.#at = offset
    if (this.#least !== undefined) this.#resize(target, this.#least)
    if (status !== undefined) this.#status(target, status)
    for (let i = 0; i < fields.length; i += 2) {
      this.#field(target, fields[i] as string, fields[i + 1] as string)
    }
    return this.#at
  }

  /** RFC 7541 §4.2: the smallest size in between is told, too. */
  #resize(target: Buffer, least: number): void {
    this.#least = undefined
    if (least < this.#limit) this.#number(target, TABLE_SIZE, 0x1f, least)
    this.#number(target, TABLE_SIZE, 0x1f, this.#limit)
    this.#table.limit(least)
    this.#table.limit(this.#limit)
  }

  #status(target: Buffer, status: number): void {
    const index = STATUSES.get(status)
    if (index !== undefined) {
      this.#number(target, INDEXED, 0x7f, index)
      return
    }
    this.#number(target, PLAIN, 0x0f, STATUS)
    this.#string(target, String(status))
  }

  #field(target: Buffer, name: string, value: string): void {
    const known = this.#names.get(name) ?? this.#learn(name)
    const age = this.#added - known.order - 1
    const held = known.value !== undefined && age < this.#table.count
    if (held && known.value === value) {
      this.#number(target, INDEXED, 0x7f, STATIC_COUNT + 1 + age)
      return
    }
    let { kind } = known
    const fits = value.length <= MAX_VALUE && known.changes < MAX_CHANGES
    if (kind === ADDED && (!fits || name.length + MAX_VALUE > this.#limit / 2)) kind = PLAIN
    const index = known.index > 0 || !held ? known.index : STATIC_COUNT + 1 + age
    this.#number(target, kind, kind === ADDED ? 0x3f : 0x0f, index)
    if (index === 0) this.#string(target, name)
    this.#string(target, value)
    if (kind !== ADDED) return
    if (known.value !== undefined) known.changes += known.value === value ? 0 : 1
    known.value = ownCopy(value)
    known.order = this.#added++
    this.#table.add(tableField(known.name, known.value))
  }

  #learn(text: string): Known {
    if (text.length > MAX_NAME) return UNKNOWN
    if (this.#names.size >= MAX_NAMES) this.#names.clear()
    const name = ownCopy(text)
    const kind = SENSITIVE.has(name) ? NEVER : VARYING.has(name) ? PLAIN : ADDED
    const index = STATIC_NAMES.get(name) ?? 0
    const known: Known = { name, kind, index, value: undefined, order: 0, changes: 0 }
    this.#names.set(name, known)
    return known
  }

  /** RFC 7541 §5.1. */
  #number(target: Buffer, pattern: number, mask: number, value: number): void {
    if (value < mask) {
      target[this.#at++] = pattern | value
      return
    }
    target[this.#at++] = pattern | mask
    let rest = value - mask
    for (; rest >= 0x80; rest >>>= 7) target[this.#at++] = (rest & 0x7f) | 0x80
    target[this.#at++] = rest
  }

  #string(target: Buffer, text: string): void {
    const { length } = text
    this.#number(target, 0, 0x7f, length)
    if (length > BY_HAND) target.write(text, this.#at, length, 'latin1')
    else for (let i = 0; i < length; i++) target[this.#at + i] = text.charCodeAt(i)
    this.#at += length
  }
}
