import type { PoolConfig } from '../config/schema.ts'
import { isNetworkFailure } from '../egress/failure.ts'
import type { UpstreamError } from '../errors.ts'
import type { AttemptRecord, ExchangeRecord } from '../events.ts'
import type { RequestBody } from '../lib/body.ts'
import type { Clock } from '../lib/clock.ts'
import type { Lease, LeaseRequest, Outcome, TokenPool } from '../pool/lease.ts'
import type { Requirements } from '../route/requires.ts'
import { retryAfterMs } from '../route/retry-after.ts'
import { scopesAsked } from '../route/verdict.ts'
import type { ProxyRequest } from './request.ts'

/** Another try: with which token, and whether to wait for one or to take only what is at hand. */
export interface Next {
  readonly want: LeaseRequest
  readonly patient: boolean
}

/** What a request wants of a token: the client's hints, and what the pool requires for it. */
export function wantOf(
  request: Pick<ProxyRequest, 'hints' | 'method' | 'path'>,
  requires: Requirements | undefined,
): LeaseRequest {
  const { hints } = request
  const needs = requires?.for(request.method, request.path)
  if (!needs) return hints
  return { ...hints, scopes: union(hints.scopes, needs.scopes), claims: needs.claims }
}

/** Methods that may be sent again though upstream may have acted on the first (RFC 9110 §9.2.2). */
const IDEMPOTENT = new Set(['GET', 'HEAD', 'OPTIONS', 'PUT', 'DELETE'])

const TOO_LARGE = 'the request body is too large to be sent again'

/** Used where `limited` comes without any word of when. */
const UNKNOWN_LIMIT_MS = 1000

/**
 * What to try after an answer or a failure: the contract's table "What happens when", for one request.
 * It remembers what has been tried and writes into the record why something was not.
 */
export class NextTry {
  readonly #pool: TokenPool
  readonly #config: PoolConfig
  readonly #request: ProxyRequest
  readonly #want: LeaseRequest
  readonly #body: RequestBody | undefined
  readonly #record: ExchangeRecord
  readonly #clock: Clock
  readonly #tried = new Set<string>()
  readonly #movedFor = new Set<string>()
  /** Credentials that have been sent again with the nonce that upstream asked for. */
  readonly #proved = new Set<string>()
  #replays = 0
  readonly #limited: { egress: string; ms: number; attempt: AttemptRecord | undefined }[] = []
  #retriedUnsent = false
  #retriedSent = false

  constructor(
    target: {
      readonly pool: TokenPool
      readonly config: PoolConfig
      readonly requires: Requirements | undefined
    },
    request: ProxyRequest,
    body: RequestBody | undefined,
    record: ExchangeRecord,
    clock: Clock,
  ) {
    this.#pool = target.pool
    this.#config = target.config
    this.#request = request
    this.#want = wantOf(request, target.requires)
    this.#body = body
    this.#record = record
    this.#clock = clock
  }

  /** After a failure on the way; undefined when it is to be reported. */
  afterFailure(error: UpstreamError, lease: Lease): Next | undefined {
    if (this.#request.closed || (this.#body && !this.#body.replayable)) return undefined
    if (error.code === 'EGRESS_DOWN') {
      this.#tried.add(lease.credential)
      return this.#move('egress down', {})
    }
    if (!isNetworkFailure(error)) return undefined
    if (!error.sent) {
      if (this.#retriedUnsent) return undefined
      this.#retriedUnsent = true
      return this.#sameCredential(lease)
    }
    if (this.#retriedSent || !IDEMPOTENT.has(this.#request.method) || this.#blocked())
      return undefined
    this.#retriedSent = true
    this.#replay('the connection broke')
    return this.#sameCredential(lease)
  }

  /** After upstream refused the token; settles the lease. Undefined when the answer is to be passed on. */
  async afterRefusal(
    verdict: 'expired' | 'limited' | 'denied' | 'nonce',
    headers: readonly string[],
    lease: Lease,
  ): Promise<Next | undefined> {
    const told = verdict === 'limited' ? retryAfterMs(headers, this.#clock.now()) : undefined
    const outcome: Outcome =
      verdict === 'limited'
        ? { kind: verdict, retryAfterMs: told }
        : { kind: verdict === 'nonce' ? 'unknown' : verdict }
    this.#pool.settle(lease, outcome)
    this.#tried.add(lease.credential)
    switch (verdict) {
      case 'limited':
        return this.#afterLimited(lease, told ?? UNKNOWN_LIMIT_MS)
      case 'denied':
        return this.#move('denied', {
          scopes: union(this.#want.scopes, scopesAsked(headers)),
          near: lease.egress,
        })
      case 'expired':
        return this.#afterExpired(lease)
      case 'nonce':
        return this.#afterNonce(lease)
    }
  }

  /** RFC 9449 §9: once more with the nonce. The token is as good as before, and it costs no replay. */
  #afterNonce(lease: Lease): Next | undefined {
    const again = this.#proved.has(lease.credential)
    if (again || (this.#body && !this.#body.replayable)) {
      const why = again ? 'upstream asks for yet another nonce' : TOO_LARGE
      this.#record.replay = { done: false, why }
      return undefined
    }
    this.#proved.add(lease.credential)
    this.#tried.delete(lease.credential)
    this.#record.replay = { done: true, why: 'upstream asked for a nonce in the proof' }
    return this.#sameCredential(lease)
  }

  /**
   * What is limited shows by what the tries differ in. Another credential on the same egress, limited too: it
   * is the address, which rests; one by another egress is tried then. Limited there as well: neither token nor
   * address explains it, and nothing more is put to rest than upstream has named.
   */
  #afterLimited(lease: Lease, ms: number): Next | undefined {
    const { egress } = lease
    const attempt = this.#record.attempts.at(-1)
    const before = this.#limited.filter((each) => each.egress === egress)
    const isAddress = before.length > 0
    if (isAddress) {
      const longest = Math.max(ms, ...before.map((each) => each.ms))
      this.#pool.coolEgress(egress, longest, 'two of its credentials were limited')
      for (const each of [...before, { attempt }]) if (each.attempt) each.attempt.fault = 'egress'
    } else if (this.#limited.length > 1 && attempt) attempt.fault = 'upstream'
    this.#limited.push({ egress, ms, attempt })
    const next = isAddress
      ? this.#move('limited by address', {})
      : this.#move('limited', { near: egress })
    return next && { ...next, patient: false }
  }

  async #afterExpired(lease: Lease): Promise<Next | undefined> {
    // The renewal goes on without the client, and also where this request cannot be sent again.
    const startMs = performance.now() - (this.#record.arrivedAt ?? performance.now())
    const recovering = this.#pool.recover(lease)
    const blocked = this.#blocked()
    if (blocked) {
      this.#record.replay = { done: false, why: blocked }
      return undefined
    }
    const recovery = await Promise.race([recovering, aborted(this.#request.signal)])
    if (!recovery) return undefined
    const { refresh, result, reason } = recovery
    if (refresh) this.#record.refresh = { ...refresh, result, startMs }
    if (result === 'failed') {
      const next = this.#move('expired', { near: lease.egress })
      if (!next)
        this.#record.replay = { done: false, why: reason ?? 'the token could not be renewed' }
      return next
    }
    this.#tried.delete(lease.credential)
    this.#replay(result === 'stale' ? 'a newer token was there' : 'the token was renewed')
    return this.#sameCredential(lease)
  }

  /**
   * Once to another credential for each cause. It is one of the same egress if there is any, so that only one
   * thing differs from the try before.
   */
  #move(why: string, more: Pick<LeaseRequest, 'scopes' | 'near'>): Next | undefined {
    const want = this.#want
    const blocked = this.#blocked()
    if (blocked || this.#movedFor.has(why) || want.credential !== undefined) {
      this.#record.replay = {
        done: false,
        why: blocked ?? `${why}, and no further credential is tried`,
      }
      return undefined
    }
    this.#movedFor.add(why)
    // Nothing was sent by an egress that is down: that costs no replay.
    if (why !== 'egress down') this.#replay(`${why}: another credential`)
    return { want: { ...want, ...more, exclude: this.#tried }, patient: true }
  }

  #sameCredential(lease: Lease): Next {
    return {
      want: { ...this.#want, session: undefined, credential: lease.credential },
      patient: true,
    }
  }

  #replay(why: string): void {
    this.#replays += 1
    this.#record.replay = { done: true, why }
  }

  /** Why this request cannot be sent once more. */
  #blocked(): string | undefined {
    const { attempts } = this.#config.replay
    if (this.#replays >= attempts) return `all ${attempts} replays are used up`
    if (this.#body && !this.#body.replayable) return TOO_LARGE
    return undefined
  }
}

function union(some: readonly string[] = [], others: readonly string[]): readonly string[] {
  return [...new Set([...some, ...others])]
}

function aborted(signal: AbortSignal): Promise<undefined> {
  return new Promise((resolve) => {
    if (signal.aborted) resolve(undefined)
    else signal.addEventListener('abort', () => resolve(undefined), { once: true })
  })
}
