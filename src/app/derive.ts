import { type AddressInfo, isIP } from 'node:net'
import type { Config, PoolConfig } from '../config/schema.ts'
import { ConfigError } from '../errors.ts'
import type { ExchangeRuntime, PoolRuntime } from '../exchange/exchange.ts'
import { Learner, type PoolLearning } from '../exchange/learn.ts'
import { Observer } from '../exchange/observer.ts'
import { formatAuthority, parseTarget, type Target } from '../lib/authority.ts'
import type { Clock } from '../lib/clock.ts'
import { Secret } from '../lib/secret.ts'
import type { TokenPool } from '../pool/lease.ts'
import { Injector } from '../route/inject.ts'
import { PassthroughPolicy } from '../route/passthrough.ts'
import { Requirements } from '../route/requires.ts'
import { Judge } from '../route/verdict.ts'

/** What the parts of the app need to know, read off the configuration. */

/** Failed authentications are remembered for that many addresses. */
export const MAX_THROTTLED_ADDRESSES = 10_000

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
  pools: ReadonlyMap<string, TokenPool & { readonly learning: PoolLearning }>,
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
    observer: observerOf(config),
    learner: learning.length > 0 ? new Learner(learning, clock) : undefined,
    passthroughEgress: config.passthrough.egress,
    spoolDir: config.dataDir,
  }
}

/** What records messages; undefined where nothing asks for that, so that requests pay nothing for it. */
export function observerOf(config: Config): Observer | undefined {
  const { headers, bodies, har, otlp } = config.trace
  const messages = headers || bodies !== undefined || har !== undefined
  if (!messages && !otlp) return undefined
  const names = Object.values(config.pools).map(({ inject }) => {
    if ('header' in inject) return inject.header
    return 'query' in inject ? inject.query : inject.cookie
  })
  const secret = new Set(names.map((name) => name.toLowerCase()))
  return new Observer({
    messages,
    bodies: bodies?.max,
    spans: otlp !== undefined,
    propagate: otlp?.propagate ?? false,
    headers: secret,
    names: secret,
  })
}

function learns({ credentials }: PoolConfig): boolean {
  return credentials.some(({ source }) => source.type === 'capture')
}

/** What only a restart can change. */
const FIXED = ['listen', 'admin', 'store', 'storeKey', 'server', 'trace', 'workers'] as const

/** Which of those settings another configuration has otherwise. */
export function fixedChanges(from: Config, to: Config): string[] {
  return FIXED.filter((key) => fingerprintOf(to[key]) !== fingerprintOf(from[key]))
}

/** Why a configuration is refused, in words. */
export function problemsOf(error: unknown): string[] {
  if (!(error instanceof ConfigError)) return [(error as Error).message]
  return error.issues.map(({ path, message }) => `${path || '(file)'}: ${message}`)
}

/** Equal for equal settings; secrets count by value, which never leaves this string. */
function fingerprintOf(value: unknown): string {
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
