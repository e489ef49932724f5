import { randomBytes } from 'node:crypto'

export type Grant = 'client_credentials' | 'refresh_token'

/** An account of the demo's API: how it gets its tokens, and the only address it may be seen from. */
export interface Account {
  readonly id: string
  readonly grant: Grant
  readonly egress: string
  readonly address: string
  readonly clientSecret: string
}

/** What the API makes of a token. */
export type Standing = 'live' | 'expired' | 'revoked' | 'unknown'

/** A token was handed out: the account's first, ahead of the old one's end, after it, or for a revoked one. */
export interface Issue {
  readonly account: string
  readonly occasion: 'first' | 'ahead' | 'late' | 'after-revocation'
  /** Life left of the token that it replaces, ms. */
  readonly leftMs: number
  readonly from: string
}

interface Token {
  readonly account: Account
  readonly issuedAt: number
  readonly expiresAt: number
  revoked: boolean
}

/** Tokens that ended longer ago are forgotten, and used refresh tokens beyond this number. */
const KEEP_ENDED_MS = 60_000
const MAX_SPENT = 1000

/**
 * The authorization server's own memory, which the demo is judged by: tokens that live `lifetimeMs`, refresh
 * tokens that are good for one use, and who was seen where.
 */
export class TokenBook {
  readonly accounts: readonly Account[]
  readonly lifetimeMs: number
  readonly #observe: (issue: Issue) => void
  readonly #tokens = new Map<string, Token>()
  readonly #current = new Map<string, Token>()
  readonly #refreshTokens = new Map<string, string>()
  readonly #spent = new Set<string>()
  readonly #seen = new Map<string, Set<string>>()
  /** Refresh tokens that came a second time. */
  reused = 0
  /** Requests to the token endpoint. */
  calls = 0
  issued = 0

  constructor(
    accounts: readonly Account[],
    lifetimeMs: number,
    observe: (issue: Issue) => void = () => {},
  ) {
    this.accounts = accounts
    this.lifetimeMs = lifetimeMs
    this.#observe = observe
    for (const { id } of accounts) this.#seen.set(id, new Set())
  }

  /** The refresh token that a login of this account has left. */
  enrol(account: string): string {
    const refreshToken = secret()
    this.#refreshTokens.set(refreshToken, account)
    return refreshToken
  }

  /** Takes a refresh token out of use; false when it isn't this account's, or was used before. */
  spend(refreshToken: string, account: string): boolean {
    if (this.#spent.has(refreshToken)) this.reused += 1
    if (this.#refreshTokens.get(refreshToken) !== account) return false
    this.#refreshTokens.delete(refreshToken)
    this.#spent.add(refreshToken)
    if (this.#spent.size > MAX_SPENT) this.#spent.delete([...this.#spent][0] as string)
    return true
  }

  /** A new token for an account that asks from this address. */
  issue(account: Account, from: string): string {
    const now = Date.now()
    this.#forgetEnded(now)
    this.#seen.get(account.id)?.add(from)
    const former = this.#current.get(account.id)
    const token = { account, issuedAt: now, expiresAt: now + this.lifetimeMs, revoked: false }
    const text = secret()
    this.#tokens.set(text, token)
    this.#current.set(account.id, token)
    this.issued += 1
    const leftMs = (former?.expiresAt ?? now) - now
    this.#observe({ account: account.id, occasion: occasionOf(former, leftMs), leftMs, from })
    return text
  }

  /** Judges a token that came to the API from this address. */
  judge(text: string, from: string): { standing: Standing; account: string | undefined } {
    const token = this.#tokens.get(text)
    if (!token) return { standing: 'unknown', account: undefined }
    const { id } = token.account
    this.#seen.get(id)?.add(from)
    const expired = token.expiresAt <= Date.now()
    return { standing: token.revoked ? 'revoked' : expired ? 'expired' : 'live', account: id }
  }

  /** From now on the API refuses the account's current token. */
  revoke(account: string): void {
    const token = this.#current.get(account)
    if (token) token.revoked = true
  }

  /** Age and life left of the account's current token, ms; undefined before its first. */
  current(account: string): { ageMs: number; leftMs: number } | undefined {
    const token = this.#current.get(account)
    const now = Date.now()
    return token && { ageMs: now - token.issuedAt, leftMs: token.expiresAt - now }
  }

  /** Every address that the account or its tokens came from, at the token endpoint and at the API. */
  seenFrom(account: string): string[] {
    return [...(this.#seen.get(account) ?? [])].sort()
  }

  #forgetEnded(now: number): void {
    for (const [text, token] of this.#tokens) {
      if (token.expiresAt < now - KEEP_ENDED_MS) this.#tokens.delete(text)
    }
  }
}

function occasionOf(former: Token | undefined, leftMs: number): Issue['occasion'] {
  if (!former) return 'first'
  if (former.revoked) return 'after-revocation'
  return leftMs > 0 ? 'ahead' : 'late'
}

function secret(): string {
  return randomBytes(24).toString('base64url')
}
