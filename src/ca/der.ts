import { isIP } from 'node:net'
import forge from 'node-forge'

/**
 * The few ASN.1 building blocks of X.509 and PKCS #12, over node-forge's encoder. Values go in and out as
 * Buffers; forge itself works on strings of bytes.
 */

const { asn1 } = forge
const { Class, Type } = asn1

export type Node = forge.asn1.Asn1

const primitive = (type: forge.asn1.Type, bytes: string) =>
  asn1.create(Class.UNIVERSAL, type, false, bytes)

export const sequence = (...items: Node[]) =>
  asn1.create(Class.UNIVERSAL, Type.SEQUENCE, true, items)
export const set = (...items: Node[]) => asn1.create(Class.UNIVERSAL, Type.SET, true, items)
export const objectId = (dotted: string) =>
  primitive(Type.OID, asn1.oidToDer(dotted).getBytes() as string)
export const integer = (value: number | Buffer) =>
  primitive(
    Type.INTEGER,
    typeof value === 'number' ? asn1.integerToDer(value).getBytes() : value.toString('latin1'),
  )
export const boolean = (value: boolean) => primitive(Type.BOOLEAN, value ? '\xff' : '\x00')
export const octets = (bytes: Buffer) => primitive(Type.OCTETSTRING, bytes.toString('latin1'))
export const utf8 = (text: string) => primitive(Type.UTF8, Buffer.from(text).toString('latin1'))
/** UTF-16 big-endian; forge encodes the code units itself. */
export const bmp = (text: string) => primitive(Type.BMPSTRING, text)
export const nothing = () => primitive(Type.NULL, '')

/** A BIT STRING; `unused` counts the bits of the last octet that do not belong to it. */
export const bits = (bytes: Buffer, unused = 0) =>
  primitive(Type.BITSTRING, String.fromCharCode(unused) + bytes.toString('latin1'))

/** A context-specific element that holds others: `[tag]` explicit, or an implicit SEQUENCE. */
export const tagged = (tag: number, ...items: Node[]) =>
  asn1.create(Class.CONTEXT_SPECIFIC, tag as forge.asn1.Type, true, items)

/** A context-specific element that holds plain octets, such as an implicit IA5String. */
export const taggedOctets = (tag: number, bytes: Buffer) =>
  asn1.create(Class.CONTEXT_SPECIFIC, tag as forge.asn1.Type, false, bytes.toString('latin1'))

/** RFC 5280 §4.1.2.5: UTCTime through 2049, GeneralizedTime from 2050. */
export const time = (date: Date) =>
  date.getUTCFullYear() < 2050
    ? primitive(Type.UTCTIME, asn1.dateToUtcTime(date))
    : primitive(Type.GENERALIZEDTIME, asn1.dateToGeneralizedTime(date))

export const encode = (node: Node) => Buffer.from(asn1.toDer(node).getBytes() as string, 'latin1')

/** Throws on what is not one whole DER element. */
export const decode = (der: Buffer): Node => asn1.fromDer(der.toString('latin1'))

/** The elements inside a constructed one; none inside a primitive one. */
export const children = (node: Node | undefined): readonly Node[] =>
  node && Array.isArray(node.value) ? node.value : []

/** The octets of a primitive element; empty for a constructed one. */
export const contents = (node: Node | undefined): Buffer =>
  Buffer.from(node && typeof node.value === 'string' ? node.value : '', 'latin1')

export const isTagged = (node: Node, tag: number): boolean =>
  node.tagClass === Class.CONTEXT_SPECIFIC && Number(node.type) === tag

/** The 4 or 16 octets of an IP address in its canonical spelling. */
export function addressOctets(address: string): Buffer {
  if (isIP(address) === 4) return Buffer.from(address.split('.').map(Number))
  const [head = '', tail = ''] = address.split('::')
  const groups = (text: string) => (text === '' ? [] : text.split(':').map((g) => Number(`0x${g}`)))
  const [front, back] = [groups(head), groups(tail)]
  const octets = Buffer.alloc(16)
  front.forEach((group, index) => {
    octets.writeUInt16BE(group, index * 2)
  })
  back.forEach((group, index) => {
    octets.writeUInt16BE(group, 16 - (back.length - index) * 2)
  })
  return octets
}
