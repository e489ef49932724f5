import { createHash } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { createSecureContext, createServer } from 'node:tls'
import { createMinter } from './certificates.mjs'
import { Body, splitHead } from './framing.mjs'
import { RawServer } from './http2-raw.mjs'
import { memo } from './memo.mjs'
import { CHUNK, fingerprint, HTTP2_HOST, JSON_BODY, LARGE } from './payload.mjs'
import { ready } from './ready.mjs'

/**
 * The upstream: hand-written HTTP/1.1 framing over TLS, so that it costs next to nothing.
 * GET /json gives 1 KB, GET /large 10 MB, POST /large counts what it gets, GET /echo sends all back that comes. Every response names the
 * fingerprint of the Authorization that arrived, so that the generator can see the injection. One host speaks HTTP/2
 * and gives 1 KB whatever it is asked.
 * Usage: node origin.mjs AUTHORITY.json.
 */

const mint = createMinter(JSON.parse(readFileSync(process.argv[2], 'utf8')))
const contextOf = memo((domain) => createSecureContext(mint(`*.${domain}`)))
const domainOf = (servername) => servername.slice(servername.indexOf('.') + 1)
const fingerprintOf = memo(fingerprint)
const seen = (head) => fingerprintOf(/^authorization: (.*)\r$/im.exec(head)?.[1] ?? '')

const responseHead = (hash, length) =>
  Buffer.from(
    `HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nX-Authorization-Seen: ${hash}\r\nContent-Length: ${length}\r\n\r\n`,
  )
const jsonResponse = memo((hash) =>
  Buffer.concat([responseHead(hash, JSON_BODY.length), JSON_BODY]),
)

function sendLarge(socket, hash) {
  socket.write(responseHead(hash, LARGE))
  let left = LARGE / CHUNK.length
  const more = () => {
    while (left > 0) {
      left -= 1
      if (!socket.write(CHUNK) && left > 0) return socket.once('drain', more)
    }
  }
  more()
}

/** Counts an upload; `x-verify: 1` asks for its SHA-1 too. */
function receive(head, answer) {
  const hash = /^x-verify: 1\r$/im.test(head) ? createHash('sha1') : undefined
  let size = 0
  const body = new Body(head, (part) => {
    size += part.length
    hash?.update(part)
  })
  return (bytes) => {
    const rest = body.take(bytes)
    if (rest) answer(Buffer.from(JSON.stringify({ size, sha1: hash?.digest('hex') })))
    return rest
  }
}

/** A WebSocket server that has nothing of its own to say (RFC 6455 §4.2.2; the key is always the same). */
function echo(socket, early) {
  socket.removeAllListeners('data')
  socket.write(
    'HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n',
  )
  if (early.length > 0) socket.write(early)
  socket.on('data', (bytes) => socket.write(bytes))
}

function serve(socket) {
  if (socket.alpnProtocol === 'h2') {
    socket.on('error', () => socket.destroy())
    return new RawServer(socket, JSON_BODY)
  }
  let pending
  let take
  socket.on('error', () => socket.destroy())
  socket.on('data', (data) => {
    let bytes = pending ? Buffer.concat([pending, data]) : data
    pending = undefined
    while (bytes.length > 0) {
      if (take) {
        bytes = take(bytes)
        if (!bytes) return
        take = undefined
        continue
      }
      const split = splitHead(bytes)
      if (!split) {
        pending = bytes
        return
      }
      const { head } = split
      bytes = split.rest
      const hash = seen(head)
      if (head.startsWith('GET /json ')) socket.write(jsonResponse(hash))
      else if (head.startsWith('GET /echo ')) return echo(socket, bytes)
      else if (head.startsWith('GET /large ')) sendLarge(socket, hash)
      else if (head.startsWith('POST /large ')) {
        take = receive(head, (report) =>
          socket.write(Buffer.concat([responseHead(hash, report.length), report])),
        )
      } else socket.end('HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n')
    }
  })
}

const server = createServer(
  {
    ...mint('*.bench.test'),
    ALPNCallback: ({ servername, protocols }) =>
      servername === HTTP2_HOST && protocols.includes('h2') ? 'h2' : 'http/1.1',
    noDelay: true,
    SNICallback: (servername, done) => done(null, contextOf(domainOf(servername))),
  },
  serve,
)
server.on('tlsClientError', () => {})
server.listen(0, '127.0.0.1', 4096, () => {
  ready({ port: server.address().port })
})
