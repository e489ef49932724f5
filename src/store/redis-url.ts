import { ConfigError } from '../errors.ts'
import { Secret } from '../lib/secret.ts'

/** Where a shared store is. */
export interface RedisTarget {
  /**
   * - `single`: one server
   * - `sentinel`: the current master of a group, as the sentinels name it
   * - `cluster`: all masters of a cluster, found from the nodes given
   */
  readonly kind: 'single' | 'sentinel' | 'cluster'
  readonly nodes: readonly { readonly host: string; readonly port: number }[]
  /** The group that sentinels watch. */
  readonly group: string
  readonly tls: boolean
  readonly username: string | undefined
  readonly password: Secret | undefined
  readonly database: number
  /** What all keys begin with, inside the hash tag. */
  readonly prefix: string
  /** For messages: without user and password. */
  readonly label: string
}

/** What `store` may look like, for messages. */
export const REDIS_FORMS =
  'redis[s]://[[USER]:PASSWORD@]HOST[:PORT][/DB], redis[s]+sentinel://…HOST:PORT,HOST:PORT/GROUP[/DB] or redis[s]+cluster://…HOST:PORT,HOST:PORT'

const FORM =
  /^redis(s?)(?:\+(sentinel|cluster))?:\/\/(?:([^:@/]*)(?::([^@/]*))?@)?([^/?@]+)((?:\/[^/?]+){0,2})\/?(?:\?prefix=([A-Za-z0-9_.-]{1,64}))?$/

/** Takes a shared store's URL apart. Throws `CONFIG_INVALID`, and never with what stood in it. */
export function parseRedisUrl(url: string): RedisTarget {
  const match = FORM.exec(url)
  const bad = (message = `expected ${REDIS_FORMS}`) => new ConfigError([{ path: 'store', message }])
  if (!match) throw bad()
  const [, secure, form, user, password, hosts, path, prefix] = match
  const kind = (form ?? 'single') as RedisTarget['kind']
  const port = kind === 'sentinel' ? 26379 : 6379
  const nodes = (hosts as string).split(',').map((node) => {
    const parts = /^(\[[0-9a-fA-F:.]+\]|[^:[\]]+)(?::(\d{1,5}))?$/.exec(node)
    if (!parts || Number(parts[2] ?? port) > 65_535) throw bad()
    return { host: (parts[1] as string).replace(/^\[|\]$/g, ''), port: Number(parts[2] ?? port) }
  })
  const segments = (path ?? '').split('/').slice(1)
  const group = kind === 'sentinel' ? segments.shift() : ''
  const [database = '0', ...rest] = segments
  if (rest.length > 0 || !/^\d{1,3}$/.test(database)) throw bad()
  if (group === undefined) throw bad('expected the name of the group that the sentinels watch')
  if (kind === 'cluster' && database !== '0') throw bad('a cluster has database 0 only')
  if (kind === 'single' && nodes.length > 1) throw bad()
  return {
    kind,
    nodes,
    group: decode(group),
    tls: secure === 's',
    username: user ? decode(user) : undefined,
    password: password ? new Secret(decode(password)) : undefined,
    database: Number(database),
    prefix: prefix ?? 'cupbearer',
    label: `redis${secure}${form ? `+${form}` : ''}://${hosts}${path ?? ''}`,
  }

  function decode(text: string): string {
    try {
      return decodeURIComponent(text)
    } catch {
      throw bad('user, password and group must be percent-encoded')
    }
  }
}
