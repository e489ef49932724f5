import { EventEmitter } from 'node:events'

/** What one try at an upstream did. Times in ms; undefined where the phase did not happen. */
export interface AttemptRecord {
  credential: string | undefined
  generation: number | undefined
  egress: string
  /** Address that was dialled, `host:port`. */
  address: string | undefined
  status: number | undefined
  /** `ok`, `expired`, `limited`, `denied`, `upstream`, `nonce` (a new proof was asked for) or an error code. */
  verdict: string
  connectMs: number | undefined
  tlsMs: number | undefined
  firstByteMs: number | undefined
  totalMs: number
  /** Whether the request went over a connection that had served before. */
  reused: boolean
  /** Whose fault it was, where further attempts have shown more than this one: see `trace/fault.ts`. */
  fault?: 'token' | 'egress' | 'request' | 'upstream' | undefined
}

/** The story of one request; the recorder keeps it, the exporters format it. Holds no secret. */
export interface ExchangeRecord {
  id: string
  /** Wall time of the request's arrival, ms since the epoch. */
  time: number
  /**
   * `exchange` for requests, `tunnel` for blind tunnels, `denied` for refusals before any exchange, `lease` for
   * requests that somebody else sends.
   */
  kind: 'exchange' | 'tunnel' | 'denied' | 'lease'
  client: { name: string | undefined; address: string }
  method: string
  /** Whole URL as asked for; the recorder masks secret query parameters before anyone sees it. */
  url: string
  pool: string | undefined
  status: number | undefined
  durationMs: number
  /** Time spent waiting for a token. */
  waitMs: number
  verdict: string
  skipped: { credential: string; why: string }[]
  attempts: AttemptRecord[]
  refresh: { role: 'led' | 'joined'; ms: number; result: string } | undefined
  replay: { done: boolean; why: string } | undefined
  bytes: { in: number; out: number }
  error: { code: string; message: string } | undefined
}

export type CredentialState = 'pending' | 'active' | 'cooling' | 'quarantined' | 'revoked'

export interface EventMap {
  /** A request has ended, by whatever outcome. */
  exchange: [record: ExchangeRecord]
  /** A credential changed its state. */
  credential: [
    change: {
      time: number
      pool: string
      credential: string
      from: CredentialState
      to: CredentialState
      reason: string
    },
  ]
  /** A token was renewed, or could not be. `ms` counts from the start of this try. */
  refresh: [
    outcome: {
      time: number
      pool: string
      credential: string
      cause: 'startup' | 'scheduled' | 'expired' | 'operator' | 'canary'
      result: 'ok' | 'failed' | 'revoked'
      generation: number
      ms: number
      reason: string | undefined
    },
  ]
  /** An egress went down or came back. */
  egress: [change: { time: number; egress: string; up: boolean; reason: string }]
  /**
   * The address that targets see behind an egress was learned, has changed, or could not be learned: then it is
   * undefined, and `reason` says why. Else `reason` says what is wrong with it.
   */
  address: [
    news: {
      time: number
      egress: string
      address: string | undefined
      previous: string | undefined
      reason: string | undefined
    },
  ]
  /** A new configuration is in force, or was refused. */
  config: [change: { time: number; applied: boolean; problems: readonly string[] }]
}

/** The typed bus between the core and its observers; made once per app and passed in, never global. */
export class Events extends EventEmitter<EventMap> {
  constructor() {
    super()
    this.setMaxListeners(50)
  }
}
