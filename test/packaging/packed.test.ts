import { execFile, spawn } from 'node:child_process'
import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { said } from '../cli/command-line.ts'
import { startOrigin } from '../support/origin.ts'
import { trusting } from '../support/protected-origin.ts'
import { installPacked, kilobytes, type Packed } from './packed.mjs'

const run = promisify(execFile)

let folder: string
let packed: Packed
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'cupbearer-packed-'))
  packed = installPacked(folder)
}, 240_000)
afterAll(() => rm(folder, { recursive: true, force: true }))

test('the package holds what runs, and nothing that does not', () => {
  const { files } = packed
  expect(files).toEqual(
    expect.arrayContaining([
      'dist/cli/main.js',
      'dist/index.js',
      'dist/index.d.ts',
      'dist/admin/dashboard/index.html',
      'config.schema.json',
      'config.example.json',
      'LICENSE',
    ]),
  )
  const strays = files.filter((file) => !/^(dist|docs)\/|^[^/]+\.(json|md)$|^LICENSE$/.test(file))
  expect(strays).toEqual([])
})

test('it is small: no development dependency comes along', () => {
  expect(packed.bytes).toBeLessThan(2_000_000)
  expect(kilobytes(packed.modules)).toBeLessThan(120_000)
})

test('installed, it sets itself up and serves', async () => {
  const here = join(folder, 'work')
  await mkdir(here)
  const at = { cwd: here, env: { PATH: process.env.PATH } }
  const manifest = JSON.parse(await readFile(join(packed.modules, 'package.json'), 'utf8'))
  expect((await run(packed.command, ['--version'], at)).stdout.trim()).toBe(manifest.version)
  await run(packed.command, ['init', '--yes'], at)
  await writeFile(join(here, 'token.txt'), 'a-token-of-the-test')

  await using origin = await startOrigin({ tls: true })
  const config = {
    ...JSON.parse(await readFile(join(here, 'config.json'), 'utf8')),
    listen: '127.0.0.1:0',
    admin: { listen: '127.0.0.1:0' },
    upstream: trusting(['api.test']),
  }
  config.pools.main.targets = [`api.test:${origin.port}`]
  await writeFile(join(here, 'config.json'), JSON.stringify(config))
  expect((await run(packed.command, ['check'], at)).stdout).toContain('config.json')

  const child = spawn(packed.command, ['start', '--json'], {
    ...at,
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  try {
    const ready = JSON.parse(await said(child.stdout, /\n/)) as { admin: string }
    const url = `https://api.test:${origin.port}/orders`
    await run(packed.command, ['run', '--', 'curl', '-fsS', url], at)
    expect(origin.requests[0]?.headers).toContain('Bearer a-token-of-the-test')
    const page = await fetch(`${ready.admin}/`)
    expect(await page.text()).toContain('<title>')
  } finally {
    const ended = new Promise((resolve) => child.once('exit', resolve))
    child.kill('SIGTERM')
    expect(await ended).toBe(0)
  }
})
