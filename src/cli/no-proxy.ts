import { isIP } from 'node:net'
import { noProxyEntries } from '../ca/trust.ts'
import type { Config } from '../config/schema.ts'
import { parseTarget, type Target } from '../lib/authority.ts'

/** An entry of NO_PROXY that keeps requests of a target away from the proxy. */
export interface Bypass {
  readonly entry: string
  readonly target: string
}

/** The entries of an inherited NO_PROXY that cover a mapped target, or a part of it. */
export function bypasses(config: Config, inherit: NodeJS.ProcessEnv): Bypass[] {
  const targets = Object.values(config.pools).flatMap((pool) => pool.targets)
  return noProxyEntries(inherit).flatMap((entry) =>
    targets
      .filter((text) => covers(entry, parseTarget(text) as Target))
      .map((target) => ({ entry, target })),
  )
}

/** One sentence for the user. */
export const sayBypass = ({ entry, target }: Bypass): string =>
  `NO_PROXY holds ${JSON.stringify(entry)}, so requests to ${target} may not go through the proxy`

/** As the most generous client reads it: with what lies beneath, and either way round for a wildcard. */
function covers(entry: string, target: Target): boolean {
  if (entry === '*') return true
  const [, host = '', port] = /^(.*?)(?::(\d+))?$/.exec(entry) ?? []
  const whole = isIP(entry) === 6 || port === undefined
  if (!whole && Number(port) !== target.port) return false
  const name = (whole ? entry : host)
    .toLowerCase()
    .replace(/^\*?\./, '')
    .replace(/^\[|\]$/g, '')
  const beneath = (inner: string, outer: string) => inner === outer || inner.endsWith(`.${outer}`)
  return beneath(target.host, name) || (target.wildcard && beneath(name, target.host))
}
