import { request as plain } from 'node:http'
import { connect } from 'node:http2'
import { Agent, request } from 'node:https'
import tls from 'node:tls'

/** A tunnel through the proxy, with TLS to the host inside it. */
function tunnel({ proxyPort, host, port, ca, http2 }) {
  return new Promise((resolve, reject) => {
    const asked = plain({ port: proxyPort, method: 'CONNECT', path: `${host}:${port}` })
    asked.once('error', reject)
    asked.once('connect', (response, socket) => {
      if (response.statusCode !== 200) return reject(new Error(`CONNECT ${response.statusCode}`))
      const ALPNProtocols = [http2 ? 'h2' : 'http/1.1']
      const secure = tls.connect({ socket, servername: host, ca, ALPNProtocols }, () =>
        resolve(secure),
      )
      secure.once('error', reject)
    })
    asked.end()
  })
}

const answerOf = (status, said) => {
  const [, code] = /details="(\w+)"/.exec(said ?? '') ?? []
  return code ?? String(status)
}

/** GETs over a connection, one after another; each resolves with its status or the proxy's code, or undefined where it broke. */
function http1(socket, { host, port }) {
  const agent = new Agent({ keepAlive: true, maxSockets: 1 })
  agent.createConnection = () => socket
  const get = () =>
    new Promise((resolve) => {
      const broke = () => resolve(undefined)
      request({ agent, host, port, path: '/rows' }, (response) => {
        const { statusCode, headers } = response
        response
          .once('error', broke)
          .once('end', () => resolve(answerOf(statusCode, headers['proxy-status'])))
        response.resume()
      })
        .once('error', broke)
        .end()
    })
  return { get, end: () => agent.destroy() }
}

/** The same by HTTP/2. */
function http2(socket, { host, port }) {
  const session = connect(`https://${host}:${port}`, { createConnection: () => socket })
  session.on('error', () => {})
  const get = () =>
    new Promise((resolve) => {
      const broke = () => resolve(undefined)
      if (session.destroyed || session.closed) return broke()
      let answer
      session
        .request({ ':path': '/rows' })
        .once('response', (fields) => {
          answer = answerOf(fields[':status'], fields['proxy-status'])
        })
        .once('error', broke)
        .once('end', () => resolve(answer))
        .once('close', broke)
        .resume()
    })
  return { get, end: () => session.destroy() }
}

/**
 * One worker: sends whenever `turn` resolves true, over connections that it leaves after `perConnection` requests.
 * `tally(outcome)` hears of each.
 */
export async function work(options, { turn, perConnection, tally }) {
  for (;;) {
    const socket = await tunnel(options).catch(() => undefined)
    if (!socket) {
      tally('no connection')
      if (!(await turn())) return
      continue
    }
    socket.on('error', () => {})
    const connection = options.http2 ? http2(socket, options) : http1(socket, options)
    try {
      for (let count = 0; count < perConnection && !socket.destroyed; count++) {
        if (!(await turn())) return
        tally((await connection.get()) ?? 'broken off')
      }
    } finally {
      connection.end()
      socket.destroy()
    }
  }
}
