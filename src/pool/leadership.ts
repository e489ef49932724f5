import { SourceError } from '../errors.ts'
import type { Clock } from '../lib/clock.ts'
import type { SharedPool } from '../store/shared.ts'
import type { Credential } from './credential.ts'
import type { Journal } from './journal.ts'
import type { RefreshCause, RefreshResult } from './refresher.ts'

/** How often a claim is kept; the store lets go of one that was not kept three times. */
const KEEP_MS = 1500
/** A gap of this length in keeping means that this process stood still, and its claim may be another's. */
const STOOD_STILL_MS = 5000
/** How often a claim that another instance holds is looked at, if no message comes. */
const LOOK_MS = 500
const FAILED_MS = 1000
/** How long requests that were refused wait for a store that is away, and how often it is looked for. */
const PATIENCE_MS = 5000
const RETRY_MS = 100

/** Nobody can renew now, and nothing is known against the credential: it is tried again soon. */
export class Unsettled extends SourceError {
  constructor(reason: string) {
    super('transient', reason)
  }
}

/** Nothing was sent: what has to be said to the others first could not be said. */
class Withheld extends Unsettled {}

interface LeadershipOptions {
  readonly clock: Clock
  readonly shared: SharedPool
  readonly journal: Journal
  readonly timeoutMs: () => number
  /** Takes over what the store holds of a credential. */
  readonly catchUp: (credential: Credential) => Promise<void>
}

/** Renews; `intend` is called right before the source is asked, and may forbid it. */
export type Renewal = (intend?: () => Promise<void>) => Promise<RefreshResult>

/**
 * One renewal at a time over all instances. Whoever holds the claim renews; the others wait for what it brings.
 * Before a refresh token leaves, the claim says so: should its holder vanish, nobody can know whether the token
 * was used, and nobody sends it again (RFC 9700 §4.14.2: a refresh token that is used twice ends them all).
 */
export class Leadership {
  readonly #options: LeadershipOptions
  /** Those that this instance renews now, with what keeps the claim. */
  readonly #held = new Map<Credential, () => void>()
  readonly #allowed = new WeakSet<Credential>()
  /** Called when something was heard of a credential. */
  readonly #news = new Map<string, Set<() => void>>()
  /** Claims that could not be given up, as the store was away. */
  readonly #owed = new Map<string, () => Promise<void>>()

  constructor(options: LeadershipOptions) {
    this.#options = options
  }

  /** Whether this instance renews it now. */
  leads(credential: Credential): boolean {
    return this.#held.has(credential)
  }

  /** The operator wants it tried once more, whatever is in doubt. */
  allow(credential: Credential): void {
    this.#allowed.add(credential)
  }

  /** Something about the credential was heard. */
  heard(id: string): void {
    for (const wake of this.#news.get(id) ?? []) wake()
  }

  /** The store answers again: claims are taken up before anyone else may have them. */
  regain(): void {
    for (const keep of this.#held.values()) keep()
    for (const [id, settle] of this.#owed) {
      this.#owed.delete(id)
      void settle()
    }
  }

  /** Renews, or waits until another instance has. `joined` is called in that case. */
  async once(
    credential: Credential,
    cause: RefreshCause,
    renew: Renewal,
    joined: () => void,
  ): Promise<RefreshResult> {
    const { clock, shared, timeoutMs, catchUp } = this.#options
    const { generation } = credential
    const before = credential.token?.token
    /** Whether it has another token than at first; more may be known of the old one. */
    const moved = () => {
      const token = credential.token?.token
      if (!token || !before) return token !== before
      return credential.generation !== generation || !token.equals(before)
    }
    const deadline = clock.monotonic() + timeoutMs()
    const force = this.#allowed.delete(credential) || cause === 'operator'
    let patience: number | undefined
    /** Requests wait for it, and the store may be back in a moment. */
    const hopes = () => {
      const now = clock.monotonic()
      patience ??= now + PATIENCE_MS
      return cause === 'expired' && now <= patience
    }
    const followed = (): RefreshResult => {
      joined()
      return { kind: 'ok', reason: undefined }
    }
    for (;;) {
      const claim = await shared
        .claim(credential.id, credential.generation, force)
        .catch(() => undefined)
      if (!claim) {
        if (!hopes()) return this.#alone(credential, renew)
        await this.#wait(credential.id, RETRY_MS)
        continue
      }
      // Another may have brought one while this one asked.
      if (moved()) {
        if (claim.kind === 'mine') await this.#giveUp(credential.id, claim.fence)
        return followed()
      }
      switch (claim.kind) {
        case 'mine':
          try {
            return await this.#lead(credential, claim.fence, renew)
          } catch (error) {
            if (!(error instanceof Withheld && hopes())) throw error
            await this.#wait(credential.id, RETRY_MS)
          }
          break
        case 'newer':
          await catchUp(credential)
          break
        case 'resting': {
          joined()
          const { ms: retryAfterMs, reason } = claim
          throw new SourceError('transient', `another instance: ${reason}`, { retryAfterMs })
        }
        case 'doubt':
          joined()
          if (claim.ageMs > timeoutMs() && !credential.hasLiveToken(clock.monotonic())) {
            throw new SourceError('revoked', IN_DOUBT)
          }
          throw new Unsettled(CUT_OFF)
        case 'held':
          await this.#wait(credential.id, Math.min(claim.ms + 1, LOOK_MS))
      }
      if (moved()) return followed()
      if (credential.revoked || credential.gone) {
        joined()
        const reason = credential.lastError
        return { kind: credential.revoked ? 'revoked' : 'dropped', reason }
      }
      if (clock.monotonic() > deadline) {
        joined()
        throw new Unsettled('another instance has been renewing it for too long')
      }
    }
  }

  /** Without the store only what harms nobody when several do it: no refresh token is sent. */
  #alone(credential: Credential, renew: Renewal): Promise<RefreshResult> {
    if (credential.settings.sharing === 'free' && !spends(credential)) return renew()
    throw new Unsettled(`${this.#trouble}, and without it two instances might renew at once`)
  }

  async #lead(credential: Credential, fence: number, renew: Renewal): Promise<RefreshResult> {
    const { clock, shared, journal } = this.#options
    const { id } = credential
    let intent: number | undefined
    let last = clock.monotonic()
    let stoodStill = false
    let cancel = () => {}
    const keep = () => {
      cancel()
      const now = clock.monotonic()
      if (now - last > STOOD_STILL_MS) stoodStill = true
      last = now
      // Where it is lost, the compare-and-swap on the record decides.
      if (shared.trouble === undefined) shared.keepClaim(id, fence, intent).catch(() => {})
      cancel = clock.schedule(KEEP_MS, keep)
    }
    cancel = clock.schedule(KEEP_MS, keep)
    this.#held.set(credential, keep)
    const intend = async () => {
      if (!spends(credential)) return
      const { generation } = credential
      const noted = await shared.intend(id, fence, generation).catch(() => {
        throw new Withheld(this.#trouble)
      })
      if (!noted) throw new Withheld('this instance stood still, and another may renew it')
      intent = generation
    }
    let failure: { ms: number; reason: string } | undefined
    let known = true
    try {
      const result = await renew(intend)
      // Until the record is written, what was intended tells the others to wait for it.
      known = !journal.owes(credential)
      if (result.kind === 'transient') {
        failure = { ms: FAILED_MS, reason: result.reason ?? 'it failed' }
      }
      return result
    } catch (error) {
      if (clock.monotonic() - last > STOOD_STILL_MS) stoodStill = true
      // An answer may have come while this process stood still, and gone with its connection.
      known = !(stoodStill && intent !== undefined)
      if (
        error instanceof SourceError &&
        error.kind === 'transient' &&
        !(error instanceof Unsettled)
      ) {
        failure = { ms: error.retryAfterMs ?? FAILED_MS, reason: error.message }
      }
      throw error
    } finally {
      cancel()
      this.#held.delete(credential)
      if (known) await this.#giveUp(id, fence, failure)
    }
  }

  get #trouble(): string {
    return this.#options.shared.trouble ?? 'the shared store was away for a moment'
  }

  async #giveUp(
    id: string,
    fence: number,
    failure?: { ms: number; reason: string },
  ): Promise<void> {
    const { shared } = this.#options
    await shared.unclaim(id, fence, failure).catch(() => {
      this.#owed.set(id, () => this.#giveUp(id, fence))
    })
  }

  #wait(id: string, ms: number): Promise<void> {
    return new Promise((resolve) => {
      const waiting = this.#news.get(id) ?? new Set()
      const wake = () => {
        cancel()
        waiting.delete(wake)
        if (waiting.size === 0) this.#news.delete(id)
        resolve()
      }
      const cancel = this.#options.clock.schedule(ms, wake)
      waiting.add(wake)
      this.#news.set(id, waiting)
    })
  }
}

const CUT_OFF =
  'an instance was cut off while it renewed the token: nobody knows whether the refresh token was used'
const IN_DOUBT = `${CUT_OFF}; log in again, or refresh it by hand to try once more`

/** Whether a renewal sends something that may work only once. */
function spends({ settings, token }: Credential): boolean {
  return (
    settings.sharing === 'once' || token?.refreshToken !== undefined || token?.renewal !== undefined
  )
}
