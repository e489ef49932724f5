import type { RemoteLeases } from '../exchange/remote-leases.ts'
import type { Client } from '../exchange/request.ts'
import type { Lesson, Listener } from '../pool/learning.ts'
import type { LeaseRequest, PoolStatus } from '../pool/lease.ts'
import type { LoginDialogue } from '../sources/source.ts'
import type { Activity } from './activity.ts'
import type { History } from './history.ts'

/** What an operator can do to one credential. */
export const CREDENTIAL_ACTIONS = ['refresh', 'quarantine', 'release', 'forget'] as const

export type CredentialAction = (typeof CREDENTIAL_ACTIONS)[number]

/** Which traces to list; every field given must match. */
export interface TraceQuery {
  readonly pool?: string | undefined
  readonly credential?: string | undefined
  readonly status?: number | undefined
  readonly verdict?: string | undefined
  /** Name or address. */
  readonly client?: string | undefined
  readonly kind?: string | undefined
  /** ms since the epoch. */
  readonly since?: number | undefined
  readonly limit?: number | undefined
}

/** A client of the proxy, by its credentials. */
export interface IdentifiedClient {
  readonly client: Client
  /** From user parameters, `name+session=abc`. */
  readonly hints: Pick<LeaseRequest, 'session' | 'credential' | 'scopes'>
  /** Whether it may ask for leases. */
  readonly lease: boolean
}

/** All that the admin API knows of the running proxy. */
export interface AdminBackend {
  /** Resolves when what has been answered to clients so far can be seen here. */
  caughtUp?(): Promise<void>
  pools(): readonly PoolStatus[]
  /**
   * Acts on one credential; `unknown` when there is no such pool or credential.
   * Rejects with a `CupbearerError` when the action could not be done.
   */
  act(pool: string, credential: string, action: CredentialAction): Promise<'done' | 'unknown'>
  /**
   * Gets a token afresh, with the help of a person where that is the way; resolves when it is durable. Undefined
   * when there is no such pool. The signal gives the login up. Rejects with a `CupbearerError`.
   */
  login(
    pool: string,
    credential: string,
    dialogue: LoginDialogue,
    signal: AbortSignal,
  ): Promise<void> | undefined
  /**
   * Resolves with what a pool learns from traffic next. Undefined when there is no such pool. The signal gives it
   * up. Rejects with a `CupbearerError`.
   */
  capture(pool: string, listener: Listener, signal: AbortSignal): Promise<Lesson> | undefined
  /** SHA-256 of the key of the certificates that clients meet (SPKI), in base64. */
  leafKeyHash(): string
  readonly leases: Pick<RemoteLeases, 'open' | 'report'>
  /** Whose Basic credentials these are; without configured clients, a client without a name. Throws `WireError`. */
  identify(authorization: string, address: string): IdentifiedClient
  readonly traces: {
    list(query: TraceQuery): readonly unknown[]
    get(id: string): unknown
    /** An HTTP archive. */
    har(query: TraceQuery): unknown
    /** Returns the end of the subscription. */
    subscribe(listener: (trace: unknown) => void): () => void
  }
  ready(): { readonly ready: boolean; readonly reasons: readonly string[] }
  /** In the format that an `Accept` field asks for. */
  metrics(accept?: string): Promise<{ readonly text: string; readonly contentType: string }>
  caPem(): string
  /** Where clients reach the proxy, `http://host:port`. */
  proxyUrl(): string
  /** The address that an egress was last seen to have; undefined when it was never probed. */
  egressAddress(egress: string): string | undefined
  egresses(): readonly { readonly name: string; readonly up: boolean }[]
  readonly history: Pick<History, 'read'>
  readonly activity: Pick<Activity, 'latest' | 'drift' | 'reason' | 'subscribe'>
}
