import type { JSONWebKeySet, JWTVerifyGetKey } from 'jose'
import { createLocalJWKSet } from 'jose/jwks/local'
import { CupbearerError, SourceError } from '../errors.ts'
import type { Clock } from '../lib/clock.ts'

/** What a server said, read whole. */
interface Answer {
  readonly status: number
  readonly headers: Headers
  readonly body: string
}

export interface KeyWatchOptions {
  /** Whose metadata names the key set (OpenID Connect Discovery §4, RFC 8414 §3). */
  readonly issuer: string | undefined
  /** The key set itself; spares the metadata. */
  readonly jwks: string | undefined
  /** Asks a URL, bounded in size and time; rejects when nothing can be had. */
  readonly read: (url: string, headers: Record<string, string>) => Promise<Answer>
  readonly clock: Clock
  readonly random: () => number
  /** A key set has come; perhaps the same as before. */
  readonly fetched: () => void
  /** Told once for each row of failures. */
  readonly failed: (reason: string) => void
}

const MIN_POLL_MS = 30_000
const MAX_POLL_MS = 3600_000
/** For an answer that says nothing of how long it holds. */
const DEFAULT_POLL_MS = 300_000
/** Least gap between fetches that tokens with unknown keys ask for: anybody can name a key. */
const COOLDOWN_MS = 30_000
/** The same while there are no keys at all, and tokens wait for them. */
const EAGER_MS = 1000
/** No honest set comes near it. */
const MAX_KEYS = 200

/** An issuer's signing keys (RFC 7517), asked for again as often as its caching headers say. */
export class KeyWatch {
  readonly #options: KeyWatchOptions
  #keySet: JWTVerifyGetKey | undefined
  #ids: ReadonlySet<string> = new Set()
  #etag: string | undefined
  #url: string | undefined
  #failures = 0
  #reason = 'they have not been asked for yet'
  #demandedAt = Number.NEGATIVE_INFINITY
  #running: Promise<void> | undefined
  #cancelPoll: (() => void) | undefined
  #stopped = false

  constructor(options: KeyWatchOptions) {
    this.#options = options
  }

  /** The keys, as jose asks for them; undefined before the first have come. */
  get keySet(): JWTVerifyGetKey | undefined {
    return this.#keySet
  }
  /** Why the last fetch failed. */
  get reason(): string {
    return this.#reason
  }

  has(keyId: string): boolean {
    return this.#ids.has(keyId)
  }

  /** Asks now and from then on; resolves when the first answer is in, good or bad. */
  poll(): Promise<void> {
    this.#running ??= this.#fetch().finally(() => {
      this.#running = undefined
    })
    return this.#running
  }

  /** Asks because a token has a key that is not known, but not too often. */
  async demand(): Promise<void> {
    if (this.#running) return this.#running
    const now = this.#options.clock.monotonic()
    if (now - this.#demandedAt < (this.#keySet ? COOLDOWN_MS : EAGER_MS)) return
    this.#demandedAt = now
    return this.poll()
  }

  stop(): void {
    this.#stopped = true
    this.#cancelPoll?.()
  }

  async #fetch(): Promise<void> {
    const { random, fetched, failed } = this.#options
    this.#cancelPoll?.()
    let next: number
    try {
      next = await this.#ask()
      this.#failures = 0
      if (!this.#stopped) fetched()
    } catch (error) {
      this.#reason =
        error instanceof CupbearerError ? error.message : 'the key set could not be used'
      next = MIN_POLL_MS * 2 ** Math.min(this.#failures, 10)
      this.#failures += 1
      // What the issuer moved is found through its metadata.
      this.#url = undefined
      if (this.#failures === 1 && !this.#stopped) failed(this.#reason)
    }
    if (this.#stopped) return
    const delay = clamp(next * (1 - 0.1 * random()))
    this.#cancelPoll = this.#options.clock.schedule(delay, () => void this.poll())
  }

  /** Takes the set in and tells for how long it holds. */
  async #ask(): Promise<number> {
    const { read, clock } = this.#options
    const url = this.#options.jwks ?? this.#url ?? (await this.#discover())
    const headers = { accept: 'application/jwk-set+json, application/json' }
    const conditional = this.#etag !== undefined && this.#keySet !== undefined
    const answer = await read(
      url,
      conditional ? { ...headers, 'if-none-match': this.#etag as string } : headers,
    )
    this.#url = url
    if (answer.status !== 304 || !conditional) {
      const { keySet, ids } = readKeySet(answer, new URL(url).host)
      this.#keySet = keySet
      this.#ids = ids
      this.#etag = answer.headers.get('etag') ?? undefined
    }
    return freshFor(answer.headers, clock.now())
  }

  async #discover(): Promise<string> {
    const issuer = new URL(this.#options.issuer as string)
    const path = issuer.pathname.replace(/\/$/, '')
    const where = `issuer ${issuer.host}`
    const headers = { accept: 'application/json' }
    const { read } = this.#options
    let answer = await read(
      `${issuer.origin}${path}/.well-known/openid-configuration${issuer.search}`,
      headers,
    )
    if (answer.status === 404) {
      // RFC 8414 §3.1 puts the issuer's path behind.
      answer = await read(
        `${issuer.origin}/.well-known/oauth-authorization-server${path}${issuer.search}`,
        headers,
      )
    }
    const { issuer: named, jwks_uri: uri } = readDocument(answer, where)
    if (typeof named !== 'string' || !sameIssuer(named, issuer.href)) {
      throw new SourceError('transient', `${where} describes another issuer`)
    }
    if (typeof uri !== 'string' || !URL.canParse(uri)) {
      throw new SourceError('transient', `${where} names no key set`)
    }
    const { protocol } = new URL(uri)
    if (protocol !== 'https:' && protocol !== issuer.protocol) {
      throw new SourceError('transient', `${where} names a key set that is not under https://`)
    }
    return uri
  }
}

function sameIssuer(a: string, b: string): boolean {
  return a.replace(/\/$/, '') === b.replace(/\/$/, '')
}

function readDocument(answer: Answer, where: string): Record<string, unknown> {
  if (answer.status !== 200) {
    throw new SourceError('transient', `${where} answered ${answer.status}`)
  }
  try {
    const document: unknown = JSON.parse(answer.body)
    if (typeof document === 'object' && document !== null) return { ...document }
  } catch {
    // Said below, without the parser's words: they quote what it read.
  }
  throw new SourceError('transient', `${where} answered with something other than JSON`)
}

/** An empty set is a fault of the server's: no issuer signs with nothing. */
function readKeySet(
  answer: Answer,
  host: string,
): { keySet: JWTVerifyGetKey; ids: ReadonlySet<string> } {
  const where = `key set of ${host}`
  const { keys } = readDocument(answer, where)
  if (!Array.isArray(keys) || keys.length === 0 || keys.length > MAX_KEYS) {
    throw new SourceError('transient', `${where} holds no keys`)
  }
  try {
    const keySet = createLocalJWKSet({ keys } as JSONWebKeySet)
    const ids = keys.map(({ kid }: { kid?: unknown }) => kid)
    return { keySet, ids: new Set(ids.filter((kid) => typeof kid === 'string')) }
  } catch (cause) {
    throw new SourceError('transient', `${where} cannot be read`, { cause })
  }
}

/** RFC 9111 §4.2.1, in ms. */
function freshFor(headers: Headers, now: number): number {
  const control = headers.get('cache-control')?.toLowerCase() ?? ''
  if (/\bno-(?:store|cache)\b/.test(control)) return MIN_POLL_MS
  const maxAge = /\bmax-age\s*=\s*"?(\d{1,10})/.exec(control)?.[1]
  const age = Number(headers.get('age') ?? 0) || 0
  if (maxAge !== undefined) return clamp((Number(maxAge) - age) * 1000)
  const expires = Date.parse(headers.get('expires') ?? '')
  const date = Date.parse(headers.get('date') ?? '')
  if (Number.isFinite(expires)) return clamp(expires - (Number.isFinite(date) ? date : now))
  return DEFAULT_POLL_MS
}

function clamp(ms: number): number {
  return Math.min(MAX_POLL_MS, Math.max(MIN_POLL_MS, ms))
}
