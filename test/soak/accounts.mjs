import { randomBytes } from 'node:crypto'

/** The authorization server's memory, which the soak is judged by. Times in ms. */
export class Accounts {
  #lifetime
  #tokens = new Map()
  #current = new Map()
  #refreshTokens = new Map()
  issued = 0
  /** Refresh tokens that came a second time: a rotating one is good for one use. */
  reused = 0
  #spent = new Set()

  constructor(lifetime) {
    this.#lifetime = lifetime
  }

  enrol(account) {
    const refreshToken = randomBytes(24).toString('base64url')
    this.#refreshTokens.set(refreshToken, account)
    return refreshToken
  }

  /** A new token for a refresh token, or undefined. */
  renew(refreshToken) {
    const account = this.#refreshTokens.get(refreshToken)
    if (account === undefined) {
      if (this.#spent.has(refreshToken)) this.reused += 1
      return undefined
    }
    this.#refreshTokens.delete(refreshToken)
    this.#spent.add(refreshToken)
    const now = Date.now()
    for (const [token, { until }] of this.#tokens)
      if (until < now - 60_000) this.#tokens.delete(token)
    const token = randomBytes(24).toString('base64url')
    const entry = { account, until: now + this.#lifetime, revoked: false }
    this.#tokens.set(token, entry)
    this.#current.set(account, entry)
    this.issued += 1
    return {
      access_token: token,
      token_type: 'Bearer',
      expires_in: this.#lifetime / 1000,
      refresh_token: this.enrol(account),
    }
  }

  /** Whose token it is; undefined where it is not live. */
  judge(token) {
    const entry = this.#tokens.get(token)
    return entry && !entry.revoked && entry.until > Date.now() ? entry.account : undefined
  }

  /** Refuses an account's token before its time. */
  revoke(account) {
    const entry = this.#current.get(account)
    if (entry) entry.revoked = true
  }
}

/** Holds arrivals against a limit: more than `count` within `window` ms is a violation. */
export class WindowCheck {
  #count
  #window
  #arrivals = new Map()
  violations = 0

  constructor(count, window) {
    this.#count = count
    this.#window = window
  }

  note(account, now) {
    const arrivals = this.#arrivals.get(account) ?? []
    this.#arrivals.set(account, arrivals)
    arrivals.push(now)
    while (arrivals[0] <= now - this.#window) arrivals.shift()
    if (arrivals.length > this.#count) this.violations += 1
  }
}
