import type { Skipped } from '../events.ts'
import type { Credential } from './credential.ts'
import type { PassedOver } from './lease.ts'
import { holds, missing } from './needs.ts'
import type { Want } from './select.ts'

/** As many are told of, and looked at: a pool may have thousands. */
const MAX_TOLD = 8
const MAX_LOOKED_AT = 64

/** What is to be known of a pool to say who could not be had. */
interface Candidates {
  readonly byId: ReadonlyMap<string, Credential>
  isReady(credential: Credential): boolean
}

/**
 * Which credentials a request could not have, and why. For a trace, and only where the first choice was not at
 * hand: it looks at one after the other.
 */
export function passedOver(
  stock: Candidates,
  want: Want,
  now: number,
  chosen?: Credential,
): PassedOver {
  const skipped: Skipped[] = []
  // Whom the request is bound to says most.
  if (want.only && want.only !== chosen) add(skipped, stock, want, want.only, now)
  let looked = 0
  for (const credential of stock.byId.values()) {
    if (skipped.length >= MAX_TOLD || looked >= MAX_LOOKED_AT) break
    looked += 1
    if (credential !== chosen && credential !== want.only) {
      add(skipped, stock, want, credential, now)
    }
  }
  // Those that were not looked at count as passed over: nobody asked whether they could be had.
  return { skipped, more: stock.byId.size - looked }
}

function add(
  skipped: Skipped[],
  stock: Candidates,
  want: Want,
  credential: Credential,
  now: number,
): void {
  const why = whyNot(stock, want, credential, now)
  if (why !== undefined) skipped.push({ credential: credential.id, why })
}

function whyNot(
  stock: Candidates,
  { request, only }: Want,
  credential: Credential,
  now: number,
): string | undefined {
  if (request.exclude?.has(credential.id)) return 'tried already'
  if (only && only !== credential) return `the request keeps to ${only.id}`
  if (credential.revoked) return withReason('revoked', credential)
  if (holds(credential.token, request) === 'no')
    return `lacks ${missing([credential.token], request)}`
  const { lane } = credential.settings
  if (credential.canary && credential.limits.inFlight > 0) {
    return 'another request tries whether it works again'
  }
  switch (credential.state(now)) {
    case 'quarantined':
      if (!credential.canary) return withReason('quarantined', credential)
      break
    case 'pending':
      return credential.token ? 'its token is being renewed' : 'has no token yet'
    case 'cooling':
      if (!lane.rests) {
        return credential.hasLiveToken(now) ? 'upstream limited it' : 'its token is being renewed'
      }
  }
  if (lane.rests) return `egress ${lane.name} is down`
  const freeAt = credential.limits.freeAt(now)
  if (freeAt > now) {
    return Number.isFinite(freeAt)
      ? 'its rate limit is reached'
      : 'as many requests run as it may have'
  }
  // Ready, and yet not taken: another one came first.
  return stock.isReady(credential) ? undefined : 'not ready'
}

function withReason(what: string, { lastError }: Credential): string {
  return lastError === undefined ? what : `${what}: ${lastError}`
}
