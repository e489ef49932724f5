import { SourceError } from '../errors.ts'

/**
 * The least rests, ms, between logins that fail in a way that could be a wrong password; the failure after the
 * last ends them. Servers lock accounts after three to five, and one try should be left to the operator.
 */
const UNCLEAR_RESTS_MS = [5_000, 60_000]

const ADVICE = 'check the user name and password, then release the credential'

/** Keeps logins that fail from locking the account. Remembers only how often they failed in a row. */
export class Restraint {
  #unclear = 0

  succeeded(): void {
    this.#unclear = 0
  }

  /** The user name or password is wrong: an account that is locked is worse than one that waits. */
  refused(message: string): SourceError {
    return new SourceError('revoked', `login refused: ${message}; ${ADVICE}`)
  }

  /** It may be that. */
  unclear(message: string): SourceError {
    this.#unclear += 1
    const retryAfterMs = UNCLEAR_RESTS_MS[this.#unclear - 1]
    if (retryAfterMs !== undefined) return new SourceError('transient', message, { retryAfterMs })
    this.#unclear = 0
    return new SourceError(
      'revoked',
      `login given up after ${UNCLEAR_RESTS_MS.length + 1} failures in a row, before the account is locked: ${message}; ${ADVICE}`,
    )
  }
}
