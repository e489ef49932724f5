import { generateKeyPairSync, type KeyObject, randomBytes, sign } from 'node:crypto'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { isIP } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll } from 'vitest'

/** A server's key and certificate chain, as PEM. */
export interface IssuedCertificate {
  readonly key: string
  readonly cert: string
}

export interface IssueOptions {
  /** Not valid any more since a day. */
  readonly expired?: boolean
  /** Signed by its own key: nobody trusts it. */
  readonly selfSigned?: boolean
  /** Only a common name, no subject alternative name. */
  readonly commonNameOnly?: boolean
  /** Valid from tomorrow on. */
  readonly early?: boolean
  /** Signed by an authority that nobody knows. */
  readonly unknownIssuer?: boolean
  /** An RSA key of 1024 bits. */
  readonly weakKey?: boolean
  /** Signed over a SHA-1 digest. */
  readonly sha1?: boolean
  /** The names stand as this kind of alternative name, whatever they are: 0x82 is DNS, 0x86 is URI. */
  readonly nameTag?: number
}

/** A throw-away certification authority. */
export interface TestAuthority {
  readonly caPem: string
  /** The same in a file, for `upstream.ca`; it goes with the test file. */
  readonly caFile: string
  /** A certificate for host names and IP addresses. */
  issue(names: readonly string[], options?: IssueOptions): IssuedCertificate
}

let authority: TestAuthority | undefined
const folders: string[] = []

// Vitest kills its workers: an `exit` listener would never hear of it.
afterAll(() => {
  for (const folder of folders.splice(0)) rmSync(folder, { recursive: true, force: true })
})

/** The authority of this test process. */
export function testAuthority(): TestAuthority {
  authority ??= createAuthority()
  return authority
}

function createAuthority(): TestAuthority {
  const name = 'Cupbearer test CA'
  const ca = generateKeyPairSync('ec', { namedCurve: 'P-256' })
  const caPem = certificate({
    name,
    key: ca.publicKey,
    issuer: name,
    signer: ca.privateKey,
    ca: true,
  })
  const folder = mkdtempSync(join(tmpdir(), 'cupbearer-test-ca-'))
  folders.push(folder)
  const caFile = join(folder, 'ca.pem')
  writeFileSync(caFile, caPem)
  const issued = new Map<string, IssuedCertificate>()
  return {
    caPem,
    caFile,
    issue(names, options = {}) {
      const id = JSON.stringify([names, options])
      let result = issued.get(id)
      if (!result) {
        const pair = options.weakKey
          ? generateKeyPairSync('rsa', { modulusLength: 1024 })
          : generateKeyPairSync('ec', { namedCurve: 'P-256' })
        const stranger = generateKeyPairSync('ec', { namedCurve: 'P-256' }).privateKey
        const commonName = names[0] ?? 'nobody'
        const cert = certificate({
          name: commonName,
          key: pair.publicKey,
          issuer: options.selfSigned ? commonName : options.unknownIssuer ? 'Nobody’s CA' : name,
          signer: options.selfSigned
            ? pair.privateKey
            : options.unknownIssuer
              ? stranger
              : ca.privateKey,
          ca: false,
          names: options.commonNameOnly ? [] : names,
          expired: options.expired ?? false,
          early: options.early ?? false,
          sha1: options.sha1 ?? false,
          nameTag: options.nameTag,
        })
        const key = pair.privateKey.export({ type: 'pkcs8', format: 'pem' }).toString()
        result = { key, cert }
        issued.set(id, result)
      }
      return result
    },
  }
}

interface Fields {
  name: string
  key: KeyObject
  issuer: string
  signer: KeyObject
  ca: boolean
  names?: readonly string[]
  expired?: boolean
  early?: boolean
  sha1?: boolean
  nameTag?: number | undefined
}

const DAY_MS = 86_400_000
const ECDSA_WITH_SHA256 = sequence(identifier('2a8648ce3d040302'))
const ECDSA_WITH_SHA1 = sequence(identifier('2a8648ce3d0401'))

/** An X.509 v3 certificate (RFC 5280 §4.1), built by hand: forge signs with RSA only. */
function certificate(fields: Fields): string {
  const now = Date.now()
  const extensions: Buffer[] = []
  if (fields.ca) {
    extensions.push(extension('551d13', sequence(der(0x01, Buffer.from([0xff])))))
    extensions.push(extension('551d0f', der(0x03, Buffer.from([1, 0x06]))))
  } else if (fields.names?.length) {
    const { nameTag: tag } = fields
    const names = fields.names.map((text) =>
      tag ? der(tag, Buffer.from(text)) : generalName(text),
    )
    extensions.push(extension('551d11', sequence(...names)))
  }
  const algorithm = fields.sha1 ? ECDSA_WITH_SHA1 : ECDSA_WITH_SHA256
  const body = sequence(
    der(0xa0, der(0x02, Buffer.from([2]))),
    der(0x02, Buffer.concat([Buffer.from([1]), randomBytes(15)])),
    algorithm,
    commonName(fields.issuer),
    sequence(
      time(fields.early ? now + DAY_MS : now - 10 * DAY_MS),
      time(fields.expired ? now - DAY_MS : now + 10 * DAY_MS),
    ),
    commonName(fields.name),
    fields.key.export({ type: 'spki', format: 'der' }),
    ...(extensions.length > 0 ? [der(0xa3, sequence(...extensions))] : []),
  )
  const signature = sign(fields.sha1 ? 'sha1' : 'sha256', body, fields.signer)
  const whole = sequence(body, algorithm, der(0x03, Buffer.from([0]), signature))
  const lines = whole.toString('base64').match(/.{1,64}/g) ?? []
  return `-----BEGIN CERTIFICATE-----\n${lines.join('\n')}\n-----END CERTIFICATE-----\n`
}

function der(tag: number, ...content: Buffer[]): Buffer {
  const body = Buffer.concat(content)
  const { length } = body
  const head =
    length < 0x80
      ? [tag, length]
      : length < 0x100
        ? [tag, 0x81, length]
        : [tag, 0x82, length >> 8, length & 0xff]
  return Buffer.concat([Buffer.from(head), body])
}

function sequence(...content: Buffer[]): Buffer {
  return der(0x30, ...content)
}

function identifier(hex: string): Buffer {
  return der(0x06, Buffer.from(hex, 'hex'))
}

function commonName(text: string): Buffer {
  return sequence(der(0x31, sequence(identifier('550403'), der(0x0c, Buffer.from(text)))))
}

function time(ms: number): Buffer {
  const text = new Date(ms).toISOString().replace(/[-:T]|\.\d+/g, '')
  return der(0x17, Buffer.from(text.slice(2)))
}

function extension(oid: string, value: Buffer): Buffer {
  return sequence(identifier(oid), der(0x04, value))
}

function generalName(name: string): Buffer {
  const family = isIP(name)
  if (family === 0) return der(0x82, Buffer.from(name))
  if (family === 4) return der(0x87, Buffer.from(name.split('.').map(Number)))
  if (name !== '::1') throw new Error('of IPv6 only ::1 is needed')
  return der(0x87, Buffer.concat([Buffer.alloc(15), Buffer.from([1])]))
}
