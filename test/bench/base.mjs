import './names.mjs'
import { readFileSync } from 'node:fs'
import http from 'node:http'
import https from 'node:https'
import { createSecureContext } from 'node:tls'
import { Agent } from 'undici'
import { createMinter } from './certificates.mjs'
import { memo } from './memo.mjs'
import { ready } from './ready.mjs'

/**
 * The yardstick: the least that a Node proxy of these parts can do. CONNECT, TLS in process, the
 * decrypted socket into an HTTP server, undici's dispatch streaming into the response, one constant
 * Authorization. No limits, no traces, no choice, no scrubbing: what it costs, everybody pays.
 * Usage: node base.mjs AUTHORITY.json TOKEN
 */

const authority = JSON.parse(readFileSync(process.argv[2], 'utf8'))
const authorization = `Bearer ${process.argv[3]}`
const HOP_BY_HOP = new Set(['connection', 'keep-alive', 'transfer-encoding', 'upgrade', 'te'])
const agent = new Agent({ connect: { secureContext: createSecureContext({ ca: authority.cert }) } })

/** Upstream's answer, as it comes, into the client's response; legacy handler names are undici's own fast path. */
class Relay {
  #response
  #abort
  #resume

  constructor(response) {
    this.#response = response
    response.sendDate = false
    response.on('close', () => {
      if (!response.writableFinished) this.#abort?.()
    })
  }
  onConnect(abort) {
    if (this.#response.destroyed) abort()
    else this.#abort = abort
  }
  onHeaders(status, rawHeaders, resume, reason) {
    if (status < 200) return true
    const headers = []
    for (let index = 0; index < rawHeaders.length; index += 2) {
      const name = rawHeaders[index].latin1Slice()
      if (HOP_BY_HOP.has(name.toLowerCase())) continue
      headers.push(name, rawHeaders[index + 1].latin1Slice())
    }
    this.#resume = resume
    this.#response.writeHead(status, reason, headers)
    return true
  }
  onData(chunk) {
    if (this.#response.write(chunk)) return true
    this.#response.once('drain', this.#resume)
    return false
  }
  onComplete() {
    this.#response.end()
  }
  onError() {
    if (this.#response.headersSent) this.#response.destroy()
    else this.#response.writeHead(502, { 'content-length': '0' }).end()
  }
}

function forward(request, response) {
  const { rawHeaders } = request
  const headers = ['authorization', authorization]
  let body = null
  let host
  for (let index = 0; index < rawHeaders.length; index += 2) {
    const name = rawHeaders[index].toLowerCase()
    if (name === 'content-length' || name === 'transfer-encoding') body = request
    if (name === 'host') host = rawHeaders[index + 1]
    if (name === 'authorization' || HOP_BY_HOP.has(name)) continue
    headers.push(rawHeaders[index], rawHeaders[index + 1])
  }
  const { method, url: path } = request
  const target = { origin: `https://${host}`, path, method, headers, body }
  agent.dispatch(target, new Relay(response))
}

const mint = createMinter(authority)
const contextOf = memo((servername) => createSecureContext(mint(servername)))

const options = {
  ALPNProtocols: ['http/1.1'],
  SNICallback: (servername, done) => done(null, contextOf(servername)),
}
const inner = https.createServer(options, forward)
inner.on('tlsClientError', () => {})
inner.keepAliveTimeout = 300_000

const front = http.createServer({ noDelay: true })
front.on('connect', (_request, socket, head) => {
  socket.on('error', () => socket.destroy())
  socket.write('HTTP/1.1 200 Connection Established\r\n\r\n')
  if (head.length > 0) socket.unshift(head)
  inner.emit('connection', socket)
})
front.listen(0, '127.0.0.1', 4096, () => ready({ port: front.address().port }))
