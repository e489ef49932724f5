import { once } from 'node:events'
import { readFile } from 'node:fs/promises'
import { Agent, type IncomingMessage, request } from 'node:http'
import { createServer } from 'node:net'
import type { Duplex } from 'node:stream'
import { connect as connectTls } from 'node:tls'
import type { Config } from '../../config/schema.ts'
import { type Authority, formatAuthority, parseTarget, type Target } from '../../lib/authority.ts'
import { callAdmin, findRunning, type Running } from '../running.ts'
import { type Finding, findings } from './finding.ts'

const TIMEOUT_MS = 5000
const { ok, warn, fail } = findings('proxy')

interface Pools {
  readonly pools: readonly {
    readonly name: string
    readonly status: string
    readonly credentials: readonly { id: string; state: string; lastError: string | null }[]
  }[]
}

/** Whether the proxy runs, answers and intercepts; where it does not run, whether its ports are free. */
export async function checkProxy(config: Config): Promise<Finding[]> {
  const running = await findRunning(config).catch(() => undefined)
  if (!running) return checkPorts(config)
  try {
    const { pools } = await callAdmin<Pools>(config, 'GET', '/api/pools')
    return [
      ok(`it runs at ${running.proxy}, and its admin API at ${running.admin}`),
      await checkInterception(config, running),
      ...pools.flatMap(checkPool),
    ]
  } catch (error) {
    const ports = await checkPorts(config)
    const stale = ports.every(({ status }) => status !== 'fail')
    return stale
      ? ports
      : [fail((error as Error).message, 'see its log, or start it again: `cupbearer start`')]
  }
}

async function checkPorts({ listen, admin }: Config): Promise<Finding[]> {
  const listeners = { listen, 'admin.listen': admin.listen }
  const found = await Promise.all(
    Object.entries(listeners).map(async ([key, address]) => {
      const taken = await whyNotFree(address)
      if (taken === undefined) return undefined
      return fail(
        `${key} ${formatAuthority(address)} cannot be listened on (${taken})`,
        'choose another address, or port 0 for any free one',
      )
    }),
  )
  const taken = found.filter((each) => each !== undefined)
  if (taken.length > 0) return taken
  return [warn('it does not run; its ports are free', '`cupbearer start` starts it')]
}

async function whyNotFree({ host, port }: Authority): Promise<string | undefined> {
  const server = createServer()
  try {
    server.listen(port, host)
    await once(server, 'listening')
    return undefined
  } catch (error) {
    return (error as NodeJS.ErrnoException).code ?? 'unknown'
  } finally {
    server.close()
  }
}

function checkPool({ name, status, credentials }: Pools['pools'][number]): Finding[] {
  const bad = credentials.filter(({ state }) => state === 'revoked' || state === 'quarantined')
  return [
    ...(status === 'exhausted'
      ? [fail(`pool ${name} has no active token`, '`cupbearer token list` says why')]
      : []),
    ...bad.map(({ id, state, lastError }) =>
      warn(
        `${name}/${id} is ${state}${lastError ? ` (${lastError})` : ''}`,
        state === 'revoked'
          ? `\`cupbearer login ${name}/${id}\`, or a new refresh token in the configuration`
          : 'it comes back by itself; `cupbearer token refresh` tries at once',
      ),
    ),
  ]
}

const read = (text: string) => parseTarget(text) as Target

/** Opens a tunnel to a target and TLS within it; nothing is sent to the target. */
async function checkInterception(config: Config, running: Running): Promise<Finding> {
  const found = Object.entries(config.pools)
    .flatMap(([pool, { targets }]) => targets.map((text) => ({ pool, target: read(text) })))
    .find(({ target }) => target.scheme === 'https' && !target.wildcard)
  if (!found) return ok('no target names one https host, so interception was not tried')
  const { pool, target } = found
  const authority = formatAuthority(target)
  const restart = 'restart the proxy: it may run with another configuration'
  try {
    const [status, socket] = await openTunnel(config, pool, running.proxy, authority)
    if (status !== 200) {
      socket.destroy()
      return fail(`it answers CONNECT ${authority} with ${status}`, restart)
    }
    const ca = await readFile(running.ca, 'utf8')
    const tls = connectTls({ socket, servername: target.host, ca })
    try {
      await once(tls, 'secureConnect', { signal: AbortSignal.timeout(TIMEOUT_MS) })
    } finally {
      tls.destroy()
    }
    return ok(`it intercepts ${authority} with its CA`)
  } catch (error) {
    const { code, name } = error as NodeJS.ErrnoException
    return fail(`it does not intercept ${authority} (${code ?? name})`, restart)
  }
}

async function openTunnel(
  { clients }: Config,
  pool: string,
  proxy: string,
  authority: string,
): Promise<[number | undefined, Duplex]> {
  const { hostname, port } = new URL(proxy)
  const client = Object.entries(clients).find(([, { pools }]) => pools?.includes(pool) ?? true)
  const credentials = client && `${client[0]}:${client[1].password.reveal()}`
  const outgoing = request({
    host: hostname.replace(/^\[|\]$/g, ''),
    port,
    method: 'CONNECT',
    path: authority,
    agent: new Agent(),
    signal: AbortSignal.timeout(TIMEOUT_MS),
    headers: {
      host: authority,
      ...(credentials && {
        'proxy-authorization': `Basic ${Buffer.from(credentials).toString('base64')}`,
      }),
    },
  })
  outgoing.end()
  const [response, socket] = (await once(outgoing, 'connect')) as [IncomingMessage, Duplex]
  return [response.statusCode, socket]
}
