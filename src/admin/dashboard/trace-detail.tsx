import { useEffect, useState } from 'preact/hooks'
import { bytes, milliseconds } from './format.ts'
import type { Live } from './live.ts'
import type { Trace } from './model.ts'
import { Badge, Empty, Fact, Panel } from './parts.tsx'
import { link } from './route.ts'
import { get } from './session.ts'
import { badgeOf } from './trace-filter.ts'
import { Waterfall } from './waterfall.tsx'

/** One request: its story, its waterfall, its facts. */
export function TraceDetail(props: { live: Live; id: string; onClose: () => void }) {
  const { live, id } = props
  const [whole, setWhole] = useState<Trace>()
  const [error, setError] = useState<string>()
  useEffect(() => {
    const stop = new AbortController()
    setError(undefined)
    get<Trace>(`/api/traces/${encodeURIComponent(id)}`, stop.signal).then(
      setWhole,
      (failure: Error) => {
        if (!stop.signal.aborted) setError(failure.message)
      },
    )
    return () => stop.abort()
  }, [id])
  // What the list knows is shown at once; the whole has more, unless the proxy has forgotten it.
  const trace = whole?.id === id ? whole : live.traces.items.find((each) => each.id === id)
  return (
    <Panel label="Request" subject={id} onClose={props.onClose}>
      {trace ? (
        <Story trace={trace} />
      ) : (
        <>
          <h2 class="panel-title">Request {id}</h2>
          <Empty>{error ?? 'Reading…'}</Empty>
        </>
      )}
    </Panel>
  )
}

function Story({ trace }: { trace: Trace }) {
  const { client, pool } = trace
  return (
    <>
      <h2 class="panel-title">
        {trace.method} <Badge {...badgeOf(trace)} />
      </h2>
      <p class="url">{trace.url}</p>
      {trace.story && (
        <ol class="story" aria-label="What happened">
          {trace.story.slice(1).map((line) => (
            <li key={line}>{line.trim()}</li>
          ))}
        </ol>
      )}
      <Waterfall trace={trace} />
      <dl class="facts">
        <Fact name="Trace">
          <code>{trace.id}</code>
        </Fact>
        <Fact name="Arrived">{new Date(trace.time).toLocaleString()}</Fact>
        <Fact name="Client">{[client.name, client.address].filter(Boolean).join(' · ')}</Fact>
        <Fact name="Pool">{pool && <a href={link('credentials', pool)}>{pool}</a>}</Fact>
        <Fact name="Verdict">{trace.verdict}</Fact>
        <Fact name="Total">{milliseconds(trace.durationMs)}</Fact>
        <Fact name="Waited">{milliseconds(trace.waitMs)}</Fact>
        <Fact name="Bytes in, out">
          {bytes(trace.bytes.in)}, {bytes(trace.bytes.out)}
        </Fact>
        <Fact name="Credentials" wide>
          {pool && <Credentials pool={pool} trace={trace} />}
        </Fact>
      </dl>
      <div class="action-row">
        <Copy label="Copy trace id" text={trace.id} />
        {trace.curl && <Copy label="Copy as curl" text={trace.curl} />}
        <Copy label="Copy as JSON" text={JSON.stringify(trace, null, 2)} />
      </div>
    </>
  )
}

function Credentials({ pool, trace }: { pool: string; trace: Trace }) {
  const ids = [...new Set(trace.attempts.flatMap(({ credential }) => credential ?? []))]
  if (ids.length === 0) return <>none</>
  return (
    <>
      {ids.map((id, index) => (
        <span key={id}>
          {index > 0 && ', '}
          <a href={link('credentials', pool, id)}>{id}</a>
        </span>
      ))}
    </>
  )
}

function Copy({ label, text }: { label: string; text: string }) {
  const [done, setDone] = useState('')
  const copy = async () => {
    try {
      await navigator.clipboard.writeText(text)
      setDone('Copied')
    } catch {
      setDone('The browser refuses')
    }
    setTimeout(() => setDone(''), 2000)
  }
  return (
    <button type="button" onClick={copy}>
      <span aria-live="polite">{done || label}</span>
    </button>
  )
}
