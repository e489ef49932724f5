import { hashText, rendezvous } from './hash.ts'

/**
 * Which egress a credential leaves by: what its configuration says, else the one it had, while the pool
 * still lists it, else a choice that spreads the credentials and stays when the list grows elsewhere.
 */
export function pinnedEgress(
  key: string,
  configured: string | undefined,
  persisted: string | undefined,
  listed: readonly string[],
): string {
  if (configured !== undefined) return configured
  if (persisted !== undefined && listed.includes(persisted)) return persisted
  return rendezvous(key, listed, hashText) as string
}
