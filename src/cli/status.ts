import { setTimeout as delay } from 'node:timers/promises'
import type { formatPool } from '../admin/format.ts'
import { type Command, print, withConfig } from './command.ts'
import { callAdmin } from './running.ts'
import { duration, known, percent, table } from './table.ts'

/** A pool as the admin API shows it. */
export type PoolView = ReturnType<typeof formatPool>

const INTERVAL_MS = 2000

/** `status`: the pools of the running proxy. */
export const status: Command = (cli) =>
  cli.command(
    'status',
    'show the pools of the running proxy',
    (command) =>
      command
        .option('watch', { type: 'boolean', describe: 'show it every 2 s' })
        .option('json', { type: 'boolean', describe: 'answer in JSON' })
        .conflicts('watch', 'json')
        .example('$0 status --watch', 'keeps showing the pools until Ctrl-C'),
    async ({ config: file, watch, json }) => {
      await withConfig(file, async (config) => {
        const read = () => callAdmin<{ pools: PoolView[] }>(config, 'GET', '/api/pools')
        if (watch) return repeat(async () => renderPools((await read()).pools))
        const answer = await read()
        print(json ? JSON.stringify(answer) : renderPools(answer.pools))
      })
    },
  )

/** Shows a text over and over until Ctrl-C or until nobody reads it. */
async function repeat(render: () => Promise<string>): Promise<void> {
  const ended = new AbortController()
  const end = () => ended.abort()
  process.once('SIGINT', end).once('SIGTERM', end)
  try {
    while (!ended.signal.aborted && process.stdout.writable) {
      const text = await render()
      print(process.stdout.isTTY ? `\x1b[H\x1b[2J${text}` : text)
      await delay(INTERVAL_MS, undefined, { signal: ended.signal }).catch(() => {})
    }
  } finally {
    process.off('SIGINT', end).off('SIGTERM', end)
  }
}

const STATES = ['active', 'cooling', 'quarantined', 'pending', 'revoked'] as const

function renderPools(pools: readonly PoolView[]): string {
  if (pools.length === 0) return 'There is no pool in the configuration.'
  return table(
    [
      'pool',
      'status',
      ...STATES,
      'avg TTL',
      'refresh success',
      'req/token/min',
      'overhead',
      'waiting',
    ],
    pools.map((pool) => [
      pool.name,
      pool.status,
      ...STATES.map((state) => String(pool.tokens[state])),
      known(pool.avgTtlRemainingSeconds, duration),
      known(pool.refreshSuccessRate, percent),
      known(pool.requestsPerTokenPerMinute, (rate) => rate.toFixed(1)),
      known(pool.authOverhead, percent),
      String(pool.waiting),
    ]),
  )
}
