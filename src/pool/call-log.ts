import type { RenewalCall } from '../events.ts'
import { maskUrl } from '../lib/mask.ts'
import type { PinnedFetch } from '../sources/source.ts'

/** As many requests of one try are told of: a login may take a dozen. */
const MAX_CALLS = 8

/** Takes note of what a try to get a token asks for, and how long each answer took. */
export class CallLog {
  readonly calls: RenewalCall[] = []
  readonly #now: () => number
  readonly #startedAt: number

  /** `now` is monotonic. */
  constructor(now: () => number) {
    this.#now = now
    this.#startedAt = now()
  }

  /** The same `fetch`, whose requests are noted. */
  noted(fetch: PinnedFetch): PinnedFetch {
    return async (url, init) => {
      if (this.calls.length >= MAX_CALLS) return fetch(url, init)
      const startMs = this.#now() - this.#startedAt
      const method = init?.method ?? 'GET'
      const call: RenewalCall = { method, url: shown(url), status: undefined, startMs, ms: 0 }
      this.calls.push(call)
      try {
        const response = await fetch(url, init)
        call.status = response.status
        return response
      } finally {
        call.ms = this.#now() - this.#startedAt - startMs
      }
    }
  }
}

/** Without query and fragment: codes and keys stand there. */
function shown(url: string | URL): string {
  const text = String(url)
  const end = text.search(/[?#]/)
  return maskUrl(end === -1 ? text : text.slice(0, end))
}
