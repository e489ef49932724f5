import { isIP } from 'node:net'
import type { Target } from '../lib/authority.ts'

/** The names that a CA is limited to. A permitted DNS name covers its subdomains too (RFC 5280 §4.2.1.10). */
export interface Names {
  readonly dns: readonly string[]
  readonly addresses: readonly string[]
}

/** Which names the targets need certificates for; `http://` targets need none. */
export class MappedNames {
  readonly #exact: ReadonlySet<string>
  readonly #parents: ReadonlySet<string>

  constructor(targets: readonly Target[]) {
    const https = targets.filter((target) => target.scheme === 'https')
    this.#exact = new Set(https.filter((each) => !each.wildcard).map((each) => each.host))
    this.#parents = new Set(https.filter((each) => each.wildcard).map((each) => each.host))
  }

  /** What name constraints have to permit. */
  get permitted(): Names {
    const all = [...new Set([...this.#exact, ...this.#parents])].sort()
    return {
      dns: all.filter((name) => isIP(name) === 0),
      addresses: all.filter((name) => isIP(name) !== 0),
    }
  }

  /**
   * The name that a certificate for this host bears, undefined when no target covers it. Hosts beneath a
   * wildcard target share the certificate of their parent, unless that would be `*.tld`, which clients refuse.
   */
  certificateName(host: string): string | undefined {
    if (this.#exact.has(host)) return host
    const dot = host.indexOf('.')
    if (dot <= 0 || isIP(host) !== 0) return undefined
    const parent = host.slice(dot + 1)
    if (!this.#underWildcard(parent)) return undefined
    return parent.includes('.') ? `*.${parent}` : host
  }

  #underWildcard(parent: string): boolean {
    // Looked up label by label: a config may map hundreds of hosts, and this runs for each connection.
    for (let name = parent; ; ) {
      if (this.#parents.has(name)) return true
      const dot = name.indexOf('.')
      if (dot < 0) return false
      name = name.slice(dot + 1)
    }
  }
}
