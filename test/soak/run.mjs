// `npm run soak [-- --minutes 15]`: does it stay as it is under steady load, rotation and faults?
import { fork, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { setTimeout as delay } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { createAuthority, createMinter } from '../bench/certificates.mjs'
import { work } from './client.mjs'
import { judge, slopePerMinute } from './verdict.mjs'

const here = (file) => fileURLToPath(new URL(file, import.meta.url))
const { values } = parseArgs({
  options: {
    minutes: { type: 'string', default: '15' },
    json: { type: 'boolean', default: false },
  },
})
const DURATION = Number(values.minutes) * 60_000
/** Share of the run after which memory and descriptors are judged. */
const WARM_UP = 0.2
const SAMPLE = 2000
const WIDE = ['wide-1', 'wide-2', 'wide-3', 'wide-4']
const NARROW = ['narrow-1', 'narrow-2']
const WORKERS = 16

const folder = mkdtempSync(join(tmpdir(), 'cupbearer-soak-'))
const authority = createAuthority('soak CA')
const upstream = fork(here('upstream.mjs'))
let proxy
try {
  const certificate = createMinter(authority)(
    'wide.soak.test',
    'narrow.soak.test',
    'login.soak.test',
  )
  upstream.send({ certificate, accountNames: [...WIDE, ...NARROW] })
  const [{ port, refreshTokens }] = await once(upstream, 'message')
  writeFileSync(join(folder, 'ca.pem'), authority.cert)
  writeFileSync(join(folder, 'config.json'), JSON.stringify(configuration(port, refreshTokens)))
  proxy = spawn(
    process.execPath,
    [process.env.TEST_MAIN ?? here('../../dist/cli/main.js'), 'start', '--json'],
    {
      cwd: folder,
      stdio: ['ignore', 'pipe', 'ignore'],
    },
  )
  const [line] = await once(createInterface(proxy.stdout), 'line')
  const ready = JSON.parse(line)
  const result = await soak(ready, port)
  const rows = judge(result)
  if (values.json) console.log(JSON.stringify({ ...result, rows }))
  else {
    console.log(
      `${result.requests} requests in ${result.minutes.toFixed(1)} minutes, ` +
        `${Math.round(result.rate)} of at most ${Math.round(result.top)} a second`,
    )
    for (const { name, value, bound, ok } of rows)
      console.log(
        `${ok ? 'ok  ' : 'MISS'}  ${name.padEnd(34)} ${String(value).padStart(12)}   ${bound}`,
      )
    console.log(`outcomes ${JSON.stringify(result.outcomes)}`)
    console.log(`upstream ${JSON.stringify(result.upstream)}`)
  }
  process.exitCode = rows.every(({ ok }) => ok) ? 0 : 1
} finally {
  proxy?.kill('SIGKILL')
  upstream.kill()
  rmSync(folder, { recursive: true, force: true })
}

function configuration(port, refreshTokens) {
  const credential = (id) => ({
    id,
    source: {
      type: 'oauth2',
      grant: 'refresh_token',
      tokenUrl: `https://login.soak.test:${port}/token`,
      clientId: id,
      clientAuth: 'none',
      refreshToken: refreshTokens[id],
    },
  })
  const hosts = ['wide', 'narrow', 'login'].map((name) => [`${name}.soak.test`, '127.0.0.1'])
  return {
    listen: '127.0.0.1:0',
    admin: { listen: '127.0.0.1:0', token: 'the-admin-token-of-the-soak' },
    upstream: { ca: ['ca.pem'], resolve: Object.fromEntries(hosts), http2: false },
    pools: {
      wide: { targets: [`wide.soak.test:${port}`], credentials: WIDE.map(credential) },
      narrow: {
        targets: [`narrow.soak.test:${port}`],
        limits: { rate: ['20/s'], concurrency: 4 },
        credentials: NARROW.map(credential),
      },
    },
  }
}

async function soak(ready, port) {
  const ca = [readFileSync(ready.ca, 'utf8')]
  const route = (name) => ({
    proxyPort: Number(new URL(ready.proxy).port),
    host: `${name}.soak.test`,
    port,
    ca,
  })
  const outcomes = {}
  let requests = 0
  const tally = (outcome) => {
    requests += 1
    outcomes[outcome] = (outcomes[outcome] ?? 0) + 1
  }

  const calibration = Math.min(10_000, DURATION / 6)
  const top = await pace(route('wide'), calibration, Number.POSITIVE_INFINITY, tally)
  const rate = top * 0.7
  const samples = []
  const started = performance.now()
  const narrowUntil = started + DURATION
  const narrow = Array.from({ length: 8 }, (_, index) =>
    work(variant(route('narrow'), index), {
      turn: async () => performance.now() < narrowUntil,
      perConnection: 50,
      tally,
    }),
  )
  const sampling = setInterval(() => samples.push(sample(ready.pid, started)), SAMPLE)
  await pace(route('wide'), DURATION, rate, tally)
  await Promise.all(narrow)
  clearInterval(sampling)

  upstream.send('report')
  const [report] = await once(upstream, 'message')
  const ended = once(proxy, 'exit')
  const stopping = performance.now()
  proxy.kill('SIGTERM')
  const [exitCode] = await ended
  const judged = samples.filter(({ at }) => at > DURATION * WARM_UP)
  return {
    minutes: DURATION / 60_000,
    requests,
    top,
    rate,
    outcomes,
    upstream: report,
    exitCode,
    stopMs: performance.now() - stopping,
    rssSlope: slopePerMinute(judged.map(({ at, rss }) => [at, rss])),
    fdSlope: slopePerMinute(judged.map(({ at, fds }) => [at, fds])),
    rss: judged.at(-1)?.rss,
    fds: judged.at(-1)?.fds,
    samples,
  }
}

/** Every other worker speaks HTTP/2. */
function variant(route, index) {
  return { ...route, http2: index % 2 === 1 }
}

/** Workers that together send `rate` requests a second, or as many as they can; gives what they reached. */
async function pace(route, duration, rate, tally) {
  const started = performance.now()
  let sent = 0
  const turn = async () => {
    for (;;) {
      const elapsed = performance.now() - started
      if (elapsed > duration) return false
      if (sent < (elapsed / 1000) * rate) {
        sent += 1
        return true
      }
      await delay(2)
    }
  }
  await Promise.all(
    Array.from({ length: WORKERS }, (_, index) =>
      work(variant(route, index), { turn, perConnection: 500, tally }),
    ),
  )
  return (sent / (performance.now() - started)) * 1000
}

function sample(pid, started) {
  const status = readFileSync(`/proc/${pid}/status`, 'latin1')
  return {
    at: performance.now() - started,
    rss: Number(/^VmRSS:\s+(\d+)/m.exec(status)?.[1]) / 1024,
    fds: readdirSync(`/proc/${pid}/fd`).length,
  }
}
