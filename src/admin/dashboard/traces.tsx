import { useCallback, useEffect, useMemo, useState } from 'preact/hooks'
import { PHONE, useCell, useMedia } from './cell.ts'
import { clockTime, count, milliseconds, whole } from './format.ts'
import type { Live } from './live.ts'
import type { Trace } from './model.ts'
import { Badge, Choice, Empty, Search } from './parts.tsx'
import { go, link, type Route } from './route.ts'
import { get, request } from './session.ts'
import { TraceDetail } from './trace-detail.tsx'
import { badgeOf, filterTraces, OUTCOMES } from './trace-filter.ts'
import { Cell, VirtualList } from './virtual-list.tsx'

/** Requests as they end: followed, held, searched, one of them in full. */
export function TracesView({ live, route }: { live: Live; route: Route }) {
  const [id] = route.path
  const asked = route.query.get('q') ?? ''
  const [search, setSearch] = useState(asked)
  const [pool, setPool] = useState('')
  const [outcome, setOutcome] = useState('')
  const [activeId, setActiveId] = useState<string>()
  const phone = useMedia(PHONE)
  const pools = useCell(live.pools) ?? []
  const omitted = useCell(live.omitted)
  const { items, held, fresh, hold, follow } = useHeld(live)
  useEffect(() => setSearch(asked), [asked])
  useServerSearch(live, pool, search)

  const shown = useMemo(
    () => filterTraces(items, { search, pool, outcome }),
    [items, search, pool, outcome],
  )
  const at = useCallback((index: number) => shown[shown.length - 1 - index], [shown])
  const active = useMemo(() => {
    const place = activeId === undefined ? -1 : shown.findIndex((trace) => trace.id === activeId)
    return place < 0 ? -1 : shown.length - 1 - place
  }, [shown, activeId])

  const choose = (index: number) => {
    // Nothing moves below the one that is looked at.
    hold()
    setActiveId(at(index)?.id)
  }
  const open = (index: number) => {
    const trace = at(index)
    if (trace) go(link('traces', trace.id), id !== undefined)
  }
  const close = () => {
    go(link('traces'), true)
    document.getElementById('trace-list')?.focus()
  }
  const rowOf = useCallback(
    (index: number) => {
      const trace = at(index)
      return trace ? <TraceCells trace={trace} /> : null
    },
    [at],
  )
  return (
    <div class={id === undefined ? 'split' : 'split open'}>
      <section class="main-column" aria-labelledby="traces-title">
        <div class="toolbar">
          <h2 id="traces-title">Traces</h2>
          <Search label="Search traces" value={search} onValue={setSearch} />
          <Choice
            label="Pool"
            value={pool}
            options={[['', 'all'], ...pools.map(({ name }) => [name, name] as const)]}
            onValue={setPool}
          />
          <Choice label="Outcome" value={outcome} options={OUTCOMES} onValue={setOutcome} />
          <button
            type="button"
            aria-pressed={held}
            data-key="p"
            onClick={() => (held ? follow() : hold())}
          >
            {held ? `Follow${fresh > 0 ? ` (${whole(fresh)} new)` : ''}` : 'Hold'}
          </button>
          <Download pool={pool} />
          <span class="faint tally">
            {count(shown.length, 'trace')}
            {omitted > 0 && `, ${whole(omitted)} came too fast to show`}
          </span>
        </div>
        {shown.length === 0 && (
          <Empty>{items.length > 0 ? 'No trace matches.' : 'No request has come yet.'}</Empty>
        )}
        <VirtualList
          id="trace-list"
          label="Traces, newest first"
          count={shown.length}
          rowHeight={phone ? 56 : 32}
          active={active}
          head={phone ? undefined : HEAD}
          keyOf={(index) => at(index)?.id ?? String(index)}
          row={rowOf}
          rowClass={(index) => (id !== undefined && at(index)?.id === id ? 'trace open' : 'trace')}
          onActive={choose}
          onOpen={open}
          anchored
        />
      </section>
      {id !== undefined && <TraceDetail live={live} id={id} onClose={close} />}
    </div>
  )
}

/** An HTTP archive of what the proxy keeps; a link alone could not say who asks. */
function Download({ pool }: { pool: string }) {
  const [failed, setFailed] = useState('')
  const download = async () => {
    setFailed('')
    try {
      const query = pool === '' ? '' : `?pool=${encodeURIComponent(pool)}`
      const archive = await (await request(`/api/traces.har${query}`)).blob()
      const link = document.createElement('a')
      link.href = URL.createObjectURL(archive)
      link.download = 'cupbearer.har'
      link.click()
      setTimeout(() => URL.revokeObjectURL(link.href), 60_000)
    } catch (error) {
      setFailed((error as Error).message)
    }
  }
  return (
    <button type="button" title="Download what is kept as an HTTP archive" onClick={download}>
      <span aria-live="polite">{failed || 'HAR'}</span>
    </button>
  )
}

/** The traces as they come, or as they were when somebody began to look at one. */
function useHeld(live: Live) {
  const version = useCell(live.traces.version)
  const [kept, keep] = useState<{ items: readonly Trace[]; received: number }>()
  const current = useMemo(() => [...live.traces.items], [version])
  const { received } = live.traces
  return {
    items: kept?.items ?? current,
    held: kept !== undefined,
    fresh: kept ? received - kept.received : 0,
    hold: () => keep((known) => known ?? { items: current, received }),
    follow: () => keep(undefined),
  }
}

/** The proxy keeps more than the page has read: what is looked for is asked for, and taken in. */
function useServerSearch(live: Live, pool: string, search: string): void {
  useEffect(() => {
    const stop = new AbortController()
    const timer = setTimeout(async () => {
      try {
        if (pool !== '') {
          const path = `/api/traces?pool=${encodeURIComponent(pool)}&limit=500`
          live.takeTraces((await get<{ traces: Trace[] }>(path, stop.signal)).traces)
        }
        const [word, ...others] = search.trim().split(/\s+/)
        if (word && /^[a-z0-9]{11}$/.test(word) && others.length === 0) {
          live.takeTraces([await get<Trace>(`/api/traces/${word}`, stop.signal)])
        }
      } catch {
        // What the page has is searched all the same; a break shows in the header.
      }
    }, 250)
    return () => {
      stop.abort()
      clearTimeout(timer)
    }
  }, [live, pool, search])
}

const HEAD = ['Time', 'Answer', 'Request', 'Pool', 'Credential', 'Total']

function TraceCells({ trace }: { trace: Trace }) {
  const { attempts, time, method, url, pool, durationMs } = trace
  const credential = attempts.at(-1)?.credential
  return (
    <>
      <Cell name="time">{clockTime(time)}</Cell>
      <Cell name="answer">
        <Badge {...badgeOf(trace)} />
      </Cell>
      <Cell name="request" title={url}>
        <b>{method}</b> {url.replace(/^https:\/\//, '')}
      </Cell>
      <Cell name="pool">{pool ?? '–'}</Cell>
      <Cell name="who">
        {credential ?? '–'}
        {attempts.length > 1 && <span class="faint"> ×{attempts.length}</span>}
      </Cell>
      <Cell name="total">{milliseconds(durationMs)}</Cell>
    </>
  )
}
