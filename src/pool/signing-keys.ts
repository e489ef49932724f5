import type { PoolConfig } from '../config/schema.ts'
import { CupbearerError, SourceError } from '../errors.ts'
import type { Clock } from '../lib/clock.ts'
import { type Answer, ask } from '../sources/endpoint.ts'
import { KeyWatch } from '../token/jwks.ts'
import type { TokenSet } from '../token/token.ts'
import { type Expectations, verifyToken } from '../token/verify.ts'
import type { Credential } from './credential.ts'
import type { PoolLog } from './journal.ts'

/** What the keys of a pool are set up with. */
export interface SigningKeysOptions {
  readonly pool: string
  readonly config: PoolConfig
  readonly clock: Clock
  readonly random: () => number
  readonly log: PoolLog | undefined
  readonly credentials: () => Iterable<Credential>
  /** Their tokens' keys are gone: they are to be renewed within that time. */
  readonly renew: (credentials: readonly Credential[], withinMs: number) => void
}

const TIMEOUT_MS = 10_000
/** Of how many egresses one is found that works. */
const MAX_WAYS = 3
/** Renewals are spread over that long for each token, and no longer than that in all. */
const SPREAD_EACH_MS = 100
const MAX_SPREAD_MS = 10_000

/**
 * The signing keys of a pool's issuer: asked for by the egress of one of its credentials. When the key of a
 * held token goes, that token is renewed, once; new tokens are verified where the pool wants it.
 */
export class SigningKeys {
  readonly #options: SigningKeysOptions
  readonly #watch: KeyWatch
  readonly #expectations: Expectations | undefined
  /** For which key's sake a token was renewed: when the new one names it too, that was of no use. */
  readonly #renewedFor = new WeakMap<Credential, string>()
  readonly #closing = new AbortController()
  #lastWay: Credential | undefined

  constructor(options: SigningKeysOptions) {
    this.#options = options
    const { config, clock, random, log, pool } = options
    const { issuer, jwks, verify } = config
    const { issuer: name = issuer, audience } = typeof verify === 'object' ? verify : {}
    this.#expectations = verify
      ? { issuer: name, audience: audience === undefined ? undefined : [audience].flat() }
      : undefined
    this.#watch = new KeyWatch({
      issuer,
      jwks,
      read: (url, headers) => this.#read(url, headers),
      clock,
      random,
      fetched: () => this.#look(),
      failed: (reason) => log?.warn({ pool, reason }, 'signing keys could not be had'),
    })
    void this.#watch.poll()
  }

  /** Before a token is asked for: without keys it could not be verified. Throws `SourceError`. */
  async ready(): Promise<void> {
    if (!this.#expectations || this.#watch.keySet) return
    await this.#watch.demand()
    if (!this.#watch.keySet) {
      throw new SourceError('transient', `no signing keys to verify by: ${this.#watch.reason}`)
    }
  }

  /** Why a new token must not be used; undefined when nothing speaks against it. */
  async objection(credential: Credential, token: TokenSet): Promise<string | undefined> {
    if (!this.#expectations) return undefined
    if (this.#isUnknown(token)) await this.#watch.demand()
    const keys = this.#watch.keySet
    if (!keys) return `the new token was refused: no signing keys (${this.#watch.reason})`
    const issuersNow = this.#options.clock.now() + credential.skew.ms
    const reason = await verifyToken(token, keys, this.#expectations, issuersNow)
    return reason && `the new token was refused: ${reason}`
  }

  /** A token has come: a key that is not known may mean that others have gone. */
  noticed(token: TokenSet): void {
    if (this.#watch.keySet && this.#isUnknown(token)) void this.#watch.demand()
  }

  close(): void {
    this.#watch.stop()
    this.#closing.abort()
  }

  #isUnknown({ keyId }: TokenSet): boolean {
    return keyId !== undefined && !this.#watch.has(keyId)
  }

  /** Holds the tokens against the keys that have just come. */
  #look(): void {
    const { credentials, renew, log, pool } = this.#options
    const gone: Credential[] = []
    for (const credential of credentials()) {
      const keyId = credential.token?.keyId
      if (keyId === undefined) continue
      if (this.#watch.has(keyId)) this.#renewedFor.delete(credential)
      else if (credential.source.renewable && this.#renewedFor.get(credential) !== keyId) {
        this.#renewedFor.set(credential, keyId)
        gone.push(credential)
      }
    }
    if (gone.length === 0) return
    log?.warn({ pool, tokens: gone.length }, 'signing keys of tokens have gone: they are renewed')
    renew(gone, Math.min(MAX_SPREAD_MS, (gone.length - 1) * SPREAD_EACH_MS))
  }

  async #read(url: string, headers: Record<string, string>): Promise<Answer> {
    const { clock } = this.#options
    const where = `key server ${new URL(url).host}`
    const abort = new AbortController()
    const cancel = clock.schedule(TIMEOUT_MS, () => abort.abort())
    const signal = AbortSignal.any([abort.signal, this.#closing.signal])
    let failure: unknown = new SourceError('egress', 'there is no credential to ask by')
    try {
      for (const credential of this.#ways()) {
        try {
          const fetch = credential.skew.metered(credential.settings.fetch)
          const answer = await ask({ fetch, clock, signal }, where, url, { headers })
          this.#lastWay = credential
          return answer
        } catch (error) {
          if (!isEgressDown(error)) throw error
          failure = error
        }
      }
      throw failure
    } finally {
      cancel()
    }
  }

  /** Credentials to ask by, each of another egress; first the one that worked last, then those that are up. */
  #ways(): Credential[] {
    const byLane = new Map<string, Credential>()
    const present = [...this.#options.credentials()].filter(({ gone }) => !gone)
    const last = this.#lastWay && present.includes(this.#lastWay) ? [this.#lastWay] : []
    for (const credential of [...last, ...present]) {
      const { name } = credential.settings.lane
      if (!byLane.has(name)) byLane.set(name, credential)
    }
    const ways = [...byLane.values()]
    const resting = (credential: Credential) => Number(credential.settings.lane.rests)
    return ways.sort((a, b) => resting(a) - resting(b)).slice(0, MAX_WAYS)
  }
}

function isEgressDown(error: unknown): boolean {
  if (error instanceof SourceError) return error.kind === 'egress'
  return error instanceof CupbearerError && error.code === 'EGRESS_DOWN'
}
