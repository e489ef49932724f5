import './names.mjs'
import { readFileSync } from 'node:fs'
import https from 'node:https'
import { createSecureContext } from 'node:tls'
import { Proxy as MitmProxy } from 'http-mitm-proxy'
import { ready } from './ready.mjs'

/**
 * http-mitm-proxy as shipped: its own CA, its server per host, keep-alive on, one header set.
 * Usage: node mitm-bare.mjs AUTHORITY.json TOKEN FOLDER
 */
const [authorityFile, token, sslCaDir] = process.argv.slice(2)
const { cert } = JSON.parse(readFileSync(authorityFile, 'utf8'))
const authorization = `Bearer ${token}`
console.debug = () => {}

const proxy = new MitmProxy()
proxy.onError(() => {})
proxy.onRequest((context, done) => {
  context.proxyToServerRequestOptions.headers.authorization = authorization
  done()
})
const httpsAgent = new https.Agent({
  keepAlive: true,
  secureContext: createSecureContext({ ca: cert }),
})
proxy.listen({ host: '127.0.0.1', port: 0, sslCaDir, keepAlive: true, httpsAgent }, (error) => {
  if (error) throw error
  ready({ port: proxy.httpPort, ca: `${sslCaDir}/certs/ca.pem` })
})
