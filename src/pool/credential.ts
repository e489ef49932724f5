import type { CredentialState } from '../events.ts'
import type { Clock } from '../lib/clock.ts'
import type { Secret } from '../lib/secret.ts'
import type { Source } from '../sources/source.ts'
import type { CredentialRecord } from '../store/store.ts'
import { ClockSkew } from '../token/skew.ts'
import type { TokenSet } from '../token/token.ts'
import { hashText } from './hash.ts'
import type { Heaped } from './heap.ts'
import type { CredentialStatus } from './lease.ts'
import type { Limits } from './limits.ts'
import type { CredentialSettings } from './settings.ts'
import { Tenure } from './tenure.ts'

const NEVER = Number.POSITIVE_INFINITY

/** How a refresh failed, as far as the credential is concerned. */
export type RefreshFailure = 'transient' | 'egress'

/**
 * One credential's facts and what follows from them. Only verbs change facts; the state is never stored, it
 * is read off the facts, so the two cannot disagree. Times are monotonic unless a name says `wall`.
 */
export class Credential implements Heaped {
  readonly slots = [-1, -1, -1]
  readonly id: string
  /** Of the id, for rendezvous hashing. */
  readonly hash: number
  readonly fingerprint: string
  readonly source: Source
  readonly limits: Limits
  /** How far its issuer's clock is ahead. */
  readonly skew: ClockSkew
  settings: CredentialSettings
  /** Order of the last grant, for selection. */
  lastGrant = 0
  /** When its readiness changes by itself: the agenda's key. */
  wakeAt = NEVER
  /** When it is renewed: the refresher's key. */
  dueAt = NEVER
  /** The state that observers were told last. */
  announced: CredentialState = 'pending'
  /** Left the pool by a reload; its running leases still settle. */
  gone = false
  /** Counts tries to get a token; what an older try brings is dropped. */
  attempt = 0
  /** When a response last forced a refresh. */
  forcedAt = -NEVER

  readonly #clock: Clock
  #generation = 0
  #token: TokenSet | undefined
  /** The current token is dead before its time: upstream refused it, or its uses are up. */
  #spent: 'refused' | 'used-up' | undefined
  #refresh: { failures: number; retryAt: number; kind: RefreshFailure } | undefined
  #quarantine: { until: number; failures: number; reason: string } | undefined
  /** Half open: one request at a time may show whether the credential works again. */
  #canary = false
  #revoked: { at: number; reason: string } | undefined
  #coolUntil = 0
  #limitedStreak = 0
  #lastError: string | undefined
  readonly #tenure: Tenure

  constructor(options: {
    id: string
    fingerprint: string
    source: Source
    limits: Limits
    clock: Clock
    settings: CredentialSettings
  }) {
    this.id = options.id
    this.hash = hashText(options.id)
    this.fingerprint = options.fingerprint
    this.source = options.source
    this.limits = options.limits
    this.settings = options.settings
    this.#clock = options.clock
    this.skew = new ClockSkew(options.clock)
    this.#tenure = new Tenure(options.clock)
  }

  get generation(): number {
    return this.#generation
  }
  get token(): TokenSet | undefined {
    return this.#token
  }
  get lastError(): string | undefined {
    return this.#lastError
  }
  get canary(): boolean {
    return this.#canary
  }
  get revoked(): boolean {
    return this.#revoked !== undefined
  }
  /** Whether another token can be had by asking; one that learns must have learned how. */
  get renewable(): boolean {
    return this.source.renewable && !this.#hasToLearn
  }
  get #hasToLearn(): boolean {
    return this.source.learns !== undefined && this.#token?.renewal === undefined
  }
  /** Refused by upstream and not half open yet. */
  get quarantined(): boolean {
    return this.#quarantine !== undefined && !this.#canary
  }
  /** Upstream has refused its token, and no other has come yet. */
  get refused(): boolean {
    return this.#spent === 'refused'
  }
  /** Failed tries since a token came last. */
  get refreshFailures(): number {
    return this.#refresh?.failures ?? 0
  }

  /** Whether the token could be sent now, limits aside. */
  hasLiveToken(now: number): boolean {
    return this.#isKept(now) && now >= this.#tenure.startsAt
  }

  /** Whether its token is neither refused nor over, though perhaps not valid yet. */
  #isKept(now: number): boolean {
    return this.#token !== undefined && this.#spent === undefined && now < this.#tenure.endsAt
  }

  /** When the token ends. */
  get endsAt(): number {
    return this.#tenure.endsAt
  }

  /** Whether the clock on the wall says that the token is over. */
  isOver(wallNow: number): boolean {
    return (this.#token?.expiresAt ?? NEVER) <= wallNow
  }

  state(now: number): CredentialState {
    if (this.#revoked) return 'revoked'
    if (this.#quarantine) return 'quarantined'
    if (!this.hasLiveToken(now)) {
      if (!this.#refresh || this.#hasToLearn || this.#isKept(now)) return 'pending'
      if (this.#spent === 'refused' && now < this.endsAt) return 'cooling'
      return this.#refresh.kind === 'egress' ? 'pending' : 'quarantined'
    }
    return this.#coolUntil > now || this.settings.lane.rests ? 'cooling' : 'active'
  }

  /** Whether its token has ended and there is nothing to renew it from. */
  endedForGood(now: number): boolean {
    return !!this.#token && !this.renewable && !this.revoked && !this.#isKept(now)
  }

  /** Whether observers know its state and its token lives: only its limits have moved. */
  isRipe(now: number): boolean {
    return this.state(now) === this.announced && this.hasLiveToken(now)
  }

  /** When a request may take it: not after `now` = at once; never = something must happen first. */
  readyAt(now: number): number {
    if (!this.#isKept(now) || this.#revoked) return NEVER
    if (this.#quarantine && !this.#canary) return this.renewable ? NEVER : this.#quarantine.until
    if (this.#canary && this.limits.inFlight > 0) return NEVER
    // RFC 7519 §4.1.5: not before.
    if (this.#tenure.startsAt > now) return this.#tenure.startsAt
    const lane = this.settings.lane.blockedUntil(now)
    if (lane > now) return lane
    return this.readyAside(now)
  }

  /** As `readyAt`, but for its egress: whether it could try a resting one. */
  readyAside(now: number): number {
    if (this.#coolUntil > now) return this.#coolUntil
    return this.limits.freeAt(now)
  }

  /** When it is usable again as far as is known, for `Retry-After`. */
  usableAt(now: number): number {
    if (this.#revoked) return NEVER
    if (this.#quarantine && !this.#canary) return this.#quarantine.until
    if (!this.#isKept(now)) return this.#refresh?.retryAt ?? NEVER
    return this.readyAt(now)
  }

  /** When the refresher should get a token; at once is the past. */
  nextRefresh(now: number): number {
    if (this.gone || this.#revoked) return NEVER
    if (this.#hasToLearn || (this.#token && !this.renewable)) return NEVER
    if (this.#quarantine && !this.#canary) return this.#quarantine.until
    if (this.#refresh) return this.#refresh.retryAt
    return this.#isKept(now) ? this.#tenure.refreshAt : now
  }

  /** Takes up a token that is durable now. A quarantined credential is half open with a new one. */
  adopt(token: TokenSet, generation: number, jitter: number): void {
    const now = this.#clock.monotonic()
    const differs = !this.#token?.token.equals(token.token)
    const replaced = this.#spent === undefined ? this.#token : undefined
    this.#tenure.begin(token, replaced, this.settings.policy, jitter)
    this.#token = token
    this.#generation = generation
    this.#spent = undefined
    this.#refresh = undefined
    this.limits.renew()
    if (!this.#quarantine) this.#lastError = undefined
    else if (differs || this.#quarantine.until <= now) this.#canary = true
  }

  /** Places the token's wall times on the steady clock. */
  alignClock(): void {
    this.#tenure.align(this.settings.policy)
  }
  /** The same after the wall clock has jumped. */
  clockJumped(): void {
    this.#tenure.clockJumped(this.settings.policy)
  }

  /** When its token is expected to end; ms since the epoch. */
  get expectedEnd(): number | undefined {
    return this.#tenure.expectedEnd
  }
  /** How that is known. */
  get lifetime(): CredentialStatus['lifetime'] {
    return this.#tenure.lifetime
  }

  /** Its token is to be renewed early, by this time. */
  renewBy(at: number): void {
    this.#tenure.renewBy(at)
  }

  /** Upstream refused the current token: it is not offered again. Below `leastAge` its age teaches nothing. */
  refuse(leastAge: number): void {
    this.#spent = 'refused'
    this.#tenure.refused(leastAge)
  }
  /** The current token has had all its uses. */
  useUp(): void {
    this.#spent = 'used-up'
  }

  failRefresh(kind: RefreshFailure, failures: number, retryAt: number, reason: string): void {
    this.#refresh = { failures, retryAt, kind }
    this.#lastError = reason
  }

  /** Leaves the pool for a while; `delay` tells how long for the how-manieth time in a row. */
  quarantine(now: number, delay: (failures: number) => number, reason: string): void {
    const failures = (this.#quarantine?.failures ?? 0) + 1
    this.#quarantine = { until: now + delay(failures - 1), failures, reason }
    this.#canary = false
    this.#refresh = undefined
    this.#spent = undefined
    this.#tenure.excused()
    this.#lastError = reason
  }
  /** The egress failed the canary's refresh: later again, without blame. */
  postponeCanary(until: number): void {
    if (this.#quarantine) this.#quarantine = { ...this.#quarantine, until }
  }
  /** The back-off has passed for a credential that cannot renew: a request may try. */
  openHalf(now: number): void {
    if (this.#quarantine && !this.renewable && this.#quarantine.until <= now) this.#canary = true
  }
  /** A request with the current token went well; returns what that changed, in words. */
  succeed(canary: boolean): string | undefined {
    this.#limitedStreak = 0
    if (canary && this.#canary) {
      this.#quarantine = undefined
      this.#canary = false
      this.#lastError = undefined
      return 'canary request succeeded'
    }
    if (!this.#tenure.proven(this.settings.policy)) return undefined
    return 'an early refusal has told how long its tokens live'
  }

  revoke(reason: string): void {
    this.#revoked = { at: this.#clock.now(), reason }
    this.#quarantine = undefined
    this.#canary = false
    this.#lastError = reason
  }

  /** A token that was seen is of no use, and why; what it holds goes on. */
  remark(reason: string): void {
    this.#lastError = reason
  }

  cool(until: number): void {
    this.#coolUntil = Math.max(this.#coolUntil, until)
  }
  /** How many times in a row upstream limited it before; answers to requests of one burst count once. */
  limitedAgain(now: number): number {
    return this.#coolUntil > now ? Math.max(0, this.#limitedStreak - 1) : this.#limitedStreak++
  }

  /** The operator takes back all that keeps it from being used; a refused token stays refused. */
  release(): void {
    this.#revoked = undefined
    this.#quarantine = undefined
    this.#canary = false
    this.#coolUntil = 0
    this.#limitedStreak = 0
    this.#refresh = undefined
    this.#lastError = undefined
  }

  /** Drops the token and all history; the generation goes on, so that older leases stay older. */
  forget(): void {
    this.release()
    this.attempt += 1
    this.#token = undefined
    this.#spent = undefined
    this.#tenure.end()
    this.limits.renew()
  }

  restore(record: CredentialRecord, token: TokenSet | undefined, jitter: number): void {
    this.#tenure.restore(record.learned)
    if (token) this.adopt(token, record.generation, jitter)
    // A renewal that fell into the time of rest is due at once.
    this.alignClock()
    this.#generation = record.generation
    this.#revoked = record.revoked
    const until = (record.quarantine?.until ?? 0) + this.#clock.monotonic() - this.#clock.now()
    this.#quarantine = record.quarantine && { ...record.quarantine, until }
    this.#canary &&= this.#quarantine !== undefined
    this.#lastError = record.revoked?.reason ?? record.quarantine?.reason
  }
  /** Whether a record of another instance's holds another token than this. */
  isNewer({ generation }: CredentialRecord, token: TokenSet | undefined): boolean {
    if (generation !== this.#generation) return generation > this.#generation
    return token !== undefined && !this.#token?.token.equals(token.token)
  }
  /** Takes over such a record; of the same token it tells what the others have learned. */
  follow(record: CredentialRecord, token: TokenSet | undefined, jitter: number): void {
    const newer = this.isNewer(record, token)
    this.restore(record, newer ? token : undefined, jitter)
    if (!newer && token?.refreshToken) this.amend(token.refreshToken)
  }
  /** What failed for want of something that is there again is tried again. */
  retryAt(now: number): void {
    if (this.#refresh) this.#refresh = { ...this.#refresh, retryAt: now }
  }
  /** The refresh token that came with an access token of no use goes on. */
  amend(refreshToken: Secret): void {
    if (this.#token) this.#token = { ...this.#token, refreshToken }
  }
  /** Goes on counting where another token of the same credential stopped. */
  continueFrom(generation: number): void {
    this.#generation = Math.max(this.#generation, generation)
  }

  /** What outlives the process, with a token that is about to be adopted or with the current one. */
  record(next?: { token: TokenSet; generation: number }): CredentialRecord {
    const token = next?.token ?? this.#token
    const offset = this.#clock.now() - this.#clock.monotonic()
    return {
      generation: next?.generation ?? this.#generation,
      fingerprint: this.fingerprint,
      token: token?.token,
      refreshToken: token?.refreshToken,
      dpopKey: token?.dpopKey?.secret,
      renewal: token?.renewal,
      issuedAt: token?.issuedAt,
      expiresAt: token?.expiresAt,
      scopes: token?.scopes,
      subject: token?.subject,
      learned: this.#tenure.lessons,
      egress: this.settings.lane.name,
      quarantine: this.#quarantine && {
        ...this.#quarantine,
        until: Math.round(this.#quarantine.until + offset),
      },
      revoked: this.#revoked,
    }
  }

  /** Times for the status, on the wall clock. */
  times(now: number): { refreshAt: number | undefined; until: number | undefined } {
    const offset = this.#clock.now() - now
    const due = this.nextRefresh(now)
    const state = this.state(now)
    const until =
      state === 'cooling'
        ? Math.max(this.#coolUntil, this.settings.lane.until, this.#refresh?.retryAt ?? 0)
        : state === 'quarantined'
          ? (this.#quarantine?.until ?? this.#refresh?.retryAt)
          : undefined
    return {
      refreshAt: due === NEVER ? undefined : Math.round(due + offset),
      until: until === undefined ? undefined : Math.round(until + offset),
    }
  }
}
