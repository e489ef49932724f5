import { readFile } from 'node:fs/promises'
import { connect } from 'node:net'
import { fileURLToPath } from 'node:url'
import { writeClientFiles } from '../ca/client-files.ts'
import { childEnvironment } from '../ca/trust.ts'
import type { Config } from '../config/schema.ts'
import { CommandError, EXIT, warn } from './command.ts'
import { bypasses, sayBypass } from './no-proxy.ts'
import { findRunning, notRunning } from './running.ts'

const NODE_PRELOAD = fileURLToPath(new URL('./preload/env-proxy.cjs', import.meta.url))

/** What a program needs in its environment to use the running proxy; writes the files it points to. */
export async function prepareEnvironment(
  config: Config,
  options: { client?: string | undefined },
): Promise<Record<string, string>> {
  const client = authenticate(config, options.client)
  const running = await findRunning(config)
  await requireListener(config, new URL(running.admin))
  const url = new URL(running.proxy)
  // The setters do the percent-encoding.
  url.username = client?.name ?? ''
  url.password = client?.password ?? ''
  for (const bypass of bypasses(config, process.env)) warn(sayBypass(bypass))
  const caPem = await readFile(running.ca, 'utf8')
  return childEnvironment({
    ...(await writeClientFiles(config.dataDir, caPem, process.env)),
    proxyUrl: url.href.replace(/\/$/, ''),
    caPath: running.ca,
    nodePreload: NODE_PRELOAD,
    inherit: process.env,
  })
}

/** A proxy that was killed leaves `running.json` behind; without this its clients would fail one by one. */
async function requireListener(config: Config, { hostname, port }: URL): Promise<void> {
  await new Promise<void>((resolve, reject) => {
    const socket = connect({ host: hostname.replace(/^\[|\]$/g, ''), port: Number(port) })
    socket.once('connect', resolve).once('error', (cause) => reject(notRunning(config, cause)))
    socket.once('connect', () => socket.destroy())
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
