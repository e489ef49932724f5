import type { Config } from '../../config/schema.ts'
import { insecureNotices } from '../../config/upstream-hosts.ts'
import { bypasses, sayBypass } from '../no-proxy.ts'
import { checkAuthority } from './authority.ts'
import { checkClients } from './clients.ts'
import { checkEgresses } from './egresses.ts'
import { checkFiles } from './files.ts'
import { type Finding, findings } from './finding.ts'
import { checkProxy } from './listeners.ts'
import { Reach } from './reach.ts'
import { checkSources } from './sources.ts'

/** From here on tokens look expired, or not valid yet, to one side. */
const NOTABLE_SKEW_MS = 30_000
const GRAVE_SKEW_MS = 300_000

/** Every check of a configuration that is valid; nothing is changed, logged in or spent. */
export async function examine(config: Config, env: NodeJS.ProcessEnv): Promise<Finding[]> {
  const now = Date.now()
  await using reach = new Reach(config)
  const [local, proxy, clients, egresses, sources] = await Promise.all([
    Promise.all([checkAuthority(config, now), checkFiles(config)]),
    checkProxy(config),
    checkClients(config),
    checkEgresses(config, reach),
    checkSources(config, reach, now),
  ])
  return [
    ...local.flat(),
    ...proxy,
    ...checkVerification(config),
    ...egresses,
    ...sources,
    checkClock(reach.skews),
    ...checkNoProxy(config, env),
    ...clients,
  ]
}

function checkVerification(config: Config): Finding[] {
  const { warn } = findings('tls')
  const mend =
    'put its CA into upstream.ca, or pin its key, and drop "insecure" from upstream.hosts'
  return insecureNotices(config.upstream).map((notice) => warn(notice, mend))
}

function checkClock(skews: readonly number[]): Finding {
  const { ok, warn, fail } = findings('clock')
  if (skews.length === 0) return ok('no server told the time, so it was not compared')
  const sorted = [...skews].sort((one, other) => one - other)
  // One server may be wrong; most of them are not.
  const skew = sorted[Math.floor(sorted.length / 2)] ?? 0
  const seconds = Math.round(Math.abs(skew) / 1000)
  if (Math.abs(skew) < NOTABLE_SKEW_MS) return ok('this clock agrees with those of the servers')
  const message = `this clock is ${seconds} s ${skew > 0 ? 'behind' : 'ahead of'} those of the servers`
  const mend = 'set it by NTP: `timedatectl set-ntp true`'
  return Math.abs(skew) < GRAVE_SKEW_MS ? warn(message, mend) : fail(message, mend)
}

function checkNoProxy(config: Config, env: NodeJS.ProcessEnv): Finding[] {
  const { ok, warn } = findings('no-proxy')
  const found = bypasses(config, env)
  if (found.length === 0) return [ok('NO_PROXY covers no target')]
  return found.map((bypass) => warn(sayBypass(bypass), 'take that entry out of NO_PROXY'))
}
