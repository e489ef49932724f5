import type { Config, CredentialConfig, PoolConfig } from '../../config/schema.ts'
import { isWithin, readVisibleAddress } from '../../egress/visible-address.ts'
import { formatAuthority, parseTarget, type Target } from '../../lib/authority.ts'
import { type Finding, findings } from './finding.ts'
import { type Reach, reasonOf } from './reach.ts'

const { ok, warn, fail } = findings('egress')

/** The egresses that a credential may leave by. */
export function egressesOf(pool: PoolConfig, credential: CredentialConfig): readonly string[] {
  return credential.egress === undefined ? pool.egress : [credential.egress]
}

/** Whether each egress leads to a target of those who use it, and from which address. */
export async function checkEgresses(config: Config, reach: Reach): Promise<Finding[]> {
  const found = await Promise.all(
    [...new Set(['direct', ...Object.keys(config.egress)])].map((name) =>
      checkEgress(config, reach, name),
    ),
  )
  return found.flat()
}

async function checkEgress(config: Config, reach: Reach, name: string): Promise<Finding[]> {
  const found: Finding[] = []
  const target = targetBy(config, name)
  if (target === undefined) {
    // Whether `direct` is used by nobody is nobody's concern.
    if (name !== 'direct') {
      found.push(warn(`${name} has no target to try it with`, 'pin a credential to it, or drop it'))
    }
  } else {
    const outcome = await reach.head(name, target)
    const { host } = new URL(target)
    if (outcome.reached) found.push(ok(`${name} reaches ${host}`))
    else if (outcome.byEgress) {
      found.push(
        fail(
          `${name} is down: ${outcome.why}`,
          `see that egress.${name} is right and runs; its credentials rest while it is down`,
        ),
      )
    } else {
      found.push(
        fail(
          `${host} cannot be reached by ${name}: ${outcome.why}`,
          'see docs/errors.md; a private CA belongs into upstream.ca',
        ),
      )
    }
  }
  const { probe, expect } = config.egress[name] ?? {}
  if (probe !== undefined) found.push(await checkAddress(reach, name, probe, expect))
  return found
}

async function checkAddress(
  reach: Reach,
  name: string,
  probe: string,
  expect: string | undefined,
): Promise<Finding> {
  try {
    const address = await readVisibleAddress(await reach.get(name, probe))
    if (expect === undefined || isWithin(address, expect)) {
      return ok(`${name} is seen as ${address}`)
    }
    return fail(
      `${name} is seen as ${address}, not ${expect}: nothing leaves by it`,
      `see where egress.${name} leads, or mend its "expect"`,
    )
  } catch (error) {
    return fail(
      `${name}: its probe told no address (${reasonOf(error)})`,
      `see that egress.${name}.probe answers with an address`,
    )
  }
}

/** A target, as a URL, of a pool that uses this egress; a wildcard names no host to try. */
function targetBy(config: Config, egress: string): string | undefined {
  for (const pool of Object.values(config.pools)) {
    const used = pool.credentials.some((each) => egressesOf(pool, each).includes(egress))
    const target = pool.targets
      .map((text) => parseTarget(text) as Target)
      .find(({ wildcard }) => !wildcard)
    if (used && target) return `${target.scheme}://${formatAuthority(target)}/`
  }
  return undefined
}
