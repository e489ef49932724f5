import { useCell } from './cell.ts'
import { Charts, OVERHEAD_TARGET } from './charts.tsx'
import { duration, percent, whole } from './format.ts'
import type { Live } from './live.ts'
import { type Pool, STATES } from './model.ts'
import { Badge, Empty } from './parts.tsx'
import { link } from './route.ts'

/** Every pool with its figures, and the last hour. */
export function PoolsView({ live }: { live: Live }) {
  const pools = useCell(live.pools)
  return (
    <div class="page">
      <section aria-labelledby="pools-title">
        <h2 id="pools-title">Pools</h2>
        {pools === undefined && <Empty>Reading…</Empty>}
        {pools?.length === 0 && <Empty>The configuration has no pool.</Empty>}
        {pools && pools.length > 0 && <PoolTable pools={pools} />}
      </section>
      <Charts live={live} />
    </div>
  )
}

function PoolTable({ pools }: { pools: readonly Pool[] }) {
  return (
    <div class="table-wrap">
      <table class="pools">
        <thead>
          <tr>
            <th scope="col">Pool</th>
            <th scope="col">Health</th>
            <th scope="col">Tokens</th>
            <th scope="col" class="number">
              Active
            </th>
            <th scope="col" class="number">
              Quarantined
            </th>
            <th scope="col" class="number">
              Average TTL
            </th>
            <th scope="col" class="number">
              Refresh success
            </th>
            <th scope="col" class="number">
              Req / token / min
            </th>
            <th scope="col" class="number">
              Auth overhead <small>&lt; {OVERHEAD_TARGET}</small>
            </th>
            <th scope="col" class="number">
              Waiting
            </th>
          </tr>
        </thead>
        <tbody>
          {pools.map((pool) => (
            <PoolRow key={pool.name} pool={pool} />
          ))}
        </tbody>
      </table>
    </div>
  )
}

function PoolRow({ pool }: { pool: Pool }) {
  const { name, tokens, targets, status } = pool
  const missed = pool.authOverhead >= OVERHEAD_TARGET
  const all = STATES.reduce((sum, state) => sum + tokens[state], 0)
  const shown = targets.slice(0, 3).join(', ')
  return (
    <tr>
      <th scope="row">
        <a href={link('credentials', name)}>{name}</a>
        <span class="targets" title={targets.join('\n')}>
          {targets.length > 3 ? `${shown} and ${targets.length - 3} more` : shown}
        </span>
      </th>
      <td data-label="Health">
        <Badge text={status} />
        {pool.trouble && <span class="trouble">{pool.trouble}</span>}
      </td>
      <td data-label="Tokens" class="stack-cell">
        <StateBar tokens={tokens} all={all} />
      </td>
      <td data-label="Active" class="number">
        {whole(tokens.active)} <span class="faint">of {whole(all)}</span>
      </td>
      <td
        data-label="Quarantined"
        class="number"
        data-tone={tokens.quarantined ? 'warn' : undefined}
      >
        {whole(tokens.quarantined)}
      </td>
      <td data-label="Average TTL" class="number">
        {duration(pool.avgTtlRemainingSeconds)}
      </td>
      <td
        data-label="Refresh success"
        class="number"
        data-tone={(pool.refreshSuccessRate ?? 1) < 0.95 ? 'warn' : undefined}
      >
        {percent(pool.refreshSuccessRate)}
      </td>
      <td data-label="Req / token / min" class="number">
        {pool.requestsPerTokenPerMinute.toFixed(1)}
      </td>
      <td data-label="Auth overhead" class="number" data-tone={missed ? 'bad' : 'good'}>
        {pool.authOverhead.toFixed(3)}
        <span class="mark" title={`The target is below ${OVERHEAD_TARGET}`}>
          {missed ? ' ▲ over' : ' ✓'}
        </span>
      </td>
      <td data-label="Waiting" class="number" data-tone={pool.waiting ? 'warn' : undefined}>
        {whole(pool.waiting)}
      </td>
    </tr>
  )
}

/** How the tokens' states share a pool, and each by name for those who cannot see colours. */
function StateBar({ tokens, all }: { tokens: Pool['tokens']; all: number }) {
  const present = STATES.filter((state) => tokens[state] > 0)
  const text = present.map((state) => `${whole(tokens[state])} ${state}`).join(', ') || 'none'
  return (
    <span class="state-bar" role="img" aria-label={`Tokens: ${text}`} title={text}>
      {present.map((state) => (
        <span
          key={state}
          data-state={state}
          style={{ flexGrow: tokens[state] / Math.max(1, all) }}
        />
      ))}
    </span>
  )
}
