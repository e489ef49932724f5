import { fork } from 'node:child_process'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { cpus, tmpdir } from 'node:os'
import { setTimeout as delay } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { createAuthority } from './certificates.mjs'
import { processTree, residentBytes } from './processes.mjs'
import { record, recorded } from './record.mjs'
import { report } from './report.mjs'
import { contextFor, NEW_HOSTS, Running, targets } from './targets.mjs'

/** Runs the benchmark: see docs/benchmarks.md. */

/** After so many a process has compiled what it needs: two workers do so twice. */
const WARM_REQUESTS = 10_000
/**
 * `share` of the usual slice, where less is enough or more is needed: the whole run stays near twelve minutes.
 * `warmRequests` before the first slice, where this work takes another way through a proxy than the one before.
 */
const MEASURES = {
  start: {},
  memory: {},
  c1: { operation: 'throughput', work: 'json', connections: 1 },
  c16: { operation: 'throughput', work: 'json', connections: 16 },
  c64: { operation: 'throughput', work: 'json', connections: 64 },
  download: { operation: 'throughput', work: 'download', connections: 1, share: 0.5 },
  upload: { operation: 'throughput', work: 'upload', connections: 1, share: 0.5 },
  cold: { operation: 'cold', connections: 4, share: 0.75, warmRequests: 300 },
  resumed: { operation: 'cold', connections: 4, share: 0.75, resume: true },
  newhost: { operation: 'cold', connections: 4, share: 0.75 },
  h2: { operation: 'multiplexed', connections: 4, streams: 16, warmRequests: WARM_REQUESTS },
  saturated: {
    operation: 'crowd',
    connections: 8,
    streams: 16,
    share: 2,
    warmRequests: WARM_REQUESTS,
  },
  websocket: { operation: 'messages', connections: 16, share: 0.5 },
}
const OURS = ['cupbearer', 'cupbearer-full']
/** What not every target can do, or need not: minting needs names known beforehand, HTTP/2 and WebSocket support. */
const ONLY_FOR = {
  resumed: new Set(['base', ...OURS]),
  newhost: new Set(['base', ...OURS]),
  h2: new Set(OURS),
  saturated: new Set([...OURS, ...OURS.map((name) => `${name}-workers`)]),
  websocket: new Set(['direct', 'tunnel', ...OURS]),
}
/** A target that fails one of these is left out altogether. */
const NEEDED = new Set(['trial', 'start'])
const QUICK_TARGETS = ['direct', 'base', 'cupbearer', 'cupbearer-full']

const USAGE = `Usage: npm run bench -- [--quick] [--only NAME,…] [--targets NAME,…] [--json FILE] [--record]
  --only     of ${Object.keys(MEASURES).join(', ')}
  --targets  of ${Object.keys(targets).join(', ')}
  --record   writes the ratios into docs/benchmarks.md
  --quick    short slices, and ${QUICK_TARGETS.join(', ')} unless --targets says otherwise
`

function choose(text, known, fallback) {
  if (text === undefined) return fallback
  const names = text.split(',')
  const unknown = names.filter((name) => !known.includes(name))
  if (unknown.length > 0) throw new TypeError(`unknown: ${unknown.join(', ')}`)
  return known.filter((name) => names.includes(name))
}

function readOptions() {
  const string = { type: 'string' }
  const boolean = { type: 'boolean' }
  const options = { quick: boolean, record: boolean, only: string, targets: string, json: string }
  const { values } = parseArgs({ options })
  const { quick = false } = values
  const all = Object.keys(targets)
  return {
    quick,
    measures: choose(values.only, Object.keys(MEASURES), Object.keys(MEASURES)),
    names: choose(values.targets, all, quick ? QUICK_TARGETS : all),
    json: values.json,
    record: values.record ?? false,
    rounds: 3,
    warmUp: quick ? 150 : 400,
    duration: quick ? 500 : 2000,
  }
}

/** The load generator's process: `call(operation, options)` gives its result. */
class Generator {
  #child = fork(fileURLToPath(new URL('load.mjs', import.meta.url)))
  #waiting = new Map()
  #next = 1

  constructor() {
    this.#child.on('message', ({ id, result, error }) => {
      const { resolve, reject } = this.#waiting.get(id)
      this.#waiting.delete(id)
      if (error === undefined) resolve(result)
      else reject(new Error(error))
    })
    this.#child.on('exit', (code) => {
      for (const { reject } of this.#waiting.values()) reject(new Error(`generator exit ${code}`))
    })
  }

  call(operation, options) {
    const id = this.#next++
    return new Promise((resolve, reject) => {
      this.#waiting.set(id, { resolve, reject })
      this.#child.send({ id, operation, ...options })
    })
  }

  stop() {
    this.#child.disconnect()
  }
}

/** One target's state during a run: whether it works, the process if it has one, and what was measured. */
class Subject {
  slices = {}
  notes = []
  works = true
  #running
  #prepared
  #nextHost = 0
  #failed = new Set()

  constructor(name, shared) {
    this.name = name
    this.context = contextFor(name, shared)
    this.injects = targets[name].injects ?? true
  }

  get isProcess() {
    return targets[this.name].prepare !== undefined
  }

  /** `newHosts` that it must be able to resolve: more than anybody's configuration has, so only where needed. */
  async start(newHosts = 0) {
    if (!this.isProcess) return
    this.#prepared = await targets[this.name].prepare({ ...this.context, newHosts })
    if (this.#prepared.missing) {
      this.notes.push(this.#prepared.missing)
      this.works = false
      return
    }
    this.#running = await Running.start(this.#prepared)
  }

  async stop() {
    await this.#running?.stop()
    this.#running = undefined
  }

  get startMs() {
    return this.#running.startMs
  }

  get resident() {
    return residentBytes(this.#running.pid)
  }

  get route() {
    if (this.#running) return this.#running.route(this.context, this.injects)
    const { originPort, token } = this.context
    const authorization = `Bearer ${token}`
    const ca = this.context.authorityCert
    return { originPort, ca, own: authorization, expected: authorization }
  }

  /** Runs `action`; a failure is noted, and what failed is not tried on this target again. */
  async attempt(what, action) {
    if (this.#failed.has(what)) return
    try {
      await action()
    } catch (error) {
      this.#failed.add(what)
      this.notes.push(`${what} failed: ${error.message}`)
      if (NEEDED.has(what)) {
        this.works = false
        await this.stop()
      }
    }
  }

  async slice(generator, measure, bounds) {
    const pids = this.#running ? processTree(this.#running.pid) : []
    const { share = 1, warmRequests: _, ...load } = MEASURES[measure]
    const duration = bounds.duration * share
    const { originPid } = this.context
    const options = { ...load, ...bounds, duration, pids, originPid, route: this.route }
    if (measure === 'newhost') {
      if (this.#nextHost > NEW_HOSTS - 1000) return
      options.firstHost = this.#nextHost
    }
    const result = await generator.call(options.operation, options)
    if (result.nextHost) this.#nextHost = result.nextHost
    this.keep(measure, result)
  }

  keep(measure, sample) {
    this.slices[measure] ??= []
    this.slices[measure].push(sample)
  }
}

async function measureMemory(subject, generator, bounds) {
  const connections = 1000
  // How far the heap has grown by then differs from start to start.
  for (let round = 1; round < bounds.rounds; round += 1) {
    await subject.start()
    await delay(500)
    subject.keep('memory', { idle: subject.resident })
    await subject.stop()
  }
  await subject.start()
  await delay(500)
  const sample = { idle: subject.resident }
  subject.keep('memory', sample)
  const { route } = subject
  const warm = { ...MEASURES.c16, ...bounds, route, pids: [], duration: 300 }
  await generator.call('throughput', warm)
  await delay(300)
  const before = subject.resident
  await generator.call('hold', { route, connections })
  const { alive } = await generator.call('alive')
  const after = subject.resident
  // A proxy that has already closed idle connections cannot be asked what they cost.
  if (alive === connections) sample.perConnection = (after - before) / connections
  else subject.notes.push(`only ${alive} of ${connections} idle connections left`)
}

async function measureAll(subjects, generator, options, say) {
  const { measures, rounds, warmUp, duration } = options
  const bounds = { warmUp, duration }
  const working = (wanted = () => true) =>
    subjects.filter((subject) => subject.works && wanted(subject))
  const isProcess = ({ name, isProcess }) => isProcess && !targets[name].only

  for (const subject of subjects) {
    say(`trying ${subject.name}`)
    await subject.attempt('trial', async () => {
      await subject.start()
      if (subject.works) await generator.call('verify', { route: subject.route })
      await subject.stop()
    })
  }
  for (let round = 0; measures.includes('start') && round < rounds; round += 1) {
    for (const subject of working(isProcess)) {
      await subject.attempt('start', async () => {
        await subject.start()
        subject.keep('start', { ms: subject.startMs })
        await subject.stop()
      })
    }
  }
  for (const subject of measures.includes('memory') ? working(isProcess) : []) {
    say(`memory: ${subject.name}`)
    await subject.attempt('memory', () => measureMemory(subject, generator, { ...bounds, rounds }))
    await generator.call('release')
    await subject.stop()
  }

  const sliced = measures.filter((measure) => MEASURES[measure].operation)
  if (sliced.length === 0) return
  for (const subject of working()) {
    await subject.attempt('start', () =>
      subject.start(measures.includes('newhost') ? NEW_HOSTS : 0),
    )
    await subject.attempt('warm-up', async () => {
      const warm = { ...MEASURES.c16, ...bounds, route: subject.route, pids: [] }
      await generator.call('throughput', { ...warm, warmRequests: WARM_REQUESTS })
    })
  }
  for (const measure of sliced) {
    for (let round = 0; round < rounds; round += 1) {
      say(`${measure}: round ${round + 1} of ${rounds}`)
      const { warmRequests = 0 } = round === 0 ? MEASURES[measure] : {}
      const times = { ...bounds, warmRequests }
      const some = ({ name }) =>
        (ONLY_FOR[measure]?.has(name) ?? true) && (targets[name].only?.includes(measure) ?? true)
      for (const subject of working(some)) {
        await subject.attempt(measure, () => subject.slice(generator, measure, times))
        await delay(50)
      }
    }
  }
}

async function main(options) {
  const folder = mkdtempSync(`${tmpdir()}/cupbearer-bench-`)
  process.once('exit', () => rmSync(folder, { recursive: true, force: true }))
  for (const signal of ['SIGINT', 'SIGTERM']) process.once(signal, () => process.exit(130))
  const begun = Date.now()
  const say = (text) => {
    process.stderr.write(
      `${String(Math.round((Date.now() - begun) / 1000)).padStart(4)} s  ${text}\n`,
    )
  }

  const created = createAuthority('Cupbearer benchmark')
  const authority = `${folder}/authority.json`
  const authorityPem = `${folder}/authority.pem`
  writeFileSync(authority, JSON.stringify(created), { mode: 0o600 })
  writeFileSync(authorityPem, created.cert)
  const originScript = fileURLToPath(new URL('origin.mjs', import.meta.url))
  const origin = await Running.start({ command: process.execPath, args: [originScript, authority] })
  const shared = {
    folder,
    authority,
    authorityPem,
    authorityCert: created.cert,
    originPort: origin.message.port,
    originPid: origin.pid,
    token: 'bench-0123456789abcdefghijklmnopqrstuvwxyz',
  }
  const generator = new Generator()
  const subjects = options.names.map((name) => new Subject(name, shared))
  try {
    await measureAll(subjects, generator, options, say)
  } finally {
    for (const subject of subjects) await subject.stop()
    generator.stop()
    await origin.stop()
  }
  say('done')
  const results = Object.fromEntries(
    subjects.map(({ name, slices, notes }) => [name, { slices, notes }]),
  )
  if (options.json) {
    const machine = { node: process.version, cpu: cpus()[0]?.model, cores: cpus().length }
    const { rounds, duration } = options
    const record = { machine, rounds, duration, targets: results }
    writeFileSync(options.json, `${JSON.stringify(record, undefined, 2)}\n`)
  }
  const page = fileURLToPath(new URL('../../docs/benchmarks.md', import.meta.url))
  process.stdout.write(`${report(results, recorded(page))}\n`)
  if (options.record) record(page, results)
}

let options
try {
  options = readOptions()
} catch (error) {
  process.stderr.write(`${error.message}\n${USAGE}`)
  process.exit(2)
}
await main(options)
