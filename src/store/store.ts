import type { Secret } from '../lib/secret.ts'
import type { SharedStore } from './shared.ts'

/** All that outlives the process of one credential. Times are ms since the epoch. */
export interface CredentialRecord {
  /** Counts tokens of this credential; a lower one never replaces a higher one. */
  generation: number
  /** Hash of the source's configuration: a changed source starts afresh. */
  fingerprint: string
  token?: Secret | undefined
  refreshToken?: Secret | undefined
  /** Private JWK that the tokens are bound to (RFC 9449). */
  dpopKey?: Secret | undefined
  /** The learned request that renews it: endpoint, client and more, as JSON. */
  renewal?: Secret | undefined
  issuedAt?: number | undefined
  expiresAt?: number | undefined
  scopes?: readonly string[] | undefined
  /** Ages at which upstream refused tokens before their time, ms. */
  learned?: readonly number[] | undefined
  subject?: string | undefined
  /** The egress this credential is pinned to. */
  egress: string
  quarantine?: { until: number; failures: number; reason: string } | undefined
  revoked?: { at: number; reason: string } | undefined
}

/** How much of one limit is used: `[time of use, how many]`, oldest first. Times are ms since the epoch. */
export interface UsageRecord {
  /**
   * Key `count/windowMs` of a rate → its log. The whole record is written for each request: a log that
   * lumps neighbouring uses together (some 60 entries) costs about 20 µs, one of 1,000 entries ten times that.
   */
  windows: Record<string, [number, number][]>
  /** Uses of the token of `generation`, for `limits.uses`. */
  uses: number
  generation: number
}

/**
 * Durable state. Tokens are sealed before they reach a disk or a network; usage holds no secret and is plain.
 * Records go in and come out as copies: changing one afterwards changes nothing in the store.
 * Errors: `STORE_CORRUPT`, `STORE_KEY_WRONG`, `STORE_IN_USE` at opening, `STORE_FAILED` later. After a
 * `STORE_FAILED` the store keeps what it had, and works again once the fault is gone.
 */
export interface Store {
  /** What several instances share beside records; undefined where a store serves one process. */
  readonly shared?: SharedStore | undefined
  /** What is known of one pool, by credential id; of these ids alone where they are given. */
  load(
    pool: string,
    ids?: ReadonlySet<string>,
  ): Promise<Map<string, { record: CredentialRecord; usage: UsageRecord | undefined }>>
  /** Reads one credential afresh: what is durable, without saves that are still under way. */
  read(pool: string, id: string): Promise<CredentialRecord | undefined>
  /**
   * Resolves once the record is durable against a crash of the machine. Saves and removals land in the order
   * of the calls. A record with a lower generation than the stored one is refused with `STORE_FAILED`; the
   * same generation replaces.
   */
  save(pool: string, id: string, record: CredentialRecord): Promise<void>
  /** Synchronous and durable against a crash of the process: written before the request it counts is sent. */
  saveUsage(pool: string, id: string, usage: UsageRecord): void
  /** Forgets a credential and its usage; its generations may start afresh. */
  remove(pool: string, id: string): Promise<void>
  /** Waits for saves under way, then lets go of every file; calling it again does nothing. */
  close(): Promise<void>
}
