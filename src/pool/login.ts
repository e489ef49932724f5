import { CupbearerError, SourceError } from '../errors.ts'
import type { Clock } from '../lib/clock.ts'
import type { LoginDialogue } from '../sources/source.ts'
import type { TokenSet } from '../token/token.ts'
import type { Credential } from './credential.ts'
import type { RefreshResult } from './refresher.ts'

interface LoginsOptions {
  readonly pool: string
  readonly clock: Clock
  readonly requestTimeoutMs: () => number
}

/** Logins that wait for a person: one at a time for each credential; a login that fails changes nothing. */
export class Logins {
  readonly #options: LoginsOptions
  readonly #running = new Map<Credential, AbortController>()

  constructor(options: LoginsOptions) {
    this.#options = options
  }

  /** The token that a login brings; rejects when it fails, is given up by the signal, or ended by `end`. */
  async run(
    credential: Credential,
    dialogue: LoginDialogue,
    given: AbortSignal,
  ): Promise<TokenSet> {
    const { pool, clock, requestTimeoutMs } = this.#options
    const name = `${pool}/${credential.id}`
    if (!credential.source.login) throw new TypeError('the source needs no person')
    if (this.#running.has(credential)) {
      throw new CupbearerError('SOURCE_FAILED', `a login of ${name} is under way already`)
    }
    const abort = new AbortController()
    const signal = AbortSignal.any([abort.signal, given])
    const ended = new Promise<never>((_, reject) => {
      const end = () => reject(abort.signal.aborted ? abort.signal.reason : cancelled())
      if (signal.aborted) end()
      else signal.addEventListener('abort', end, { once: true })
    })
    this.#running.set(credential, abort)
    try {
      const login = credential.source.login(dialogue, {
        fetch: credential.settings.fetch,
        clock,
        signal,
        name,
        requestTimeoutMs: requestTimeoutMs(),
      })
      return await Promise.race([login, ended])
    } finally {
      this.#running.delete(credential)
    }
  }

  /** Ends the login of a credential that leaves. */
  end(credential: Credential): void {
    const reason = new SourceError('transient', 'the configuration of the credential has changed')
    this.#running.get(credential)?.abort(reason)
  }

  close(): void {
    const reason = new SourceError('transient', 'the proxy is shutting down')
    for (const abort of this.#running.values()) abort.abort(reason)
  }
}

function cancelled(): SourceError {
  return new SourceError('transient', 'the login was cancelled')
}

/** Throws unless a renewal has brought a token. */
export function assertRenewed(pool: string, id: string, { kind, reason }: RefreshResult): void {
  if (kind === 'ok') return
  const code = kind === 'revoked' ? 'SOURCE_REVOKED' : 'SOURCE_FAILED'
  throw new CupbearerError(code, `${pool}/${id}: ${reason}`)
}
