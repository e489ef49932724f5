/** A field as a table holds it. */
export interface TableField {
  readonly name: string
  readonly value: string
  /** RFC 7541 §4.1. */
  readonly size: number
  /** What a reader has found out about it, so that it need not look again; 0 = nothing yet. */
  mark: number
}

/** RFC 7541 §4.1: what an entry counts beside its name and value. */
export const ENTRY_BYTES = 32
/** The largest table there is here. */
export const TABLE_BYTES = 4096
/** No more entries fit. */
const SLOTS = TABLE_BYTES / ENTRY_BYTES

/** RFC 7541, appendix A. */
const STATIC = `:authority
:method GET
:method POST
:path /
:path /index.html
:scheme http
:scheme https
:status 200
:status 204
:status 206
:status 304
:status 400
:status 404
:status 500
accept-charset
accept-encoding gzip, deflate
accept-language
accept-ranges
accept
access-control-allow-origin
age
allow
authorization
cache-control
content-disposition
content-encoding
content-language
content-length
content-location
content-range
content-type
cookie
date
etag
expect
expires
from
host
if-match
if-modified-since
if-none-match
if-range
if-unmodified-since
last-modified
link
location
max-forwards
proxy-authenticate
proxy-authorization
range
referer
refresh
retry-after
server
set-cookie
strict-transport-security
transfer-encoding
user-agent
vary
via
www-authenticate`

export function tableField(name: string, value: string): TableField {
  return { name, value, size: name.length + value.length + ENTRY_BYTES, mark: 0 }
}

/** By index; there is no 0. */
export const STATIC_FIELDS: readonly TableField[] = [
  tableField('', ''),
  ...STATIC.split('\n').map((line) => {
    const [name = '', ...value] = line.split(' ')
    return tableField(name, value.join(' '))
  }),
]

/** The first index of each name. */
export const STATIC_NAMES: ReadonlyMap<string, number> = new Map(
  STATIC_FIELDS.map(({ name }, index) => [name, index] as const)
    .slice(1)
    .reverse(),
)

/** The dynamic table (RFC 7541 §2.3.2): the newest entry comes first, the oldest one leaves first. */
export class DynamicTable {
  readonly #ring: (TableField | undefined)[] = []
  #newest = -1
  #count = 0
  #size = 0
  #limit = TABLE_BYTES

  get size(): number {
    return this.#size
  }
  get count(): number {
    return this.#count
  }

  /** Sets how large it may be (RFC 7541 §4.3). */
  limit(size: number): void {
    this.#limit = size
    this.#evict(0)
  }

  /** Adds an entry; one that is larger than the whole table empties it (RFC 7541 §4.4). */
  add(field: TableField): void {
    this.#evict(field.size)
    if (field.size > this.#limit) return
    this.#newest = (this.#newest + 1) % SLOTS
    this.#ring[this.#newest] = field
    this.#count += 1
    this.#size += field.size
  }

  /** The entry that came before so many others. */
  at(age: number): TableField | undefined {
    if (age >= this.#count) return undefined
    return this.#ring[(this.#newest - age + SLOTS) % SLOTS]
  }

  #evict(room: number): void {
    while (this.#count > 0 && this.#size + room > this.#limit) {
      const oldest = (this.#newest - this.#count + 1 + SLOTS) % SLOTS
      this.#size -= (this.#ring[oldest] as TableField).size
      this.#ring[oldest] = undefined
      this.#count -= 1
    }
  }
}
