import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { writeJavaTrustStore } from '../ca/java-trust-store.ts'
import { childEnvironment, systemRoots, writeBundle } from '../ca/trust.ts'
import type { Config } from '../config/schema.ts'
import { CommandError, EXIT } from './command.ts'
import { findRunning } from './running.ts'

/** Guards nothing: the store holds public certificates, and Java wants a password. */
const TRUST_STORE_PASSWORD = 'changeit'

/** What a program needs in its environment to use the running proxy; writes the bundles it points to. */
export async function prepareEnvironment(
  config: Config,
  options: { client?: string | undefined },
): Promise<Record<string, string>> {
  const client = authenticate(config, options.client)
  const running = await findRunning(config)
  const url = new URL(running.proxy)
  // The setters do the percent-encoding.
  url.username = client?.name ?? ''
  url.password = client?.password ?? ''
  const caPem = await readFile(running.ca, 'utf8')
  const bundlePath = join(config.dataDir, 'ca-bundle.pem')
  const trustStore = join(config.dataDir, 'truststore.p12')
  await Promise.all([
    writeBundle(bundlePath, caPem),
    writeJavaTrustStore(trustStore, [systemRoots(), caPem], TRUST_STORE_PASSWORD),
  ])
  return childEnvironment({
    proxyUrl: url.href.replace(/\/$/, ''),
    caPath: running.ca,
    bundlePath,
    javaTrustStore: { path: trustStore, password: TRUST_STORE_PASSWORD },
    inherit: process.env,
  })
}

/** Who the program is to the proxy: the named client, or the only one there is. */
function authenticate(
  config: Config,
  wanted: string | undefined,
): { name: string; password: string } | undefined {
  const names = Object.keys(config.clients)
  const name = wanted ?? (names.length === 1 ? names[0] : undefined)
  if (name === undefined) {
    if (names.length === 0) return undefined
    throw new CommandError(EXIT.usage, 'which client? Name one by --client', names.join(', '))
  }
  const client = config.clients[name]
  if (!client) {
    throw new CommandError(
      EXIT.usage,
      'the configuration has no such client',
      names.length > 0 ? `it has ${names.join(', ')}` : 'it has none, so --client is not needed',
    )
  }
  return { name, password: client.password.reveal() }
}
