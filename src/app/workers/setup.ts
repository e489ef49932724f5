import type { AuthorityCopy } from '../../ca/authority.ts'
import type { Config, PoolConfig } from '../../config/schema.ts'
import type { Secret } from '../../lib/secret.ts'
import { type LearningState, type Objections, pack, unpack } from './messages.ts'

/** All that a worker is told of a configuration; one that comes later replaces it as a whole. */
export interface Setup {
  /** Counts configurations: what a worker says of one names it. */
  readonly generation: number
  readonly config: Config
  readonly ca: AuthorityCopy
  /** The key of all leaf certificates, PKCS #8 in PEM. */
  readonly leafKey: Secret
  /** Listeners of ours, which nothing may be led to. */
  readonly own: readonly { readonly address: string; readonly port: number }[]
  readonly held: Objections
  readonly learning: Readonly<Record<string, LearningState>>
}

export function packSetup(setup: Setup): string {
  return pack({ ...setup, config: forWorkers(setup.config) })
}

export function unpackSetup(text: string): Setup {
  const setup = unpack<Setup>(text)
  const { config } = setup
  // As `loadConfig` makes them: they are asked by names from outside, and `constructor` must not be found.
  const { clients, egress, pools } = config
  return {
    ...setup,
    config: { ...config, clients: byName(clients), egress: byName(egress), pools: byName(pools) },
  }
}

function byName<T>(record: Record<string, T>): Record<string, T> {
  return Object.assign(Object.create(null) as Record<string, T>, record)
}

/**
 * A configuration as far as it is a worker's business. It gets no secret that only serves to obtain tokens, seal
 * the store or open the admin API; and it probes no egress, since the primary does.
 */
function forWorkers(config: Config): Config {
  const { storeKey: _, ...rest } = config
  const { token: __, ...admin } = config.admin
  return {
    ...rest,
    admin,
    egress: mapValues(config.egress, ({ url }) => ({
      url,
      probe: undefined,
      expect: undefined,
      every: 0,
    })),
    pools: mapValues(config.pools, forWorker),
  }
}

function forWorker(pool: PoolConfig): PoolConfig {
  const learning = pool.credentials.filter(({ source }) => source.type === 'capture')
  return { ...pool, credentials: learning.map(({ id, source }) => ({ id, source })) }
}

function mapValues<T>(record: Readonly<Record<string, T>>, change: (value: T) => T) {
  return Object.fromEntries(Object.entries(record).map(([key, value]) => [key, change(value)]))
}
