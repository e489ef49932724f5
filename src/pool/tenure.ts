import type { Clock } from '../lib/clock.ts'
import { LearnedLifetime, type RefreshPolicy, refreshAt } from '../token/lifetime.ts'
import type { TokenSet } from '../token/token.ts'
import type { CredentialStatus } from './lease.ts'

const NEVER = Number.POSITIVE_INFINITY

/** From when to when a credential's token serves, on the steady clock, and what early refusals have taught of it. */
export class Tenure {
  readonly #clock: Clock
  readonly #learned = new LearnedLifetime()
  #token: TokenSet | undefined
  #jitter = 0
  /** From the wall clock to the steady one, as the token's times were placed. */
  #offset = 0
  #startsAt = 0
  #endsAt = NEVER
  #refreshAt = NEVER
  #renewBy = NEVER
  /** The age at which upstream refused the token. */
  #refusedAge: number | undefined

  constructor(clock: Clock) {
    this.#clock = clock
  }

  /** When the token becomes valid (RFC 7519 §4.1.5). */
  get startsAt(): number {
    return this.#startsAt
  }
  /** When it ends for certain. */
  get endsAt(): number {
    return this.#endsAt
  }
  /** When it is renewed. */
  get refreshAt(): number {
    return this.#refreshAt
  }
  /** When it is expected to end, as told or as learned; ms since the epoch. */
  get expectedEnd(): number | undefined {
    return this.#token && this.#learned.endOf(this.#token)
  }
  /** How that is known. */
  get lifetime(): CredentialStatus['lifetime'] {
    if (this.expectedEnd !== this.#token?.expiresAt) return 'learned'
    if (this.#token?.lifetime) return this.#token.lifetime
    return this.#token?.expiresAt === undefined ? 'unknown' : 'expires_in'
  }
  /** What was learned, to outlive the process. */
  get lessons(): readonly number[] | undefined {
    return this.#learned.lessons
  }

  /** A token begins; `replaced` is the one that was renewed without having been refused. */
  begin(
    token: TokenSet,
    replaced: TokenSet | undefined,
    policy: RefreshPolicy,
    jitter: number,
  ): void {
    if (replaced) this.#learned.outlived(this.#clock.now() - replaced.issuedAt)
    this.#learned.refused(this.#refusedAge)
    this.#refusedAge = undefined
    this.#token = token
    this.#jitter = jitter
    this.#renewBy = NEVER
    this.#offset = this.#currentOffset()
    this.align(policy)
    // A token that comes with its renewal overdue would be renewed in a loop.
    const now = this.#clock.monotonic()
    if (this.#refreshAt > now) return
    const left = (this.expectedEnd ?? 0) - this.#clock.now()
    this.#refreshAt = Math.min(this.#endsAt, now + Math.max(1000, left / 2))
  }

  /** Places the token's wall times on the steady clock. */
  align(policy: RefreshPolicy): void {
    const offset = this.#offset
    const token = this.#token
    this.#startsAt = (token?.notBefore ?? -NEVER) + offset
    this.#endsAt = (token?.expiresAt ?? NEVER) + offset
    const expected = token && { issuedAt: token.issuedAt, expiresAt: this.expectedEnd }
    const renewal = expected && refreshAt(expected, policy, this.#jitter)
    this.#refreshAt = Math.min((renewal ?? NEVER) + offset, this.#renewBy)
  }

  /**
   * The wall clock has jumped. Ahead, as after a suspended night, the token is that much older; back, the clock
   * was put right, and a token that was placed by the wrong one does not live longer for it.
   */
  clockJumped(policy: RefreshPolicy): void {
    this.#offset = Math.min(this.#offset, this.#currentOffset())
    this.align(policy)
  }

  #currentOffset(): number {
    return this.#clock.monotonic() - this.#clock.now()
  }

  /** The token is to be renewed early, by this time. */
  renewBy(at: number): void {
    this.#renewBy = Math.min(this.#renewBy, at)
    this.#refreshAt = Math.min(this.#refreshAt, at)
  }

  /** Upstream refused the token; younger than `leastAge` it teaches nothing. */
  refused(leastAge: number): void {
    const age = this.#token ? this.#clock.now() - this.#token.issuedAt : 0
    this.#refusedAge = age >= leastAge ? age : undefined
  }
  /** The refusal had another reason than the token's age. */
  excused(): void {
    this.#refusedAge = undefined
    this.#learned.refused(undefined)
  }
  /** The renewed token was accepted. Returns whether that has taught something. */
  proven(policy: RefreshPolicy): boolean {
    if (!this.#learned.isPending) return false
    this.#learned.proven()
    this.align(policy)
    return true
  }

  end(): void {
    this.#token = undefined
    this.#learned.restore(undefined)
  }
  restore(lessons: readonly number[] | undefined): void {
    this.#learned.restore(lessons)
  }
}
