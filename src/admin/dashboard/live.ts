import { Cell } from './cell.ts'
import { Log } from './log.ts'
import type { Activity, History, Pool, PoolHistory, Trace } from './model.ts'
import { get, Unauthorized } from './session.ts'
import { follow } from './stream.ts'

const KEPT_TRACES = 3000
const FIRST_TRACES = 500
const KEPT_ACTIVITY = 2000
const KEPT_STEPS = 360

export type Connection =
  | { readonly state: 'connecting' }
  | { readonly state: 'live'; readonly since: number }
  | {
      readonly state: 'waiting'
      readonly reason: string
      readonly retryAt: number
      readonly lastSeen: number | undefined
      readonly retry: () => void
    }

/** What the page knows of the proxy, kept up to date by its event stream. */
export class Live {
  readonly connection = new Cell<Connection>({ state: 'connecting' })
  readonly pools = new Cell<readonly Pool[] | undefined>(undefined)
  readonly history = new Cell<History | undefined>(undefined)
  /** How many traces were left out, since more arrived than a page can show. */
  readonly omitted = new Cell(0)
  /** Grows when something has happened to a pool's credentials, or to an egress. */
  readonly changes = new Cell<Readonly<Record<string, number>>>({})
  readonly traces = new Log<Trace>(KEPT_TRACES, ({ id }) => id)
  readonly activity = new Log<Activity>(KEPT_ACTIVITY, ({ seq }) => seq)
  readonly #byName = new Map<string, Pool>()
  #lastSeen: number | undefined

  /** Follows the proxy until the signal; rejects with `Unauthorized` only. */
  async run(signal: AbortSignal): Promise<void> {
    const charts = this.#chart(signal)
    try {
      await follow(
        {
          connected: () => this.#readAll(signal),
          event: (name, data, id) => this.#take(name, data, id),
          waiting: (reason, retryAt, retry) => {
            const lastSeen = this.#lastSeen
            this.connection.set({ state: 'waiting', reason, retryAt, retry, lastSeen })
          },
        },
        signal,
      )
    } finally {
      clearInterval(charts)
    }
  }

  /** Takes older traces in, as the server lists them: newest first, also among those of one millisecond. */
  takeTraces(traces: readonly Trace[]): void {
    this.traces.merge([...traces].reverse(), byTime)
  }

  /** What the stream does not tell: all that was before it. It may be another run of the proxy than the last. */
  async #readAll(signal: AbortSignal): Promise<void> {
    const [traces, activity, history] = await Promise.all([
      get<{ traces: Trace[] }>(`/api/traces?limit=${FIRST_TRACES}`, signal),
      get<{ activity: Activity[] }>('/api/activity', signal),
      get<History>('/api/history', signal),
    ])
    this.#byName.clear()
    this.traces.clear()
    this.takeTraces(traces.traces)
    this.activity.clear()
    this.activity.merge(activity.activity, bySeq)
    this.history.set(history)
    this.changes.set({ ...this.changes.value, '': Date.now() })
    this.pools.set(this.pools.value ?? [])
    this.connection.set({ state: 'live', since: Date.now() })
  }

  #take(name: string, data: unknown, id: number | undefined): void {
    this.#lastSeen = Date.now()
    if (name === 'trace') this.traces.add(data as Trace)
    else if (name === 'pool') this.#takePool(data as Pool & { removed?: true })
    else if (name === 'omitted') {
      this.omitted.set(this.omitted.value + (data as { traces: number }).traces)
    } else if (name === 'credential' || name === 'egress' || name === 'config') {
      if (id !== undefined) this.activity.add({ ...(data as Activity), seq: id, event: name })
      this.#changed((data as Activity).pool ?? name)
    }
  }

  #takePool(pool: Pool & { removed?: true }): void {
    if (pool.removed) this.#byName.delete(pool.name)
    else this.#byName.set(pool.name, pool)
    this.pools.set([...this.#byName.values()])
    this.#changed(pool.name)
  }

  #changed(what: string): void {
    const known = this.changes.value
    this.changes.set({ ...known, [what]: (known[what] ?? 0) + 1 })
  }

  /** Each step of the charts when it has ended. */
  #chart(signal: AbortSignal): ReturnType<typeof setInterval> {
    return setInterval(async () => {
      const known = this.history.value
      if (!known || document.hidden || this.connection.value.state !== 'live') return
      if (Date.now() < Date.parse(known.end) + known.stepSeconds * 1000) return
      try {
        const since = encodeURIComponent(known.end)
        const fresh = await get<History>(`/api/history?since=${since}`, signal)
        if (this.history.value === known) this.history.set(append(known, fresh))
      } catch (error) {
        // The stream meets the same and tells of it; a session that has ended ends the stream too.
        if (error instanceof Unauthorized) return
      }
    }, 2000)
  }
}

const byTime = (a: Trace, b: Trace) => (a.time < b.time ? -1 : a.time > b.time ? 1 : 0)
const bySeq = (a: Activity, b: Activity) => a.seq - b.seq

/** One history after the other, no longer than the server keeps it. */
export function append(known: History, fresh: History): History {
  const steps = Math.min(KEPT_STEPS, known.steps + fresh.steps)
  const pools: Record<string, PoolHistory> = {}
  for (const [name, track] of Object.entries(fresh.pools)) {
    const before = known.pools[name]
    pools[name] = mapTrack(track, (values, key) => {
      const missing = Array<number>(known.steps).fill(0)
      return [...(before?.[key] ?? missing), ...values].slice(-steps)
    })
  }
  return { ...fresh, steps, pools }
}

function mapTrack(
  track: PoolHistory,
  change: (values: readonly (number | null)[], key: keyof PoolHistory) => (number | null)[],
): PoolHistory {
  return Object.fromEntries(
    Object.entries(track).map(([key, values]) => [key, change(values, key as keyof PoolHistory)]),
  ) as unknown as PoolHistory
}
