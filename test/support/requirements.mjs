// Runs before the tests: finds the programs they need beyond npm, or installs them with apt when it may.
import { spawnSync } from 'node:child_process'
import { accessSync, constants, statSync } from 'node:fs'
import { delimiter, join } from 'node:path'
import { fileURLToPath } from 'node:url'

/** Program → the Debian package that has it; elsewhere it is most often called the same. */
export const PROGRAMS = {
  certutil: 'libnss3-tools',
  chromium: 'chromium',
  curl: 'curl',
  mkfifo: 'coreutils',
  openssl: 'openssl',
  prlimit: 'util-linux',
  ps: 'procps',
  python3: 'python3',
}

const missing = () => Object.keys(PROGRAMS).filter((program) => !isOnPath(program))

function isOnPath(program) {
  return (process.env.PATH ?? '').split(delimiter).some((folder) => {
    const file = join(folder, program)
    try {
      accessSync(file, constants.X_OK)
      return statSync(file).isFile()
    } catch {
      return false
    }
  })
}

/** Installs Debian packages; an index that is too old, or was never fetched, is fetched. */
function install(packages) {
  const apt = (...args) =>
    spawnSync('apt-get', args, {
      stdio: ['ignore', 'inherit', 'inherit'],
      env: { ...process.env, DEBIAN_FRONTEND: 'noninteractive' },
    }).status === 0
  const args = ['install', '-y', '--no-install-recommends', ...packages]
  return apt(...args) || (apt('update') && apt(...args))
}

function ensure() {
  const absent = missing()
  if (absent.length === 0) return true
  const packages = [...new Set(absent.map((program) => PROGRAMS[program]))]
  const mayInstall = process.getuid?.() === 0 && isOnPath('apt-get')
  if (mayInstall && install(packages) && missing().length === 0) return true
  const why = mayInstall ? 'apt-get could not install them' : 'this is not root on Debian or Ubuntu'
  console.error(
    `The tests need ${missing().join(', ')} on PATH, and ${why}.\n` +
      `Install the packages: ${packages.join(' ')}`,
  )
  return false
}

if (process.argv[1] === fileURLToPath(import.meta.url) && !ensure()) process.exitCode = 1
