import { execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, onTestFinished, test } from 'vitest'
import { begin, said } from '../cli/command-line.ts'
import { Folder } from '../config/folder.ts'
import { Pauses } from '../support/pauses.ts'

/** What only some configurations or commands need, and what the first admin request loads. */
const LATER = [
  'fastify',
  'libsql',
  'openid-client',
  'pino-pretty',
  'playwright-core',
  'prom-client',
  'socks',
  'undici',
  'yargs',
]

const PLAIN = {
  listen: '127.0.0.1:0',
  admin: { listen: '127.0.0.1:0' },
  store: 'memory:',
  log: { format: 'json' },
  pools: {
    supplier: {
      targets: ['api.supplier.example'],
      credentials: [{ id: 'a', source: { type: 'static', token: 'T' } }],
    },
  },
}

/** Runs `start`, `use` meanwhile, and gives the files of libraries that were loaded until its end, as `name/path`. */
async function libraryFiles(
  config: object,
  use: (admin: string) => Promise<unknown> = async () => {},
): Promise<string[]> {
  await using folder = await Folder.create()
  await folder.write('config.json', config)
  const coverage = join(folder.path, 'coverage')
  // Node writes down every script of the process, however it was loaded, when that ends.
  const child = begin(['start', '--json'], {
    cwd: folder.path,
    env: { NODE_V8_COVERAGE: coverage },
  })
  const ready = JSON.parse(await said(child.stdout, /\n/)) as { admin: string }
  await use(ready.admin)
  child.kill('SIGTERM')
  await once(child, 'close')
  expect(child.exitCode).toBe(0)
  return readdirSync(coverage).flatMap((name) => {
    const { result } = JSON.parse(readFileSync(join(coverage, name), 'utf8')) as {
      result: { url: string }[]
    }
    return result.flatMap(({ url }) => url.split('/node_modules/').slice(1).slice(-1))
  })
}

const packagesOf = (files: readonly string[]) =>
  new Set(files.map((file) => /^(@[^/]+\/)?[^/]+/.exec(file)?.[0]))

describe('a plain start', () => {
  test('loads no library that it does not need', async () => {
    const packages = packagesOf(await libraryFiles(PLAIN))
    expect([...packages]).toEqual(expect.arrayContaining(['http-mitm-proxy', 'pino', 'zod']))
    expect(LATER.filter((name) => packages.has(name))).toEqual([])
  })

  test('loads what a configuration or a request asks for, and only that', async () => {
    const config = { ...PLAIN, store: 'file:state.db', log: { format: 'pretty' } }
    const packages = packagesOf(
      await libraryFiles(config, async (admin) => {
        expect((await fetch(`${admin}/healthz`)).status).toBe(200)
        expect(await (await fetch(`${admin}/metrics`)).text()).toContain('cupbearer_requests_total')
      }),
    )
    expect(LATER.filter((name) => packages.has(name))).toEqual([
      'fastify',
      'libsql',
      'pino-pretty',
      'prom-client',
    ])
  })

  test('is ready soon, and adds little to the memory of a bare process', async () => {
    await using folder = await Folder.create()
    await folder.write('config.json', PLAIN)
    const bare = spawn(process.execPath, ['-e', 'console.log(); setInterval(() => {}, 1000)'])
    onTestFinished(() => void bare.kill('SIGKILL'))
    await said(bare.stdout, /\n/)
    using pauses = new Pauses()
    const began = performance.now()
    const child = begin(['start', '--json'], { cwd: folder.path })
    await said(child.stdout, /\n/)
    // Bounds for a regression of kind: measured are 0.4 s and 30 MB.
    expect(performance.now() - began - pauses.lost).toBeLessThan(10_000)
    expect(residentMegabytes(child.pid) - residentMegabytes(bare.pid)).toBeLessThan(55)
  })
})

function residentMegabytes(pid: number | undefined): number {
  return Number(execFileSync('ps', ['-o', 'rss=', '-p', String(pid)], { encoding: 'utf8' })) / 1024
}
