import net from 'node:net'
import tls from 'node:tls'
import { Body, splitHead } from './framing.mjs'
import { CHUNK, fingerprint, LARGE } from './payload.mjs'

/** A raw HTTP/1.1 client: CONNECT + TLS once, then prepared bytes out and responses counted in. */

const opened = (socket, event) =>
  new Promise((resolve, reject) => {
    const fail = (error) => reject(error ?? new Error('closed before it was ready'))
    socket.once('error', fail).once('close', () => fail())
    socket.once(event, () => {
      socket.off('error', fail)
      resolve()
    })
  })

const connectAnswer = (socket) =>
  new Promise((resolve, reject) => {
    let answer = ''
    const read = (bytes) => {
      answer += bytes.latin1Slice()
      if (!answer.endsWith('\r\n\r\n')) return
      socket.off('data', read).pause()
      if (/^HTTP\/1\.[01] 200/.test(answer)) resolve()
      else reject(new Error(`CONNECT: ${answer.split('\r\n')[0]}`))
    }
    socket.on('data', read)
    socket.once('error', reject).once('close', () => reject(new Error('closed during CONNECT')))
  })

/**
 * A route to the origin: `proxyPort` undefined means direct. `own` is the Authorization that the
 * client sends itself; `expected` the one that must arrive at the origin.
 */
export class Route {
  #secureContext
  #fingerprint
  #own

  constructor({ originPort, proxyPort, ca, own, expected }) {
    this.originPort = originPort
    this.proxyPort = proxyPort
    this.#secureContext = tls.createSecureContext({ ca })
    this.#fingerprint = fingerprint(expected)
    this.#own = own ? `Authorization: ${own}\r\n` : ''
  }

  /** The prepared head of a request. */
  head(line, host, more = '') {
    return Buffer.from(
      `${line} HTTP/1.1\r\nHost: ${host}:${this.originPort}\r\nUser-Agent: bench\r\nAccept: application/json\r\n${this.#own}${more}\r\n`,
    )
  }

  /** What must have arrived at the origin. */
  get expectedFingerprint() {
    return this.#fingerprint
  }

  /** Opens one connection to `host`. */
  async open(host) {
    return this.over(await this.secure(host))
  }

  over(socket) {
    return new Connection(socket, this.#fingerprint)
  }

  /** A TLS connection to `host`, which resumes `session` where one is given. */
  async secure(host, protocol = 'http/1.1', session = undefined) {
    const port = this.proxyPort ?? this.originPort
    const socket = net.connect({ host: '127.0.0.1', port, noDelay: true })
    await opened(socket, 'connect')
    if (this.proxyPort) {
      const authority = `${host}:${this.originPort}`
      socket.write(`CONNECT ${authority} HTTP/1.1\r\nHost: ${authority}\r\n\r\n`)
      await connectAnswer(socket)
    }
    const secure = tls.connect({
      socket,
      servername: host,
      secureContext: this.#secureContext,
      ALPNProtocols: [protocol],
      session,
    })
    await opened(secure, 'secureConnect')
    return secure
  }
}

/** One keep-alive connection: one request at a time, `onDone(error, body)` when its response is whole. */
class Connection {
  #socket
  #fingerprint
  #pending
  #body
  #onPart
  #onDone
  closed = false

  constructor(socket, expectedFingerprint) {
    this.#socket = socket
    this.#fingerprint = expectedFingerprint
    socket.on('data', (bytes) => this.#read(bytes))
    socket.on('error', (error) => this.#fail(error))
    socket.on('close', () => this.#fail(new Error('connection closed by the proxy')))
  }

  send(bytes, onDone, onPart) {
    this.#onDone = onDone
    this.#onPart = onPart
    if (this.closed) this.#fail(new Error('connection closed by the proxy'))
    else this.#socket.write(bytes)
  }

  /** Streams the large body after `head`, heeding backpressure. */
  upload(head, onDone, onPart) {
    this.send(head, onDone, onPart)
    let left = LARGE / CHUNK.length
    const more = () => {
      while (left > 0 && !this.closed) {
        left -= 1
        if (!this.#socket.write(CHUNK) && left > 0) return this.#socket.once('drain', more)
      }
    }
    more()
  }

  close() {
    this.#onDone = undefined
    this.closed = true
    this.#socket.end()
    // A proxy that never closes its side must not keep the descriptor.
    this.#socket.setTimeout(1000, () => this.#socket.destroy())
  }

  #fail(error) {
    this.closed = true
    this.#socket.destroy()
    const done = this.#onDone
    this.#onDone = undefined
    done?.(error)
  }

  #read(data) {
    let bytes = data
    if (!this.#body) {
      if (this.#pending) bytes = Buffer.concat([this.#pending, bytes])
      this.#pending = undefined
      const split = splitHead(bytes)
      if (!split) {
        this.#pending = bytes
        return
      }
      const { head } = split
      if (!head.startsWith('HTTP/1.1 200')) return this.#fail(new Error(head.split('\r\n')[0]))
      if (!head.includes(this.#fingerprint)) {
        return this.#fail(new Error('the expected Authorization did not reach the origin'))
      }
      this.#body = new Body(head, this.#onPart)
      bytes = split.rest
    }
    const rest = this.#body.take(bytes)
    if (rest === undefined) return
    if (rest.length > 0) return this.#fail(new Error('bytes after the end of the response'))
    this.#body = undefined
    const done = this.#onDone
    this.#onDone = undefined
    done?.()
  }
}
