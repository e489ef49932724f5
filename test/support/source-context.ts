import type { Clock } from '../../src/lib/clock.ts'
import { systemClock } from '../../src/lib/clock.ts'
import type { PinnedFetch, SourceContext } from '../../src/sources/source.ts'

/** A context that leaves by the machine's own route. */
export function sourceContext(given: Partial<SourceContext> = {}): SourceContext {
  return { fetch, clock: systemClock, signal: new AbortController().signal, ...given }
}

/** A clock that stands still at `now`. */
export function clockAt(now: number): Clock {
  return { now: () => now, monotonic: () => now, schedule: () => () => {} }
}

/** A `fetch` that notes where it was sent before it goes there. */
export function recordingFetch(): { fetch: PinnedFetch; urls: string[] } {
  const urls: string[] = []
  return {
    urls,
    fetch: (url, init) => {
      urls.push(String(url))
      return fetch(url, init)
    },
  }
}
