import { CupbearerError } from '../errors.ts'
import { Secret } from '../lib/secret.ts'
import type { CredentialRecord, UsageRecord } from './store.ts'

/** Writes a credential with its secrets in the clear: only to be sealed or kept in memory. */
export function encodeRecord(record: CredentialRecord): string {
  return JSON.stringify({
    ...record,
    token: record.token?.reveal(),
    refreshToken: record.refreshToken?.reveal(),
    dpopKey: record.dpopKey?.reveal(),
    renewal: record.renewal?.reveal(),
  })
}

type EncodedRecord = Omit<CredentialRecord, 'token' | 'refreshToken' | 'dpopKey' | 'renewal'> & {
  token?: string
  refreshToken?: string
  dpopKey?: string
  renewal?: string
}

/** Reads what `encodeRecord` wrote; the text is trusted, since it was sealed or never left the process. */
export function decodeRecord(text: string): CredentialRecord {
  const { token, refreshToken, dpopKey, renewal, ...rest } = JSON.parse(text) as EncodedRecord
  return {
    ...rest,
    ...(token !== undefined && { token: new Secret(token) }),
    ...(refreshToken !== undefined && { refreshToken: new Secret(refreshToken) }),
    ...(dpopKey !== undefined && { dpopKey: new Secret(dpopKey) }),
    ...(renewal !== undefined && { renewal: new Secret(renewal) }),
  }
}

/** Reads a usage record that was kept as plain JSON. */
export function decodeUsage(text: string, owner: string): UsageRecord {
  try {
    return JSON.parse(text) as UsageRecord
  } catch {
    // No cause: the parser's message quotes what it read.
    throw new CupbearerError('STORE_CORRUPT', `the stored usage of ${owner} is damaged`)
  }
}

/** The refusal of a record that is older than the stored one, or another of the same generation. */
export class StaleGeneration extends CupbearerError {}

/** The refusal of a record that is older than the stored one. */
export function staleGeneration(pool: string, id: string, generation: number): StaleGeneration {
  return new StaleGeneration(
    'STORE_FAILED',
    `${pool}/${id}: generation ${generation} is older than the stored one`,
  )
}

/** The refusal of any call after `close`. */
export function storeClosed(): CupbearerError {
  return new CupbearerError('STORE_FAILED', 'the store is closed')
}
