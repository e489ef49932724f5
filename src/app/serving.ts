import type { AddressInfo, Socket } from 'node:net'
import type { CertificateAuthority } from '../ca/authority.ts'
import type { LeafCache } from '../ca/leaf.ts'
import type { Config } from '../config/schema.ts'
import type { Egresses } from '../egress/egress.ts'
import type { Events } from '../events.ts'
import { Exchange, type ExchangeRuntime } from '../exchange/exchange.ts'
import type { Clock } from '../lib/clock.ts'
import type { Logger } from '../lib/log.ts'
import type { Pool } from '../pool/pool.ts'
import type { ClientAuth } from '../proxy/client-auth.ts'
import type { OwnAddresses } from '../proxy/own-addresses.ts'
import { Front, type FrontRuntime } from '../proxy/server.ts'
import { Router } from '../route/match.ts'
import type { PassthroughPolicy } from '../route/passthrough.ts'
import type { SharedThrottle } from './workers/shared-throttle.ts'

/** What one configuration gives to those who serve clients; swapped as a whole. */
export interface Terms {
  readonly config: Config
  readonly runtime: ExchangeRuntime
  readonly passthrough: PassthroughPolicy
  readonly auth: ClientAuth
  readonly authority: CertificateAuthority
  readonly leaves: LeafCache
}

/** Who takes the clients' connections: this process itself, or its workers. */
export interface Serving {
  /** Connections that clients hold. */
  readonly connections: number
  /** Opens the listener; throws LISTEN_FAILED. */
  open(address: { host: string; port: number }): Promise<AddressInfo>
  /** Resolves when clients are served. */
  ready(): Promise<void>
  /** Resolves when new terms are in force everywhere; what runs keeps those that it began with. */
  apply(terms: Terms): Promise<void>
  /** Why clients are served worse than they should be; empty when all is well. */
  ailments(): string[]
  /** Whether something may leave by an egress has changed. */
  heldChanged(): void
  /** What a pool would say of tokens in the traffic may have changed. */
  learningChanged(pool: string): void
  /** Somebody has failed, or has succeeded, to authenticate. */
  tellThrottle(news: readonly ['failed' | 'succeeded', address: string]): void
  /** Resolves when this process knows of all that clients have been answered so far. */
  caughtUp(): Promise<void>
  /** Takes no more connections and lets what runs end; resolves when the last one is gone. */
  drain(): Promise<void>
  /** Cuts every connection and takes none any more. */
  cut(): void
  /** Frees what is left. */
  close(): Promise<void>
}

/** Of what serving is made. */
export interface ServingOptions {
  readonly terms: Terms
  readonly pools: ReadonlyMap<string, Pool>
  readonly own: OwnAddresses
  readonly egresses: Egresses
  readonly throttle: SharedThrottle
  readonly events: Events
  readonly clock: Clock
  readonly log: Logger
}

/** Who serves as the configuration says: this process itself, or as many workers as `workers` asks for. */
export async function createServing(options: ServingOptions): Promise<Serving> {
  if (options.terms.config.workers === 1) return new OwnServing(options)
  const { Crew } = await import('./workers/crew.ts')
  return new Crew(options)
}

/** What serves clients in this process. */
export class OwnServing implements Serving {
  readonly #own: OwnAddresses
  readonly #exchange: Exchange
  readonly #front: Front

  constructor(options: Omit<ServingOptions, 'pools' | 'throttle'>) {
    const { terms, own, egresses, events, clock, log } = options
    const parts = { egresses, events, clock, log }
    const { server, upstream } = terms.config
    this.#own = own
    this.#exchange = new Exchange({ ...parts, runtime: terms.runtime })
    this.#front = new Front({
      ...parts,
      server,
      longestSilence: Math.max(upstream.bodyTimeout, upstream.headersTimeout),
      exchange: this.#exchange,
      runtime: this.#frontRuntime(terms),
    })
  }

  get connections(): number {
    return this.#front.connections
  }

  open(address: { host: string; port: number }): Promise<AddressInfo> {
    return this.#front.open(address)
  }

  /** Serves a connection that was accepted elsewhere. */
  take(socket: Socket): void {
    this.#front.take(socket)
  }

  async ready(): Promise<void> {}

  async apply(terms: Terms): Promise<void> {
    this.#exchange.apply(terms.runtime)
    this.#front.apply(this.#frontRuntime(terms))
  }

  ailments(): string[] {
    return []
  }

  heldChanged(): void {}

  learningChanged(): void {}

  tellThrottle(): void {}

  async caughtUp(): Promise<void> {}

  drain(): Promise<void> {
    return this.#front.drain()
  }

  cut(): void {
    this.#front.cut()
  }

  async close(): Promise<void> {
    this.#front.cut()
  }

  #frontRuntime({ config, passthrough, auth, leaves }: Terms): FrontRuntime {
    return {
      router: new Router(config.pools),
      passthrough,
      isOwn: ({ host, port }) => this.#own.includes(host, port),
      auth,
      passthroughEgress: config.passthrough.egress,
      contextFor: (host) => leaves.contextFor(host),
    }
  }
}
