import { useCallback, useEffect, useMemo, useState } from 'preact/hooks'
import { PHONE, useCell, useMedia, useNow } from './cell.ts'
import { CredentialDetail } from './credential-detail.tsx'
import { count, relative, whole } from './format.ts'
import type { Live } from './live.ts'
import { type Credential, type Pool, STATES } from './model.ts'
import { useCredentials } from './pages.ts'
import { Badge, Choice, Empty, Headroom, Search, TtlBar } from './parts.tsx'
import { go, link, type Route } from './route.ts'
import { Cell, VirtualList } from './virtual-list.tsx'

const SORTS = [
  ['configured', 'as configured'],
  ['trouble', 'trouble first'],
  ['expiry', 'expires soonest'],
  ['uses', 'most used'],
  ['id', 'name'],
] as const

/** A pool's credentials: searched, ordered, one of them in full. */
export function CredentialsView({ live, route }: { live: Live; route: Route }) {
  const pools = useCell(live.pools)
  const [name, id] = route.path
  const pool = pools?.find((each) => each.name === name) ?? (name ? undefined : pools?.[0])
  if (!pools) return <Empty>Reading…</Empty>
  if (!pool) return <Empty>There is no pool {name ? `“${name}”` : 'in the configuration'}.</Empty>
  return (
    <PoolCredentials
      key={pool.name}
      live={live}
      pools={pools}
      pool={pool}
      id={id}
      egress={route.query.get('egress') ?? ''}
    />
  )
}

function PoolCredentials(props: {
  live: Live
  pools: readonly Pool[]
  pool: Pool
  id: string | undefined
  egress: string
}) {
  const { live, pools, pool, id, egress } = props
  const [search, setSearch] = useState('')
  const [state, setState] = useState('')
  const [sort, setSort] = useState('configured')
  const [active, setActive] = useState(-1)
  const asked = useLate(search)
  const query = useMemo(
    () => new URLSearchParams({ search: asked, state, sort, egress }),
    [asked, state, sort, egress],
  )
  const phone = useMedia(PHONE)
  const now = useNow()
  const { at, total, loaded, error, again, onRange } = useCredentials(live, pool.name, query)
  useEffect(() => setActive(-1), [query])

  const open = (index: number) => {
    const credential = at(index)
    if (credential) go(link('credentials', pool.name, credential.id), id !== undefined)
  }
  const close = () => {
    go(link('credentials', pool.name), true)
    document.getElementById('credential-list')?.focus()
  }
  const rowOf = useCallback(
    (index: number) => {
      const credential = at(index)
      if (!credential) return <span class="faint">…</span>
      return <CredentialCells credential={credential} now={now} />
    },
    [at, now],
  )
  const all = STATES.reduce((sum, each) => sum + pool.tokens[each], 0)
  return (
    <div class={id === undefined ? 'split' : 'split open'}>
      <section class="main-column" aria-labelledby="credentials-title">
        <div class="toolbar">
          <h2 id="credentials-title">Credentials</h2>
          <Choice
            label="Pool"
            value={pool.name}
            options={pools.map((each) => [each.name, each.name] as const)}
            onValue={(chosen) => go(link('credentials', chosen))}
          />
          <Search label="Search credentials" value={search} onValue={setSearch} />
          <Choice
            label="State"
            value={state}
            options={[
              ['', `any (${whole(all)})`],
              ...STATES.map((each) => [each, `${each} (${whole(pool.tokens[each])})`] as const),
            ]}
            onValue={setState}
          />
          <Choice label="Order" value={sort} options={SORTS} onValue={setSort} />
          {egress && (
            <a class="chip" href={link('credentials', pool.name)}>
              egress {egress} <span aria-hidden="true">×</span>
              <span class="hidden">show all</span>
            </a>
          )}
          <span class="faint tally" role="status">
            {loaded && count(total, 'credential')}
          </span>
        </div>
        {error && <p class="bad">{error}</p>}
        {loaded && total === 0 && <Empty>No credential matches.</Empty>}
        <VirtualList
          id="credential-list"
          label={`Credentials of ${pool.name}`}
          count={total}
          rowHeight={phone ? 92 : 40}
          active={active}
          head={phone ? undefined : HEAD}
          keyOf={(index) => at(index)?.id ?? String(index)}
          row={rowOf}
          rowClass={(index) =>
            id !== undefined && at(index)?.id === id ? 'credential open' : 'credential'
          }
          onActive={setActive}
          onOpen={open}
          onRange={onRange}
        />
      </section>
      {id !== undefined && (
        <CredentialDetail live={live} pool={pool} id={id} onClose={close} onDone={again} />
      )}
    </div>
  )
}

const HEAD = ['Credential', 'State', 'Lifetime', 'Headroom', 'Egress', 'Next refresh', 'Last error']

function CredentialCells({ credential, now }: { credential: Credential; now: number }) {
  const { id, subject, state, egress, egressAddress, refreshAt, lastError } = credential
  return (
    <>
      <Cell name="name" title={subject ?? id}>
        <strong>{id}</strong> {subject && subject !== id && <span class="faint">{subject}</span>}
      </Cell>
      <Cell name="state">
        <Badge text={state} />
      </Cell>
      <Cell name="ttl">
        <TtlBar credential={credential} now={now} />
      </Cell>
      <Cell name="room">
        <Headroom credential={credential} />
      </Cell>
      <Cell name="egress" title={egressAddress ?? egress}>
        {egress} {egressAddress && <span class="faint">{egressAddress}</span>}
      </Cell>
      <Cell name="refresh">{refreshAt ? relative(refreshAt, now) : '–'}</Cell>
      <Cell name="error" title={lastError ?? ''}>
        {lastError}
      </Cell>
    </>
  )
}

/** What is typed, once the typing rests. */
function useLate(value: string): string {
  const [late, setLate] = useState(value)
  useEffect(() => {
    const timer = setTimeout(() => setLate(value), 200)
    return () => clearTimeout(timer)
  }, [value])
  return late
}
