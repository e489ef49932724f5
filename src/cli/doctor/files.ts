import { readFile, stat } from 'node:fs/promises'
import { join } from 'node:path'
import type { Config } from '../../config/schema.ts'
import { type Finding, findings } from './finding.ts'

const { ok, fail, warn } = findings('files')

/** Keys under which a configuration holds a secret, if it stands there itself and is not referred to. */
const SECRET =
  /"(?:password|clientSecret|refreshToken|token|storeKey|assertion)"\s*:\s*"(?!\$\{)[^"]+"/

/** Whether others on the machine can read what is secret. */
export async function checkFiles(config: Config): Promise<Finding[]> {
  // Windows has no such modes.
  if (process.platform === 'win32') return []
  const store = config.store.startsWith('file:') ? config.store.slice('file:'.length) : undefined
  const secret = [
    join(config.ca.dir, 'ca-key.pem'),
    join(config.dataDir, 'admin-token'),
    join(config.dataDir, 'running.json'),
    ...(store ? [store, `${store}-wal`, `${store}.key`] : []),
  ]
  const found: Finding[] = []
  for (const file of secret) {
    if (await isOpen(file)) found.push(fail(`others can read ${file}`, `chmod 600 ${file}`))
  }
  for (const folder of new Set([config.ca.dir, config.dataDir])) {
    // Whoever may write in a folder can put a file of theirs in the place of ours.
    if (await isOpen(folder, 0o002)) {
      found.push(fail(`anybody can replace files in ${folder}`, `chmod go-w ${folder}`))
    }
  }
  if (await isOpen(config.dataDir)) {
    found.push(warn(`others can look into ${config.dataDir}`, `chmod 700 ${config.dataDir}`))
  }
  if ((await isOpen(config.file)) && SECRET.test(await readFile(config.file, 'utf8'))) {
    found.push(
      warn(
        `others can read ${config.file}, which holds a secret`,
        `chmod 600 ${config.file}, or refer to the secret by \${env:NAME} or \${file:PATH}`,
      ),
    )
  }
  return found.length > 0 ? found : [ok('nothing that is secret can be read by others')]
}

/** Whether the group or others may do anything with it, or just this; what is not there is not open. */
async function isOpen(file: string, bits = 0o077): Promise<boolean> {
  const found = await stat(file).catch(() => undefined)
  return found !== undefined && (found.mode & bits) !== 0
}
