/** What the admin API sends, as far as the dashboard reads it; `/api/openapi.json` has it in full. */

export const STATES = ['active', 'cooling', 'quarantined', 'pending', 'revoked'] as const

export type State = (typeof STATES)[number]

export interface Pool {
  readonly name: string
  readonly targets: readonly string[]
  readonly status: 'healthy' | 'degraded' | 'exhausted'
  /** What is wrong with the pool as a whole, in words. */
  readonly trouble: string | null
  readonly tokens: Readonly<Record<State, number>>
  readonly avgTtlRemainingSeconds: number | null
  readonly refreshSuccessRate: number | null
  readonly requestsPerTokenPerMinute: number
  readonly authOverhead: number
  readonly waiting: number
}

export interface Credential {
  readonly id: string
  readonly state: State
  readonly egress: string
  readonly egressAddress: string | null
  readonly generation: number
  readonly subject: string | null
  readonly scopes: readonly string[] | null
  readonly issuedAt: string | null
  readonly expiresAt: string | null
  readonly lifetime: 'jwt' | 'expires_in' | 'learned' | 'unknown'
  readonly refreshAt: string | null
  readonly uses: number
  readonly inFlight: number
  readonly limits: readonly {
    readonly limit: string
    readonly used: number
    readonly max: number
  }[]
  readonly cooldownUntil: string | null
  readonly lastError: string | null
}

export interface Attempt {
  readonly credential: string | null
  readonly generation: number | null
  readonly egress: string
  readonly address: string | null
  readonly status: number | null
  readonly verdict: string
  readonly startMs?: number | null
  readonly sentMs?: number | null
  readonly dnsMs?: number | null
  readonly connectMs: number | null
  readonly tlsMs: number | null
  readonly firstByteMs: number | null
  readonly totalMs: number
  readonly reused: boolean
  readonly protocol?: string | null
  readonly fault?: 'token' | 'egress' | 'request' | 'upstream' | null
}

export interface Trace {
  readonly id: string
  readonly time: string
  readonly kind: string
  readonly client: { readonly name: string | null; readonly address: string }
  readonly method: string
  readonly url: string
  readonly pool: string | null
  readonly status: number | null
  readonly durationMs: number
  readonly waitMs: number
  readonly verdict: string
  readonly skipped: readonly { readonly credential: string; readonly why: string }[]
  readonly skippedMore?: number | null
  readonly attempts: readonly Attempt[]
  readonly refresh?: {
    readonly role: 'led' | 'joined'
    readonly ms: number
    readonly result: string
    readonly startMs?: number | null
  }
  readonly replay?: { readonly done: boolean; readonly why: string }
  readonly bytes: { readonly in: number; readonly out: number }
  readonly error?: { readonly code: string; readonly message: string }
  /** What happened, a line each, the first for the request; only where one trace is asked for, like `curl`. */
  readonly story?: readonly string[]
  /** The request again, by hand and through the proxy. */
  readonly curl?: string | null
}

export interface Egress {
  readonly name: string
  readonly up: boolean
  readonly address: string | null
  readonly drift: { readonly time: string; readonly from: string; readonly to: string } | null
  readonly reason: string | null
  readonly since: string | null
  readonly pools: readonly ({ readonly pool: string } & Readonly<Record<State, number>>)[]
}

/** One thing that happened, by `event`. */
export interface Activity {
  readonly seq: number
  readonly event: 'credential' | 'egress' | 'config'
  readonly time: string
  readonly pool?: string
  readonly credential?: string
  readonly from?: State
  readonly to?: State
  readonly reason?: string | null
  readonly refresh?: {
    readonly cause: string
    readonly result: 'ok' | 'failed' | 'revoked'
    readonly generation: number
    readonly ms: number
    readonly reason: string | null
  }
  readonly egress?: string
  readonly up?: boolean
  readonly address?: string | null
  readonly previous?: string | null
  readonly applied?: boolean
  readonly problems?: readonly string[]
}

export const VERDICTS = ['ok', 'expired', 'limited', 'denied', 'failed'] as const

export type PoolHistory = Readonly<Record<(typeof VERDICTS)[number] | 'refreshes', number[]>> & {
  readonly ttlSeconds: readonly (number | null)[]
  readonly active: readonly number[]
}

export interface History {
  readonly stepSeconds: number
  readonly end: string
  readonly steps: number
  readonly pools: Readonly<Record<string, PoolHistory>>
}
