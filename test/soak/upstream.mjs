import { createServer } from 'node:https'
import { text } from 'node:stream/consumers'
import { Accounts, WindowCheck } from './accounts.mjs'

/** Tokens live that long, ms. */
const LIFETIME = 20_000
/** What one account of the narrow pool may do. */
export const LIMIT = { count: 20, window: 1000 }
/**
 * The limit holds for requests as sent. On their way some arrive later than others, so arrivals are judged by a
 * window that is shorter by this much, ms.
 */
const TRANSIT = 300
const BODY = Buffer.from(JSON.stringify({ rows: 'x'.repeat(960) }))

/**
 * The API and its token endpoint, a process of their own that misbehaves by a fixed plan: some answers are late,
 * some connections are reset before they answer, the token endpoint has bursts of 503, tokens are revoked early.
 */
const accounts = new Accounts(LIFETIME)
const arrivals = new WindowCheck(LIMIT.count, LIMIT.window - TRANSIT)
const seen = {
  requests: 0,
  ok: 0,
  refused: 0,
  reset: 0,
  late: 0,
  tokenCalls: 0,
  tokenFaults: 0,
  revoked: 0,
}
const begun = performance.now()
let names = []

function api(request, response) {
  request.resume()
  seen.requests += 1
  const token = /^Bearer (\S+)$/.exec(request.headers.authorization ?? '')?.[1] ?? ''
  const account = accounts.judge(token)
  if (account?.startsWith('narrow')) arrivals.note(account, performance.now())
  if (account === undefined) {
    seen.refused += 1
    response.writeHead(401, { 'www-authenticate': 'Bearer error="invalid_token"' }).end()
    return
  }
  if (seen.requests % 5000 === 0) {
    seen.reset += 1
    request.socket.destroy()
    return
  }
  const answer = () => {
    seen.ok += 1
    response.writeHead(200, { 'content-type': 'application/json', 'content-length': BODY.length })
    response.end(BODY)
  }
  if (seen.requests % 1000 === 0) {
    seen.late += 1
    setTimeout(answer, 250)
  } else answer()
}

async function tokenEndpoint(request, response) {
  const form = new URLSearchParams(await text(request).catch(() => ''))
  seen.tokenCalls += 1
  const seconds = (performance.now() - begun) / 1000
  // Three seconds of each half minute.
  if (seconds > 10 && seconds % 30 < 3) {
    seen.tokenFaults += 1
    response.writeHead(503).end('<html>busy</html>')
    return
  }
  const issued = accounts.renew(form.get('refresh_token') ?? '')
  response.writeHead(issued ? 200 : 400, { 'content-type': 'application/json' })
  response.end(JSON.stringify(issued ?? { error: 'invalid_grant' }))
}

process.once('message', ({ certificate, accountNames }) => {
  names = accountNames
  const refreshTokens = Object.fromEntries(names.map((name) => [name, accounts.enrol(name)]))
  const server = createServer(certificate, (request, response) => {
    if (request.url === '/token') void tokenEndpoint(request, response)
    else api(request, response)
  })
  // Connections that end while clients use them: what a load balancer does all the time.
  server.maxRequestsPerSocket = 2000
  server.listen(0, '127.0.0.1', () => process.send({ port: server.address().port, refreshTokens }))
  setInterval(() => {
    const account = names[seen.revoked % names.length]
    accounts.revoke(account)
    seen.revoked += 1
  }, 13_000).unref()
  process.on('message', () => {
    const { issued, reused } = accounts
    process.send({ ...seen, issued, reused, violations: arrivals.violations })
  })
})
process.on('disconnect', () => process.exit(0))
