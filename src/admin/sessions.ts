import { createHash, createHmac, randomBytes, timingSafeEqual } from 'node:crypto'
import type { Clock } from '../lib/clock.ts'
import type { Secret } from '../lib/secret.ts'

/** A link lies in a terminal's scrollback and a browser's history: it works once, and not for long. */
const LINK_MS = 5 * 60_000
const SESSION_MS = 12 * 60 * 60_000
const MAX_LINKS = 64
const MARK = 'cbs'

/** Something handed out, and until when it works. */
export interface Handed {
  readonly value: string
  /** ms since the epoch. */
  readonly expiresAt: number
}

/**
 * How a browser gets in without the admin token: a link that works once, which it changes for a session.
 * A session proves itself by an HMAC under a key made of the admin token. So nothing is kept of it, it outlives
 * a restart of the proxy, and a new admin token ends it.
 */
export class Sessions {
  readonly #key: Buffer
  readonly #clock: Clock
  /** Digest of a link's code → when it ends; in order of their making. */
  readonly #links = new Map<string, number>()

  constructor(token: Secret, clock: Clock) {
    this.#key = createHmac('sha256', token.reveal()).update('cupbearer dashboard session').digest()
    this.#clock = clock
  }

  /** Makes the code of a link; the oldest gives way when there are too many. */
  link(): Handed {
    const value = randomBytes(24).toString('base64url')
    const expiresAt = this.#clock.now() + LINK_MS
    this.#links.set(digest(value), expiresAt)
    const [oldest] = this.#links.keys()
    if (this.#links.size > MAX_LINKS && oldest !== undefined) this.#links.delete(oldest)
    return { value, expiresAt }
  }

  /** Changes a link's code for a session; undefined when it was used, has ended or never was. */
  redeem(code: string): Handed | undefined {
    const key = digest(code)
    const expiresAt = this.#links.get(key)
    this.#links.delete(key)
    return expiresAt !== undefined && this.#clock.now() < expiresAt ? this.start() : undefined
  }

  start(): Handed {
    const expiresAt = this.#clock.now() + SESSION_MS
    const claims = `${MARK}.${expiresAt.toString(36)}.${randomBytes(12).toString('base64url')}`
    return { value: `${claims}.${this.#sign(claims)}`, expiresAt }
  }

  /** What a presented value is worth: `ended` for a session that was one. */
  check(presented: string): 'valid' | 'ended' | 'unknown' {
    const [mark, end = '', nonce, signature = '', ...rest] = presented.split('.')
    if (mark !== MARK || rest.length > 0) return 'unknown'
    const expected = Buffer.from(this.#sign(`${mark}.${end}.${nonce}`))
    const given = Buffer.from(signature)
    if (given.length !== expected.length || !timingSafeEqual(given, expected)) return 'unknown'
    return this.#clock.now() < Number.parseInt(end, 36) ? 'valid' : 'ended'
  }

  #sign(claims: string): string {
    return createHmac('sha256', this.#key).update(claims).digest('base64url')
  }
}

function digest(code: string): string {
  return createHash('sha256').update(code).digest('base64url')
}
