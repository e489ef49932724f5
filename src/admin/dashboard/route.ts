import { useEffect, useState } from 'preact/hooks'

export const VIEWS = ['pools', 'credentials', 'traces', 'egress', 'events'] as const

export type View = (typeof VIEWS)[number]

/** Where in the dashboard: `#/credentials/POOL/ID`, `#/traces/TRACE`. */
export interface Route {
  readonly view: View
  readonly path: readonly string[]
  /** Of what stands after the `?`. */
  readonly query: URLSearchParams
}

export function readRoute(hash: string): Route {
  const [path = '', query = ''] = hash.replace(/^#\/?/, '').split('?')
  const [first, ...rest] = path.split('/').map(decode)
  const view = VIEWS.find((name) => name === first) ?? 'pools'
  return { view, path: rest.filter(Boolean), query: new URLSearchParams(query) }
}

/** The address of a place, its parts encoded. */
export function link(view: View, ...path: readonly string[]): string {
  return `#/${[view, ...path.map(encodeURIComponent)].join('/')}`
}

/** Goes there; `replace` leaves no entry to go back to. */
export function go(address: string, replace = false): void {
  if (address === location.hash) return
  if (!replace) {
    location.hash = address
    return
  }
  history.replaceState(null, '', address)
  dispatchEvent(new HashChangeEvent('hashchange'))
}

export function useRoute(): Route {
  const [hash, setHash] = useState(location.hash)
  useEffect(() => {
    const changed = () => setHash(location.hash)
    addEventListener('hashchange', changed)
    return () => removeEventListener('hashchange', changed)
  }, [])
  return readRoute(hash)
}

function decode(part: string): string {
  try {
    return decodeURIComponent(part)
  } catch {
    return part
  }
}
