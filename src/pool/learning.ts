import { CupbearerError } from '../errors.ts'
import type { Clock } from '../lib/clock.ts'
import type { Secret } from '../lib/secret.ts'
import type { TokenSet } from '../token/token.ts'
import type { Credential } from './credential.ts'
import type { PoolLog } from './journal.ts'
import type { RefreshResult } from './refresher.ts'

/** By which way a login leaves whose token will be a credential's. */
export interface LoginWay {
  readonly egress: string
  /** Of its connections, as in a lease. */
  readonly key: string
}

/** What was learned, in words that hold no secret. */
export interface Lesson {
  readonly credential: string
  readonly subject: string | undefined
  readonly scopes: readonly string[] | undefined
  /** ms since the epoch. */
  readonly expiresAt: number | undefined
  /** Whether the way to renew it was learned too. */
  readonly renews: boolean
}

/** Somebody who waits for a token to come by. */
export interface Listener {
  /** Something came by that is of no use, and why. */
  note(message: string): void
}

interface LearningOptions {
  readonly pool: string
  readonly clock: Clock
  /** By id; another map after each reload. */
  readonly credentials: () => ReadonlyMap<string, Credential>
  /** Makes a token durable, then usable. */
  readonly take: (credential: Credential, token: TokenSet) => Promise<RefreshResult>
  readonly log: PoolLog | undefined
}

/** Sightings that wait to be looked at. */
const MAX_WAITING = 64

/**
 * Tokens of a pool that are learned from its traffic: whose login may pass, and which credential gets what came
 * by. Sightings are looked at one after the other, so that two logins at once never share a credential.
 */
export class Learning {
  readonly #options: LearningOptions
  readonly #sessions = new Map<Listener, (lesson: Lesson | Error) => void>()
  #learners: { among: unknown; list: readonly Credential[] } = { among: undefined, list: [] }
  #tail: Promise<void> = Promise.resolve()
  #waiting = 0
  #closed = false

  constructor(options: LearningOptions) {
    this.#options = options
  }

  /** The credentials that learn. */
  get learners(): readonly Credential[] {
    const all = this.#options.credentials()
    if (this.#learners.among !== all) {
      const list = [...all.values()].filter(({ source }) => source.learns)
      this.#learners = { among: all, list }
    }
    return this.#learners.list
  }

  /** Whether the operator waits for a login: then all that a client sends passes. */
  get isAwaited(): boolean {
    return this.#sessions.size > 0
  }

  /** The way for a request with a credential of its own; undefined where nothing sets it apart. */
  wayIn(): LoginWay | undefined {
    if (!this.isAwaited && !this.#isEmpty()) return undefined
    return wayOf(this.#open() ?? (this.isAwaited ? this.#sole() : undefined))
  }

  /** The way of a request for a token, made with this refresh token; such a request always passes. */
  wayOfTokenRequest(presented: Secret | undefined): LoginWay | undefined {
    return wayOf(this.#holder(presented) ?? this.#open() ?? this.learners[0])
  }

  /** Resolves with what is learned next; the signal gives it up. Rejects with a `CupbearerError`. */
  async capture(listener: Listener, signal: AbortSignal): Promise<Lesson> {
    const { pool } = this.#options
    if (this.learners.length === 0) {
      const message = `pool ${pool} has no credential with a source of type capture`
      throw new CupbearerError('SOURCE_FAILED', message)
    }
    if (!this.#open() && !this.#sole()) {
      const message = `every credential of pool ${pool} has a token: revoke or forget one first`
      throw new CupbearerError('SOURCE_FAILED', message)
    }
    if (this.#closed) throw closed()
    signal.throwIfAborted()
    return new Promise((resolve, reject) => {
      const leave = () => end(new CupbearerError('SOURCE_FAILED', 'the capture was given up'))
      const end = (lesson: Lesson | Error) => {
        this.#sessions.delete(listener)
        signal.removeEventListener('abort', leave)
        if (lesson instanceof Error) reject(lesson)
        else resolve(lesson)
      }
      signal.addEventListener('abort', leave, { once: true })
      this.#sessions.set(listener, end)
    })
  }

  /** A token came by that upstream gave or took. Resolves when it has been dealt with; never rejects. */
  offer(token: TokenSet, presented?: Secret): Promise<void> {
    if (this.#closed || this.#waiting >= MAX_WAITING) return this.#tail
    this.#waiting += 1
    this.#tail = this.#tail.then(async () => {
      try {
        await this.#consider(token, presented)
      } catch (error) {
        this.refuse(
          error instanceof CupbearerError ? error.message : 'a token could not be taken up',
        )
      } finally {
        this.#waiting -= 1
      }
    })
    return this.#tail
  }

  /** What came by is of no use: whoever waits hears why, and so does the status. */
  refuse(reason: string): void {
    const message = `a token was seen and not learned: ${reason}`
    this.#options.log?.warn({ pool: this.#options.pool, reason }, 'a token was not learned')
    this.#open()?.remark(message)
    for (const listener of this.#sessions.keys()) listener.note(message)
  }

  /** Ends whoever waits, and lets what is being stored end. */
  async close(): Promise<void> {
    this.#closed = true
    for (const end of this.#sessions.values()) end(closed())
    await this.#tail
  }

  async #consider(token: TokenSet, presented: Secret | undefined): Promise<void> {
    const { take, clock } = this.#options
    if ((token.expiresAt ?? Number.POSITIVE_INFINITY) <= clock.now()) return
    const credential = this.#choose(token, presented)
    if (!credential || this.#closed) return
    const { kind, reason } = await take(credential, token)
    if (kind !== 'ok') return this.refuse(reason ?? 'the credential has moved on')
    const { subject, scopes, expiresAt } = token
    const renews = token.renewal !== undefined
    const lesson = { credential: credential.id, subject, scopes, expiresAt, renews }
    for (const end of this.#sessions.values()) end(lesson)
  }

  /** Whose it is: of whom it is known to be, else an empty one's, else that of the only one that is asked for. */
  #choose(token: TokenSet, presented: Secret | undefined): Credential | undefined {
    const { learners } = this
    const same = learners.find((each) => each.token?.token.equals(token.token))
    // Most requests of a browser carry a token that is known already.
    if (same && !this.#isOpen(same)) {
      return token.renewal && !same.token?.renewal ? same : undefined
    }
    const { subject } = token
    const known =
      this.#holder(presented) ??
      (subject === undefined ? undefined : learners.find((each) => each.token?.subject === subject))
    const chosen = known ?? this.#open() ?? (this.isAwaited ? this.#sole() : undefined)
    if (!chosen || this.#isOpen(chosen)) return chosen
    // A lone access token is no reason to give up one that can be renewed.
    return token.renewal || !chosen.renewable ? chosen : undefined
  }

  #holder(presented: Secret | undefined): Credential | undefined {
    if (!presented) return undefined
    return this.learners.find((each) => each.token?.refreshToken?.equals(presented))
  }

  /** The first that has nothing to offer, and can get nothing by itself. */
  #open(): Credential | undefined {
    return this.learners.find((each) => this.#isOpen(each))
  }

  #sole(): Credential | undefined {
    const { learners } = this
    return learners.length === 1 ? learners[0] : undefined
  }

  #isOpen(credential: Credential): boolean {
    if (credential.revoked) return true
    if (credential.renewable) return false
    return credential.quarantined || !credential.hasLiveToken(this.#options.clock.monotonic())
  }

  /** Whether no credential serves, or will without help. */
  #isEmpty(): boolean {
    for (const credential of this.#options.credentials().values()) {
      if (credential.source.learns ? !this.#isOpen(credential) : !credential.revoked) return false
    }
    return true
  }
}

function wayOf(credential: Credential | undefined): LoginWay | undefined {
  if (!credential) return undefined
  return { egress: credential.settings.lane.name, key: credential.settings.key }
}

function closed(): CupbearerError {
  return new CupbearerError('SOURCE_FAILED', 'the pool is closing')
}
