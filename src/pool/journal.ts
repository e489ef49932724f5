import { CupbearerError } from '../errors.ts'
import type { Clock } from '../lib/clock.ts'
import { whereFrom } from '../lib/log.ts'
import { StaleGeneration } from '../store/record.ts'
import type { CredentialRecord, Store } from '../store/store.ts'
import type { Credential } from './credential.ts'

/** What the pool says to the operator. */
export interface PoolLog {
  warn(fields: object, message: string): void
  error(fields: object, message: string): void
}

const RETRY_MS = 1000
const MAX_RETRY_MS = 60_000

/**
 * Writes credentials' records in order, one at a time for each credential. What could not be written is
 * written again with back-off: meanwhile the pool goes on with what it holds in memory.
 */
export class Journal {
  readonly #pool: string
  readonly #store: Store
  readonly #clock: Clock
  readonly #log: PoolLog | undefined
  /** Takes over what another instance has written. */
  #superseded: ((credential: Credential) => Promise<void>) | undefined
  readonly #tails = new Map<string, Promise<void>>()
  readonly #unwritten = new Set<Credential>()
  #failures = 0
  #usageFailed = false
  #cancelRetry: (() => void) | undefined
  #closed = false

  constructor(pool: string, store: Store, clock: Clock, log: PoolLog | undefined) {
    this.#pool = pool
    this.#store = store
    this.#clock = clock
    this.#log = log
  }

  /** From now on a record that is refused as too old is no failure: what is stored is taken over instead. */
  share(superseded: (credential: Credential) => Promise<void>): void {
    this.#superseded = superseded
  }

  /** Whether a write of its is under way. */
  isBusy(credential: Credential): boolean {
    return this.#tails.has(credential.id)
  }

  /** Whether its record could not be written yet. */
  owes(credential: Credential): boolean {
    return this.#unwritten.has(credential)
  }

  /** That some credential is held in memory alone: what a restart would lose. Undefined when all is stored. */
  get trouble(): string | undefined {
    const count = this.#unwritten.size
    if (count === 0) return undefined
    return `the store cannot be written: ${count} credential${count === 1 ? ' is' : 's are'} held in memory only`
  }

  /**
   * Writes a credential as it stands when its turn comes, or what `compose` gives; undefined writes nothing.
   * `then` runs once the record is durable, or when that could not be had, and before any later write.
   */
  write(
    credential: Credential,
    compose: () => CredentialRecord | undefined = () => credential.record(),
    then?: () => void,
  ): Promise<void> {
    return this.#inTurn(credential.id, async () => {
      const record = compose()
      if (!record) return
      try {
        await this.#store.save(this.#pool, credential.id, record)
        this.#unwritten.delete(credential)
      } catch (error) {
        if (this.#superseded && error instanceof StaleGeneration) {
          this.#unwritten.delete(credential)
          await this.#superseded(credential)
          return
        }
        this.#fail(credential, error)
      }
      then?.()
    })
  }

  remove(credential: Credential): Promise<void> {
    this.#unwritten.delete(credential)
    return this.#inTurn(credential.id, () => this.#store.remove(this.#pool, credential.id))
  }

  /**
   * Writes how much of the limits is used, at once. A failure does not stop the traffic: the limits are
   * still kept by this process, and the next use tries again.
   */
  writeUsage(credential: Credential, ahead: boolean): void {
    const usage = credential.limits.write(
      credential.generation,
      ahead,
      this.#clock.monotonic(),
      this.#clock.now(),
    )
    if (!usage) return
    try {
      this.#store.saveUsage(this.#pool, credential.id, usage)
      credential.limits.written(ahead)
      this.#usageFailed = false
    } catch (error) {
      if (!this.#usageFailed) this.#report(credential, error, 'use of limits could not be stored')
      this.#usageFailed = true
    }
  }

  /** Resolves when all that was asked for is written, or has failed. */
  async close(): Promise<void> {
    this.#closed = true
    this.#cancelRetry?.()
    for (const credential of [...this.#unwritten]) void this.write(credential)
    while (this.#tails.size > 0) await Promise.all(this.#tails.values())
  }

  #inTurn(id: string, job: () => Promise<void>): Promise<void> {
    const turn = (this.#tails.get(id) ?? Promise.resolve()).then(job)
    const tail = turn
      .catch(() => {})
      .finally(() => {
        if (this.#tails.get(id) === tail) this.#tails.delete(id)
      })
    this.#tails.set(id, tail)
    return turn
  }

  #fail(credential: Credential, error: unknown): void {
    this.#report(credential, error, 'credential could not be stored; it is used from memory')
    this.#unwritten.add(credential)
    if (!this.#cancelRetry) this.#retryLater()
  }

  #retryLater(): void {
    if (this.#closed) return
    const delay = Math.min(MAX_RETRY_MS, RETRY_MS * 2 ** Math.min(this.#failures, 10))
    this.#failures += 1
    this.#cancelRetry = this.#clock.schedule(delay, () => void this.#retry())
  }

  async #retry(): Promise<void> {
    const pending = [...this.#unwritten]
    await Promise.all(pending.map((credential) => this.write(credential)))
    this.#cancelRetry = undefined
    if (this.#unwritten.size === 0) this.#failures = 0
    else this.#retryLater()
  }

  #report(credential: Credential, error: unknown, message: string): void {
    // What a library says may quote what it was given.
    const reason = error instanceof CupbearerError ? error.message : whereFrom(error).error
    this.#log?.error({ pool: this.#pool, credential: credential.id, reason }, message)
  }
}
