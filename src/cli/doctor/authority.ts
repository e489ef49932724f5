import { createPrivateKey, X509Certificate } from 'node:crypto'
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { readAuthority } from '../../ca/certificate.ts'
import { MappedNames } from '../../ca/names.ts'
import type { Config } from '../../config/schema.ts'
import { parseTarget, type Target } from '../../lib/authority.ts'
import { type Finding, findings } from './finding.ts'

const DAY_MS = 86_400_000
/** At a start with less than this left the CA is re-issued, and has to be trusted anew. */
const RENEWED_BEFORE_DAYS = 30

const { ok, warn, fail } = findings('ca')

/** The CA as it lies there: nothing is made or changed. */
export async function checkAuthority(config: Config, now: number): Promise<Finding[]> {
  const path = join(config.ca.dir, 'ca.pem')
  const [pem, key] = await Promise.all(
    [path, join(config.ca.dir, 'ca-key.pem')].map((file) =>
      readFile(file, 'utf8').catch((error: NodeJS.ErrnoException) => error),
    ),
  )
  if (isMissing(pem) && isMissing(key)) {
    return [warn(`there is no CA in ${config.ca.dir} yet`, '`cupbearer start` makes one')]
  }
  const rotate = '`cupbearer ca rotate` makes a new one, which clients have to trust anew'
  const pair = typeof pem === 'string' && typeof key === 'string' ? readPair(pem, key) : undefined
  if (!pair) return [fail(`the CA in ${config.ca.dir} is incomplete or cannot be read`, rotate)]

  const { certificate, fits } = pair
  const days = Math.floor((Date.parse(certificate.validTo) - now) / DAY_MS)
  const found: Finding[] = []
  if (!fits) found.push(fail(`${path} and ca-key.pem do not belong together`, rotate))
  else if (days < RENEWED_BEFORE_DAYS) {
    const message = `${path} ends in ${Math.max(0, days)} days`
    found.push(warn(message, 'restart the proxy: it re-issues it; then have clients trust it anew'))
  } else {
    found.push(ok(`${path} is valid until ${new Date(certificate.validTo).toISOString()}`))
  }
  return [...found, checkNames(config, certificate)]
}

function isMissing(read: string | NodeJS.ErrnoException | undefined): boolean {
  return typeof read === 'object' && read.code === 'ENOENT'
}

function readPair(pem: string, key: string) {
  try {
    const certificate = new X509Certificate(pem)
    return { certificate, fits: certificate.checkPrivateKey(createPrivateKey(key)) }
  } catch {
    return undefined
  }
}

/** Clients refuse a certificate for a name that the CA is not permitted to sign for. */
function checkNames(config: Config, certificate: X509Certificate): Finding {
  const targets = Object.values(config.pools).flatMap((pool) => pool.targets)
  const { dns, addresses } = new MappedNames(targets.map((text) => parseTarget(text) as Target))
    .permitted
  const { permits } = readAuthority(certificate.raw)
  if (!permits) {
    return config.ca.nameConstraints
      ? warn('the CA may sign for any name', 'restart the proxy: it limits the CA to the targets')
      : warn(
          'the CA may sign for any name: whoever has its key can pose as any site',
          'set ca.nameConstraints to true',
        )
  }
  const lacking = [
    ...dns.filter((name) => !permits.dns(name)),
    ...addresses.filter((address) => !permits.address(address)),
  ]
  if (lacking.length === 0) return ok('its name constraints cover every target')
  return warn(
    `the CA may not sign for ${lacking.join(', ')}`,
    'restart or reload the proxy: it re-issues the CA; then have clients trust it anew',
  )
}
