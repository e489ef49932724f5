import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { systemClock } from '../../src/lib/clock.ts'
import { Secret } from '../../src/lib/secret.ts'
import { openStore } from '../../src/store/open.ts'
import type { CredentialRecord, Store } from '../../src/store/store.ts'

/** A folder for a store file that goes with its scope. */
export class StoreFolder implements AsyncDisposable {
  readonly path = mkdtempSync(join(tmpdir(), 'cupbearer-store-'))
  readonly file = join(this.path, 'cupbearer.db')
  readonly url = `file:${this.file}`
  readonly #stores: Store[] = []

  async open(key?: Secret): Promise<Store> {
    const store = await openStore(this.url, { key, clock: systemClock })
    this.#stores.push(store)
    return store
  }

  /** Every file with its bytes, to tell whether anything was touched. */
  contents(): Map<string, string> {
    const names = readdirSync(this.path).sort()
    return new Map(names.map((name) => [name, readFileSync(join(this.path, name), 'latin1')]))
  }

  async [Symbol.asyncDispose](): Promise<void> {
    try {
      for (const store of this.#stores) await store.close()
    } finally {
      rmSync(this.path, { recursive: true, force: true })
    }
  }
}

/** A credential with everything set, recognisable by its generation. */
export function credentialRecord(
  generation: number,
  changes: Partial<CredentialRecord> = {},
): CredentialRecord {
  return {
    generation,
    fingerprint: 'fingerprint',
    token: new Secret(`token-${generation}`),
    refreshToken: new Secret(`refresh-${generation}`),
    issuedAt: 1_700_000_000_000,
    expiresAt: 1_700_000_060_000,
    scopes: ['read', 'write'],
    subject: 'subject',
    egress: 'direct',
    ...changes,
  }
}
