import type { TokenSet } from './token.ts'

/** When to renew: `ahead` is the share of lifetime left, `floorMs` the least lead. */
export interface RefreshPolicy {
  readonly ahead: number
  readonly floorMs: number
}

/**
 * The moment at which to renew a token, ms since the epoch; undefined for a token whose end is not known.
 *
 * The lead is `ahead` of the lifetime or the floor, whichever is more, but never more than half the
 * lifetime: else a short-lived token would be renewed as soon as it came. `jitter` (0 to 1) makes it earlier
 * within that half, by at most a quarter of the lead, so that tokens got together do not renew together.
 */
export function refreshAt(
  token: Pick<TokenSet, 'issuedAt' | 'expiresAt'>,
  policy: RefreshPolicy,
  jitter: number,
): number | undefined {
  const { issuedAt, expiresAt } = token
  if (expiresAt === undefined) return undefined
  const lifetime = Math.max(0, expiresAt - issuedAt)
  const lead = Math.min(Math.max(policy.ahead * lifetime, policy.floorMs), lifetime / 2)
  const earlier = Math.min((lead / 4) * Math.min(Math.max(jitter, 0), 1), lifetime / 2 - lead)
  return expiresAt - lead - earlier
}

/** How many early refusals are remembered: the shortest of them counts. */
const LESSONS = 3
/** Tokens that lived through what was learned before it is taken to be too short, and by how much. */
const OUTLIVED = 20
const STRETCH = 1.5

/**
 * What early refusals have taught of how long tokens really live. One is enough for a token of unknown end;
 * an end that the issuer told is doubted only at the second. It is a reason to renew sooner, never to stop
 * using a token. Durations in ms.
 */
export class LearnedLifetime {
  #lessons: number[] = []
  #pending: number | undefined
  #outlived = 0

  /** What outlives the process; undefined when nothing was learned. */
  get lessons(): readonly number[] | undefined {
    return this.#lessons.length > 0 ? this.#lessons : undefined
  }
  /** Whether a refusal waits for its proof. */
  get isPending(): boolean {
    return this.#pending !== undefined
  }

  restore(lessons: readonly number[] | undefined): void {
    this.#lessons = (lessons ?? []).filter((ms) => ms > 0).slice(-LESSONS)
  }

  /** A token was refused at this age: a lesson, once its successor is accepted. Undefined takes it back. */
  refused(ageMs: number | undefined): void {
    this.#pending = ageMs
  }
  /** The successor was accepted: it was the token's age that upstream minded. */
  proven(): void {
    if (this.#pending === undefined) return
    this.#lessons = [...this.#lessons, this.#pending].slice(-LESSONS)
    this.#pending = undefined
    this.#outlived = 0
  }
  /** A token was renewed at this age without having been refused: accidents are forgotten in time. */
  outlived(ageMs: number): void {
    if (this.#lessons.length === 0 || ageMs < Math.min(...this.#lessons) / 2) return
    this.#outlived += 1
    if (this.#outlived < OUTLIVED) return
    this.#outlived = 0
    this.#lessons = [Math.round(Math.min(...this.#lessons) * STRETCH)]
  }

  /** When a token is expected to end; undefined when that is not known. */
  endOf(token: Pick<TokenSet, 'issuedAt' | 'expiresAt'>): number | undefined {
    const { issuedAt, expiresAt } = token
    if (this.#lessons.length < (expiresAt === undefined ? 1 : 2)) return expiresAt
    const learned = issuedAt + Math.min(...this.#lessons)
    return expiresAt === undefined ? learned : Math.min(learned, expiresAt)
  }
}
