import { mkdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { replaceFile } from '../lib/files.ts'
import { writeJavaTrustStore } from './java-trust-store.ts'
import { systemRoots, writeBundle } from './trust.ts'

/** The files that a client's environment points to. */
export interface ClientFiles {
  /** System roots and the CA, as PEM. */
  readonly bundle: string
  /** The same for Java, as PKCS #12. */
  readonly javaTrustStore: { readonly path: string; readonly password: string }
  /** The system's settings of wget and wget2, with the bundle. */
  readonly wgetrc: string
  readonly wget2rc: string
  /** A folder that PHP reads settings from, beside its own. */
  readonly phpFolder: string
}

/** Guards nothing: the store holds public certificates, and Java wants a password. */
const JAVA_PASSWORD = 'changeit'

export function clientFiles(folder: string): ClientFiles {
  return {
    bundle: join(folder, 'ca-bundle.pem'),
    javaTrustStore: { path: join(folder, 'truststore.p12'), password: JAVA_PASSWORD },
    wgetrc: join(folder, 'wgetrc'),
    wget2rc: join(folder, 'wget2rc'),
    phpFolder: join(folder, 'php'),
  }
}

/** Writes them into a folder, with the CA of this moment; `inherit` is the environment that the client would have. */
export async function writeClientFiles(
  folder: string,
  caPem: string,
  inherit: NodeJS.ProcessEnv,
): Promise<ClientFiles> {
  const files = clientFiles(folder)
  const { bundle, javaTrustStore } = files
  await mkdir(files.phpFolder, { recursive: true, mode: 0o700 })
  await Promise.all([
    writeBundle(bundle, caPem),
    writeJavaTrustStore(javaTrustStore.path, [systemRoots(), caPem], javaTrustStore.password),
    writeWithSystem(files.wgetrc, inherit.SYSTEM_WGETRC ?? '/etc/wgetrc', bundle),
    writeWithSystem(files.wget2rc, inherit.SYSTEM_WGET2RC ?? '/etc/wget2rc', bundle),
    replaceFile(
      join(files.phpFolder, 'cupbearer.ini'),
      `curl.cainfo="${bundle}"\nopenssl.cafile="${bundle}"\n`,
      0o600,
    ),
  ])
  return files
}

/** wget reads its roots from no variable, but the path of the system's settings; the user's own come on top. */
async function writeWithSystem(file: string, system: string, bundle: string): Promise<void> {
  const settings = system === file ? '' : await readFile(system, 'utf8').catch(() => '')
  await replaceFile(file, `${settings.trimEnd()}\nca_certificate = ${bundle}\n`, 0o600)
}
