import { randomUUID } from 'node:crypto'
import { ConfigError, CupbearerError } from '../errors.ts'
import { parseKey } from './key.ts'
import type { StoreOptions } from './open.ts'
import { decodeRecord, encodeRecord, staleGeneration, storeClosed } from './record.ts'
import { RedisLink } from './redis-link.ts'
import { RedisPool } from './redis-pool.ts'
import { REMOVE, SAVE } from './redis-scripts.ts'
import { parseRedisUrl, type RedisTarget } from './redis-url.ts'
import { Sealer } from './seal.ts'
import type { SharedListener, SharedPool, SharedStore } from './shared.ts'
import type { CredentialRecord, Store, UsageRecord } from './store.ts'

/** Clocks that differ by less are taken for equal. */
const SKEW_MS = 1000
const CANARY = { pool: '', id: '' }

/** Opens the store that several instances share. Throws `CONFIG_INVALID`, `STORE_FAILED`, `STORE_KEY_WRONG`. */
export async function openRedisStore(url: string, options: StoreOptions): Promise<Store> {
  const target = parseRedisUrl(url)
  const key = options.key && parseKey(options.key.reveal())
  if (!key) {
    const message = 'expected the 32 bytes in base64 that all instances of a shared store have'
    throw new ConfigError([{ path: 'storeKey', message }])
  }
  const sealer = await Sealer.create(key)
  const canary = await sealer.seal(CANARY, 'cupbearer')
  const link = new RedisLink(target)
  await link.open()
  return new RedisStore({ target, link, sealer, canary, clock: options.clock })
}

interface RedisStoreOptions {
  readonly target: RedisTarget
  readonly link: RedisLink
  readonly sealer: Sealer
  readonly canary: string
  readonly clock: StoreOptions['clock']
}

class RedisStore implements Store, SharedStore {
  readonly #options: RedisStoreOptions
  readonly #instance = randomUUID()
  readonly #pools = new Map<string, RedisPool>()
  readonly #writes = new Map<string, Promise<void>>()
  /** How far the server's clock is ahead of this machine's; 0 where they agree. */
  #skew = 0
  #closed: Promise<void> | undefined

  constructor(options: RedisStoreOptions) {
    this.#options = options
  }

  get shared(): SharedStore {
    return this
  }

  join(pool: string, listener: SharedListener): SharedPool {
    const joined = this.#pool(pool)
    joined.listen(listener)
    return joined
  }

  async load(
    pool: string,
    ids?: ReadonlySet<string>,
  ): Promise<Map<string, { record: CredentialRecord; usage: UsageRecord | undefined }>> {
    const shared = this.#pool(pool)
    await shared.joined
    const key = shared.key('versions')
    const wanted = ids ?? ((await this.#options.link.send(key, ['HKEYS', key])) as string[])
    const found = new Map<string, { record: CredentialRecord; usage: undefined }>()
    for (const [id, { record }] of await shared.look([...wanted])) {
      if (record) found.set(id, { record, usage: undefined })
    }
    return found
  }

  async read(pool: string, id: string): Promise<CredentialRecord | undefined> {
    return (await this.#pool(pool).look([id])).get(id)?.record
  }

  save(pool: string, id: string, record: CredentialRecord): Promise<void> {
    const { sealer } = this.#options
    const text = encodeRecord(shift(record, this.#skew))
    const tag = record.token ? sealer.tag(record.token.reveal()) : ''
    const { generation } = record
    return this.#inTurn(pool, id, async (shared) => {
      const sealed = await sealer.seal({ pool, id }, text)
      const values = [shared.channel, this.#instance, id, generation, tag, sealed]
      const keys = ['meta', 'records', 'versions', 'changes']
      if ((await shared.run(SAVE, keys, values)) !== 1) throw staleGeneration(pool, id, generation)
    })
  }

  /** A shared store counts the uses itself: see `SharedPool.ask`. */
  saveUsage(): void {
    if (this.#closed) throw storeClosed()
  }

  remove(pool: string, id: string): Promise<void> {
    return this.#inTurn(pool, id, async (shared) => {
      const values = [shared.channel, this.#instance, id]
      const keys = ['meta', 'records', 'versions', 'changes', 'rests']
      const own = ['log', 'slots', 'line', 'claim'].map((name) => `${name}:${id}`)
      await shared.run(REMOVE, [...keys, ...own], values)
    })
  }

  close(): Promise<void> {
    this.#closed ??= this.#close()
    return this.#closed
  }

  async #close(): Promise<void> {
    await Promise.allSettled(this.#writes.values())
    await Promise.all([...this.#pools.values()].map((pool) => pool.leave()))
    await this.#options.link.close()
  }

  /** Writes of one credential land in the order of the calls, however long the sealing takes. */
  #inTurn(pool: string, id: string, job: (shared: RedisPool) => Promise<void>): Promise<void> {
    if (this.#closed) return Promise.reject(storeClosed())
    const shared = this.#pool(pool)
    const key = JSON.stringify([pool, id])
    const turn = (this.#writes.get(key) ?? Promise.resolve()).then(() => job(shared))
    const tail = turn
      .catch(() => {})
      .then(() => {
        if (this.#writes.get(key) === tail) this.#writes.delete(key)
      })
    this.#writes.set(key, tail)
    return turn
  }

  #pool(pool: string): RedisPool {
    if (this.#closed) throw storeClosed()
    const known = this.#pools.get(pool)
    if (known && !known.left) return known
    const { link, target, sealer, canary } = this.#options
    const made = new RedisPool(
      {
        link,
        pool,
        prefix: target.prefix,
        database: target.database,
        instance: this.#instance,
        canary: {
          sealed: canary,
          check: async (sealed) => {
            await sealer.open(CANARY, sealed).catch((error: unknown) => {
              const message = `${target.label} is sealed with another key`
              throw new CupbearerError('STORE_KEY_WRONG', message, { cause: error })
            })
          },
        },
        open: async (id, sealed) =>
          shift(decodeRecord(await sealer.open({ pool, id }, sealed)), -this.#skew),
        tellTime: (serverNow) => {
          const skew = serverNow - this.#options.clock.now()
          if (Math.abs(skew - this.#skew) > SKEW_MS / 2) {
            this.#skew = Math.abs(skew) < SKEW_MS ? 0 : Math.round(skew)
          }
        },
      },
      undefined,
    )
    this.#pools.set(pool, made)
    return made
  }
}

/** Moves a record's times between the server's clock and this machine's. */
function shift(record: CredentialRecord, ms: number): CredentialRecord {
  if (ms === 0) return record
  const { issuedAt, expiresAt, quarantine, revoked } = record
  return {
    ...record,
    issuedAt: issuedAt === undefined ? undefined : issuedAt + ms,
    expiresAt: expiresAt === undefined ? undefined : expiresAt + ms,
    quarantine: quarantine && { ...quarantine, until: quarantine.until + ms },
    revoked: revoked && { ...revoked, at: revoked.at + ms },
  }
}
