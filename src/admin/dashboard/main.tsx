import { render } from 'preact'
import { useCallback, useEffect, useMemo, useState } from 'preact/hooks'
import { CredentialsView } from './credentials.tsx'
import { EgressView } from './egress.tsx'
import { EventsView } from './events.tsx'
import { Header, Outage } from './header.tsx'
import { Help, useKeys } from './keys.tsx'
import { Live } from './live.ts'
import { PoolsView } from './pools.tsx'
import { useRoute, type View } from './route.ts'
import { signedIn, signInByLink, signOut } from './session.ts'
import { SignIn } from './sign-in.tsx'
import { startTheme } from './theme.ts'
import { TracesView } from './traces.tsx'

const TITLES: Readonly<Record<View, string>> = {
  pools: 'Pools',
  credentials: 'Credentials',
  traces: 'Traces',
  egress: 'Egress',
  events: 'Events',
}

function Dashboard({ onEnd }: { onEnd: (problem: string) => void }) {
  const live = useMemo(() => new Live(), [])
  const route = useRoute()
  const [helping, setHelping] = useState(false)
  const help = useCallback(() => setHelping(true), [])
  useKeys(help)
  useEffect(() => {
    const stop = new AbortController()
    live.run(stop.signal).catch((error: Error) => onEnd(error.message))
    return () => stop.abort()
  }, [live, onEnd])
  const { view } = route
  useEffect(() => {
    document.title = `${TITLES[view]} · Cupbearer`
  }, [view])
  return (
    <>
      <Header live={live} view={view} onHelp={help} onSignOut={() => onEnd('')} />
      <Outage live={live} />
      <main>
        {view === 'pools' && <PoolsView live={live} />}
        {view === 'credentials' && <CredentialsView live={live} route={route} />}
        {view === 'traces' && <TracesView live={live} route={route} />}
        {view === 'egress' && <EgressView live={live} />}
        {view === 'events' && <EventsView live={live} />}
      </main>
      {helping && <Help onClose={() => setHelping(false)} />}
    </>
  )
}

function App({ problem }: { problem: string }) {
  const [inside, setInside] = useState(signedIn())
  const [told, setTold] = useState(problem)
  const end = useCallback((why: string) => {
    signOut()
    setTold(why)
    setInside(false)
  }, [])
  if (inside) return <Dashboard onEnd={end} />
  return <SignIn key={told} problem={told} onDone={() => setInside(true)} />
}

startTheme()
// A link that is opened in a tab which is here already changes nothing but what stands after the `#`.
addEventListener('hashchange', () => {
  if (/^#(code|token)=/.test(location.hash)) location.reload()
})
const outcome = await signInByLink()
const root = document.getElementById('root')
if (root) render(<App problem={outcome === undefined || outcome === 'done' ? '' : outcome} />, root)
