// `npm run clients`: runs the matrix, and writes what has passed into docs/clients.md.
import { spawnSync } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

const CLIENT_RESULTS = mkdtempSync(join(tmpdir(), 'cupbearer-clients-'))
const vitest = (...args) =>
  spawnSync('npx', ['vitest', 'run', ...args], {
    stdio: 'inherit',
    env: { ...process.env, CLIENT_RESULTS },
  }).status === 0
const passed = vitest('test/clients', '--exclude', '**/table.test.ts')
const written = vitest('test/clients/table.test.ts')
rmSync(CLIENT_RESULTS, { recursive: true })
if (!passed || !written) process.exitCode = 1
