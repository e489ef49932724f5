import type { Argv } from 'yargs'
import { parseDuration } from '../lib/units.ts'
import type { Trace } from '../trace/recorder.ts'
import { CommandError, type CommonOptions, EXIT } from './command.ts'

/** Which traces a command is about. */
export interface TraceOptions extends CommonOptions {
  readonly pool: string | undefined
  readonly credential: string | undefined
  readonly status: number | undefined
  readonly verdict: string | undefined
  readonly client: string | undefined
  readonly kind: string | undefined
  readonly since: string | undefined
}

/** The filters that `trace` and `har` share. */
export function withFilters(command: Argv<CommonOptions>): Argv<TraceOptions> {
  const text = (describe: string) => ({ type: 'string', requiresArg: true, describe }) as const
  return command
    .option('pool', text('only of this pool'))
    .option('credential', text('only those that tried this credential'))
    .option('status', {
      type: 'number',
      requiresArg: true,
      describe: 'only with this HTTP status',
    })
    .option('verdict', text('only those that ended so: ok, expired, EGRESS_DOWN, …'))
    .option('client', text('only from this client, by name or address'))
    .option('kind', {
      ...text('only of this kind'),
      choices: ['exchange', 'websocket', 'tunnel', 'denied', 'lease', 'refresh'],
    })
    .option('since', text('only since this time, or for so long: "5m"'))
    .check(({ status, since }) => {
      if (Number.isNaN(status)) throw new CommandError(EXIT.usage, '--status takes a number')
      if (since !== undefined) sinceOf(since)
      return true
    }) as unknown as Argv<TraceOptions>
}

/** The filters as the API takes them. */
export function queryOf(options: TraceOptions, limit?: number): URLSearchParams {
  const query = new URLSearchParams(limit === undefined ? {} : { limit: String(limit) })
  for (const name of ['pool', 'status', 'credential', 'verdict', 'client', 'kind'] as const) {
    const value = options[name]
    if (value !== undefined) query.set(name, String(value))
  }
  if (options.since !== undefined) {
    query.set('since', new Date(sinceOf(options.since)).toISOString())
  }
  return query
}

/** Whether a trace that has just come passes the filters. */
export function matcherOf(options: TraceOptions): (trace: Trace) => boolean {
  const { pool, credential, status, verdict, client, kind } = options
  return (trace) =>
    (pool === undefined || trace.pool === pool) &&
    (status === undefined || trace.status === status) &&
    (verdict === undefined || trace.verdict === verdict) &&
    (kind === undefined || trace.kind === kind) &&
    (client === undefined || trace.client.name === client || trace.client.address === client) &&
    (credential === undefined || trace.attempts.some((each) => each.credential === credential))
}

/** A time, or how long ago it was; ms since the epoch. */
function sinceOf(text: string): number {
  const ago = parseDuration(text)
  const time = ago === undefined ? Date.parse(text) : Date.now() - ago
  if (!Number.isNaN(time)) return time
  throw new CommandError(EXIT.usage, '--since takes a time such as 2030-01-31T12:00:00Z, or "5m"')
}
