import type { Config } from '../../config/schema.ts'
import { Egresses } from '../../egress/egress.ts'
import { CupbearerError } from '../../errors.ts'
import { Events } from '../../events.ts'
import { systemClock } from '../../lib/clock.ts'

/** What came of an attempt to reach something. */
export type Outcome =
  | { readonly reached: true; readonly status: number; readonly skewMs: number | undefined }
  | { readonly reached: false; readonly why: string; readonly byEgress: boolean }

const TIMEOUT_MS = 10_000

/** Reaches hosts by the egresses of a configuration, with nothing that could log in, spend or change. */
export class Reach implements AsyncDisposable {
  readonly #egresses: Egresses
  readonly #asked = new Map<string, Promise<Outcome>>()
  readonly #skews: number[] = []

  constructor(config: Config) {
    // Without their probes: a check of its own asks them, and reports what it hears.
    const egress = Object.entries(config.egress).map(
      ([name, { url }]) => [name, { url, probe: undefined, expect: undefined, every: 0 }] as const,
    )
    this.#egresses = new Egresses({
      egress: Object.fromEntries(egress),
      upstream: config.upstream,
      forbidden: () => false,
      events: new Events(),
      clock: systemClock,
    })
  }

  /** By how much clocks elsewhere are ahead of this one, in ms, as far as anybody told. */
  get skews(): readonly number[] {
    return this.#skews
  }

  get(egress: string, url: string): Promise<Response> {
    return this.#fetch(egress, url, 'GET')
  }

  /**
   * HEAD to the root of the host of a URL, once for each host and egress. It is safe (RFC 9110 §9.2.1), and any
   * answer tells that host and egress work.
   */
  head(egress: string, url: string): Promise<Outcome> {
    const root = new URL('/', url).href
    const key = `${egress} ${root}`
    let outcome = this.#asked.get(key)
    if (!outcome) {
      outcome = this.#head(egress, root)
      this.#asked.set(key, outcome)
    }
    return outcome
  }

  async #head(egress: string, root: string): Promise<Outcome> {
    try {
      const sent = Date.now()
      const response = await this.#fetch(egress, root, 'HEAD')
      // A Date field tells whole seconds.
      const date = Date.parse(response.headers.get('date') ?? '') + 500
      const skewMs = Number.isNaN(date) ? undefined : date - (sent + Date.now()) / 2
      if (skewMs !== undefined) this.#skews.push(skewMs)
      return { reached: true, status: response.status, skewMs }
    } catch (error) {
      const byEgress =
        error instanceof CupbearerError && ['SOURCE_FAILED', 'EGRESS_DOWN'].includes(error.code)
      return { reached: false, why: reasonOf(error), byEgress }
    }
  }

  #fetch(egress: string, url: string, method: string): Promise<Response> {
    const signal = AbortSignal.timeout(TIMEOUT_MS)
    return this.#egresses.fetch(egress, 'doctor')(url, { method, signal })
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#egresses.close()
  }
}

/** Our own messages are safe to show; of other errors only the kind. */
export function reasonOf(error: unknown): string {
  if (error instanceof CupbearerError) return error.message
  const { name, code } = error as NodeJS.ErrnoException
  return name === 'TimeoutError' ? 'no answer in 10 seconds' : (code ?? name)
}
