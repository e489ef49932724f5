import './names.mjs'
import { existsSync, readFileSync, writeFileSync } from 'node:fs'
import { ready } from './ready.mjs'

/**
 * mockttp passing everything through with one header set; traffic is not recorded.
 * Usage: node mockttp.mjs AUTHORITY.json TOKEN FOLDER
 */
const { generateCACertificate, getLocal } = await import('mockttp')
const [authorityFile, token, folder] = process.argv.slice(2)
const { cert } = JSON.parse(readFileSync(authorityFile, 'utf8'))
const certPath = `${folder}/mockttp.pem`
const keyPath = `${folder}/mockttp.key`
if (!existsSync(certPath)) {
  const authority = await generateCACertificate()
  writeFileSync(certPath, authority.cert)
  writeFileSync(keyPath, authority.key, { mode: 0o600 })
}

const server = getLocal({ https: { certPath, keyPath }, recordTraffic: false, http2: false })
await server.forAnyRequest().thenPassThrough({
  additionalTrustedCAs: [{ cert }],
  transformRequest: { updateHeaders: { authorization: `Bearer ${token}` } },
})
await server.start({ startPort: 20_000, endPort: 60_000 })
ready({ port: server.port, ca: certPath })
