import {
  createPrivateKey,
  createPublicKey,
  generateKeyPairSync,
  randomBytes,
  sign,
} from 'node:crypto'

/**
 * The few bytes of DER that the benchmark's CA and leaves need (RFC 5280), signed natively: minting
 * takes 0.1 ms, so that `base` pays for a new host no more than it must.
 */

const der = (tag, ...parts) => {
  const body = Buffer.concat(parts)
  const length = body.length
  const size = length < 128 ? [length] : length < 256 ? [0x81, length] : [0x82, length >> 8, length]
  return Buffer.concat([Buffer.from([tag, ...size]), body])
}
const sequence = (...parts) => der(0x30, ...parts)
const oid = (hex) => der(0x06, Buffer.from(hex, 'hex'))
const octets = (...parts) => der(0x04, ...parts)
const bits = (bytes, unused = 0) => der(0x03, Buffer.from([unused]), bytes)
const critical = Buffer.from('0101ff', 'hex')
const ecdsaWithSha256 = sequence(oid('2a8648ce3d040302'))
const extension = (id, ...parts) => sequence(oid(id), ...parts)

const name = (commonName) =>
  sequence(der(0x31, sequence(oid('550403'), der(0x0c, Buffer.from(commonName)))))
const utcTime = (date) =>
  der(0x17, Buffer.from(`${date.toISOString().replace(/[-:T]/g, '').slice(2, 14)}Z`))
const pem = (bytes) =>
  `-----BEGIN CERTIFICATE-----\n${bytes.toString('base64').replace(/(.{64})/g, '$1\n')}\n-----END CERTIFICATE-----\n`

function certificate(subject, issuer, publicKey, signingKey, extensions) {
  const serial = randomBytes(16)
  serial[0] = (serial[0] & 0x7f) | 0x40
  const day = 86_400_000
  const body = sequence(
    der(0xa0, Buffer.from('020102', 'hex')),
    der(0x02, serial),
    ecdsaWithSha256,
    name(issuer),
    sequence(utcTime(new Date(Date.now() - day)), utcTime(new Date(Date.now() + 30 * day))),
    name(subject),
    publicKey,
    der(0xa3, sequence(...extensions)),
  )
  return pem(sequence(body, ecdsaWithSha256, bits(sign('sha256', body, signingKey))))
}

const newKey = () => generateKeyPairSync('ec', { namedCurve: 'prime256v1' }).privateKey
const publicBytes = (key) => createPublicKey(key).export({ type: 'spki', format: 'der' })

/** A new CA: `{ cert, key }` as PEM. */
export function createAuthority(commonName) {
  const key = newKey()
  const cert = certificate(commonName, commonName, publicBytes(key), key, [
    extension('551d13', critical, octets(sequence(Buffer.from('0101ff', 'hex')))),
    extension('551d0f', critical, octets(bits(Buffer.from([0x06]), 1))),
  ])
  return { commonName, cert, key: key.export({ type: 'pkcs8', format: 'pem' }) }
}

/** Mints leaves over one shared P-256 key: `mint(...dnsNames)` gives `{ cert, key }` as PEM. */
export function createMinter(authority) {
  const signingKey = createPrivateKey(authority.key)
  const leafKey = newKey()
  const leafPublic = publicBytes(leafKey)
  const key = leafKey.export({ type: 'pkcs8', format: 'pem' })
  return (...dnsNames) => {
    const names = dnsNames.map((dnsName) => der(0x82, Buffer.from(dnsName)))
    const cert = certificate(dnsNames[0], authority.commonName, leafPublic, signingKey, [
      extension('551d25', octets(sequence(oid('2b06010505070301')))),
      extension('551d11', octets(sequence(...names))),
    ])
    return { cert, key }
  }
}
