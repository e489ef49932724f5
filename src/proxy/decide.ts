import { WireError } from '../errors.ts'
import { type Authority, formatAuthority } from '../lib/authority.ts'
import type { Route, Router } from '../route/match.ts'
import type { PassthroughPolicy } from '../route/passthrough.ts'

/** What one configuration says of destinations. */
export interface Destinations {
  readonly router: Router
  readonly passthrough: PassthroughPolicy
  /** Whether a name or address is one of our own listeners. */
  isOwn(authority: Authority): boolean
}

export type Decision =
  | {
      readonly kind: 'intercept'
      readonly https: Route | undefined
      readonly http: Route | undefined
    }
  | { readonly kind: 'tunnel' }
  | { readonly kind: 'refuse'; readonly error: WireError }

/** What becomes of a CONNECT: a pure judgement over the configuration. */
export function decide(destinations: Destinations, authority: Authority): Decision {
  if (destinations.isOwn(authority)) {
    return refuse('the proxy does not connect to itself')
  }
  const https = destinations.router.find('https', authority)
  const http = destinations.router.find('http', authority)
  if (https || http) return { kind: 'intercept', https, http }
  if (destinations.passthrough.refusesName(authority)) {
    return refuse(`${formatAuthority(authority)} is not a destination that this proxy serves`)
  }
  return { kind: 'tunnel' }
}

function refuse(message: string): Decision {
  return { kind: 'refuse', error: new WireError('DESTINATION_DENIED', message) }
}
