import {
  DynamicTable,
  ENTRY_BYTES,
  STATIC_FIELDS,
  TABLE_BYTES,
  type TableField,
  tableField,
} from './field-table.ts'
import { decodeHuffman, huffmanLength, latin1 } from './huffman.ts'

/** A block that cannot be decoded: a connection error (RFC 9113 §4.3). */
export class CompressionError extends Error {
  override readonly name = 'CompressionError'
}

export interface FieldBlockSink {
  /** One field, in order; `entry` where a table holds it. */
  field(name: string, value: string, entry: TableField | undefined): void
}

const STATIC_COUNT = STATIC_FIELDS.length - 1
/** RFC 7541 §6: what a field begins with. */
const INDEXED = 0x80
const ADDED = 0x40
const TABLE_SIZE = 0x20
const HUFFMAN = 0x80
/** RFC 7541 §4.2: the least size in between, and the last one. */
const MAX_UPDATES = 2
/** More continuation bytes than any number needs here. */
const MAX_SHIFT = 28
const NOTHING = Buffer.alloc(0)

/** Decodes field blocks of one connection (HPACK, RFC 7541). */
export class FieldDecoder {
  readonly #table = new DynamicTable()
  readonly #tableSize: number
  readonly #maxBlock: number
  #bytes: Buffer = NOTHING
  /** Where the string begins that ends at `#at`. */
  #from = 0
  #at = 0
  #end = 0

  /**
   * `tableSize`: as our settings have it, 4096 at most. `maxBlock`: the decoded size beyond which fields are no longer
   * told, nor made where no table keeps them.
   */
  constructor(options: { tableSize: number; maxBlock: number }) {
    this.#tableSize = Math.min(options.tableSize, TABLE_BYTES)
    this.#maxBlock = options.maxBlock
  }

  /**
   * Decodes a whole block and returns its size as RFC 9113 §6.5.2 counts it. Throws `CompressionError`; the
   * connection is of no use then.
   */
  decode(bytes: Buffer, start: number, end: number, sink: FieldBlockSink): number {
    this.#bytes = bytes
    this.#at = start
    this.#end = end
    let size = 0
    let updates = 0
    while (this.#at < end) {
      const first = bytes[this.#at] as number
      if ((first & 0xe0) === TABLE_SIZE) {
        updates += 1
        if (size > 0 || updates > MAX_UPDATES)
          throw new CompressionError('a table size out of place')
        this.#resize(this.#number(0x1f))
        continue
      }
      let name: string
      let value: string
      let entry: TableField | undefined
      if (first & INDEXED) {
        entry = this.#entry(this.#number(0x7f))
        name = entry.name
        value = entry.value
      } else {
        const index = this.#number(first & ADDED ? 0x3f : 0x0f)
        if (size > this.#maxBlock && (first & ADDED) === 0) {
          const length = index === 0 ? this.#skip() : this.#entry(index).name.length
          size += length + this.#skip() + ENTRY_BYTES
          continue
        }
        name = index === 0 ? this.#string() : this.#entry(index).name
        value = this.#string()
        if (first & ADDED) {
          entry = tableField(name, value)
          this.#table.add(entry)
        }
      }
      size += name.length + value.length + ENTRY_BYTES
      if (size <= this.#maxBlock) sink.field(name, value, entry)
    }
    // What came is not to stay while nothing else comes.
    this.#bytes = NOTHING
    return size
  }

  #resize(size: number): void {
    if (size > this.#tableSize) throw new CompressionError('a table larger than agreed')
    this.#table.limit(size)
  }

  #entry(index: number): TableField {
    const entry =
      index <= STATIC_COUNT ? STATIC_FIELDS[index] : this.#table.at(index - STATIC_COUNT - 1)
    if (index === 0 || !entry) throw new CompressionError('no such index')
    return entry
  }

  /** RFC 7541 §5.1. */
  #number(mask: number): number {
    let value = (this.#bytes[this.#at++] as number) & mask
    if (value < mask) return value
    for (let shift = 0; ; shift += 7) {
      if (this.#at >= this.#end || shift >= MAX_SHIFT) throw new CompressionError('no number')
      const byte = this.#bytes[this.#at++] as number
      value += (byte & 0x7f) << shift
      if (byte < 0x80) return value
    }
  }

  #string(): string {
    const coded = this.#span()
    if (!coded) return latin1(this.#bytes, this.#from, this.#at)
    const text = decodeHuffman(this.#bytes, this.#from, this.#at)
    if (text === undefined) throw new CompressionError('no Huffman code')
    return text
  }

  /** Goes past a string that nobody asks for; how long it is. */
  #skip(): number {
    const coded = this.#span()
    if (!coded) return this.#at - this.#from
    const length = huffmanLength(this.#bytes, this.#from, this.#at)
    if (length === -1) throw new CompressionError('no Huffman code')
    return length
  }

  /** Finds where a string begins and ends; whether it is coded (RFC 7541 §5.2). */
  #span(): boolean {
    if (this.#at >= this.#end) throw new CompressionError('a block that is not whole')
    const coded = ((this.#bytes[this.#at] as number) & HUFFMAN) !== 0
    const length = this.#number(0x7f)
    this.#from = this.#at
    this.#at += length
    if (this.#at > this.#end) throw new CompressionError('a block that is not whole')
    return coded
  }
}
