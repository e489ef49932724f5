import { execFile } from 'node:child_process'
import { X509Certificate } from 'node:crypto'
import { access, readFile } from 'node:fs/promises'
import { homedir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { splitCertificates, systemRoots } from '../../ca/trust.ts'
import type { Config } from '../../config/schema.ts'
import { type Finding, findings } from './finding.ts'
import { findProgram } from './programs.ts'

const execute = promisify(execFile)
const { ok, warn } = findings('clients')

/** Programs that the environment of `run` is enough for. */
const SERVED = [
  ...['curl', 'wget', 'git', 'python3', 'pip', 'go', 'ruby', 'perl', 'php', 'java', 'node', 'npm'],
  ...['deno', 'cargo', 'aws', 'gcloud', 'dotnet', 'composer', 'bundle'],
]

/** Programs that no variable serves, and what to do. */
const UNSERVED: Readonly<Record<string, readonly [problem: string, mend: string]>> = {
  aria2c: ['reads its CA from no variable', 'aria2c --ca-certificate="$SSL_CERT_FILE" URL'],
  lftp: ['reads its CA from no variable', 'set ssl:ca-file to the path in $SSL_CERT_FILE'],
  wget2: ['sends no CONNECT to a proxy (versions before 2.2)', 'use wget'],
}

const BROWSERS = ['chromium', 'chromium-browser', 'google-chrome']

/** Which clients on PATH trust the CA under `cupbearer run`, and what the others need. */
export async function checkClients(config: Config): Promise<Finding[]> {
  const path = join(config.ca.dir, 'ca.pem')
  const [served, unserved, browsers] = await Promise.all(
    [SERVED, Object.keys(UNSERVED), BROWSERS].map(onPath),
  )
  const found: Finding[] = []
  if (served?.length) found.push(ok(`${served.join(', ')}: \`cupbearer run\` sets proxy and CA`))
  for (const program of unserved ?? []) {
    const [problem, mend] = UNSERVED[program] ?? ['', '']
    found.push(warn(`${program} ${problem}`, mend))
  }
  if (served?.includes('java') && Object.keys(config.clients).length > 0) {
    found.push(
      warn(
        'Java takes the password of a proxy from no variable',
        'set an Authenticator in the program (docs/clients.md)',
      ),
    )
  }
  const ca = await readFile(path, 'utf8')
    .then((pem) => new X509Certificate(pem))
    .catch(() => undefined)
  // Without a CA there is nothing to trust yet, as the check of the CA says.
  if (!ca) return found
  if (browsers?.length) found.push(await checkBrowsers(browsers, ca, path))
  const everywhere = splitCertificates(systemRoots()).some((pem) => isSame(pem, ca))
  if (everywhere) found.push(ok('the system trusts the CA: clients do so without `run` too'))
  return found
}

async function onPath(programs: readonly string[]): Promise<string[]> {
  const paths = await Promise.all(programs.map(findProgram))
  return programs.filter((_, index) => paths[index] !== undefined)
}

/** Chromium and Chrome trust what the NSS database of the user does. */
async function checkBrowsers(
  browsers: readonly string[],
  ca: X509Certificate,
  path: string,
): Promise<Finding> {
  const database = join(homedir(), '.pki', 'nssdb')
  const names = browsers.join(', ')
  const mend = `certutil -d sql:${database} -A -n Cupbearer -t C,, -i ${path} (package libnss3-tools)`
  if (!(await findProgram('certutil'))) {
    return warn(`without certutil nothing can be told of ${names}`, mend)
  }
  if (await trustsByNss(database, ca)) return ok(`${database} has the CA, for ${names}`)
  return warn(`${database} lacks the CA, which ${names} would take from there`, mend)
}

async function trustsByNss(database: string, ca: X509Certificate): Promise<boolean> {
  try {
    // certutil would make a database where there is none.
    await access(join(database, 'cert9.db'))
    const list = await execute('certutil', ['-d', `sql:${database}`, '-L'])
    // NICKNAME, blanks, then what it is trusted for: C as the issuer of servers.
    const names = [...list.stdout.matchAll(/^(\S.*?) +[a-zA-Z]*C[a-zA-Z]*,\S* *$/gm)].map(
      ([, name]) => name,
    )
    for (const name of names) {
      const args = ['-d', `sql:${database}`, '-L', '-n', name as string, '-a']
      if (isSame((await execute('certutil', args)).stdout, ca)) return true
    }
  } catch {
    // No such database, or one with a password: nothing is known to be trusted.
  }
  return false
}

function isSame(pem: string, ca: X509Certificate): boolean {
  return splitCertificates(pem).some((each) => each === splitCertificates(ca.toString())[0])
}
