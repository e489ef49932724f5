import { request as plain } from 'node:http'
import { Agent, request } from 'node:https'
import tls from 'node:tls'

/** A tunnel through the proxy, with TLS to the host inside it. */
function tunnel({ proxyPort, host, port, ca }) {
  return new Promise((resolve, reject) => {
    const asked = plain({ port: proxyPort, method: 'CONNECT', path: `${host}:${port}` })
    asked.once('error', reject)
    asked.once('connect', (response, socket) => {
      if (response.statusCode !== 200) return reject(new Error(`CONNECT ${response.statusCode}`))
      const secure = tls.connect({ socket, servername: host, ca }, () => resolve(secure))
      secure.once('error', reject)
    })
    asked.end()
  })
}

/** One GET over a connection; resolves with its status and the proxy's code, or undefined where it broke. */
function get(agent, { host, port }) {
  return new Promise((resolve) => {
    const broke = () => resolve(undefined)
    request({ agent, host, port, path: '/rows' }, (response) => {
      const [, code] = /details="(\w+)"/.exec(response.headers['proxy-status'] ?? '') ?? []
      response
        .once('error', broke)
        .once('end', () => resolve({ status: response.statusCode, code }))
      response.resume()
    })
      .once('error', broke)
      .end()
  })
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
    const agent = new Agent({ keepAlive: true, maxSockets: 1 })
    agent.createConnection = () => socket
    try {
      for (let count = 0; count < perConnection && !socket.destroyed; count++) {
        if (!(await turn())) return
        const answer = await get(agent, options)
        tally(answer ? (answer.code ?? String(answer.status)) : 'broken off')
      }
    } finally {
      agent.destroy()
      socket.destroy()
    }
  }
}
