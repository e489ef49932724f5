import {
  createPrivateKey,
  createPublicKey,
  generateKeyPairSync,
  type KeyObject,
  X509Certificate,
} from 'node:crypto'
import { readFile, rename, stat } from 'node:fs/promises'
import { join, resolve } from 'node:path'
import { CupbearerError } from '../errors.ts'
import type { Target } from '../lib/authority.ts'
import type { Clock } from '../lib/clock.ts'
import { createFile, errorCode, privateFolder, replaceFile } from '../lib/files.ts'
import { Secret } from '../lib/secret.ts'
import {
  authoritySubject,
  buildAuthority,
  type Issuer,
  keyIdentifier,
  publicKeyInfo,
  type ReadAuthority,
  readAuthority,
} from './certificate.ts'
import { MappedNames } from './names.ts'

const HOUR = 3_600_000
const DAY = 24 * HOUR
/** Backdated, so that a client whose clock is behind accepts it. */
export const BACKDATE = HOUR
const LIFETIME = 730 * DAY
/** The CA is re-issued when less than this is left. */
const RENEW_BEFORE = 30 * DAY
/** How often a start that loses a race against another process looks again. */
const RACE_TRIES = 5
const OWN_NAME = 'Cupbearer CA '

export interface AuthorityOptions {
  /** Folder of `ca.pem` (0644) and `ca-key.pem` (0600). */
  readonly dir: string
  /** Limit the CA to the hosts of `targets`. */
  readonly nameConstraints: boolean
  readonly targets: readonly Target[]
  readonly clock: Clock
}

/** The private CA: its certificate to hand out, and what it takes to sign leaf certificates with it. */
export class CertificateAuthority {
  readonly certificatePem: string
  readonly certificatePath: string
  readonly keyPath: string
  readonly notBefore: Date
  readonly notAfter: Date
  /** SHA-256, upper-case hex pairs with colons. */
  readonly fingerprint256: string
  /** What the operator has to know or do, such as to install a re-issued certificate. */
  readonly notices: readonly string[]
  /** Signs leaf certificates; its key object cannot be printed. */
  readonly issuer: Issuer
  readonly #names: MappedNames

  constructor(paths: Paths, pair: Pair, names: MappedNames, notices: readonly string[]) {
    const { certificate } = pair
    this.certificatePem = certificate.toString()
    this.certificatePath = paths.certificate
    this.keyPath = paths.key
    this.notBefore = new Date(certificate.validFrom)
    this.notAfter = new Date(certificate.validTo)
    this.fingerprint256 = certificate.fingerprint256
    this.notices = notices
    this.issuer = pair.issuer
    this.#names = names
  }

  /** Whether an https target covers this normalised host; for no other host is anything signed. */
  covers(host: string): boolean {
    return this.#names.certificateName(host) !== undefined
  }

  /** The name on the certificate for this host: its own, or `*.parent`; undefined when not covered. */
  certificateName(host: string): string | undefined {
    return this.#names.certificateName(host)
  }
}

/**
 * Loads the CA of a folder, or makes it at first start. It is re-issued, with the same key and subject, when
 * the targets need a name that it does not permit, or when it ends soon; `notices` tells.
 * Throws `CA_INVALID`, which says what to do, and leaves the files as they are.
 */
export async function openAuthority(options: AuthorityOptions): Promise<CertificateAuthority> {
  const paths = pathsOf(options.dir)
  try {
    for (let attempt = 1; attempt <= RACE_TRIES; attempt++) {
      const authority = await openOnce(paths, options)
      if (authority) return authority
    }
  } catch (error) {
    throw asInvalid(error, paths)
  }
  throw invalid(`${paths.certificate} keeps changing: is another process rotating it?`)
}

/** What another process of ours needs to sign for the same CA; it goes by a private way only. */
export interface AuthorityCopy {
  readonly certificatePem: string
  readonly certificatePath: string
  readonly keyPath: string
  /** PKCS #8 in PEM. */
  readonly key: Secret
}

export function copyAuthority(authority: CertificateAuthority): AuthorityCopy {
  const { certificatePem, certificatePath, keyPath, issuer } = authority
  const key = new Secret(issuer.key.export({ type: 'pkcs8', format: 'pem' }) as string)
  return { certificatePem, certificatePath, keyPath, key }
}

/** The CA that a copy was made of; it touches no file. */
export function authorityOf(copy: AuthorityCopy, targets: readonly Target[]): CertificateAuthority {
  const paths = { folder: '', certificate: copy.certificatePath, key: copy.keyPath }
  const key = parseKey(copy.key.reveal(), paths)
  const { certificate, read } = parseCertificate(copy.certificatePem, key, paths)
  const issuer = issuerOf(read, key)
  return new CertificateAuthority(paths, { certificate, issuer }, new MappedNames(targets), [])
}

/** Makes a new key and certificate; the old certificate is kept as `ca-OLD-date.pem`, the old key is gone. */
export async function rotateAuthority(options: AuthorityOptions): Promise<CertificateAuthority> {
  const paths = pathsOf(options.dir)
  try {
    await privateFolder(paths.folder)
    // In this order a crash leaves a key without certificate at worst, and that is made good at the next start.
    const stamp = new Date(options.clock.now()).toISOString().replace(/[:.]/g, '-')
    await rename(paths.certificate, join(paths.folder, `ca-OLD-${stamp}.pem`)).catch((error) => {
      if (errorCode(error) !== 'ENOENT') throw error
    })
    const key = newKey()
    await replaceFile(paths.key, key.pem, 0o600)
    const names = new MappedNames(options.targets)
    const pair = issue(key.privateKey, newIssuer(key.privateKey, options.clock), names, options)
    await replaceFile(paths.certificate, pair.certificate.toString(), 0o644)
    return new CertificateAuthority(paths, pair, names, [])
  } catch (error) {
    throw asInvalid(error, paths)
  }
}

interface Paths {
  readonly folder: string
  readonly certificate: string
  readonly key: string
}

interface Pair {
  readonly certificate: X509Certificate
  readonly issuer: Issuer
}

function pathsOf(dir: string): Paths {
  const folder = resolve(dir)
  return { folder, certificate: join(folder, 'ca.pem'), key: join(folder, 'ca-key.pem') }
}

/** One try; undefined when another process was faster, so that what it made is to be read. */
async function openOnce(
  paths: Paths,
  options: AuthorityOptions,
): Promise<CertificateAuthority | undefined> {
  const names = new MappedNames(options.targets)
  // The key is always written first, so reading it last never sees a certificate without its key.
  const certificatePem = await readIfThere(paths.certificate)
  const keyPem = await readKey(paths.key)
  if (keyPem === undefined && certificatePem !== undefined) {
    throw invalid(
      `${paths.key} is missing: put it back, or move ${paths.certificate} away to have a new CA made`,
    )
  }
  if (keyPem === undefined) {
    await privateFolder(paths.folder)
    await createFile(paths.key, newKey().pem, 0o600)
    return undefined
  }
  const privateKey = parseKey(keyPem, paths)
  if (certificatePem === undefined) {
    const pair = issue(privateKey, newIssuer(privateKey, options.clock), names, options)
    const created = await createFile(paths.certificate, pair.certificate.toString(), 0o644)
    return created ? new CertificateAuthority(paths, pair, names, []) : undefined
  }
  const { certificate, read } = parseCertificate(certificatePem, privateKey, paths)
  const issuer = issuerOf(read, privateKey)
  const reason = whyReissue(certificate, read, names, options)
  if (reason === undefined) {
    return new CertificateAuthority(paths, { certificate, issuer }, names, [])
  }
  if (!certificate.subject.includes(`CN=${OWN_NAME}`)) {
    throw invalid(
      `${paths.certificate} is not one that Cupbearer made, and ${reason}: replace it, or move it and ${paths.key} away to have a new CA made`,
    )
  }
  const pair = issue(privateKey, issuer, names, options)
  await replaceFile(paths.certificate, pair.certificate.toString(), 0o644)
  return new CertificateAuthority(paths, pair, names, [
    `${paths.certificate} was re-issued because ${reason}: install it again, in place of the old one, where you trusted it`,
  ])
}

function newKey() {
  const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
  return { privateKey, pem: privateKey.export({ type: 'pkcs8', format: 'pem' }) }
}

function issuerOf(read: ReadAuthority, key: KeyObject): Issuer {
  const { subject, subjectKeyIdentifier } = read
  return {
    subject,
    keyIdentifier: subjectKeyIdentifier ?? keyIdentifier(createPublicKey(key)),
    key,
  }
}

function newIssuer(key: KeyObject, clock: Clock): Issuer {
  const identifier = keyIdentifier(createPublicKey(key))
  const date = new Date(clock.now()).toISOString().slice(0, 10)
  const name = `${OWN_NAME}${identifier.toString('hex', 0, 4)} ${date}`
  return { subject: authoritySubject(name), keyIdentifier: identifier, key }
}

function issue(
  key: KeyObject,
  issuer: Issuer,
  names: MappedNames,
  { clock, nameConstraints }: AuthorityOptions,
): Pair {
  const notBefore = new Date(clock.now() - BACKDATE)
  const validity = { notBefore, notAfter: new Date(notBefore.getTime() + LIFETIME) }
  const permitted = nameConstraints ? names.permitted : undefined
  const publicKey = publicKeyInfo(createPublicKey(key))
  const certificate = new X509Certificate(buildAuthority(issuer, publicKey, validity, permitted))
  return { certificate, issuer }
}

/** Why the certificate cannot serve as it is; undefined when it can. */
function whyReissue(
  certificate: X509Certificate,
  { permits }: ReadAuthority,
  names: MappedNames,
  { clock, nameConstraints }: AuthorityOptions,
): string | undefined {
  const now = clock.now()
  if (Date.parse(certificate.validTo) - now < RENEW_BEFORE) {
    return `its validity ends on ${new Date(certificate.validTo).toISOString().slice(0, 10)}`
  }
  if (Date.parse(certificate.validFrom) > now) return 'its validity has not begun'
  if (!nameConstraints)
    return permits && 'it is limited to names, which ca.nameConstraints turns off'
  if (!permits) return 'it is not limited to the mapped names'
  const { dns, addresses } = names.permitted
  const missing = [
    ...dns.filter((name) => !permits.dns(name)),
    ...addresses.filter((address) => !permits.address(address)),
  ]
  if (missing.length === 0) return undefined
  const more = missing.length > 3 ? ` and ${missing.length - 3} more` : ''
  return `it does not permit ${missing.slice(0, 3).join(', ')}${more}`
}

async function readIfThere(file: string): Promise<string | undefined> {
  try {
    return await readFile(file, 'utf8')
  } catch (error) {
    if (errorCode(error) === 'ENOENT') return undefined
    throw error
  }
}

async function readKey(file: string): Promise<string | undefined> {
  const pem = await readIfThere(file)
  if (pem === undefined) return undefined
  const { mode } = await stat(file)
  // Windows has no such modes: it reports every file as readable by all.
  if (process.platform !== 'win32' && (mode & 0o077) !== 0) {
    const octal = (mode & 0o777).toString(8).padStart(4, '0')
    throw invalid(`${file} can be read by others (mode ${octal}): run chmod 600 '${file}'`)
  }
  return pem
}

function parseKey(pem: string, paths: Paths): KeyObject {
  const todo = `put the right one back, or move it and ${paths.certificate} away to have a new CA made`
  let key: KeyObject
  try {
    key = createPrivateKey(pem)
  } catch (error) {
    throw invalid(`${paths.key} holds no private key: ${todo}`, error)
  }
  if (key.asymmetricKeyDetails?.namedCurve !== 'prime256v1') {
    throw invalid(`${paths.key} is not an EC P-256 key: ${todo}`)
  }
  return key
}

function parseCertificate(pem: string, key: KeyObject, paths: Paths) {
  const todo = `put the right one back, or move it away to have one made for ${paths.key}`
  let certificate: X509Certificate
  let read: ReadAuthority
  try {
    certificate = new X509Certificate(pem)
    read = readAuthority(certificate.raw)
  } catch (error) {
    throw invalid(`${paths.certificate} holds no certificate: ${todo}`, error)
  }
  if (!certificate.checkPrivateKey(key)) {
    throw invalid(`${paths.certificate} does not belong to ${paths.key}: ${todo}`)
  }
  if (!certificate.ca || !certificate.verify(createPublicKey(key))) {
    throw invalid(`${paths.certificate} is not a self-signed CA certificate: ${todo}`)
  }
  return { certificate, read }
}

function invalid(message: string, cause?: unknown): CupbearerError {
  return new CupbearerError('CA_INVALID', message, cause === undefined ? undefined : { cause })
}

/** System errors name what failed by their code alone. */
function asInvalid(error: unknown, { folder }: Paths): unknown {
  if (error instanceof CupbearerError || errorCode(error) === undefined) return error
  return invalid(`the CA in ${folder} cannot be read or written (${errorCode(error)})`, error)
}
