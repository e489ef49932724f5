import { isIP } from 'node:net'
import { createClient, createCluster } from 'redis'
import type { RedisTarget } from './redis-url.ts'

/** One attempt's worth of connections: it is used until its first failure, then thrown away. */
export interface Connection {
  /** Sends a command to where `key` lives. */
  send(key: string, command: readonly string[]): Promise<unknown>
  subscribe(channel: string, listener: (message: string) => void): Promise<void>
  unsubscribe(channel: string): Promise<void>
  destroy(): void
}

const CONNECT_MS = 2000

/**
 * Connects afresh. `failed` is called when the connection breaks later.
 * The client's own reconnecting is off, and so is its queue for better times: what cannot be said now fails now.
 */
export async function connectRedis(
  target: RedisTarget,
  signal: AbortSignal,
  failed: (error: Error) => void,
): Promise<Connection> {
  if (target.kind === 'cluster') return connectCluster(target, signal, failed)
  const node = target.kind === 'sentinel' ? await findMaster(target) : target.nodes[0]
  if (!node) throw new Error('no address')
  const clients = [open(target, node, failed), open(target, node, failed)] as const
  const [commands, subscriber] = clients
  const destroy = () => clients.forEach(destroyClient)
  try {
    await orAbort(Promise.all(clients.map((client) => client.connect())), signal)
    // A sentinel may still name a master that has been replaced (redis.io/docs/reference/sentinel-clients, step 3).
    if (target.kind === 'sentinel') {
      const [role] = (await orAbort(commands.sendCommand(['ROLE']), signal)) as string[]
      if (role !== 'master') throw new Error(`the server is a ${role}`)
    }
  } catch (error) {
    destroy()
    throw error
  }
  return {
    send: (_key, command) => commands.sendCommand(command),
    subscribe: (channel, listener) => subscriber.subscribe(channel, listener),
    unsubscribe: (channel) => subscriber.unsubscribe(channel),
    destroy,
  }
}

function open(
  target: RedisTarget,
  { host, port }: { host: string; port: number },
  failed: (error: Error) => void,
  credentials = credentialsOf(target),
) {
  const socket = { host, port, connectTimeout: CONNECT_MS, reconnectStrategy: false as const }
  const client = createClient({
    socket: target.tls
      ? { ...socket, tls: true as const, ...(isIP(host) ? {} : { servername: host }) }
      : socket,
    ...credentials,
    database: target.database,
    disableOfflineQueue: true,
    maintNotifications: 'disabled',
    RESP: 2,
  })
  client.on('error', failed)
  client.on('end', () => failed(new Error('the connection has ended')))
  return client
}

function credentialsOf({ username, password }: RedisTarget) {
  return {
    ...(username !== undefined && { username }),
    ...(password !== undefined && { password: password.reveal() }),
  }
}

function destroyClient(client: { isOpen: boolean; destroy(): void }): void {
  if (client.isOpen) client.destroy()
}

/** Asks the sentinels in order for the master's address. */
async function findMaster(target: RedisTarget): Promise<{ host: string; port: number }> {
  let last: unknown
  for (const node of target.nodes) {
    const sentinel = open({ ...target, database: 0 }, node, () => {}, {})
    try {
      await sentinel.connect()
      const found = (await withinTime(
        sentinel.sendCommand(['SENTINEL', 'GET-MASTER-ADDR-BY-NAME', target.group]),
      )) as [string, string] | null
      if (found) return { host: found[0], port: Number(found[1]) }
      last = new Error('the sentinels know no such group')
    } catch (error) {
      last = error
    } finally {
      destroyClient(sentinel)
    }
  }
  throw last
}

/** The signal's reason as soon as there is one: a server that is stopped takes a connection and says nothing. */
function orAbort<Result>(promise: Promise<Result>, signal: AbortSignal): Promise<Result> {
  return new Promise((resolve, reject) => {
    const abort = () => reject(signal.reason)
    if (signal.aborted) abort()
    signal.addEventListener('abort', abort, { once: true })
    promise.then(resolve, reject).finally(() => signal.removeEventListener('abort', abort))
  })
}

function withinTime<Result>(promise: Promise<Result>): Promise<Result> {
  let timer: NodeJS.Timeout | undefined
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error('no answer in time')), CONNECT_MS)
  })
  return Promise.race([promise, late]).finally(() => clearTimeout(timer))
}

async function connectCluster(
  target: RedisTarget,
  signal: AbortSignal,
  failed: (error: Error) => void,
): Promise<Connection> {
  const socket = { connectTimeout: CONNECT_MS, reconnectStrategy: false as const }
  const cluster = createCluster({
    rootNodes: target.nodes.map(({ host, port }) => ({
      socket: target.tls ? { host, port, tls: true as const } : { host, port },
    })),
    defaults: {
      socket: target.tls ? { ...socket, tls: true as const } : socket,
      ...credentialsOf(target),
      disableOfflineQueue: true,
      maintNotifications: 'disabled',
    },
    RESP: 2,
  })
  cluster.on('error', failed)
  const destroy = () => {
    if (cluster.isOpen) cluster.destroy()
  }
  try {
    await orAbort(cluster.connect(), signal)
  } catch (error) {
    destroy()
    throw error
  }
  return {
    send: (key, command) => cluster.sendCommand(key, false, [...command]),
    subscribe: (channel, listener) => cluster.subscribe(channel, listener),
    unsubscribe: (channel) => cluster.unsubscribe(channel),
    destroy,
  }
}
