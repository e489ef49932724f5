// `npm run node-versions [-- 22 24]`: the packed product's demo under each supported version of Node.
import { spawnSync } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { installNode, installPacked, kilobytes } from './packed.mjs'

const SUPPORTED = ['20', '22', '24', '26']

const versions = process.argv.length > 2 ? process.argv.slice(2) : SUPPORTED
const folder = mkdtempSync(join(tmpdir(), 'cupbearer-versions-'))
let failed = 0
try {
  const { command, modules, bytes } = installPacked(folder)
  console.log(`tarball ${Math.round(bytes / 1024)} KB, installed ${kilobytes(modules)} KB`)
  for (const major of versions) {
    const node = installNode(major, folder)
    const cupbearer = (...args) =>
      spawnSync(node, [command, ...args], { cwd: folder, encoding: 'utf8' })
    const version = spawnSync(node, ['--version'], { encoding: 'utf8' }).stdout.trim()
    const started = performance.now()
    const { status, stdout, stderr } = cupbearer('demo')
    const seconds = ((performance.now() - started) / 1000).toFixed(0)
    const warnings = stderr.split('\n').filter((line) => /warning|deprecat/i.test(line))
    console.log(`${version}: demo ${status === 0 ? 'ok' : `FAILED (${status})`} after ${seconds} s`)
    for (const line of warnings) console.log(`  ${line}`)
    if (status !== 0) {
      failed += 1
      console.log(`${stdout}${stderr}`)
    }
  }
} finally {
  rmSync(folder, { recursive: true, force: true })
}
process.exitCode = failed === 0 ? 0 : 1
