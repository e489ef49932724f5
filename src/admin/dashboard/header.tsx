import { useCell, useNow } from './cell.ts'
import { clockTime } from './format.ts'
import type { Live } from './live.ts'
import { link, VIEWS, type View } from './route.ts'
import { Mark } from './sign-in.tsx'
import { chooseTheme, theme } from './theme.ts'

const NAMES: Readonly<Record<View, string>> = {
  pools: 'Pools',
  credentials: 'Credentials',
  traces: 'Traces',
  egress: 'Egress',
  events: 'Events',
}

const NEXT = { auto: 'light', light: 'dark', dark: 'auto' } as const
const ICONS = { auto: '◐', light: '☀', dark: '☾' } as const

/** Where one is, how the connection is, and how it looks. */
export function Header(props: {
  live: Live
  view: View
  onHelp: () => void
  onSignOut: () => void
}) {
  const chosen = useCell(theme)
  return (
    <header class="top">
      <a class="brand" href={link('pools')} aria-label="Cupbearer">
        <Mark /> <span>Cupbearer</span>
      </a>
      <nav aria-label="Views">
        {VIEWS.map((view, index) => (
          <a
            key={view}
            href={link(view)}
            aria-current={view === props.view ? 'page' : undefined}
            aria-keyshortcuts={String(index + 1)}
          >
            {NAMES[view]}
          </a>
        ))}
      </nav>
      <ConnectionState live={props.live} />
      <button
        type="button"
        class="icon"
        aria-label={`Colours: ${chosen}. Change to ${NEXT[chosen]}`}
        title={`Colours: ${chosen}`}
        onClick={() => chooseTheme(NEXT[chosen])}
      >
        {ICONS[chosen]}
      </button>
      <button
        type="button"
        class="icon"
        aria-label="Keys"
        title="Keys ( ? )"
        onClick={props.onHelp}
      >
        ?
      </button>
      <button type="button" class="quiet" onClick={props.onSignOut}>
        Sign out
      </button>
    </header>
  )
}

function ConnectionState({ live }: { live: Live }) {
  const connection = useCell(live.connection)
  const { state } = connection
  const text = state === 'live' ? 'live' : state === 'connecting' ? 'connecting' : 'reconnecting'
  return (
    <span class="connection" role="status" data-state={state}>
      {text}
    </span>
  )
}

/** Says that what is shown is of the past, and when the next try is. */
export function Outage({ live }: { live: Live }) {
  const connection = useCell(live.connection)
  const now = useNow()
  if (connection.state !== 'waiting') return null
  const { reason, retryAt, lastSeen, retry } = connection
  const left = Math.max(0, Math.ceil((retryAt - now) / 1000))
  return (
    <div class="outage" role="alert">
      <span>
        Cupbearer does not answer ({reason}).
        {lastSeen && ` What you see is of ${clockTime(lastSeen)}.`}
      </span>
      <span aria-live="off">{left > 0 ? `Next try in ${left} s.` : 'Trying…'}</span>
      <button type="button" onClick={retry}>
        Try now
      </button>
    </div>
  )
}
