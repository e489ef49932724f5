import { useMemo, useState } from 'preact/hooks'
import { useCell } from './cell.ts'
import { Chart, type Line } from './chart.tsx'
import { duration, percent } from './format.ts'
import type { Live } from './live.ts'
import { type History, type PoolHistory, VERDICTS } from './model.ts'
import { Choice } from './parts.tsx'

/** Overhead is judged over that many steps: one refresh in ten quiet seconds says nothing. */
const OVERHEAD_STEPS = 30
export const OVERHEAD_TARGET = 0.05

/** The last hour of one pool, or of all. */
export function Charts({ live }: { live: Live }) {
  const history = useCell(live.history)
  const [chosen, setChosen] = useState('')
  const names = Object.keys(history?.pools ?? {}).sort()
  const pool = names.includes(chosen) ? chosen : ''
  const figures = useMemo(() => history && figuresOf(history, pool), [history, pool])
  if (!figures) return null
  const { times, requests, verdicts, overhead, ttl } = figures
  return (
    <section aria-labelledby="charts-title">
      <div class="section-head">
        <h2 id="charts-title">Last hour</h2>
        <Choice
          label="Pool"
          value={pool}
          onValue={setChosen}
          options={[['', 'all pools'], ...names.map((name) => [name, name] as const)]}
        />
      </div>
      <div class="charts">
        <Chart
          title="Requests"
          note="per second"
          times={times}
          lines={requests}
          format={rate}
          top={1}
        />
        <Chart
          title="Not ok"
          note="verdicts per second"
          times={times}
          lines={verdicts}
          format={rate}
          top={0.5}
        />
        <Chart
          title="Auth overhead"
          note={`refreshes ÷ requests over 5 min, target below ${percent(OVERHEAD_TARGET)}`}
          times={times}
          lines={overhead}
          format={(value) => percent(value, value < 0.1 ? 1 : 0)}
          target={OVERHEAD_TARGET}
        />
        <Chart
          title="Average TTL"
          note="left of tokens in use"
          times={times}
          lines={ttl}
          format={duration}
        />
      </div>
    </section>
  )
}

const COLOURS = { expired: 'warn', limited: 'info', denied: 'odd', failed: 'bad' } as const

const rate = (value: number) =>
  value >= 10 || value === 0 ? String(Math.round(value)) : value.toFixed(1)

function figuresOf(history: History, pool: string) {
  const tracks = Object.entries(history.pools)
    .filter(([name]) => pool === '' || name === pool)
    .map(([, track]) => track)
  const { steps, stepSeconds } = history
  const end = Date.parse(history.end) / 1000
  const times = Array.from({ length: steps }, (_, index) => end - (steps - 1 - index) * stepSeconds)
  const sum = (key: (typeof VERDICTS)[number] | 'refreshes') =>
    times.map((_, index) => tracks.reduce((total, track) => total + (track[key][index] ?? 0), 0))
  const counts = Object.fromEntries(VERDICTS.map((name) => [name, sum(name)])) as Record<
    (typeof VERDICTS)[number],
    number[]
  >
  const all = times.map((_, at) =>
    VERDICTS.reduce((total, name) => total + (counts[name][at] ?? 0), 0),
  )
  const perSecond = (values: readonly number[]) => values.map((value) => value / stepSeconds)
  const requests: Line[] = [
    { name: 'requests', colour: 'accent', values: perSecond(all), filled: true },
  ]
  const verdicts: Line[] = Object.entries(COLOURS).map(([name, colour]) => ({
    name,
    colour,
    values: perSecond(counts[name as keyof typeof COLOURS]),
  }))
  const overhead: Line[] = [
    { name: 'overhead', colour: 'accent', values: overheadOf(sum('refreshes'), all), filled: true },
  ]
  const ttl: Line[] = [
    {
      name: 'TTL',
      colour: 'good',
      values: times.map((_, at) => averageTtl(tracks, at)),
      filled: true,
    },
  ]
  return { times, requests, verdicts, overhead, ttl }
}

/** Refreshes ÷ requests of the last steps, each time; nothing where there was no request. */
function overheadOf(refreshes: readonly number[], requests: readonly number[]): (number | null)[] {
  let renewed = 0
  let asked = 0
  return refreshes.map((count, at) => {
    renewed += count - (refreshes[at - OVERHEAD_STEPS] ?? 0)
    asked += (requests[at] ?? 0) - (requests[at - OVERHEAD_STEPS] ?? 0)
    return asked > 0 ? renewed / asked : null
  })
}

/** Over the pools' tokens, so a large pool weighs more. */
function averageTtl(tracks: readonly PoolHistory[], at: number): number | null {
  let weighed = 0
  let tokens = 0
  for (const { ttlSeconds, active } of tracks) {
    const ttl = ttlSeconds[at]
    const count = active[at] ?? 0
    if (ttl === null || ttl === undefined || count === 0) continue
    weighed += ttl * count
    tokens += count
  }
  return tokens > 0 ? weighed / tokens : null
}
