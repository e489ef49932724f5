import { execFileSync, spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import {
  chmodSync,
  chownSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  rmSync,
  statSync,
} from 'node:fs'
import { readFile, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { text } from 'node:stream/consumers'
import { expect, onTestFinished, test } from 'vitest'
import { checkRuntime } from '../../src/cli/doctor/runtime.ts'
import { MAIN, said } from '../cli/command-line.ts'
import { ProxyClient } from '../support/client.ts'
import { startOrigin } from '../support/origin.ts'

const NOBODY = 65_534
const AS_NOBODY = ['setpriv', '--reuid', `${NOBODY}`, '--regid', `${NOBODY}`, '--clear-groups']
const WITHOUT_RIGHTS = ['setpriv', '--bounding-set=-all', '--inh-caps=-all']

/** How to run as somebody who can write only where it is allowed: who may, and what stands before the command. */
function powerless(): { uid: number; before: readonly string[] } {
  const own = process.getuid?.() ?? 0
  if (own !== 0) return { uid: own, before: [] }
  const [setpriv, ...options] = AS_NOBODY
  const read = [
    ...options,
    process.execPath,
    '-e',
    'require("node:fs").readFileSync(process.argv[1])',
  ]
  // A checkout in a home folder is out of nobody's reach: there it is root who loses every right.
  const reached = spawnSync(setpriv as string, [...read, MAIN], { stdio: 'ignore' }).status === 0
  return reached ? { uid: NOBODY, before: AS_NOBODY } : { uid: 0, before: WITHOUT_RIGHTS }
}

test('a user without rights serves from a root that it cannot write to, and writes to its data folder alone', async () => {
  const root = mkdtempSync(join(tmpdir(), 'cupbearer-runtime-'))
  onTestFinished(() => {
    chmodSync(root, 0o755)
    rmSync(root, { recursive: true, force: true })
  })
  const data = join(root, 'data')
  mkdirSync(data, 0o700)
  const { uid, before: lowered } = powerless()
  if (uid !== process.getuid?.()) chownSync(data, uid, uid)
  await using origin = await startOrigin()
  await writeFile(
    join(root, 'config.json'),
    JSON.stringify({
      listen: '127.0.0.1:0',
      admin: { listen: '127.0.0.1:0' },
      ca: { dir: join(data, 'certs') },
      store: `file:${join(data, 'cupbearer.db')}`,
      log: { format: 'json', level: 'trace' },
      pools: {
        supplier: {
          targets: [`http://127.0.0.1:${origin.port}`],
          replay: { memory: '1KiB', disk: '8MiB' },
          credentials: [{ id: 'one', source: { type: 'static', token: 'token-of-the-test' } }],
        },
      },
    }),
  )
  chmodSync(root, 0o555)
  const before = listing(root, data)

  const command = [process.execPath, MAIN, 'start', '--json', '-c', 'config.json']
  const all = lowered.length > 0 ? [...lowered, '--no-new-privs', ...command] : command
  const child = spawn(all[0] as string, all.slice(1), {
    cwd: root,
    // Nowhere else to write to: neither a home nor a folder for temporary files.
    env: { PATH: process.env.PATH, HOME: '/nonexistent', TMPDIR: root },
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  onTestFinished(() => void child.kill('SIGKILL'))
  const log = text(child.stderr)
  const closed = once(child, 'close')
  const line = await said(child.stdout, /\n/).catch(async () => {
    throw new Error(`it did not start: ${await log}`)
  })
  const ready = JSON.parse(line) as { proxy: string; ca: string; pid: number }
  if (process.platform === 'linux') {
    const status = await readFile(`/proc/${ready.pid}/status`, 'utf8')
    expect(/^Uid:\s+(\d+)/m.exec(status)?.[1]).toBe(`${uid}`)
    expect(/^CapEff:\s+([\da-f]+)/m.exec(status)?.[1]).toMatch(/^0+$/)
  }

  await using client = new ProxyClient({
    proxyUrl: ready.proxy,
    ca: await readFile(ready.ca, 'utf8'),
  })
  const body = Buffer.alloc(1024 * 1024, 'x')
  const answer = await client.request(`${origin.url}/`, { method: 'PUT', body })
  expect(answer.json().authorization).toBe('Bearer token-of-the-test')
  expect(origin.requests[0]?.body.length).toBe(body.length)

  child.kill('SIGTERM')
  await closed
  expect(child.exitCode).toBe(0)
  expect(listing(root, data)).toEqual(before)
  expect(readdirSync(data)).toEqual(expect.arrayContaining(['certs', 'cupbearer.db']))
  for (const name of readdirSync(data)) expect(statSync(join(data, name)).mode & 0o077).toBe(0)

  // What is wrong with the ground it stands on is told at every start.
  const { status, message } = checkRuntime(process.version, Date.now())
  expect((await log).includes(message)).toBe(status !== 'ok')
  expect((await log).includes('runs as root')).toBe(uid === 0)
})

/** Everything below a folder, but for what lies in another. */
function listing(folder: string, but: string): string[] {
  return readdirSync(folder, { recursive: true, encoding: 'utf8' })
    .filter((name) => !join(folder, name).startsWith(`${but}/`))
    .sort()
}

test('the command line of a running proxy tells no secret, and needs none', () => {
  const help = execFileSync(process.execPath, [MAIN, 'start', '--help'], { encoding: 'utf8' })
  expect(help).not.toMatch(/--(token|password|secret|key)\b/i)
})
