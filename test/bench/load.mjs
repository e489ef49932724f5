import { createHash } from 'node:crypto'
import http2 from 'node:http2'
import { performance } from 'node:perf_hooks'
import { Route } from './client.mjs'
import { RawSession } from './http2-raw.mjs'
import { HTTP2_HOST, JSON_BODY, LARGE, LARGE_SHA1 } from './payload.mjs'
import { cpuSeconds } from './processes.mjs'

/**
 * The load generator, a process of its own: takes `{ id, operation, … }` by IPC and answers
 * `{ id, result }` or `{ id, error }`. Closed loop: each connection sends its next request when the
 * last response is whole. Every status, length and injected Authorization is checked, every 64th body.
 */

const KNOWN_HOST = 'api.bench.test'
const SAMPLE = 64
const LONGEST_WARM_UP = 10_000
const HOLD_WITHIN = 15_000
const held = []

const sha1Of = (parts) => {
  const hash = createHash('sha1')
  for (const part of parts) hash.update(part)
  return hash.digest('hex')
}

/** One request as a promise: `{ size, parts }` of its response body. */
const once = (connection, bytes, upload = false) =>
  new Promise((resolve, reject) => {
    const parts = []
    const done = (error) => (error ? reject(error) : resolve(parts))
    if (upload) connection.upload(bytes, done, (part) => parts.push(part))
    else connection.send(bytes, done, (part) => parts.push(part))
  })

const POST = `Content-Type: application/octet-stream\r\nContent-Length: ${LARGE}\r\n`

/** Proves that the route works at all: whole bodies both ways, byte for byte. */
async function verify({ route: options }) {
  const route = new Route(options)
  const connection = await route.open(KNOWN_HOST)
  const json = await once(connection, route.head('GET /json', KNOWN_HOST))
  if (!Buffer.concat(json).equals(JSON_BODY)) throw new Error('the JSON body came back altered')
  const large = await once(connection, route.head('GET /large', KNOWN_HOST))
  if (sha1Of(large) !== LARGE_SHA1) throw new Error('the download came back altered')
  const head = route.head('POST /large', KNOWN_HOST, `${POST}X-Verify: 1\r\n`)
  const report = JSON.parse(Buffer.concat(await once(connection, head, true)).toString())
  if (report.sha1 !== LARGE_SHA1) throw new Error('the upload arrived altered')
  connection.close()
  return {}
}

/** Sends one request by `work` and calls back when its response is whole and right. */
const works = {
  json(route) {
    const bytes = route.head('GET /json', KNOWN_HOST)
    let count = 0
    return (connection, done) => {
      count += 1
      if (count % SAMPLE !== 0) return connection.send(bytes, done)
      const parts = []
      const check = (error) => {
        const same = error || Buffer.concat(parts).equals(JSON_BODY)
        done(same === true ? undefined : error || new Error('a JSON body came back altered'))
      }
      connection.send(bytes, check, (part) => parts.push(part))
    }
  },
  download(route) {
    const bytes = route.head('GET /large', KNOWN_HOST)
    return (connection, done) => {
      let size = 0
      const check = (error) =>
        done(error ?? (size === LARGE ? undefined : new Error(`${size} bytes came`)))
      connection.send(bytes, check, (part) => {
        size += part.length
      })
    }
  },
  upload(route) {
    const bytes = route.head('POST /large', KNOWN_HOST, POST)
    return (connection, done) => {
      const parts = []
      const check = (error) => {
        if (error) return done(error)
        const { size } = JSON.parse(Buffer.concat(parts).toString())
        done(size === LARGE ? undefined : new Error(`${size} bytes arrived`))
      }
      connection.upload(bytes, check, (part) => parts.push(part))
    }
  },
}

/**
 * Counts, times and CPU between the first completion after `warmUp` and the first after `duration` more. A warm-up
 * lasts until `warmRequests` are done, too: on a busy machine that takes longer.
 */
class Slice {
  #begins = performance.now()
  #warmUp
  #warmRequests
  #duration
  #pids
  #originPid
  #begun
  #cpu
  #origin
  #own
  #requests = 0
  #latencies = []
  #finish
  done

  constructor({ warmUp, warmRequests = 0, duration, pids, originPid }) {
    this.#warmUp = warmUp
    this.#warmRequests = warmRequests
    this.#duration = duration
    this.#pids = pids
    this.#originPid = originPid ? [originPid] : []
    this.done = new Promise((resolve, reject) => {
      const stalled = () => reject(new Error('no progress'))
      const timer = setTimeout(stalled, LONGEST_WARM_UP + duration + 20_000)
      this.#finish = (error, result) => {
        clearTimeout(timer)
        if (error) reject(error)
        else resolve(result)
      }
    })
  }

  /** Notes that `count` requests, sent at `sentAt`, are done; false once the slice is over. */
  note(sentAt, count = 1) {
    const now = performance.now()
    if (this.#begun === undefined) {
      this.#warmRequests -= count
      const warming = now - this.#begins
      const warm = warming > this.#warmUp && this.#warmRequests <= 0
      if (!warm && warming < LONGEST_WARM_UP) return true
      this.#cpu = cpuSeconds(this.#pids)
      this.#origin = cpuSeconds(this.#originPid)
      this.#own = process.cpuUsage()
      this.#begun = performance.now()
      return true
    }
    this.#requests += count
    this.#latencies.push(now - sentAt)
    if (now - this.#begun < this.#duration) return true
    const seconds = (now - this.#begun) / 1000
    const own = process.cpuUsage(this.#own)
    const latencies = Float64Array.from(this.#latencies).sort()
    const at = (share) => latencies[Math.min(latencies.length - 1, (latencies.length * share) | 0)]
    this.#finish(undefined, {
      requests: this.#requests,
      seconds,
      cpuSeconds: cpuSeconds(this.#pids) - this.#cpu,
      p50: at(0.5),
      p99: at(0.99),
      originBusy: (cpuSeconds(this.#originPid) - this.#origin) / seconds,
      generatorBusy: (own.user + own.system) / 1e6 / seconds,
    })
    return false
  }

  fail(error) {
    this.#finish(error)
  }
}

/** Keep-alive connections, each in its own closed loop. */
async function throughput({ route: options, work, connections, ...bounds }) {
  const route = new Route(options)
  const open = await Promise.all(Array.from({ length: connections }, () => route.open(KNOWN_HOST)))
  const send = works[work](route)
  const slice = new Slice(bounds)
  for (const connection of open) {
    const next = () => {
      const sentAt = performance.now()
      send(connection, (error) => {
        if (error) slice.fail(error)
        else if (slice.note(sentAt)) next()
      })
    }
    next()
  }
  try {
    return await slice.done
  } finally {
    for (const connection of open) connection.close()
  }
}

/** A new CONNECT + TLS for each request: to the known host, or each to a host (and domain) never seen before. */
async function cold({ route: options, connections, firstHost, resume, ...bounds }) {
  const route = new Route(options)
  const slice = new Slice(bounds)
  let hosts = firstHost
  let over = false
  let session
  let resumed = 0
  const loop = async () => {
    while (!over) {
      const host = firstHost === undefined ? KNOWN_HOST : `api.n${hosts++}.bench.test`
      const sentAt = performance.now()
      const socket = await route.secure(host, undefined, session)
      if (resume) socket.on('session', (ticket) => (session = ticket))
      if (socket.isSessionReused()) resumed += 1
      const connection = route.over(socket)
      const body = await once(connection, route.head('GET /json', host))
      connection.close()
      if (!Buffer.concat(body).equals(JSON_BODY)) throw new Error('a JSON body came back altered')
      if (!slice.note(sentAt)) over = true
    }
  }
  for (let index = 0; index < connections; index += 1) loop().catch((error) => slice.fail(error))
  try {
    const result = await slice.done
    if (resume && resumed < result.requests / 2) throw new Error('sessions are not resumed')
    return { ...result, nextHost: hosts }
  } finally {
    over = true
  }
}

/** HTTP/2: `connections` sessions, each with `streams` requests under way at any time. */
async function multiplexed({ route: options, connections, streams, ...bounds }) {
  const route = new Route(options)
  const slice = new Slice(bounds)
  const sessions = []
  for (let index = 0; index < connections; index += 1) {
    const socket = await route.secure(KNOWN_HOST, 'h2')
    if (socket.alpnProtocol !== 'h2') throw new Error('HTTP/2 is not spoken')
    const createConnection = () => socket
    const session = http2.connect(`https://${KNOWN_HOST}:${route.originPort}`, { createConnection })
    session.on('error', (error) => slice.fail(error))
    sessions.push(session)
  }
  const next = (session) => {
    const sentAt = performance.now()
    let size = 0
    session
      .request({ ':path': '/json', accept: 'application/json' })
      .on('response', (fields) => {
        const seen = fields[':status'] === 200 && fields['x-authorization-seen']
        if (seen !== route.expectedFingerprint) slice.fail(new Error(`status ${fields[':status']}`))
      })
      .on('data', (part) => {
        size += part.length
      })
      .on('error', (error) => slice.fail(error))
      .on('end', () => {
        if (size !== JSON_BODY.length) slice.fail(new Error(`${size} bytes came`))
        else if (slice.note(sentAt)) next(session)
      })
  }
  for (const session of sessions) for (let index = 0; index < streams; index += 1) next(session)
  try {
    return await slice.done
  } finally {
    for (const session of sessions) session.destroy()
  }
}

/** The same with a generator and an origin of next to no cost, so that the proxy is what there is too little of. */
async function crowd({ route: options, connections, streams, ...bounds }) {
  const route = new Route(options)
  const slice = new Slice(bounds)
  const sessions = []
  for (let index = 0; index < connections; index += 1) {
    const socket = await route.secure(HTTP2_HOST, 'h2')
    if (socket.alpnProtocol !== 'h2') throw new Error('HTTP/2 is not spoken')
    let sentAt = performance.now()
    const session = new RawSession(socket, {
      path: '/json',
      authority: `${HTTP2_HOST}:${route.originPort}`,
      length: JSON_BODY.length,
      onError: (error) => slice.fail(error),
      onAnswers: (count) => {
        const before = sentAt
        sentAt = performance.now()
        if (slice.note(before, count)) session.request(count)
      },
    })
    sessions.push(session)
  }
  for (const session of sessions) session.request(streams)
  try {
    return await slice.done
  } finally {
    for (const session of sessions) session.close()
  }
}

/** A masked text message of 119 bytes, as RFC 6455 §5.2 frames it: 125 in all. The origin sends it back. */
const MESSAGE = Buffer.concat([Buffer.from([0x81, 0x80 | 119, 0, 0, 0, 0]), Buffer.alloc(119, 'm')])
const HANDSHAKE =
  'Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n'

/** WebSocket: each connection sends its next message when the last one has come back. */
async function messages({ route: options, connections, ...bounds }) {
  const route = new Route(options)
  const slice = new Slice(bounds)
  const sockets = []
  for (let index = 0; index < connections; index += 1) {
    const socket = await route.secure(KNOWN_HOST)
    sockets.push(socket)
    socket.on('error', (error) => slice.fail(error))
    socket.write(route.head('GET /echo', KNOWN_HOST, HANDSHAKE))
    const answer = await new Promise((resolve) => socket.once('data', (bytes) => resolve(bytes)))
    if (!answer.latin1Slice().startsWith('HTTP/1.1 101')) throw new Error('no WebSocket')
    let sentAt
    let left = 0
    const send = () => {
      sentAt = performance.now()
      left = MESSAGE.length
      socket.write(MESSAGE)
    }
    socket.on('data', (bytes) => {
      left -= bytes.length
      if (left < 0) slice.fail(new Error('more came back than was sent'))
      else if (left === 0 && slice.note(sentAt)) send()
    })
    send()
  }
  try {
    return await slice.done
  } finally {
    for (const socket of sockets) socket.destroy()
  }
}

/** Opens connections, uses each once and keeps them. */
async function hold({ route: options, connections }) {
  const route = new Route(options)
  const deadline = performance.now() + HOLD_WITHIN
  let left = connections
  const openSome = async () => {
    while (left-- > 0) {
      if (performance.now() > deadline) {
        left = 0
        throw new Error(`${held.length} of ${connections} connections in ${HOLD_WITHIN} ms`)
      }
      const connection = await route.open(KNOWN_HOST)
      held.push(connection)
      await once(connection, route.head('GET /json', KNOWN_HOST))
    }
  }
  await Promise.all(Array.from({ length: 8 }, openSome))
  return {}
}

/** Counts the held connections that still live. */
const alive = () => ({ alive: held.filter((connection) => !connection.closed).length })

/** Closes what is held. */
function release() {
  for (const connection of held.splice(0)) connection.close()
  return {}
}

const operations = { verify, throughput, cold, multiplexed, crowd, messages, hold, alive, release }

process.on('message', async ({ id, operation, ...options }) => {
  try {
    process.send({ id, result: await operations[operation](options) })
  } catch (error) {
    process.send({ id, error: error.message })
  }
})
process.on('disconnect', () => process.exit(0))
