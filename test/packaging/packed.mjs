// Packs the product as it is built, and installs it as a user would: without development dependencies.
import { execFileSync, spawnSync } from 'node:child_process'
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'

const ROOT = fileURLToPath(new URL('../../', import.meta.url))

/**
 * Installs the packed product below a folder; gives its command, its module folder and the packed files.
 * What npm has fetched before is taken from its cache.
 */
export function installPacked(folder) {
  if (!existsSync(join(ROOT, 'dist/cli/main.js'))) throw new Error('run `npm run build` first')
  const [packed] = JSON.parse(npm(['pack', '--json', '--pack-destination', folder], ROOT))
  const prefix = join(folder, 'prefix')
  const quiet = ['--no-audit', '--no-fund', '--prefer-offline', '--ignore-scripts']
  npm(['install', '--global', '--prefix', prefix, ...quiet, join(folder, packed.filename)], folder)
  return {
    command: join(prefix, 'bin/cupbearer'),
    modules: join(prefix, 'lib/node_modules/cupbearer'),
    files: packed.files.map(({ path }) => path),
    bytes: packed.size,
  }
}

/** The binary of a major version of Node, from the registry. */
export function installNode(major, folder) {
  const name = `node-${process.platform}-${process.arch}`
  const prefix = join(folder, `node-${major}`)
  npm(['install', '--prefix', prefix, '--no-audit', '--no-fund', `${name}@${major}`], folder)
  return join(prefix, 'node_modules', name, 'bin/node')
}

function npm(args, cwd) {
  // npm as `npm test` runs it; what that has put into the environment would change what this one does.
  const env = Object.fromEntries(
    Object.entries(process.env).filter(([name]) => !/^npm_(?!config_(cache|registry))/i.test(name)),
  )
  const { status, stdout, stderr } = spawnSync('npm', args, { cwd, env, encoding: 'utf8' })
  if (status !== 0) throw new Error(`npm ${args.join(' ')} failed: ${stderr}`)
  return stdout
}

/** Kilobytes below a folder, as `du` counts them. */
export const kilobytes = (folder) =>
  Number(execFileSync('du', ['-sk', folder], { encoding: 'utf8' }).split('\t')[0])
