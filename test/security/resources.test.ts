import { execFileSync } from 'node:child_process'
import { once } from 'node:events'
import { readdirSync } from 'node:fs'
import { connect, createServer, type Socket } from 'node:net'
import { connect as tlsConnect } from 'node:tls'
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest'
import { AuthThrottle } from '../../src/lib/throttle.ts'
import { startApp } from '../support/app.ts'
import { ChildFolder } from '../support/child-app.ts'
import { Listener } from '../support/listener.ts'
import { ManualClock } from '../support/manual-clock.ts'
import { type Origin, startOrigin } from '../support/origin.ts'
import { Pauses } from '../support/pauses.ts'
import { trusting } from '../support/protected-origin.ts'

/** Of each kind of attacker; a thousand of each pass too, which is more than a busy machine should be asked for. */
const ATTACKERS = 250
/** Requests of the good client while they attack: the slowest of a hundred does not count. */
const GOOD_REQUESTS = 200
const MAX_P99_MS = 1000
/** What the attackers may hold, and what the proxy's heap may have grown by until it is collected. */
const MAX_GROWTH_MIB = 160

const minted: string[] = []
vi.mock('../../src/ca/certificate.ts', async (original) => {
  const real = await original<typeof import('../../src/ca/certificate.ts')>()
  return {
    ...real,
    buildLeaf: (...args: Parameters<typeof real.buildLeaf>) => {
      minted.push(JSON.stringify(args[4]))
      return real.buildLeaf(...args)
    },
  }
})

let origin: Origin
let plain: Origin
beforeAll(async () => {
  origin = await startOrigin({ tls: true })
  plain = await startOrigin()
})
afterAll(async () => {
  await origin?.[Symbol.asyncDispose]()
  await plain?.[Symbol.asyncDispose]()
})

const config = (more: object = {}) => ({
  upstream: { ...trusting(['api.test']), headersTimeout: '3s', bodyTimeout: '3s' },
  server: { headersTimeout: '3s', idleTimeout: '3s' },
  pools: {
    api: {
      targets: [`api.test:${origin.port}`],
      credentials: [{ id: 'a', source: { type: 'static', token: 'token-of-a' } }],
    },
  },
  ...more,
})

/** A connection that says this and no more, and keeps the head of what it hears. */
class Attacker {
  readonly socket: Socket
  heard = ''
  closed = false

  constructor(port: number, text: string) {
    this.socket = connect(port, '127.0.0.1')
    this.socket.on('error', () => {})
    this.socket.on('data', (chunk) => {
      this.heard = (this.heard + chunk.toString('latin1')).slice(0, 200)
    })
    this.socket.on('close', () => {
      this.closed = true
    })
    this.socket.write(text)
  }
}

/** Attacks with many of a kind and gives them up at the end. */
function attack(port: number, count: number, text: string): Attacker[] & Disposable {
  const all = Array.from({ length: count }, () => new Attacker(port, text))
  return Object.assign(all, {
    [Symbol.dispose]: () => {
      for (const { socket } of all) socket.destroy()
    },
  })
}

test('slow and silent clients and floods of headers are cut, while a good client is served at once', async () => {
  using folder = new ChildFolder(config())
  await using app = await folder.start()
  const port = Number(new URL(app.proxyUrl).port)
  const client = app.client()
  const url = `https://api.test:${origin.port}/`
  for (let i = 0; i < 20; i++) await client.request(url)
  const before = app.residentMiB()
  const asMapped = `CONNECT api.test:${origin.port} HTTP/1.1\r\nHost: x\r\n\r\n`
  const at = `http://127.0.0.1:${plain.port}/`
  const head = `POST ${at} HTTP/1.1\r\nHost: 127.0.0.1:${plain.port}\r\n`
  using slowHeads = attack(port, ATTACKERS, `GET ${at} HTTP/1.1\r\nHost: x`)
  using slowBodies = attack(port, ATTACKERS, `${head}Content-Length: 1000\r\n\r\nhalf`)
  using silentConnects = attack(port, ATTACKERS, asMapped)
  // Half of a record of a ClientHello.
  using silentTls = attack(port, ATTACKERS, `${asMapped}\x16\x03\x01\x02\x00\x01`)
  using floods = attack(
    port,
    ATTACKERS,
    `GET ${at} HTTP/1.1\r\n${'x: yyyyyyyyyyyy\r\n'.repeat(4096)}`,
  )
  const trickle = setInterval(() => {
    for (const { socket } of slowHeads) socket.write('y')
  }, 250)
  const times: number[] = []
  using pauses = new Pauses()
  let most = before
  const everybody = [slowHeads, slowBodies, silentConnects, silentTls, floods]
  const held = () => everybody.flat().filter(({ closed }) => !closed).length
  while (times.length < GOOD_REQUESTS || held() > 0) {
    const startedAt = performance.now()
    const { lost } = pauses
    expect((await client.request(url)).status).toBe(200)
    times.push(performance.now() - startedAt - (pauses.lost - lost))
    most = Math.max(most, app.residentMiB())
  }
  clearInterval(trickle)
  times.sort((one, other) => one - other)
  expect(times[Math.floor(times.length * 0.99)]).toBeLessThan(MAX_P99_MS)
  expect(most - before).toBeLessThan(MAX_GROWTH_MIB)
  const all = (attackers: Attacker[], pattern: RegExp) =>
    attackers.filter(({ heard }) => !pattern.test(heard)).map(({ heard }) => heard)
  // An answer may be lost where the client's own bytes cross with it.
  expect(all(slowHeads, /^HTTP\/1\.1 408 |^$/)).toEqual([])
  expect(slowHeads.some(({ heard }) => heard !== '')).toBe(true)
  expect(all(floods, /^HTTP\/1\.1 400 |^$/)).toEqual([])
  expect(floods.some(({ heard }) => /^HTTP\/1\.1 400 /.test(heard))).toBe(true)
  for (const attackers of [silentConnects, silentTls]) {
    expect(all(attackers, /^HTTP\/1\.1 200 Connection established\r\n\r\n$/)).toEqual([])
  }
}, 120_000)

test('a process that has run out of file descriptors serves again as soon as there are some', async () => {
  using folder = new ChildFolder(config({ server: { headersTimeout: '60s', idleTimeout: '60s' } }))
  await using app = await folder.start()
  const url = `https://api.test:${origin.port}/`
  const good = app.client()
  expect((await good.request(url)).status).toBe(200)
  const port = Number(new URL(app.proxyUrl).port)
  // Once it runs: to start, Node opens many files at a time.
  const { pid } = app.child
  const limit = readdirSync(`/proc/${pid}/fd`).length + 50
  execFileSync('prlimit', ['--pid', String(pid), `--nofile=${limit}:${limit}`])
  const crowd = attack(port, 200, 'GET')
  // Some are cut off at once: there is nothing to hold them by.
  await expect.poll(() => crowd.some(({ closed }) => closed)).toBe(true)
  // A connection that is there already is served through it all.
  expect((await good.request(url)).status).toBe(200)
  crowd[Symbol.dispose]()
  const again = () =>
    app
      .client()
      .request(url)
      .then(
        ({ status }) => status,
        () => 0,
      )
  await expect.poll(again).toBe(200)
  expect(app.child.exitCode).toBe(null)
}, 120_000)

describe('names without end', () => {
  test('mint nothing: neither unmapped ones, nor other names in SNI', async () => {
    await using app = await startApp(config({ passthrough: { action: 'deny' } }))
    minted.length = 0
    const client = app.client()
    for (let batch = 0; batch < 20; batch++) {
      const answers = Array.from({ length: 50 }, async (_, index) => {
        const { socket, status } = await client.tunnel(`host-${batch}-${index}.test:443`)
        socket.destroy()
        return status
      })
      expect(new Set(await Promise.all(answers))).toEqual(new Set([403]))
    }
    expect(minted).toEqual([])
    for (let index = 0; index < 100; index++) {
      const { socket } = await client.tunnel(`api.test:${origin.port}`)
      const secure = tlsConnect({ socket, ca: app.ca, servername: `sni-${index}.test` })
      secure.on('error', () => {})
      await new Promise((resolve) => secure.once('close', resolve))
    }
    expect(minted).toEqual(['{"dns":"api.test"}'])
  })

  test('below one wildcard share one certificate', async () => {
    const wild = config()
    await using app = await startApp({
      ...wild,
      pools: { api: { ...wild.pools.api, targets: ['*.wild.test'] } },
    })
    minted.length = 0
    for (let index = 0; index < 50; index++) {
      ;(await app.client().connect(`host-${index}.wild.test:443`)).destroy()
    }
    expect(minted).toHaveLength(1)
  })
})

test('a tunnel that is silent both ways is closed at both ends', async () => {
  const far: Socket[] = []
  const server = createServer((socket) => far.push(socket))
  await using listener = new Listener(server)
  const port = await listener.listen('127.0.0.1')
  await using app = await startApp(config({ server: { idleTimeout: '300ms' } }))
  const { socket, status } = await app.client().tunnel(`127.0.0.1:${port}`)
  expect(status).toBe(200)
  socket.on('error', () => {})
  await once(socket.resume(), 'close')
  await expect.poll(() => far[0]?.resume().closed).toBe(true)
})

describe('guesses at credentials', () => {
  test('from all of one /64 count as from one address, and those of the next do not', () => {
    const throttle = new AuthThrottle(new ManualClock(), { maxEntries: 100 })
    for (let host = 1; host <= 10; host++) throttle.failed(`2001:db8:0:7::${host.toString(16)}`)
    expect(throttle.size).toBe(1)
    expect(throttle.check('2001:db8:0:7:ffff:ffff:ffff:fffe')).toBeGreaterThan(0)
    expect(throttle.check('2001:db8::7:0:0:0:1')).toBeGreaterThan(0)
    expect(throttle.check('2001:db8:0:0:7::1')).toBe(undefined)
    expect(throttle.check('2001:db8:0:8::1')).toBe(undefined)
    expect(throttle.check('2001:db8::1')).toBe(undefined)
    expect(throttle.check('::1')).toBe(undefined)
  })

  test('of passwords are refused unread after the tenth, and cost the others nothing', async () => {
    await using app = await startApp(
      config({ listen: '[::]:0', clients: { worker: { password: 'secret-of-a-worker' } } }),
    )
    const { port } = new URL(app.app.proxyUrl)
    const ask = async (host: string, auth: string) => {
      const client = app.client({ auth, proxyUrl: `http://${host}:${port}` })
      const { socket, status } = await client.tunnel(`api.test:${origin.port}`)
      socket.destroy()
      return status
    }
    const statuses: number[] = []
    for (let guess = 0; guess < 12; guess++) statuses.push(await ask('[::1]', `worker:${guess}`))
    expect(statuses).toEqual([...Array(10).fill(407), 429, 429])
    expect(await ask('127.0.0.1', 'worker:secret-of-a-worker')).toBe(200)
  })
})
