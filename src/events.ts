import { EventEmitter } from 'node:events'

/** What one try at an upstream did. Times in ms; undefined where the phase did not happen. */
export interface AttemptRecord {
  credential: string | undefined
  generation: number | undefined
  egress: string
  /** What targets see of it: the recorder adds it, where a probe has learned it. */
  egressAddress?: string | undefined
  /** Address that was dialled, `host:port`. */
  address: string | undefined
  status: number | undefined
  /** `ok`, `expired`, `limited`, `denied`, `upstream`, `nonce` (a new proof was asked for) or an error code. */
  verdict: string
  /** When it began, counted from the request's arrival. */
  startMs?: number | undefined
  /** Until the first byte of the request left; connecting is part of it. */
  sentMs?: number | undefined
  /** What the name's resolution took of `connectMs`; undefined where no name was resolved here. */
  dnsMs?: number | undefined
  connectMs: number | undefined
  tlsMs: number | undefined
  firstByteMs: number | undefined
  totalMs: number
  /** Whether the request went over a connection that had served before. */
  reused: boolean
  protocol?: Protocol | undefined
  /** What a token's renewal asked for; undefined for requests, which have it in their record. */
  call?: { method: string; url: string } | undefined
  /** Whose fault it was, where further attempts have shown more than this one: see `trace/fault.ts`. */
  fault?: 'token' | 'egress' | 'request' | 'upstream' | undefined
}

/** What is spoken on one leg. */
export type Protocol = 'h1' | 'h2'

/** One request to a token endpoint or issuer while a token was renewed; its URL holds no query. */
export interface RenewalCall {
  method: string
  url: string
  /** Undefined where no answer came. */
  status: number | undefined
  /** Counted from the start of the try. */
  startMs: number
  /** Until the answer's header, or the failure. */
  ms: number
}

/** A candidate that a request could not have, and why. */
export interface Skipped {
  credential: string
  why: string
}

/** A body as it was recorded: text with its secrets replaced. */
export interface RecordedBody {
  text: string
  /** Bytes that passed. */
  size: number
  /** Whether there was more than is recorded. */
  cut: boolean
}

/** What only `trace.headers`, `trace.har` and `trace.bodies` ask for. Secrets are replaced before it is recorded. */
export interface RecordedMessages {
  /** Flat, `[name, value, …]`: as sent to the last upstream, or as the client sent them where nothing was. */
  request: { headers: string[]; body: RecordedBody | undefined }
  response: { reason: string; headers: string[]; body: RecordedBody | undefined } | undefined
}

/** The story of one request; the recorder keeps it, the exporters format it. Holds no secret. */
export interface ExchangeRecord {
  id: string
  /** Wall time of the request's arrival, ms since the epoch. */
  time: number
  /**
   * `exchange` for requests, `websocket` for those that were upgraded, `tunnel` for blind tunnels, `denied` for
   * refusals before any exchange, `lease` for requests that somebody else sends, `refresh` for renewals.
   */
  kind: 'exchange' | 'websocket' | 'tunnel' | 'denied' | 'lease' | 'refresh'
  client: { name: string | undefined; address: string }
  method: string
  /** Whole URL as asked for; the recorder masks secret query parameters before anyone sees it. */
  url: string
  /** What the client speaks. */
  protocol?: Protocol | undefined
  pool: string | undefined
  status: number | undefined
  durationMs: number
  /** Time spent waiting for a token. */
  waitMs: number
  verdict: string
  /** Candidates that could not be had, a few of them; looked for only where the first choice was not at hand. */
  skipped: Skipped[]
  /** How many more there were. */
  skippedMore?: number | undefined
  attempts: AttemptRecord[]
  refresh: ExchangeRefresh | undefined
  replay: { done: boolean; why: string } | undefined
  bytes: { in: number; out: number }
  error: { code: string; message: string } | undefined
  /** The client's `traceparent` (W3C Trace Context), where an exporter goes on with it. */
  parent?: string | undefined
  /** `[trace id, span id]` that upstream was told, where `trace.otlp.propagate` asks for it. */
  span?: readonly [string, string] | undefined
  messages?: RecordedMessages | undefined
  /** `performance.now()` at the arrival, in the process that served it. */
  arrivedAt?: number | undefined
}

/** The renewal that a request waited for. */
export interface ExchangeRefresh {
  role: 'led' | 'joined'
  /** How long the request waited for it. */
  ms: number
  result: string
  /** Counted from the request's arrival. */
  startMs?: number | undefined
  /** The renewal's own record. */
  trace?: string | undefined
  /** What was asked, the first few; the whole try's, for whoever joined it too. */
  calls?: readonly RenewalCall[] | undefined
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
      /** Trace id of its record; undefined for none. */
      id?: string | undefined
      egress?: string
      calls?: readonly RenewalCall[]
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
