import type { Store } from '../store/store.ts'
import type { Credential } from './credential.ts'
import { tokenOf } from './roster.ts'

/**
 * RFC 6749 §5.2 `invalid_grant` may mean that another instance has rotated the token: the store knows. Takes its
 * token up where it is newer and alive; a try that has been superseded takes nothing.
 */
export async function adoptStored(
  { store, pool, now, jitter }: { store: Store; pool: string; now: () => number; jitter: number },
  credential: Credential,
  attempt: number,
): Promise<boolean> {
  const stored = await store.read(pool, credential.id).catch(() => undefined)
  if (!stored || credential.attempt !== attempt || stored.generation <= credential.generation) {
    return false
  }
  const token = stored.fingerprint === credential.fingerprint ? tokenOf(stored) : undefined
  if (!token || (token.expiresAt ?? Number.POSITIVE_INFINITY) <= now()) return false
  credential.adopt(token, stored.generation, jitter)
  return true
}
