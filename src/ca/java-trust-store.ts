import { createHmac, randomBytes, X509Certificate } from 'node:crypto'
import forge from 'node-forge'
import { replaceFile } from '../lib/files.ts'
import {
  bmp,
  encode,
  integer,
  type Node,
  nothing,
  objectId,
  octets,
  sequence,
  set,
  tagged,
} from './der.ts'
import { splitCertificates } from './trust.ts'

/** PKCS #12 (RFC 7292) as `keytool` reads it. */

const OID = {
  data: '1.2.840.113549.1.7.1',
  certificateBag: '1.2.840.113549.1.12.10.1.3',
  x509Certificate: '1.2.840.113549.1.9.22.1',
  friendlyName: '1.2.840.113549.1.9.20',
  /** Oracle's own: without it Java takes a certificate for part of a chain, not for a trusted root. */
  trustedKeyUsage: '2.16.840.1.113894.746875.1.1',
  anyExtendedKeyUsage: '2.5.29.37.0',
  sha256: '2.16.840.1.101.3.4.2.1',
}

const MAC_ITERATIONS = 2048
/** The purpose that RFC 7292 appendix B.3 gives to a MAC key. */
const MAC_KEY = 3

/**
 * Writes a Java trust store (PKCS #12, 0644) that trusts the certificates in `pems`. The certificates are
 * public, hence not encrypted; the password only guards against damage.
 */
export async function writeJavaTrustStore(
  file: string,
  pems: readonly string[],
  password: string,
): Promise<void> {
  const certificates = new Set(pems.flatMap(splitCertificates))
  const bags = [...certificates].map((pem, index) =>
    certificateBag(new X509Certificate(pem).raw, `root-${index + 1}`),
  )
  const safe = encode(sequence(dataContent(encode(sequence(...bags)))))
  const store = sequence(integer(3), dataContent(safe), macData(safe, password))
  await replaceFile(file, encode(store), 0o644)
}

function dataContent(bytes: Buffer): Node {
  return sequence(objectId(OID.data), tagged(0, octets(bytes)))
}

function certificateBag(der: Buffer, alias: string): Node {
  return sequence(
    objectId(OID.certificateBag),
    tagged(0, sequence(objectId(OID.x509Certificate), tagged(0, octets(der)))),
    set(
      sequence(objectId(OID.friendlyName), set(bmp(alias))),
      sequence(objectId(OID.trustedKeyUsage), set(objectId(OID.anyExtendedKeyUsage))),
    ),
  )
}

function macData(content: Buffer, password: string): Node {
  const salt = randomBytes(20)
  const key = forge.pkcs12.generateKey(
    password,
    forge.util.createBuffer(salt.toString('latin1')),
    MAC_KEY,
    MAC_ITERATIONS,
    32,
    forge.md.sha256.create(),
  )
  const digest = createHmac('sha256', Buffer.from(key.getBytes(), 'latin1'))
    .update(content)
    .digest()
  const algorithm = sequence(objectId(OID.sha256), nothing())
  return sequence(sequence(algorithm, octets(digest)), octets(salt), integer(MAC_ITERATIONS))
}
