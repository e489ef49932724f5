import { execFile } from 'node:child_process'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { Folder } from '../config/folder.ts'
import { type Origin, startOrigin } from '../support/origin.ts'
import { trusting } from '../support/protected-origin.ts'
import { linkPackage } from './package.ts'

/** A program of a user's, in TypeScript: compiled against the types of the built package, then run. */
const PROGRAM = `
import { execFile } from 'node:child_process'
import { once } from 'node:events'
import { promisify } from 'node:util'
import { type ConfigInput, ConfigError, createCupbearer, type Cupbearer, type Trace } from 'cupbearer'
import { fetch, ProxyAgent } from 'undici'

const { api, upstream } = JSON.parse(process.argv[2] as string) as { api: string; upstream: object }
const config = (token: string): ConfigInput => ({
  listen: '127.0.0.1:0',
  admin: { listen: '127.0.0.1:0' },
  store: 'memory:',
  clients: { worker: { password: 'pa:ss wörd' } },
  upstream,
  pools: {
    orders: {
      targets: [new URL(api).host],
      inject: { query: 'key' },
      limits: { rate: ['100/s'] },
      credentials: [{ id: 'acme', source: { type: 'static', token } }],
    },
  },
})

const told: Record<string, unknown> = {}
const cupbearer: Cupbearer = await createCupbearer({ config: config('one'), env: {}, log: 'silent' })
const traces: Trace[] = []
cupbearer.on('exchange', (trace) => traces.push(trace))
const renewed: [string, number][] = []
cupbearer.on('refresh', ({ pool, credential, generation, result }) => {
  const outcome: 'ok' | 'failed' | 'revoked' = result
  renewed.push([pool + '/' + credential + ' ' + outcome, generation])
})
// @ts-expect-error there is no such event
cupbearer.off('exchanges', () => {})
// @ts-expect-error a source needs a type
const wrong: ConfigInput = { pools: { p: { targets: ['a'], credentials: [{ id: 'a', source: {} }] } } }
// @ts-expect-error a key that is not there
const unknown: ConfigInput = { lisen: '127.0.0.1:0' }

{
  const dispatcher = new ProxyAgent(await cupbearer.agentOptions())
  const answer = await fetch(api + '/orders', { dispatcher })
  told.fetched = [answer.status, ((await answer.json()) as { path: string }).path]
  await dispatcher.close()
}

const env = await cupbearer.env({ client: 'worker' })
const curl = await promisify(execFile)('curl', ['-fsS', api + '/by-curl'], { env: { ...process.env, ...env } })
told.child = (JSON.parse(curl.stdout) as { path: string }).path
while (traces.length < 2) await new Promise((resolve) => cupbearer.once('exchange', resolve))
told.traces = traces.map(({ method, pool, status, url, attempts }) => [method, pool, status, new URL(url).search, attempts[0]?.credential])

told.refused = await cupbearer.reload({ ...config('one'), pools: wrong.pools ?? {} })
told.reloaded = await cupbearer.reload(config('two'))
const again = await promisify(execFile)('curl', ['-fsS', api + '/again'], { env: { ...process.env, ...env } })
told.afterReload = (JSON.parse(again.stdout) as { path: string }).path
told.renewed = renewed.at(-1)

try {
  await cupbearer.env({ client: 'nobody' })
} catch (error) {
  told.nobody = error instanceof ConfigError && error.issues
}
try {
  await createCupbearer({ config: { ...unknown, pools: {} }, log: 'silent' })
} catch (error) {
  told.invalid = error instanceof ConfigError && error.issues
}

{
  const admin = { listen: '127.0.0.1:0', token: 'of-the-admin' }
  await using short = await createCupbearer({ config: { ...config('x'), clients: {}, admin }, folder: 'short', log: 'silent' })
  told.caPath = short.caPath
  told.urls = [short.proxyUrl, short.adminUrl].map((url) => new URL(url).hostname)
  // A listener that throws is the program's own trouble, not the request's.
  short.on('exchange', () => { throw new Error('of the listener') })
  const thrown = once(process, 'uncaughtException')
  const dispatcher = new ProxyAgent(await short.agentOptions())
  told.despite = (await fetch(api + '/despite', { dispatcher })).status
  told.thrown = ((await thrown)[0] as Error).message
  const headers = { authorization: 'Bearer of-the-admin' }
  const kept = await fetch(short.adminUrl + '/api/traces?kind=exchange', { headers })
  told.kept = ((await kept.json()) as { traces: Trace[] }).traces.length
  await dispatcher.close()
}
await cupbearer.stop()
console.log(JSON.stringify(told))
`

const ROOT = fileURLToPath(new URL('../..', import.meta.url))
const OPTIONS = {
  target: 'ES2022',
  lib: ['ES2023'],
  module: 'NodeNext',
  types: ['node'],
  strict: true,
  exactOptionalPropertyTypes: true,
  skipLibCheck: true,
  outDir: 'out',
}

describe('a program that runs Cupbearer inside itself', () => {
  const run = promisify(execFile)
  let folder: Folder
  let origin: Origin
  // biome-ignore lint/suspicious/noExplicitAny: answers are looked at, not typed
  let told: any
  beforeAll(async () => {
    folder = await Folder.create()
    origin = await startOrigin({ tls: true })
    await linkPackage(folder.path, ['undici', '@types/node', 'undici-types'])
    await folder.write('package.json', { type: 'module' })
    await folder.write('tsconfig.json', { compilerOptions: OPTIONS, include: ['program.ts'] })
    await folder.write('program.ts', PROGRAM)
    const at = { cwd: folder.path }
    const compiled = await run(join(ROOT, 'node_modules/.bin/tsc'), ['-p', '.'], at).catch(
      (error) => error as { stdout: string },
    )
    if (compiled.stdout !== '') throw new Error(compiled.stdout)
    const facts = { api: `https://api.test:${origin.port}`, upstream: trusting(['api.test']) }
    const ended = await run(process.execPath, ['out/program.js', JSON.stringify(facts)], at)
    told = JSON.parse(ended.stdout)
  }, 120_000)
  afterAll(async () => {
    await origin.close()
    await folder[Symbol.asyncDispose]()
  })

  test('fetches through it with an agent made of its options', () => {
    expect(told.fetched).toEqual([200, '/orders?key=one'])
  })

  test('gives its environment to a child process', () => {
    expect(told.child).toBe('/by-curl?key=one')
  })

  test('hears of every request, without a secret', () => {
    expect(told.traces).toEqual([
      ['GET', 'orders', 200, '', 'acme'],
      ['GET', 'orders', 200, '', 'acme'],
    ])
    expect(JSON.stringify(told.traces)).not.toContain('one')
  })

  test('reloads what it is given, and keeps the old one when that is not valid', () => {
    expect(told.refused).toMatchObject({ applied: false })
    expect(told.refused.problems.join()).toContain('source')
    expect(told.reloaded).toEqual({ applied: true, problems: [] })
    expect(told.afterReload).toBe('/again?key=two')
    expect(told.renewed).toEqual(['orders/acme ok', 2])
  })

  test('is told what is wrong as typed issues', () => {
    expect(told.nobody).toEqual([
      { path: 'clients', message: 'expected the name of one of them (worker)' },
    ])
    expect(told.invalid).toEqual([
      { path: 'lisen', message: 'unknown key, did you mean "listen"?' },
    ])
  })

  test('keeps its files in the folder that it names', () => {
    expect(told.caPath).toBe(join(folder.path, 'short/certs/ca.pem'))
    expect(told.urls).toEqual(['127.0.0.1', '127.0.0.1'])
  })

  test('may throw in a listener without harm to the request or its trace', () => {
    expect(told).toMatchObject({ despite: 200, thrown: 'of the listener', kept: 1 })
  })
})
