import { resolve } from 'node:path'
import { ConfigError } from '../errors.ts'
import type { Clock } from '../lib/clock.ts'
import type { Secret } from '../lib/secret.ts'
import { MemoryStore } from './memory.ts'
import type { Store } from './store.ts'

export interface StoreOptions {
  /** 32 bytes in base64; undefined reads the generated key file beside the store, and makes it with a new store. */
  readonly key: Secret | undefined
  readonly clock: Clock
}

/**
 * Opens the store that a URL names: `memory:`, `file:PATH`, made if absent, or one that instances share, `redis://…`.
 * Throws `STORE_CORRUPT`, `STORE_KEY_WRONG`, `STORE_IN_USE`, `STORE_FAILED` (cannot be read or written, or is
 * of a newer version) and `CONFIG_INVALID` (the key); a store that is refused is left as it was.
 */
export async function openStore(url: string, options: StoreOptions): Promise<Store> {
  if (url === 'memory:') return new MemoryStore()
  if (/^file:./.test(url)) {
    // The database engine is loaded only where there is a file.
    const { openSqliteStore } = await import('./sqlite.ts')
    return openSqliteStore(resolve(url.slice('file:'.length)), options)
  }
  if (/^rediss?(\+\w+)?:/.test(url)) {
    const { openRedisStore } = await import('./redis.ts')
    return openRedisStore(url, options)
  }
  throw new ConfigError([{ path: 'store', message: 'expected memory:, file:PATH or redis://…' }])
}
