import { type AddressInfo, isIP } from 'node:net'
import type { Config, PoolConfig } from '../config/schema.ts'
import type { ExchangeRuntime, PoolRuntime } from '../exchange/exchange.ts'
import { Learner } from '../exchange/learn.ts'
import { formatAuthority, parseTarget, type Target } from '../lib/authority.ts'
import type { Clock } from '../lib/clock.ts'
import { Secret } from '../lib/secret.ts'
import type { Pool } from '../pool/pool.ts'
import { Injector } from '../route/inject.ts'
import { PassthroughPolicy } from '../route/passthrough.ts'
import { Requirements } from '../route/requires.ts'
import { Judge } from '../route/verdict.ts'

/** What the parts of the app need to know, read off the configuration. */

export function passthroughOf(config: Config): PassthroughPolicy {
  return new PassthroughPolicy(config.passthrough, {
    privateDenied: !isLoopback(config.listen.host),
  })
}

function isLoopback(host: string): boolean {
  return host === 'localhost' || host === '::1' || (isIP(host) === 4 && host.startsWith('127.'))
}

export function httpsTargets(config: Config): Target[] {
  return Object.values(config.pools)
    .flatMap((pool) => pool.targets.map((text) => parseTarget(text) as Target))
    .filter((target) => target.scheme === 'https')
}

/** Query parameters that carry a token: traces mask them. */
export function injectedParameters(config: Config): ReadonlySet<string> {
  return new Set(
    Object.values(config.pools).flatMap(({ inject }) =>
      'query' in inject ? [inject.query.toLowerCase()] : [],
    ),
  )
}

/** The pools that a configuration has, compiled. */
export function exchangeRuntimeOf(
  config: Config,
  pools: ReadonlyMap<string, Pool>,
  clock: Clock,
): ExchangeRuntime {
  const runtimes = [...pools].flatMap(([name, pool]) => {
    const poolConfig = config.pools[name]
    if (!poolConfig) return []
    const runtime: PoolRuntime = {
      pool,
      config: poolConfig,
      injector: new Injector(poolConfig.inject),
      judge: new Judge(poolConfig),
      requires: Requirements.of(poolConfig.requires),
      learning: learns(poolConfig) ? pool.learning : undefined,
    }
    return [[name, runtime] as const]
  })
  const learning = runtimes.flatMap(([, runtime]) => runtime.learning ?? [])
  return {
    pools: new Map(runtimes),
    learner: learning.length > 0 ? new Learner(learning, clock) : undefined,
    passthroughEgress: config.passthrough.egress,
    spoolDir: config.dataDir,
  }
}

function learns({ credentials }: PoolConfig): boolean {
  return credentials.some(({ source }) => source.type === 'capture')
}

/** Equal for equal settings; secrets count by value, which never leaves this string. */
export function fingerprintOf(value: unknown): string {
  // `toJSON` has run before a replacer sees a value: the holder still has the secret itself.
  return JSON.stringify({ value }, function (this: Record<string, unknown>, key, each) {
    const raw = this[key]
    return raw instanceof Secret ? raw.reveal() : each
  })
}

export function urlOf({ address, port }: AddressInfo): string {
  const host = address === '0.0.0.0' ? '127.0.0.1' : address === '::' ? '::1' : address
  return `http://${formatAuthority({ host, port })}`
}
