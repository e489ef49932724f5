import { setTimeout as delay } from 'node:timers/promises'
import type { formatPool, formatSummary } from '../admin/format.ts'
import type { Config } from '../config/schema.ts'
import { insecureNotices } from '../config/upstream-hosts.ts'
import { type Colours, coloursFor } from './colour.ts'
import { type Command, print, withConfig } from './command.ts'
import { callAdmin } from './running.ts'
import { Screen } from './screen.ts'
import { duration, known, percent, plain, table } from './table.ts'

/** A pool as the admin API shows it. */
export type PoolView = ReturnType<typeof formatPool>

type Summary = ReturnType<typeof formatSummary>

/** What happened last, as far as it is told here. */
interface ActivityView {
  readonly time: string
  readonly pool?: string
  readonly credential?: string
  readonly egress?: string
  readonly from?: string
  readonly to?: string
  readonly up?: boolean
  readonly address?: string | null
  readonly applied?: boolean
  readonly reason?: string | null
  readonly refresh?: { readonly result: string; readonly reason: string | null }
}

const PLAIN_INTERVAL_MS = 2000
const SCREEN_INTERVAL_MS = 1000
/** From here on the share of refreshes is too large. */
const OVERHEAD_TARGET = 0.05

/** `status`: the pools of the running proxy. */
export const status: Command = (cli) =>
  cli.command(
    'status',
    'show the pools of the running proxy',
    (command) =>
      command
        .option('watch', { type: 'boolean', describe: 'keep showing it, q or Ctrl-C ends' })
        .option('json', { type: 'boolean', describe: 'answer in JSON, with every credential' })
        .conflicts('watch', 'json')
        .example('$0 status --watch', 'keeps showing the pools until q or Ctrl-C')
        .example('$0 status --json | jq .pools[].authOverhead', 'is for scripts'),
    async ({ config: file, watch, json }) => {
      await withConfig(file, async (config) => {
        for (const notice of insecureNotices(config.upstream)) process.stderr.write(`${notice}\n`)
        if (json) print(JSON.stringify(await callAdmin(config, 'GET', '/api/pools')))
        else if (!watch) print(renderPools(await readPools(config)))
        else if (process.stdout.isTTY) await watchOnScreen(config)
        else await repeat(async () => renderPools(await readPools(config)))
      })
    },
  )

async function readPools(config: Config): Promise<Summary[]> {
  const path = '/api/pools?credentials=false'
  return (await callAdmin<{ pools: Summary[] }>(config, 'GET', path)).pools
}

/** Where there is no terminal: one table after the other, until a signal or until nobody reads. */
async function repeat(render: () => Promise<string>): Promise<void> {
  const ended = new AbortController()
  const end = () => ended.abort()
  process.once('SIGINT', end).once('SIGTERM', end)
  process.stdout.once('error', end)
  try {
    while (!ended.signal.aborted && process.stdout.writable) {
      print(await render())
      await delay(PLAIN_INTERVAL_MS, undefined, { signal: ended.signal }).catch(() => {})
    }
  } finally {
    process.off('SIGINT', end).off('SIGTERM', end)
  }
}

/** One table in place, and below it what happened last. An outage is told, and waited for. */
async function watchOnScreen(config: Config): Promise<void> {
  // A mistake shows at once, and on the terminal as it was.
  let pools = await readPools(config)
  let activity: ActivityView[] = []
  let trouble: string | undefined
  const screen = new Screen(process.stdout, process.stdin)
  const colours = coloursFor(process.stdout)
  try {
    for (;;) {
      const time = new Date().toLocaleTimeString(undefined, { hour12: false })
      screen.show((columns, rows) => {
        const head = colours.faint(`Cupbearer  ${time}  q ends`)
        const state = trouble === undefined ? [] : [colours.bad(plain(trouble)), '']
        const lines = [head, '', ...state, ...renderPools(pools, colours).split('\n'), '']
        const room = Math.max(0, rows - lines.length)
        return [...lines, ...activity.slice(0, room).map((each) => tell(each, colours, columns))]
      })
      await delay(SCREEN_INTERVAL_MS, undefined, { signal: screen.ended }).catch(() => {})
      if (screen.ended.aborted) return
      try {
        pools = await readPools(config)
        activity = (await callAdmin<{ activity: ActivityView[] }>(config, 'GET', '/api/activity'))
          .activity
        trouble = undefined
      } catch (error) {
        trouble = `${(error as Error).message}; this is what was known last`
      }
    }
  } finally {
    screen.close()
  }
}

const STATES = ['active', 'cooling', 'quarantined', 'pending', 'revoked'] as const
const HEAD = [
  'pool',
  'status',
  ...STATES,
  'avg TTL',
  'refresh success',
  'req/token/min',
  'overhead',
  'waiting',
]

function renderPools(pools: readonly Summary[], colours?: Colours): string {
  if (pools.length === 0) return 'There is no pool in the configuration.'
  const rows = pools.map((pool) => [
    pool.name,
    pool.status,
    ...STATES.map((state) => String(pool.tokens[state])),
    known(pool.avgTtlRemainingSeconds, duration),
    known(pool.refreshSuccessRate, percent),
    known(pool.requestsPerTokenPerMinute, (rate) => rate.toFixed(1)),
    known(pool.authOverhead, percent),
    String(pool.waiting),
  ])
  const figures = table(
    HEAD,
    rows,
    colours &&
      ((cell, column, row) => {
        const pool = pools[row]
        return pool ? paint(cell, HEAD[column] as string, pool, colours) : colours.faint(cell)
      }),
  )
  const troubles = pools.flatMap(({ name, trouble }) =>
    trouble ? [plain(`${name}: ${trouble}`)] : [],
  )
  return [figures, ...troubles.map((line) => colours?.odd(line) ?? line)].join('\n')
}

function paint(cell: string, column: string, pool: Summary, colours: Colours): string {
  const { good, odd, bad } = colours
  if (column === 'pool') return colours.strong(cell)
  if (column === 'status') {
    return { healthy: good, degraded: odd, exhausted: bad }[pool.status](cell)
  }
  if (column === 'quarantined') return pool.tokens.quarantined > 0 ? odd(cell) : cell
  if (column === 'revoked') return pool.tokens.revoked > 0 ? bad(cell) : cell
  if (column === 'overhead')
    return pool.authOverhead !== null && pool.authOverhead >= OVERHEAD_TARGET
      ? bad(cell)
      : good(cell)
  if (column === 'waiting') return pool.waiting > 0 ? odd(cell) : cell
  return cell
}

/** One event in a line. */
function tell(event: ActivityView, colours: Colours, columns: number): string {
  const { refresh, to, from, egress, up, applied } = event
  const time = new Date(event.time).toLocaleTimeString(undefined, { hour12: false })
  const about = event.credential ? `${event.pool}/${event.credential}` : (egress ?? 'configuration')
  let what = ''
  let failed = false
  if (refresh) {
    failed = refresh.result !== 'ok'
    what = `refresh ${refresh.result}${refresh.reason ? `: ${refresh.reason}` : ''}`
  } else if (to) {
    failed = to === 'revoked' || to === 'quarantined'
    what = `${from} → ${to}: ${event.reason}`
  } else if (egress) {
    failed = up === false
    const news = up === undefined ? `seen as ${event.address ?? 'nothing'}` : up ? 'up' : 'down'
    what = `${news}${event.reason ? `: ${event.reason}` : ''}`
  } else {
    failed = applied !== true
    what = applied ? 'applied' : 'refused'
  }
  const text = plain(what).slice(0, columns)
  return `${colours.faint(time)}  ${plain(about)}  ${failed ? colours.bad(text) : text}`
}
