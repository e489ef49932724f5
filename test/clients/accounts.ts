/** The tokens of the matrix: one living token for each host, until it is revoked. */
export class Accounts {
  readonly #live = new Map<string, string>()
  readonly #healing = new Set<string>()
  #issued = 0

  issue(host: string): string {
    const token = `token-of-${host}-${++this.#issued}`
    this.#live.set(host, token)
    return token
  }

  /** Whether an `Authorization` is good for that host now. */
  admits(host: string, authorization: string | undefined): boolean {
    return authorization !== undefined && authorization === `Bearer ${this.#live.get(host)}`
  }

  /** Revokes the token of the host, the first time that it is asked to. */
  revokeOnce(host: string): void {
    if (this.#healing.has(host)) return
    this.#healing.add(host)
    this.#live.delete(host)
  }

  revoked(host: string): boolean {
    return this.#healing.has(host)
  }
}
