import { useCallback, useMemo, useState } from 'preact/hooks'
import { PHONE, useCell, useMedia } from './cell.ts'
import { clockTime, count, milliseconds } from './format.ts'
import type { Live } from './live.ts'
import type { Activity } from './model.ts'
import { Badge, Choice, Empty, Search, type Tone } from './parts.tsx'
import { go, link } from './route.ts'
import { Cell, VirtualList } from './virtual-list.tsx'

const KINDS = [
  ['', 'all'],
  ['trouble', 'trouble'],
  ['refresh', 'refreshes'],
  ['credential', 'states'],
  ['egress', 'egress'],
  ['config', 'configuration'],
] as const

/** What happened to credentials, egresses and the configuration, newest first. */
export function EventsView({ live }: { live: Live }) {
  const [search, setSearch] = useState('')
  const [kind, setKind] = useState('')
  const [activeSeq, setActiveSeq] = useState<number>()
  const phone = useMedia(PHONE)
  const version = useCell(live.activity.version)
  const shown = useMemo(() => {
    const words = search.toLowerCase().split(/\s+/).filter(Boolean)
    return live.activity.items
      .map((item) => ({ item, told: tell(item) }))
      .filter(
        ({ item, told }) =>
          (kind === '' || kind === told.kind || (kind === 'trouble' && isTrouble(told.tone))) &&
          words.every((word) =>
            `${told.about} ${told.text} ${item.time}`.toLowerCase().includes(word),
          ),
      )
  }, [version, search, kind])
  const at = useCallback((index: number) => shown[shown.length - 1 - index], [shown])
  const active = useMemo(() => {
    const place = shown.findIndex(({ item }) => item.seq === activeSeq)
    return place < 0 ? -1 : shown.length - 1 - place
  }, [shown, activeSeq])
  const open = (index: number) => {
    const item = at(index)?.item
    if (item?.pool && item.credential) go(link('credentials', item.pool, item.credential))
    else if (item?.egress) go(link('egress'))
  }
  const rowOf = useCallback(
    (index: number) => {
      const entry = at(index)
      return entry ? <EventCells item={entry.item} told={entry.told} /> : null
    },
    [at],
  )
  return (
    <div class="split">
      <section class="main-column" aria-labelledby="events-title">
        <div class="toolbar">
          <h2 id="events-title">Events</h2>
          <Search label="Search events" value={search} onValue={setSearch} />
          <Choice label="Kind" value={kind} options={KINDS} onValue={setKind} />
          <span class="faint tally">{count(shown.length, 'event')}</span>
        </div>
        {shown.length === 0 && (
          <Empty>
            {live.activity.items.length > 0 ? 'No event matches.' : 'Nothing has happened yet.'}
          </Empty>
        )}
        <VirtualList
          id="event-list"
          label="Events, newest first"
          count={shown.length}
          rowHeight={phone ? 60 : 32}
          active={active}
          keyOf={(index) => String(at(index)?.item.seq ?? index)}
          row={rowOf}
          rowClass={() => 'event'}
          onActive={(index) => setActiveSeq(at(index)?.item.seq)}
          onOpen={open}
          anchored
        />
      </section>
    </div>
  )
}

interface Told {
  readonly kind: string
  readonly label: string
  readonly tone: Tone
  readonly about: string
  readonly text: string
}

function EventCells({ item, told }: { item: Activity; told: Told }) {
  return (
    <>
      <Cell name="time">{clockTime(item.time)}</Cell>
      <Cell name="kind">
        <Badge text={told.label} tone={told.tone} />
      </Cell>
      <Cell name="about" title={told.about}>
        {told.about}
      </Cell>
      <Cell name="text" title={told.text}>
        {told.text}
      </Cell>
    </>
  )
}

const isTrouble = (tone: Tone) => tone === 'bad' || tone === 'warn'

const CAUSES: Readonly<Record<string, string>> = {
  startup: 'for the first time',
  scheduled: 'ahead of its end',
  expired: 'after a refusal',
  operator: 'at the operator’s wish',
  canary: 'to see whether it is well again',
}

/** An event in words. */
function tell(item: Activity): Told {
  const about = item.credential
    ? `${item.pool}/${item.credential}`
    : (item.egress ?? 'configuration')
  const { refresh, to, from, reason } = item
  if (refresh) {
    const ok = refresh.result === 'ok'
    const cause = CAUSES[refresh.cause] ?? refresh.cause
    const text = ok
      ? `new token ${cause}: generation ${refresh.generation}, took ${milliseconds(refresh.ms)}`
      : `${refresh.result} (${cause}) after ${milliseconds(refresh.ms)}: ${refresh.reason ?? 'no reason'}`
    return {
      kind: 'refresh',
      label: ok ? 'refresh' : 'refresh failed',
      tone: ok ? 'good' : 'bad',
      about,
      text,
    }
  }
  if (to) {
    const tone: Tone =
      to === 'active' ? 'good' : to === 'revoked' ? 'bad' : to === 'quarantined' ? 'warn' : 'info'
    return { kind: 'credential', label: to, tone, about, text: `${from} → ${to}: ${reason}` }
  }
  if (item.event === 'egress') return tellEgress(item, about)
  const { applied, problems = [] } = item
  const text = [applied ? 'applied' : 'refused, the old one stays in force', ...problems].join('; ')
  return { kind: 'config', label: 'config', tone: applied ? 'good' : 'bad', about, text }
}

function tellEgress(item: Activity, about: string): Told {
  const { up, address, previous, reason } = item
  const base = { kind: 'egress', about }
  if (up !== undefined) {
    return { ...base, label: up ? 'up' : 'down', tone: up ? 'good' : 'bad', text: reason ?? '' }
  }
  const why = reason ? ` (${reason})` : ''
  if (!address) return { ...base, label: 'probe', tone: 'warn', text: `address not learned${why}` }
  if (!previous)
    return { ...base, label: 'address', tone: 'info', text: `seen as ${address}${why}` }
  return { ...base, label: 'drift', tone: 'warn', text: `${previous} → ${address}${why}` }
}
