import type { PinnedConnect, PinnedFetch } from '../sources/source.ts'
import type { RefreshPolicy } from '../token/lifetime.ts'
import type { Lane } from './lane.ts'

/** What of a credential the configuration says and a reload may change. */
export interface CredentialSettings {
  /** `pool/credential`. */
  readonly key: string
  /** The host it asks for tokens, where that is known. */
  host: string | undefined
  index: number
  lane: Lane
  headers: readonly string[]
  policy: RefreshPolicy
  fetch: PinnedFetch
  connect: PinnedConnect | undefined
  /**
   * Of instances that share a store: may they renew without each other (`free`), only one at a time (`in-turn`), or
   * does a renewal use up what may be used once (`once`)?
   */
  sharing: 'free' | 'in-turn' | 'once'
}
