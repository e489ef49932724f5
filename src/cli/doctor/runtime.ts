import { type Finding, findings } from './finding.ts'

/** The last day of security releases (github.com/nodejs/Release); versions not listed are newer. */
const END_OF_LIFE: Readonly<Record<number, string>> = {
  20: '2026-04-30',
  21: '2024-06-01',
  22: '2027-04-30',
  23: '2025-06-01',
  24: '2028-04-30',
  25: '2026-06-01',
  26: '2029-04-30',
}
const OLDEST = [20, 19] as const

const { ok, warn, fail } = findings('runtime')

/** Whether this Node.js runs the proxy, and still gets security releases. */
export function checkRuntime(version: string, now: number): Finding {
  const [major = 0, minor = 0] = version.replace(/^v/, '').split('.').map(Number)
  const mend = 'install a version of Node.js with long-term support, such as 24'
  if (major < OLDEST[0] || (major === OLDEST[0] && minor < OLDEST[1])) {
    return fail(`Node.js ${version} is too old: ${OLDEST.join('.')} is the oldest`, mend)
  }
  const end = END_OF_LIFE[major]
  if (end !== undefined && now > Date.parse(end)) {
    return warn(`Node.js ${version} gets no security releases since ${end}`, mend)
  }
  return ok(`Node.js ${version}${end ? `, with security releases until ${end}` : ''}`)
}

/** Whether the proxy runs as a user who can do less than everything; undefined where there are no such numbers. */
export function checkUser(effectiveId: number | undefined): Finding {
  const { ok, warn } = findings('user')
  if (effectiveId !== 0) return ok('not run by root')
  const mend = 'run it as a user of its own, who owns the CA and data folders and nothing else'
  return warn('runs as root, which nothing here needs', mend)
}
