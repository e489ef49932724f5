import { decodeRecord, decodeUsage, encodeRecord, staleGeneration, storeClosed } from './record.ts'
import type { CredentialRecord, Store, UsageRecord } from './store.ts'

interface Entry {
  record?: { generation: number; text: string }
  usage?: string
}

/** State that ends with the process: `memory:`. Kept encoded, so that it copies just as a file does. */
export class MemoryStore implements Store {
  readonly #pools = new Map<string, Map<string, Entry>>()
  #closed = false

  async load(
    pool: string,
    ids?: ReadonlySet<string>,
  ): Promise<Map<string, { record: CredentialRecord; usage: UsageRecord | undefined }>> {
    this.#assertOpen()
    const found = new Map<string, { record: CredentialRecord; usage: UsageRecord | undefined }>()
    for (const [id, { record, usage }] of this.#pools.get(pool) ?? []) {
      if (record === undefined || ids?.has(id) === false) continue
      found.set(id, {
        record: decodeRecord(record.text),
        usage: usage === undefined ? undefined : decodeUsage(usage, `${pool}/${id}`),
      })
    }
    return found
  }

  async read(pool: string, id: string): Promise<CredentialRecord | undefined> {
    this.#assertOpen()
    const record = this.#pools.get(pool)?.get(id)?.record
    return record === undefined ? undefined : decodeRecord(record.text)
  }

  async save(pool: string, id: string, record: CredentialRecord): Promise<void> {
    const entry = this.#entry(pool, id)
    if (entry.record !== undefined && record.generation < entry.record.generation) {
      throw staleGeneration(pool, id, record.generation)
    }
    entry.record = { generation: record.generation, text: encodeRecord(record) }
  }

  saveUsage(pool: string, id: string, usage: UsageRecord): void {
    this.#entry(pool, id).usage = JSON.stringify(usage)
  }

  async remove(pool: string, id: string): Promise<void> {
    this.#assertOpen()
    this.#pools.get(pool)?.delete(id)
  }

  async close(): Promise<void> {
    this.#closed = true
    this.#pools.clear()
  }

  #entry(pool: string, id: string): Entry {
    this.#assertOpen()
    let entries = this.#pools.get(pool)
    if (entries === undefined) {
      entries = new Map()
      this.#pools.set(pool, entries)
    }
    let entry = entries.get(id)
    if (entry === undefined) {
      entry = {}
      entries.set(id, entry)
    }
    return entry
  }

  #assertOpen(): void {
    if (this.#closed) throw storeClosed()
  }
}
