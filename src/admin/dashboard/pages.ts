import { useCallback, useEffect, useRef, useState } from 'preact/hooks'
import { useCell } from './cell.ts'
import type { Live } from './live.ts'
import type { Credential } from './model.ts'
import { get } from './session.ts'

/** Figures such as headroom change with each request and no event tells of it. */
const RELOAD_MS = 2000
/** Rows asked for beyond those in sight, either way. */
const MARGIN = 40

export interface Page {
  readonly total: number
  readonly offset: number
  readonly credentials: readonly Credential[]
}

/** What is asked of the server again and again while it is shown; `again` asks at once. */
export function usePolled<T>(
  live: Live,
  topic: string,
  path: string | undefined,
): { value: T | undefined; error: string | undefined; again: () => void } {
  const connection = useCell(live.connection)
  const change = useCell(live.changes)
  const [state, setState] = useState<{ path: string; value?: T; error?: string }>()
  const [asked, ask] = useState(0)
  const lastAt = useRef(0)
  const connected = connection.state === 'live'
  const version = `${change[topic] ?? 0} ${change[''] ?? 0}`

  useEffect(() => {
    if (path === undefined || !connected) return
    const stop = new AbortController()
    const load = async () => {
      if (document.hidden) return
      lastAt.current = Date.now()
      try {
        const value = await get<T>(path, stop.signal)
        if (!stop.signal.aborted) setState({ path, value })
      } catch (error) {
        const message = (error as Error).message
        if (!stop.signal.aborted) setState((known) => ({ ...known, path, error: message }))
      }
    }
    // At once for something else, soon for a change: a burst of those is one question.
    const wait = state?.path === path && asked === 0 ? RELOAD_MS / 4 : 0
    const due = Math.max(0, lastAt.current + wait - Date.now())
    const first = setTimeout(load, due)
    const timer = setInterval(load, RELOAD_MS)
    return () => {
      stop.abort()
      clearTimeout(first)
      clearInterval(timer)
    }
  }, [path, connected, asked, version])
  const again = useCallback(() => ask((count) => count + 1), [])
  const known = state?.path === path ? state : undefined
  return { value: known?.value ?? state?.value, error: known?.error, again }
}

/** The rows of a pool's credentials that are in sight; the server keeps, filters and orders the rest. */
export function useCredentials(live: Live, pool: string | undefined, query: URLSearchParams) {
  const [range, setRange] = useState({ first: 0, end: 50 })
  const filter = query.toString()
  // In steps, so that a scroll by a row asks for nothing.
  const offset = Math.max(0, Math.floor((range.first - MARGIN) / MARGIN) * MARGIN)
  const limit = Math.ceil((range.end + MARGIN - offset) / MARGIN) * MARGIN
  const path =
    pool === undefined
      ? undefined
      : `/api/pools/${encodeURIComponent(pool)}/credentials?${filter}&offset=${offset}&limit=${limit}`
  const { value, error, again } = usePolled<Page>(live, pool ?? '', path)
  const onRange = useCallback((first: number, end: number) => setRange({ first, end }), [])
  const at = (index: number) => value?.credentials[index - value.offset]
  return { total: value?.total ?? 0, loaded: value !== undefined, at, error, again, onRange }
}
