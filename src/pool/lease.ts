import type { RenewalCall, Skipped } from '../events.ts'
import type { Secret } from '../lib/secret.ts'
import type { DpopKey } from '../token/dpop.ts'

/** What a request needs of a token. */
export interface LeaseRequest {
  /** Stick to one credential for this key. */
  readonly session?: string | undefined
  /** Only this credential (a hint of the client's, or a replay with a renewed token). */
  readonly credential?: string | undefined
  /** Scopes that the token must hold. */
  readonly scopes?: readonly string[] | undefined
  /** Claims that the token must hold: name or JSON pointer, and the value that it must be or have in its list. */
  readonly claims?:
    | readonly (readonly [name: string, value: string | number | boolean])[]
    | undefined
  /** An egress to keep to where the choice is free, so that a second try differs in one thing only. */
  readonly near?: string | undefined
  /** Credentials that this exchange has tried already. */
  readonly exclude?: ReadonlySet<string> | undefined
  /** How long it would wait, in ms; never longer than the pool's `queue.wait`. */
  readonly waitMs?: number | undefined
  /** Sent by somebody else, who may never tell how it ended: nothing is made to depend on that. */
  readonly remote?: boolean | undefined
}

/** Candidates that a request could not have, a few of them, and how many were not looked at. */
export interface PassedOver {
  readonly skipped: Skipped[]
  readonly more: number
}

/** The right to send one request with one token. Every lease is settled exactly once. */
export interface Lease {
  readonly pool: string
  /** The credential's id, unique within its pool. */
  readonly credential: string
  /** `pool/credential`: its connections are shared with no other's. */
  readonly key: string
  readonly generation: number
  readonly token: Secret
  /** When the token ends, ms since the epoch; undefined where that is not known. */
  readonly expiresAt?: number | undefined
  /** The key that the token is bound to: whoever sends it must prove that they hold it (RFC 9449). */
  readonly dpopKey?: DpopKey | undefined
  /** Name of the only egress that this token may leave by. */
  readonly egress: string
  /** Headers fixed for the credential, flat `[name, value, …]`. */
  readonly headers: readonly string[]
  /** Who could not be had instead; undefined where the first choice was at hand. */
  readonly passedOver?: PassedOver | undefined
  /** A claim of the token's, for templates; empty when there is none. */
  claim(name: string): string
  /**
   * Says that the request's bytes leave now. Limits count from this moment: until then the lease holds
   * its place in every window.
   */
  dispatched(): void
}

/** How an attempt ended, as far as the credential is concerned. */
export type Outcome =
  | { readonly kind: 'ok' }
  /** Nothing about the token was learned: client gone, upstream failed. */
  | { readonly kind: 'unknown' }
  | { readonly kind: 'expired' }
  /** `retryAfterMs` as upstream told; undefined where it didn't. */
  | { readonly kind: 'limited'; readonly retryAfterMs: number | undefined }
  | { readonly kind: 'denied' }
  /** The egress failed before a byte was sent. */
  | { readonly kind: 'egress-down' }

/** What came of an `expired` answer. */
export interface Recovery {
  /**
   * - `stale`: a newer generation is there already, nothing was renewed
   * - `renewed`: a new token is there
   * - `failed`: no new token; `quarantined` tells whether the credential left the pool
   */
  readonly result: 'stale' | 'renewed' | 'failed'
  readonly quarantined: boolean
  readonly reason: string | undefined
  /** Undefined when no refresh was needed or allowed. */
  readonly refresh:
    | {
        readonly role: 'led' | 'joined'
        readonly ms: number
        /** Trace id of the renewal's own record. */
        readonly trace?: string | undefined
        readonly calls?: readonly RenewalCall[] | undefined
      }
    | undefined
}

/** Who waits for a lease. Most get one at once: the signal, which costs time to make, is asked for only then. */
export interface Waiter {
  readonly signal: AbortSignal
}

/** What an exchange asks of a pool, be it in this process or behind a pipe. */
export interface TokenPool {
  readonly name: string
  /** A lease at once, or undefined where `wait` must be asked. Throws `WireError` for a hopeless request. */
  lease(request: LeaseRequest): Lease | undefined
  /**
   * A lease as soon as there is one. Rejects with `WireError`, or with the signal's reason; who has gone may still
   * be given one, and has to settle it.
   */
  wait(request: LeaseRequest, waiter: Waiter): Promise<Lease>
  /** Ends a lease with what was learned; a second time is ignored. */
  settle(lease: Lease, outcome: Outcome): void
  /** Heals an `expired` answer: renews the token, once for all who ask. */
  recover(lease: Lease): Promise<Recovery>
  /** Rests the credentials of an egress that upstream limits as a whole. */
  coolEgress(egress: string, ms: number, reason: string): void
}

/** Where one credential stands; times are ms since the epoch. Holds no secret. */
export interface CredentialStatus {
  readonly id: string
  readonly state: 'pending' | 'active' | 'cooling' | 'quarantined' | 'revoked'
  readonly egress: string
  readonly generation: number
  readonly subject: string | undefined
  readonly scopes: readonly string[] | undefined
  readonly issuedAt: number | undefined
  readonly expiresAt: number | undefined
  /** How the end is known: from the token, from what came with it, from early refusals, or not. */
  readonly lifetime: 'jwt' | 'expires_in' | 'learned' | 'unknown'
  readonly refreshAt: number | undefined
  readonly uses: number
  readonly inFlight: number
  readonly limits: readonly {
    readonly limit: string
    readonly used: number
    readonly max: number
  }[]
  readonly cooldownUntil: number | undefined
  readonly lastError: string | undefined
}

export interface PoolStatus {
  readonly name: string
  readonly targets: readonly string[]
  readonly status: 'healthy' | 'degraded' | 'exhausted'
  /** Why the other instances cannot be heard, or what could not be stored; undefined when all is well. */
  readonly trouble?: string | undefined
  readonly tokens: Readonly<
    Record<'active' | 'cooling' | 'quarantined' | 'pending' | 'revoked', number>
  >
  /** Over tokens whose end is known; undefined when there is none. */
  readonly avgTtlRemainingSeconds: number | undefined
  /** 0 to 1; undefined before the first refresh. */
  readonly refreshSuccessRate: number | undefined
  /** Requests of the last minute ÷ tokens in use. */
  readonly requestsPerTokenPerMinute: number
  /** Refreshes ÷ requests since start; the first fetch of a token counts too. 0 before the first request. */
  readonly authOverhead: number
  readonly waiting: number
  readonly credentials: readonly CredentialStatus[]
}
