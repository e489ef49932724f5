import { type Authority, parseTarget, type Scheme, type Target } from '../lib/authority.ts'
import { pathReadings } from './path.ts'

interface Entry {
  readonly pool: string
  readonly target: Target
  /** Undefined covers every path. */
  readonly glob: RegExp | undefined
}

/** What is mapped at one authority: decided once per connection, asked once per request. */
export class Route {
  readonly #entries: readonly Entry[]

  constructor(entries: readonly Entry[]) {
    this.#entries = entries
  }

  /**
   * The pool that covers a path as sent (query included), or undefined. The path is judged in every reading
   * that a server might give it; where they disagree no token goes out.
   */
  pick(path: string): string | undefined {
    const first = this.#entries[0] as Entry
    if (first.glob === undefined) return first.pool
    let agreed: string | undefined
    let started = false
    for (const reading of pathReadings(path)) {
      const pool = this.#entries.find((entry) => !entry.glob || entry.glob.test(reading))?.pool
      if (started && pool !== agreed) return undefined
      agreed = pool
      started = true
    }
    return agreed
  }
}

/** Targets of every pool, compiled: most specific first. */
export class Router {
  readonly #exact = new Map<string, Entry[]>()
  readonly #wildcard = new Map<string, Entry[]>()

  constructor(pools: Readonly<Record<string, { readonly targets: readonly string[] }>>) {
    for (const [pool, { targets }] of Object.entries(pools)) {
      for (const text of targets) {
        const target = parseTarget(text)
        if (typeof target === 'string') throw new Error(`unreadable target ${text}: ${target}`)
        const table = target.wildcard ? this.#wildcard : this.#exact
        const key = `${target.scheme} ${target.host} ${target.port}`
        const entries = table.get(key) ?? []
        entries.push({
          pool,
          target,
          glob: target.path === undefined ? undefined : compileGlob(target.path),
        })
        table.set(key, entries)
      }
    }
    for (const table of [this.#exact, this.#wildcard]) {
      for (const entries of table.values()) entries.sort((a, b) => specificity(b) - specificity(a))
    }
  }

  /** What is mapped at an authority, or undefined; the host must be normalised. */
  find(scheme: Scheme, { host, port }: Authority): Route | undefined {
    const entries = [...(this.#exact.get(`${scheme} ${host} ${port}`) ?? [])]
    for (let dot = host.indexOf('.'); dot !== -1; dot = host.indexOf('.', dot + 1)) {
      entries.push(...(this.#wildcard.get(`${scheme} ${host.slice(dot + 1)} ${port}`) ?? []))
    }
    return entries.length > 0 ? new Route(entries) : undefined
  }
}

/** Longer literal path first; a path before none. */
function specificity({ target }: Entry): number {
  return target.path === undefined ? 0 : target.path.replaceAll('*', '').length
}

/** `*` stands for any run of characters, `/` included, as in Caddy's path matcher. */
export function compileGlob(glob: string): RegExp {
  const literal = glob.split(/\*+/).map((part) => part.replace(/[.+?^${}()|[\]\\]/g, '\\$&'))
  return new RegExp(`^${literal.join('.*')}$`, 's')
}
