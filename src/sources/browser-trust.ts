import { execFile } from 'node:child_process'
import { mkdir, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { SourceError } from '../errors.ts'

const CERTIFICATE = /-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----/g

const run = promisify(execFile)

/**
 * Makes a home folder for a browser in which it trusts these authorities besides its own. Chromium takes them
 * from nowhere but a database, which only the tool of its maker writes.
 */
export async function makeTrustingHome(
  folder: string,
  files: readonly string[],
  signal: AbortSignal,
): Promise<string> {
  const home = join(folder, 'home')
  const database = join(home, '.pki', 'nssdb')
  await mkdir(database, { recursive: true, mode: 0o700 })
  const certutil = (...args: string[]) =>
    run('certutil', ['-d', `sql:${database}`, ...args], { signal })
  try {
    await certutil('-N', '--empty-password')
    const texts = await Promise.all(files.map((file) => readFile(file, 'latin1')))
    const certificates = texts.flatMap((text) => text.match(CERTIFICATE) ?? [])
    for (const [index, certificate] of certificates.entries()) {
      const file = join(home, 'authority.pem')
      await writeFile(file, certificate)
      await certutil('-A', '-n', `authority ${index}`, '-t', 'C,,', '-i', file)
    }
  } catch (cause) {
    const message = (cause as NodeJS.ErrnoException).syscall?.startsWith('spawn')
      ? 'a browser that must trust upstream.ca needs certutil: install the package libnss3-tools'
      : 'the browser could not be made to trust upstream.ca'
    throw new SourceError('transient', message, { cause })
  }
  return home
}
