// Runs before the tests: finds the programs they need beyond npm, or installs them with apt when it may.
import { spawnSync } from 'node:child_process'
import { accessSync, constants, statSync } from 'node:fs'
import { delimiter, join } from 'node:path'
import { fileURLToPath } from 'node:url'

/** Program → the Debian package that has it; elsewhere it is most often called the same. */
export const PROGRAMS = {
  aria2c: 'aria2',
  certutil: 'libnss3-tools',
  chromium: 'chromium',
  curl: 'curl',
  du: 'coreutils',
  git: 'git',
  go: 'golang-go',
  java: 'default-jdk-headless',
  mkfifo: 'coreutils',
  openssl: 'openssl',
  perl: 'perl',
  php: 'php-cli',
  prlimit: 'util-linux',
  ps: 'procps',
  python3: 'python3',
  'redis-server': 'redis-server',
  ruby: 'ruby',
  setpriv: 'util-linux',
  strace: 'strace',
  wget: 'wget',
  wget2: 'wget2',
}

const PYTHON_MODULES = ['aiohttp', 'httpx', 'requests', 'scrapy']
const HAS_MODULES =
  'import sys, importlib.util as u; sys.exit(not all(map(u.find_spec, sys.argv[1:])))'

/** Libraries without a program of their own: how to find them, and their Debian packages. */
export const LIBRARIES = {
  [`${PYTHON_MODULES.join(', ')} for python3`]: {
    packages: PYTHON_MODULES.map((name) => `python3-${name}`),
    isThere: () => pythonWithModules() !== undefined,
  },
  'LWP::Protocol::https for perl': {
    packages: ['libwww-perl', 'liblwp-protocol-https-perl'],
    isThere: () => succeeds('perl', '-MLWP::UserAgent', '-MLWP::Protocol::https', '-e', '1'),
  },
  'curl for php': {
    packages: ['php-curl'],
    isThere: () => succeeds('php', '-r', 'exit(function_exists("curl_init") ? 0 : 1);'),
  },
}

/** A Python that has the modules: the one on PATH, else the system's, for which Debian packages them. */
export function pythonWithModules() {
  const has = (python) => succeeds(python, '-c', HAS_MODULES, ...PYTHON_MODULES)
  return isOnPath('python3') ? ['python3', '/usr/bin/python3'].find(has) : undefined
}

function succeeds(program, ...args) {
  return spawnSync(program, args, { stdio: 'ignore' }).status === 0
}

const missing = () => [
  ...Object.keys(PROGRAMS).filter((program) => !isOnPath(program)),
  ...Object.keys(LIBRARIES).filter((library) => !LIBRARIES[library].isThere()),
]
const packagesOf = (need) => LIBRARIES[need]?.packages ?? [PROGRAMS[need]]

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
  const packages = [...new Set(absent.flatMap(packagesOf))]
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
