import type { CredentialState } from '../events.ts'
import { onlyParameters, type Query, readChoice, readInteger, readText } from './query.ts'

/** In the order in which they are shown. */
export const STATES = ['active', 'cooling', 'quarantined', 'pending', 'revoked'] as const

export const SORTS = ['configured', 'id', 'trouble', 'expiry', 'uses'] as const
const NAMES = ['state', 'egress', 'search', 'sort', 'offset', 'limit']
const MAX_LIMIT = 1000

/** Which credentials of a pool to show, and in which order. */
export interface CredentialQuery {
  readonly state: CredentialState | undefined
  readonly egress: string | undefined
  /** In lower case; looked for in id, subject, egress and last error. */
  readonly search: string | undefined
  readonly sort: (typeof SORTS)[number]
  readonly offset: number
  readonly limit: number
}

/** Reads the query of a page of credentials; says which parameter is wrong. */
export function readCredentialQuery(query: Query): CredentialQuery {
  onlyParameters(query, NAMES)
  return {
    state: readChoice(query, 'state', STATES),
    egress: readText(query, 'egress'),
    search: readText(query, 'search')?.toLowerCase(),
    sort: readChoice(query, 'sort', SORTS) ?? 'configured',
    offset: readInteger(query, 'offset', 0, 9_999_999) ?? 0,
    limit: readInteger(query, 'limit', 1, MAX_LIMIT) ?? 100,
  }
}
