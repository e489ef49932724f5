import { chmodSync, existsSync } from 'node:fs'
import { CupbearerError } from '../errors.ts'
import type { Clock } from '../lib/clock.ts'
import type { Secret } from '../lib/secret.ts'
import { attach, type Connection, detach, type FileLock, lockFile, storeError } from './database.ts'
import { checkDatabase, createDatabase, locate, storeExists } from './file.ts'
import { findKey } from './key.ts'
import { decodeRecord, decodeUsage, encodeRecord, staleGeneration, storeClosed } from './record.ts'
import { Sealer } from './seal.ts'
import type { CredentialRecord, Store, UsageRecord } from './store.ts'

/** Saves that are made durable together; the rest waits for the next turn of the event loop. */
const MAX_BATCH = 256

/** Pages in the log before they go into the file: 16 MiB, so that few usage writes wait for the disk. */
const CHECKPOINT_PAGES = 4000

/** Opens, or makes, a store file for this process alone. */
export async function openSqliteStore(
  path: string,
  options: { key: Secret | undefined; clock: Clock },
): Promise<Store> {
  let file = path
  let lock: FileLock | undefined
  let database: Connection | undefined
  try {
    file = locate(path)
    lock = lockFile(file)
    const exists = storeExists(file)
    const sealer = await Sealer.create(findKey(file, exists, options.key))
    if (exists) await checkDatabase(file, sealer)
    else await createDatabase(file, sealer, options.clock.now())
    for (const name of [file, `${file}-wal`]) if (existsSync(name)) chmodSync(name, 0o600)
    database = attach(file, 'write')
    return new SqliteStore(file, database, lock, sealer)
  } catch (error) {
    if (database !== undefined) detach(database)
    lock?.release()
    throw storeError(error, file)
  }
}

/** A save or a removal on its way to the disk. */
interface Write {
  readonly pool: string
  readonly id: string
  /** Undefined removes. */
  readonly record: { readonly generation: number; readonly sealed: Promise<string> } | undefined
  readonly resolve: () => void
  readonly reject: (error: unknown) => void
}

/**
 * State in one SQLite file with a write-ahead log.
 * One connection does both kinds of write: a save commits with `synchronous = FULL`, which syncs the log up to
 * and including itself; usage commits with `NORMAL`, which leaves the syncing to the system (sqlite.org/pragma).
 */
class SqliteStore implements Store {
  readonly #file: string
  readonly #database: Connection
  readonly #lock: FileLock
  readonly #sealer: Sealer
  readonly #statements: ReturnType<typeof prepare>
  #queue: Write[] = []
  #draining: Promise<void> | undefined
  #closed: Promise<void> | undefined

  constructor(file: string, database: Connection, lock: FileLock, sealer: Sealer) {
    this.#file = file
    this.#database = database
    this.#lock = lock
    this.#sealer = sealer
    database.exec(
      `PRAGMA store.synchronous = NORMAL; PRAGMA wal_autocheckpoint = ${CHECKPOINT_PAGES}`,
    )
    this.#statements = prepare(database)
  }

  async load(
    pool: string,
    ids?: ReadonlySet<string>,
  ): Promise<Map<string, { record: CredentialRecord; usage: UsageRecord | undefined }>> {
    if (ids?.size === 0) return new Map()
    const rows = this.#run(() => this.#statements.load.all(pool)) as LoadedRow[]
    const wanted = ids ? rows.filter(({ id }) => ids.has(id)) : rows
    const entries = await Promise.all(
      wanted.map(async ({ id, sealed, data }) => {
        const record = decodeRecord(await this.#sealer.open({ pool, id }, sealed))
        const usage = data === null ? undefined : decodeUsage(data, `${pool}/${id}`)
        return [id, { record, usage }] as const
      }),
    )
    return new Map(entries)
  }

  async read(pool: string, id: string): Promise<CredentialRecord | undefined> {
    const row = this.#run(() => this.#statements.read.get(pool, id)) as SealedRow | undefined
    if (row === undefined) return undefined
    return decodeRecord(await this.#sealer.open({ pool, id }, row.sealed))
  }

  save(pool: string, id: string, record: CredentialRecord): Promise<void> {
    const sealed = this.#sealer.seal({ pool, id }, encodeRecord(record))
    // Watched at once: it may fail while an earlier batch is still being written.
    sealed.catch(() => {})
    return this.#enqueue(pool, id, { generation: record.generation, sealed })
  }

  saveUsage(pool: string, id: string, usage: UsageRecord): void {
    this.#run(() => this.#statements.saveUsage.run(pool, id, JSON.stringify(usage)))
  }

  remove(pool: string, id: string): Promise<void> {
    return this.#enqueue(pool, id, undefined)
  }

  close(): Promise<void> {
    this.#closed ??= Promise.resolve(this.#draining).then(() => {
      try {
        detach(this.#database)
      } catch (error) {
        throw storeError(error, this.#file)
      } finally {
        this.#lock.release()
      }
    })
    return this.#closed
  }

  #enqueue(pool: string, id: string, record: Write['record']): Promise<void> {
    if (this.#closed !== undefined) return Promise.reject(storeClosed())
    return new Promise((resolve, reject) => {
      this.#queue.push({ pool, id, record, resolve, reject })
      this.#draining ??= this.#drain()
    })
  }

  /** Writes the queue in the order of the calls, whatever the order in which the sealing ends. */
  async #drain(): Promise<void> {
    while (this.#queue.length > 0) {
      const batch = this.#queue.splice(0, MAX_BATCH)
      const sealed = await Promise.allSettled(batch.map((write) => write.record?.sealed))
      try {
        const settle = this.#commit(batch, sealed)
        for (const tell of settle) tell()
      } catch (error) {
        for (const write of batch) write.reject(storeError(error, this.#file))
      }
    }
    // In the same turn as the look at the queue: a save that came between would wait for ever.
    this.#draining = undefined
  }

  /** One transaction, one sync. Nobody is told before the commit has returned. */
  #commit(
    batch: readonly Write[],
    sealed: readonly PromiseSettledResult<string | undefined>[],
  ): (() => void)[] {
    const { save, remove, removeUsage } = this.#statements
    const database = this.#database
    database.exec('PRAGMA store.synchronous = FULL')
    try {
      database.exec('BEGIN IMMEDIATE')
      const settle = batch.map((write, index) => {
        const { pool, id, record, resolve, reject } = write
        const value = sealed[index] as PromiseSettledResult<string | undefined>
        if (value.status === 'rejected') {
          const message = `${pool}/${id} cannot be sealed`
          return () => reject(new CupbearerError('STORE_FAILED', message, { cause: value.reason }))
        }
        if (record === undefined) {
          remove.run(pool, id)
          removeUsage.run(pool, id)
          return resolve
        }
        const { changes } = save.run(pool, id, record.generation, value.value as string)
        return changes === 1 ? resolve : () => reject(staleGeneration(pool, id, record.generation))
      })
      database.exec('COMMIT')
      return settle
    } catch (error) {
      // A failed write may have ended the transaction by itself (sqlite.org/lang_transaction §3).
      if (database.inTransaction) database.exec('ROLLBACK')
      throw error
    } finally {
      database.exec('PRAGMA store.synchronous = NORMAL')
    }
  }

  #run<Result>(query: () => Result): Result {
    if (this.#closed !== undefined) throw storeClosed()
    try {
      return query()
    } catch (error) {
      throw storeError(error, this.#file)
    }
  }
}

interface SealedRow {
  readonly sealed: string
}

interface LoadedRow extends SealedRow {
  readonly id: string
  readonly data: string | null
}

function prepare(database: Connection) {
  return {
    load: database.prepare<[string]>(
      `SELECT id, sealed, data FROM store.credentials LEFT JOIN store.usage USING (pool, id) WHERE pool = ?`,
    ),
    read: database.prepare<[string, string]>(
      'SELECT sealed FROM store.credentials WHERE pool = ? AND id = ?',
    ),
    save: database.prepare<[string, string, number, string]>(
      `INSERT INTO store.credentials VALUES (?, ?, ?, ?) ON CONFLICT (pool, id) DO UPDATE
       SET generation = excluded.generation, sealed = excluded.sealed
       WHERE excluded.generation >= generation`,
    ),
    saveUsage: database.prepare<[string, string, string]>(
      `INSERT INTO store.usage VALUES (?, ?, ?) ON CONFLICT (pool, id) DO UPDATE SET data = excluded.data`,
    ),
    remove: database.prepare<[string, string]>(
      'DELETE FROM store.credentials WHERE pool = ? AND id = ?',
    ),
    removeUsage: database.prepare<[string, string]>(
      'DELETE FROM store.usage WHERE pool = ? AND id = ?',
    ),
  }
}
