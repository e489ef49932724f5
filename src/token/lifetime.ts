import type { TokenSet } from './token.ts'

/** When to renew: `ahead` is the share of lifetime left, `floorMs` the least lead. */
export interface RefreshPolicy {
  readonly ahead: number
  readonly floorMs: number
}

/**
 * The moment at which to renew a token, ms since the epoch; undefined for a token whose end is not known.
 *
 * The lead is `ahead` of the lifetime or the floor, whichever is more, but never more than half the
 * lifetime: else a short-lived token would be renewed as soon as it came. `jitter` (0 to 1) makes it earlier
 * within that half, by at most a quarter of the lead, so that tokens got together do not renew together.
 */
export function refreshAt(
  token: Pick<TokenSet, 'issuedAt' | 'expiresAt'>,
  policy: RefreshPolicy,
  jitter: number,
): number | undefined {
  const { issuedAt, expiresAt } = token
  if (expiresAt === undefined) return undefined
  const lifetime = Math.max(0, expiresAt - issuedAt)
  const lead = Math.min(Math.max(policy.ahead * lifetime, policy.floorMs), lifetime / 2)
  const earlier = Math.min((lead / 4) * Math.min(Math.max(jitter, 0), 1), lifetime / 2 - lead)
  return expiresAt - lead - earlier
}
