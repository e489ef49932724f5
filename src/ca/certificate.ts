import { createHash, type KeyObject, randomBytes, sign } from 'node:crypto'
import {
  addressOctets,
  bits,
  boolean,
  children,
  contents,
  decode,
  encode,
  integer,
  isTagged,
  type Node,
  objectId,
  octets,
  sequence,
  set,
  tagged,
  taggedOctets,
  time,
  utf8,
} from './der.ts'
import type { Names } from './names.ts'

/** X.509 v3 certificates (RFC 5280), built by node-forge's ASN.1 and signed by OpenSSL. */

const OID = {
  commonName: '2.5.4.3',
  organization: '2.5.4.10',
  subjectKeyIdentifier: '2.5.29.14',
  keyUsage: '2.5.29.15',
  subjectAltName: '2.5.29.17',
  basicConstraints: '2.5.29.19',
  nameConstraints: '2.5.29.30',
  authorityKeyIdentifier: '2.5.29.35',
  extKeyUsage: '2.5.29.37',
  serverAuth: '1.3.6.1.5.5.7.3.1',
  ecdsaWithSha256: '1.2.840.10045.4.3.2',
}

/** GeneralName's context tags, RFC 5280 §4.2.1.6. */
const DNS_NAME = 2
const IP_ADDRESS = 7

/** Bits of KeyUsage, RFC 5280 §4.2.1.3, with the bits that pad the octet. */
const DIGITAL_SIGNATURE = bits(Buffer.from([0x80]), 7)
const CERT_SIGN_AND_CRL_SIGN = bits(Buffer.from([0x06]), 1)

const ECDSA_WITH_SHA256 = sequence(objectId(OID.ecdsaWithSha256))
const SERVER_AUTH = extension(OID.extKeyUsage, false, sequence(objectId(OID.serverAuth)))
const ANY_IPV4 = Buffer.alloc(8)
const ANY_IPV6 = Buffer.alloc(32)

export interface Validity {
  readonly notBefore: Date
  readonly notAfter: Date
}

/** Who signs: subject and key identifier of the issuing certificate, and its key. */
export interface Issuer {
  readonly subject: Node
  readonly keyIdentifier: Buffer
  readonly key: KeyObject
}

function extension(id: string, critical: boolean, value: Node): Node {
  const parts = [objectId(id), ...(critical ? [boolean(true)] : []), octets(encode(value))]
  return sequence(...parts)
}

/** A P-256 key's identifier: the leftmost 160 bits of SHA-256 over its public point (RFC 7093 §2). */
export function keyIdentifier(publicKey: KeyObject): Buffer {
  const point = publicKey.export({ type: 'spki', format: 'der' }).subarray(-65)
  return createHash('sha256').update(point).digest().subarray(0, 20)
}

/** A key as a certificate bears it, SubjectPublicKeyInfo. */
export function publicKeyInfo(publicKey: KeyObject): Node {
  return decode(publicKey.export({ type: 'spki', format: 'der' }))
}

/** The subject of a leaf. Never empty, hence its subjectAltName is not critical (RFC 5280 §4.2.1.6). */
const LEAF_SUBJECT = sequence(attribute(OID.organization, 'Cupbearer'))

/** The subject of a CA certificate. */
export function authoritySubject(commonName: string): Node {
  return sequence(attribute(OID.organization, 'Cupbearer'), attribute(OID.commonName, commonName))
}

function attribute(id: string, value: string): Node {
  return set(sequence(objectId(id), utf8(value)))
}

function signed(
  issuer: Issuer,
  subject: Node,
  publicKey: Node,
  { notBefore, notAfter }: Validity,
  extensions: Node[],
): Buffer {
  // 16 random octets, positive and never shortened (RFC 5280 §4.1.2.2).
  const serial = randomBytes(16)
  serial[0] = ((serial[0] as number) & 0x3f) | 0x40
  const toBeSigned = sequence(
    tagged(0, integer(2)),
    integer(serial),
    ECDSA_WITH_SHA256,
    issuer.subject,
    sequence(time(notBefore), time(notAfter)),
    subject,
    publicKey,
    tagged(3, sequence(...extensions)),
  )
  const signature = sign('sha256', encode(toBeSigned), issuer.key)
  return encode(sequence(toBeSigned, ECDSA_WITH_SHA256, bits(signature)))
}

/** A self-signed CA certificate; `permitted` undefined leaves it without name constraints. */
export function buildAuthority(
  issuer: Issuer,
  publicKey: Node,
  validity: Validity,
  permitted: Names | undefined,
): Buffer {
  return signed(issuer, issuer.subject, publicKey, validity, [
    extension(OID.basicConstraints, true, sequence(boolean(true), integer(0))),
    extension(OID.keyUsage, true, CERT_SIGN_AND_CRL_SIGN),
    SERVER_AUTH,
    extension(OID.subjectKeyIdentifier, false, octets(issuer.keyIdentifier)),
    ...(permitted ? [extension(OID.nameConstraints, true, nameConstraints(permitted))] : []),
  ])
}

/** A server certificate for one DNS name (which may start with `*.`) or one IP address. */
export function buildLeaf(
  issuer: Issuer,
  publicKey: Node,
  subjectKeyIdentifier: Buffer,
  validity: Validity,
  name: { readonly dns: string } | { readonly address: string },
): Buffer {
  const subjectAltName =
    'dns' in name
      ? taggedOctets(DNS_NAME, Buffer.from(name.dns, 'latin1'))
      : taggedOctets(IP_ADDRESS, addressOctets(name.address))
  return signed(issuer, LEAF_SUBJECT, publicKey, validity, [
    extension(OID.keyUsage, true, DIGITAL_SIGNATURE),
    SERVER_AUTH,
    extension(OID.basicConstraints, true, sequence()),
    extension(OID.subjectKeyIdentifier, false, octets(subjectKeyIdentifier)),
    extension(OID.authorityKeyIdentifier, false, sequence(taggedOctets(0, issuer.keyIdentifier))),
    extension(OID.subjectAltName, false, sequence(subjectAltName)),
  ])
}

/**
 * RFC 5280 §4.2.1.10. A permitted name restricts its own form only, so both forms are always restricted:
 * where no DNS name is mapped, one that cannot exist (RFC 6761 §6.4) is permitted in their place; where no
 * address of a family is mapped, the whole family is excluded.
 */
function nameConstraints({ dns, addresses }: Names): Node {
  const permittedNames = dns.length > 0 ? dns : ['cupbearer.invalid']
  const octetsOf = addresses.map(addressOctets)
  const permitted = [
    ...permittedNames.map((name) => taggedOctets(DNS_NAME, Buffer.from(name, 'latin1'))),
    ...octetsOf.map((address) =>
      taggedOctets(IP_ADDRESS, Buffer.concat([address, Buffer.alloc(address.length, 0xff)])),
    ),
  ]
  const excluded = [ANY_IPV4, ANY_IPV6]
    .filter((family) => !octetsOf.some((address) => address.length * 2 === family.length))
    .map((family) => taggedOctets(IP_ADDRESS, family))
  return sequence(
    tagged(0, ...permitted.map((name) => sequence(name))),
    ...(excluded.length > 0 ? [tagged(1, ...excluded.map((name) => sequence(name)))] : []),
  )
}

/** What is needed of a CA certificate beyond what node:crypto tells of it. */
export interface ReadAuthority {
  readonly subject: Node
  readonly subjectKeyIdentifier: Buffer | undefined
  /** Undefined without name constraints. */
  readonly permits: { dns(name: string): boolean; address(address: string): boolean } | undefined
}

/** Reads a certificate's subject, key identifier and name constraints; throws on what is no certificate. */
export function readAuthority(der: Buffer): ReadAuthority {
  const [toBeSigned] = children(decode(der))
  const fields = children(toBeSigned)
  const subject = fields[5]
  if (!subject) throw new Error('not a v3 certificate')
  const extensions = children(children(fields.find((field) => isTagged(field, 3)))[0])
  const value = (id: string) => {
    const encoded = encode(objectId(id))
    const found = extensions.find((each) => {
      const first = children(each)[0]
      return first !== undefined && encode(first).equals(encoded)
    })
    const last = children(found).at(-1)
    return last && decode(contents(last))
  }
  const constraints = value(OID.nameConstraints)
  const identifier = value(OID.subjectKeyIdentifier)
  return {
    subject,
    subjectKeyIdentifier: identifier && contents(identifier),
    permits: constraints && readConstraints(constraints),
  }
}

function readConstraints(constraints: Node): NonNullable<ReadAuthority['permits']> {
  const permitted = children(children(constraints).find((each) => isTagged(each, 0)))
  const names = permitted.flatMap((subtree) => children(subtree)[0] ?? [])
  const domains = names
    .filter((name) => isTagged(name, DNS_NAME))
    .map((name) => contents(name).toString('latin1'))
  const ranges = names.filter((name) => isTagged(name, IP_ADDRESS)).map(contents)
  return {
    dns: (name) => domains.some((domain) => name === domain || name.endsWith(`.${domain}`)),
    address: (address) => {
      const own = addressOctets(address)
      return ranges.some(
        (range) =>
          range.length === own.length * 2 &&
          own.every((octet, index) => {
            const mask = range[own.length + index] as number
            return (octet & mask) === ((range[index] as number) & mask)
          }),
      )
    },
  }
}
