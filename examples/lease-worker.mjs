// A worker that cannot use the proxy: it leases a token for each request and sends the request itself.
//
//   CUPBEARER_ADMIN=http://127.0.0.1:8081 CUPBEARER_CLIENT=worker:PASSWORD \
//     node lease-worker.mjs supplier https://api.example.com/items?page=1 …
//
// Node alone is enough. See docs/lease-api.md.
import { once } from 'node:events'
import http from 'node:http'
import https from 'node:https'
import { setTimeout as sleep } from 'node:timers/promises'
import tls from 'node:tls'

const TRIES = 3
const TIMEOUT_MS = 60_000
/** What tells why an answer refuses the token. */
const TELLING = ['retry-after', 'ratelimit', 'www-authenticate']

const { CUPBEARER_ADMIN, CUPBEARER_CLIENT = '' } = process.env
const basic = (text) => `Basic ${Buffer.from(text).toString('base64')}`

/** One POST to the admin API; waits where it says when to come back. */
async function call(path, body) {
  for (;;) {
    const answer = await fetch(CUPBEARER_ADMIN + path, {
      method: 'POST',
      headers: { authorization: basic(CUPBEARER_CLIENT) },
      body: JSON.stringify(body),
    })
    if (answer.ok) return answer.json()
    const wait = answer.headers.get('retry-after')
    if (answer.status !== 503 || wait === null) {
      throw new Error(`${path}: ${answer.status} ${await answer.text()}`)
    }
    await sleep(Number(wait) * 1000)
  }
}

/** A socket through an HTTP proxy to the target, TLS included where that is asked for. */
async function tunnel(target, proxy, signal) {
  const authority = `${target.hostname}:${target.port || (target.protocol === 'https:' ? 443 : 80)}`
  const user = `${decodeURIComponent(proxy.username)}:${decodeURIComponent(proxy.password)}`
  const asked = http.request({
    host: proxy.hostname,
    port: proxy.port || 80,
    method: 'CONNECT',
    path: authority,
    signal,
    headers: { host: authority, ...(proxy.username && { 'proxy-authorization': basic(user) }) },
  })
  asked.end()
  const [answer, socket] = await once(asked, 'connect')
  if (answer.statusCode !== 200) {
    socket.destroy()
    throw new Error(`the egress answered CONNECT with ${answer.statusCode}`)
  }
  if (target.protocol === 'http:') return socket
  const servername = /^[\d.]+$|^\[/.test(target.hostname) ? '' : target.hostname
  const secure = tls.connect({ socket, host: target.hostname, servername })
  await once(secure, 'secureConnect', { signal })
  return secure
}

/** How to leave by the lease's egress, or not at all. */
async function way(target, egress, signal) {
  const url = new URL(egress.url)
  if (url.protocol === 'direct:') return { agent: false }
  if (url.protocol === 'local:') return { agent: false, localAddress: url.hostname }
  if (url.protocol !== 'http:') {
    throw new Error(`this example cannot leave by ${url.protocol}, the egress ${egress.name}`)
  }
  const socket = await tunnel(target, url, signal)
  // Only without an agent does Node ask this for the connection.
  return { createConnection: () => socket }
}

/** One GET with the leased token. */
async function send(url, { header, query, headers, egress }) {
  const target = new URL(url)
  const signal = AbortSignal.timeout(TIMEOUT_MS)
  if (query) target.searchParams.append(query.name, query.value)
  const request = (target.protocol === 'https:' ? https : http).request(target, {
    headers: { ...headers, ...(header && { [header.name]: header.value }) },
    signal,
    ...(await way(target, egress, signal)),
  })
  request.end()
  const [answer] = await once(request, 'response')
  answer.setEncoding('utf8')
  let body = ''
  for await (const chunk of answer) body += chunk
  return { status: answer.statusCode, headers: answer.headers, body }
}

/** Lease, send, report; again where the report has healed what was wrong. */
async function get(pool, url) {
  const path = new URL(url).pathname
  let answer
  for (let tries = 0; tries < TRIES; tries++) {
    const lease = await call(`/api/pools/${pool}/leases`, { method: 'GET', path })
    const report = (body) => call(`/api/leases/${lease.lease}`, body)
    try {
      answer = await send(url, lease)
    } catch (error) {
      await report({ verdict: 'unknown' })
      throw error
    }
    const { status, headers } = answer
    const telling = TELLING.filter((name) => headers[name] !== undefined)
    const { verdict } = await report({
      status,
      headers: Object.fromEntries(telling.map((name) => [name, String(headers[name])])),
    })
    console.log(status, verdict, lease.credential, url)
    if (verdict !== 'expired' && verdict !== 'limited') break
  }
  return answer
}

const [pool, ...urls] = process.argv.slice(2)
for (const url of urls) if ((await get(pool, url)).status !== 200) process.exitCode = 1
