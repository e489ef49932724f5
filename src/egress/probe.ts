import { CupbearerError } from '../errors.ts'
import type { Clock } from '../lib/clock.ts'
import { isWithin, NoAddress, readVisibleAddress } from './visible-address.ts'

/** A probe as it is configured. */
export interface ProbeSettings {
  /** URL that answers with the address it sees. */
  readonly url: string
  /** IP or CIDR that the address must be in. */
  readonly expect: string | undefined
  /** From one probe to the next, ms. */
  readonly every: number
}

/** What a probe has told. */
export interface ProbeNews {
  /** The visible address; undefined when it could not be learned. */
  readonly address: string | undefined
  /** The one before. */
  readonly previous: string | undefined
  /** Why it could not be learned, or what is wrong with it. */
  readonly reason: string | undefined
}

interface ProbeOptions extends ProbeSettings {
  readonly fetch: (url: string, init: RequestInit) => Promise<Response>
  readonly clock: Clock
  readonly random: () => number
  /** Whether something may leave has changed. */
  readonly judged: () => void
  /** An address was learned, has changed, or can no longer be learned. */
  readonly news: (news: ProbeNews) => void
}

const TIMEOUT_MS = 15_000
/** What is wrong is looked at again soon, then ever more rarely. */
const RETRY_MS = 500
const MAX_RETRY_MS = 60_000
/** How much earlier or later the next probe may come, so that those of many egresses spread. */
const JITTER = 0.1
const UNKNOWN = 'its visible address is not known yet'

/**
 * Learns the visible address of one egress, again and again. With an address to expect it fails closed:
 * nothing may leave before it was found right, after it was found wrong, or after the egress was down, for it
 * may have come back with another. A probe that fails says nothing of an address that was found right.
 */
export class Probe {
  readonly #options: ProbeOptions
  #expect: string | undefined
  #address: string | undefined
  #objection: string | undefined
  /** Probes in a row that did not find the address right. */
  #misses = 0
  /** Whether the last one told nothing. */
  #silent = false
  #cancel: (() => void) | undefined
  #running: { readonly ended: Promise<void>; readonly abort: AbortController } | undefined
  #closed = false

  constructor(options: ProbeOptions) {
    this.#options = options
    this.#expect = options.expect
    if (options.expect !== undefined) this.#objection = UNKNOWN
    this.now()
  }

  /** The address as last seen. */
  get address(): string | undefined {
    return this.#address
  }
  /** Why nothing may leave; undefined when something may. */
  get objection(): string | undefined {
    return this.#objection
  }
  /** Ends with the probe that runs. */
  get settled(): Promise<void> | undefined {
    return this.#running?.ended
  }

  /** Takes over another expectation; the address that is known is held against it at once. */
  expectInstead(expect: string | undefined): void {
    this.#expect = expect
    if (expect !== undefined && this.#address === undefined) this.#judge(UNKNOWN)
    else this.#judge(this.#complaint())
    this.now()
  }

  /** The egress failed: whatever it comes back with must be found right first. */
  wentDown(): void {
    if (this.#expect === undefined || this.#objection !== undefined) return
    this.#judge('it was down, and its visible address is not known since')
    this.#plan()
  }

  /** Probes at once, unless a probe runs. */
  now(): void {
    if (this.#closed || this.#running) return
    this.#cancel?.()
    const abort = new AbortController()
    const ended = this.#run(abort).finally(() => {
      this.#running = undefined
      this.#plan()
    })
    this.#running = { ended, abort }
  }

  close(): void {
    this.#closed = true
    this.#cancel?.()
    this.#running?.abort.abort(new NoAddress('the probe was given up'))
  }

  async #run(abort: AbortController): Promise<void> {
    const { clock, fetch, url, news } = this.#options
    const { signal } = abort
    const cancel = clock.schedule(TIMEOUT_MS, () =>
      abort.abort(new NoAddress('the probe was not answered in time')),
    )
    const previous = this.#address
    try {
      // A connection of its own: one that was made before may still show the address of before.
      const headers = { connection: 'close', accept: 'application/json, text/plain' }
      const address = await readVisibleAddress(await fetch(url, { headers, signal }))
      if (this.#closed) return
      this.#silent = false
      this.#address = address
      const complaint = this.#complaint()
      this.#misses = complaint === undefined ? 0 : this.#misses + 1
      this.#judge(complaint)
      if (address !== previous) news({ address, previous, reason: complaint })
    } catch (error) {
      if (this.#closed) return
      this.#misses += 1
      const reason = reasonOf(signal.aborted ? signal.reason : error)
      if (this.#objection !== undefined) this.#judge(`its visible address is unknown: ${reason}`)
      if (!this.#silent) news({ address: undefined, previous, reason })
      this.#silent = true
    } finally {
      cancel()
    }
  }

  #complaint(): string | undefined {
    if (this.#expect === undefined || this.#address === undefined) return undefined
    if (isWithin(this.#address, this.#expect)) return undefined
    return 'its visible address is not the expected one'
  }

  #judge(objection: string | undefined): void {
    if (objection === this.#objection) return
    this.#objection = objection
    this.#options.judged()
  }

  #plan(): void {
    const { clock, every, random } = this.#options
    if (this.#closed || this.#running) return
    const pressing = this.#misses > 0 || this.#objection !== undefined
    const soon = Math.min(RETRY_MS * 2 ** Math.min(this.#misses, 10), MAX_RETRY_MS)
    const delay = pressing ? Math.min(soon, every) : every
    this.#cancel?.()
    this.#cancel = clock.schedule(delay * (1 - JITTER + 2 * JITTER * random()), () => this.now())
  }
}

/** Words of our own; a library's may quote what it was sent. */
function reasonOf(error: unknown): string {
  if (error instanceof NoAddress || error instanceof CupbearerError) return error.message
  return 'the probe failed'
}
