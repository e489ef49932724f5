import type { PoolConfig } from '../../config/schema.ts'
import type { Lease, PoolStatus, TokenPool } from '../../pool/lease.ts'
import { mergeLimits } from '../../pool/limits.ts'
import type { PrimaryPool } from './leases.ts'

/** A larger pool is asked each time: to tell of all its tokens would cost more. */
const MAX_FREE = 256

/**
 * The tokens of a pool that workers may use without asking, as leases that have ended already: those that serve
 * now, where no credential has a limit to keep. Then nobody waits and nothing is counted that must not be passed.
 */
export function freeLeases(
  pool: TokenPool & { status(): PoolStatus },
  config: PoolConfig | undefined,
): Lease[] {
  if (!config || !isUnlimited(config)) return []
  const { credentials } = pool.status()
  // One that is away comes back by the requests that try it: the pool must see them all.
  if (credentials.some(({ state }) => state === 'cooling' || state === 'quarantined')) return []
  return credentials.flatMap(({ id, state }) => {
    if (state !== 'active') return []
    try {
      const lease = pool.lease({ credential: id, remote: true })
      if (!lease) return []
      pool.settle(lease, { kind: 'unknown' })
      return [lease]
    } catch {
      return []
    }
  })
}

/** What a worker has to know of a pool. */
export function factsOf({ inject, limits, credentials }: PoolConfig): Omit<PrimaryPool, 'pool'> {
  return {
    claims: Array.from(inject.value.matchAll(/\{claim:([^}]+)\}/g), ([, name]) => String(name)),
    calm: credentials.every(
      (credential) => mergeLimits(limits, credential.limits).concurrency === undefined,
    ),
  }
}

function isUnlimited({ limits, credentials }: PoolConfig): boolean {
  if (credentials.length > MAX_FREE) return false
  return credentials.every((credential) => {
    const { rate, concurrency, uses } = mergeLimits(limits, credential.limits)
    return rate.length === 0 && concurrency === undefined && uses === undefined
  })
}
