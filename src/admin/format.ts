import type { CredentialStatus, PoolStatus } from '../pool/lease.ts'

/** A pool's figures as the API shows them: ISO times, `null` for what is not known, never a token. */
export function formatSummary(pool: PoolStatus) {
  return {
    name: pool.name,
    targets: pool.targets,
    status: pool.status,
    trouble: pool.trouble ?? null,
    tokens: pool.tokens,
    avgTtlRemainingSeconds: rounded(pool.avgTtlRemainingSeconds),
    refreshSuccessRate: rounded(pool.refreshSuccessRate),
    requestsPerTokenPerMinute: rounded(pool.requestsPerTokenPerMinute),
    authOverhead: rounded(pool.authOverhead),
    waiting: pool.waiting,
  }
}

/** A pool with its credentials. */
export function formatPool(
  pool: PoolStatus,
  egressAddress: (egress: string) => string | undefined,
) {
  return {
    ...formatSummary(pool),
    credentials: pool.credentials.map((credential) =>
      formatCredential(credential, egressAddress(credential.egress)),
    ),
  }
}

/** One credential; fields are named one by one, so that nothing new slips out. */
export function formatCredential(status: CredentialStatus, egressAddress: string | undefined) {
  return {
    id: status.id,
    state: status.state,
    egress: status.egress,
    egressAddress: egressAddress ?? null,
    generation: status.generation,
    subject: status.subject ?? null,
    scopes: status.scopes ?? null,
    issuedAt: time(status.issuedAt),
    expiresAt: time(status.expiresAt),
    lifetime: status.lifetime,
    refreshAt: time(status.refreshAt),
    uses: status.uses,
    inFlight: status.inFlight,
    limits: status.limits.map(({ limit, used, max }) => ({ limit, used, max })),
    cooldownUntil: time(status.cooldownUntil),
    lastError: status.lastError ?? null,
  }
}

/** A token may claim an end that no calendar holds; it is shown as unknown. */
function time(ms: number | undefined): string | null {
  return ms === undefined || !(Math.abs(ms) <= 8.64e15) ? null : new Date(ms).toISOString()
}

function rounded(value: number | undefined): number | null {
  return value === undefined ? null : Math.round(value * 1e4) / 1e4
}
