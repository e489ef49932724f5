import { X509Certificate } from 'node:crypto'
import { readFile } from 'node:fs/promises'
import { BlockList, isIP } from 'node:net'
import { resolve } from 'node:path'
import type { ConfigIssue } from '../errors.ts'
import { type Authority, normalizeHost, parseTarget } from '../lib/authority.ts'
import { parseDuration } from '../lib/units.ts'
import { checkBrowser } from './browser.ts'
import { checkExec } from './exec.ts'
import { checkLogin } from './login.ts'
import { checkOAuth2 } from './oauth2.ts'
import { formatPath, type Path } from './path.ts'
import { reason } from './references.ts'
import { parseListen } from './values.ts'

type Tree = Readonly<Record<string, unknown>>

/**
 * The rules that look at two places at once. They read the tree as it stands in the file, so that they
 * speak up beside the schema's own findings; what has the wrong type is left to the schema.
 */
export async function crossCheck(tree: unknown, folder: string): Promise<ConfigIssue[]> {
  const issues: ConfigIssue[] = []
  const report: Report = (path, message) => issues.push({ path: formatPath(path), message })
  const config = asObject(tree)
  checkListeners(config, report)
  if (/^redis/.test(asText(config.store) ?? '') && config.storeKey === undefined) {
    report(['storeKey'], 'expected the key that all instances of a shared store have')
  }
  checkClients(config, report)
  checkEgresses(config, report)
  checkPools(config, report)
  checkResolve(config, report)
  await checkAuthorities(config, folder, report)
  return issues
}

type Report = (path: Path, message: string) => void

const asObject = (value: unknown): Tree =>
  typeof value === 'object' && value !== null && !Array.isArray(value) ? (value as Tree) : {}
const asList = (value: unknown): readonly unknown[] => (Array.isArray(value) ? value : [])
const asText = (value: unknown): string | undefined =>
  typeof value === 'string' ? value : undefined

const LOOPBACK = new BlockList()
LOOPBACK.addSubnet('127.0.0.0', 8, 'ipv4')
LOOPBACK.addAddress('::1', 'ipv6')

function isLoopback(host: string): boolean {
  const family = isIP(host)
  if (family === 0) return normalizeHost(host) === 'localhost'
  return LOOPBACK.check(host, family === 4 ? 'ipv4' : 'ipv6')
}

function checkListeners(config: Tree, report: Report): void {
  const proxy = parseListen(asText(config.listen) ?? '127.0.0.1:8080')
  const admin = parseListen(asText(asObject(config.admin).listen) ?? '127.0.0.1:8081')
  if (proxy && !isLoopback(proxy.host) && Object.keys(asObject(config.clients)).length === 0) {
    report(['listen'], 'open to other machines, which needs at least one entry in clients')
  }
  if (proxy && admin && collides(proxy, admin)) {
    report(['admin', 'listen'], 'expected another port than listen has')
  }
}

function collides(a: Authority, b: Authority): boolean {
  const everywhere = (host: string) => host === '0.0.0.0' || /^[0:]+$/.test(host)
  const same = normalizeHost(a.host) === normalizeHost(b.host)
  return a.port !== 0 && a.port === b.port && (same || everywhere(a.host) || everywhere(b.host))
}

function checkClients(config: Tree, report: Report): void {
  const pools = Object.keys(asObject(config.pools))
  for (const [name, client] of Object.entries(asObject(config.clients))) {
    for (const [index, pool] of asList(asObject(client).pools).entries()) {
      if (typeof pool !== 'string' || pools.includes(pool)) continue
      report(['clients', name, 'pools', index], `expected the name of a pool: ${list(pools)}`)
    }
  }
}

function checkEgresses(config: Tree, report: Report): void {
  const defined = asObject(config.egress)
  if (Object.hasOwn(defined, 'direct') && defined.direct !== 'direct:') {
    report(['egress', 'direct'], 'direct always means a direct connection; expected another name')
  }
  for (const [name, value] of Object.entries(defined)) {
    const { probe, expect } = asObject(value)
    if (expect !== undefined && probe === undefined) {
      report(
        ['egress', name, 'probe'],
        'required, since nothing else tells what expect is held against',
      )
    }
  }
  const names = ['direct', ...Object.keys(defined).filter((name) => name !== 'direct')]
  const check = (value: unknown, path: Path) => {
    if (typeof value !== 'string' || names.includes(value)) return
    report(path, `expected the name of an egress: ${list(names)}`)
  }
  check(asObject(config.passthrough).egress, ['passthrough', 'egress'])
  for (const [name, pool] of Object.entries(asObject(config.pools))) {
    for (const [index, egress] of asList(asObject(pool).egress).entries()) {
      check(egress, ['pools', name, 'egress', index])
    }
    for (const [index, credential] of asList(asObject(pool).credentials).entries()) {
      check(asObject(credential).egress, ['pools', name, 'credentials', index, 'egress'])
    }
  }
}

function checkPools(config: Tree, report: Report): void {
  const owners = new Map<string, string>()
  for (const [name, value] of Object.entries(asObject(config.pools))) {
    const pool = asObject(value)
    for (const [index, text] of asList(pool.targets).entries()) {
      const target = typeof text === 'string' ? parseTarget(text) : ''
      if (typeof target === 'string') continue
      const { scheme, host, wildcard, port, path } = target
      const key = JSON.stringify([scheme, host, wildcard, port, path])
      const owner = owners.get(key) ?? name
      owners.set(key, owner)
      if (owner !== name) {
        report(['pools', name, 'targets', index], `the pool ${owner} has this target already`)
      }
    }
    if (asList(pool.credentials).length === 0 && pool.credentialsFrom === undefined) {
      report(['pools', name, 'credentials'], 'expected at least one credential, or credentialsFrom')
    }
    const ids = new Set<unknown>()
    for (const [index, value] of asList(pool.credentials).entries()) {
      const credential = asObject(value)
      const path = ['pools', name, 'credentials', index]
      if (typeof credential.id === 'string' && ids.has(credential.id)) {
        report([...path, 'id'], 'expected an id that no other credential of the pool has')
      }
      ids.add(credential.id)
      const source = asObject(credential.source)
      const templated = { login: checkLogin, exec: checkExec, browser: checkBrowser }[
        String(source.type)
      ]
      templated?.(source, Object.keys(asObject(credential.vars)), (within, message) =>
        report([...path, 'source', ...within], message),
      )
      if (source.type === 'oauth2') {
        const place = [...path, 'source']
        checkOAuth2(source, (key, message) =>
          report(key === undefined ? place : [...place, key], message),
        )
        if (source.dpop === true && !takesProof(pool.inject)) {
          report(
            [...place, 'dpop'],
            'expected inject to put the token into the authorization header',
          )
        }
      }
    }
    checkQuarantine(asObject(pool.quarantine), ['pools', name, 'quarantine'], report)
    checkKeys(pool, ['pools', name], report)
  }
}

/** RFC 9449 §7.1: a bound token goes into `Authorization` and nowhere else. */
function takesProof(inject: unknown): boolean {
  if (inject === undefined) return true
  const { header } = asObject(inject)
  return typeof header === 'string' && header.toLowerCase() === 'authorization'
}

function checkKeys(pool: Tree, path: Path, report: Report): void {
  const verifies = pool.verify !== undefined && pool.verify !== false
  if (verifies && pool.issuer === undefined && pool.jwks === undefined) {
    report(
      [...path, 'verify'],
      'expected issuer or jwks beside it: tokens are verified by its keys',
    )
  }
  for (const [index, requirement] of asList(pool.requires).entries()) {
    const { scopes, claims } = asObject(requirement)
    if (asList(scopes).length === 0 && Object.keys(asObject(claims)).length === 0) {
      report([...path, 'requires', index], 'expected scopes or claims to require')
    }
  }
}

function checkQuarantine(quarantine: Tree, path: Path, report: Report): void {
  const base = parseDuration(asText(quarantine.base) ?? '30s')
  const max = parseDuration(asText(quarantine.max) ?? '30m')
  if (base !== undefined && max !== undefined && base > max) {
    report([...path, 'base'], 'expected no more than quarantine.max')
  }
}

function checkResolve(config: Tree, report: Report): void {
  for (const [host, address] of Object.entries(asObject(asObject(config.upstream).resolve))) {
    const path = ['upstream', 'resolve', host]
    if (normalizeHost(host) === undefined) report(path, 'in this name: expected a host')
    if (typeof address === 'string' && isIP(address) === 0) report(path, 'expected an IP address')
  }
}

async function checkAuthorities(config: Tree, folder: string, report: Report): Promise<void> {
  for (const [index, file] of asList(asObject(config.upstream).ca).entries()) {
    if (typeof file !== 'string' || file === '') continue
    const path = ['upstream', 'ca', index]
    try {
      const text = await readFile(resolve(folder, file), 'latin1')
      if (!isPem(text)) report(path, 'expected certificates in PEM form')
    } catch (error) {
      report(path, `cannot be read (${reason(error)})`)
    }
  }
}

function isPem(text: string): boolean {
  try {
    return text.includes('-----BEGIN CERTIFICATE') && new X509Certificate(text).raw.length > 0
  } catch {
    return false
  }
}

const list = (names: readonly string[]): string =>
  names.length > 0 ? names.join(', ') : 'there is none yet'
