import type { RequirementConfig } from '../config/schema.ts'
import { compileGlob } from './match.ts'
import { pathReadings } from './path.ts'

/** What a token must hold; both lists may be empty, not both at once. */
export interface Needs {
  readonly scopes: readonly string[]
  /** Name of a claim, or a JSON pointer into the claims, and what it must be or hold. */
  readonly claims: readonly (readonly [name: string, value: string | number | boolean])[]
}

interface Rule extends Needs {
  readonly methods: ReadonlySet<string> | undefined
  readonly glob: RegExp | undefined
}

/** Sets of rules whose needs are kept; more are made anew. */
const MAX_KEPT = 256

/** A pool's `requires`, compiled: all rules that cover a request hold at once. */
export class Requirements {
  readonly #rules: readonly Rule[]
  readonly #kept = new Map<string, Needs>()

  /** Undefined where nothing is required: then a request costs nothing. */
  static of(requires: readonly RequirementConfig[]): Requirements | undefined {
    return requires.length > 0 ? new Requirements(requires) : undefined
  }

  private constructor(requires: readonly RequirementConfig[]) {
    this.#rules = requires.map(({ methods, path, scopes, claims }) => ({
      methods: methods && new Set(methods),
      glob: path === undefined ? undefined : compileGlob(path),
      scopes,
      claims: Object.entries(claims),
    }))
  }

  /**
   * What a request needs; undefined for nothing. Its path is judged in every reading that a server might give
   * it, and what any of them requires is required.
   */
  for(method: string, path: string): Needs | undefined {
    let readings: string[] | undefined
    let key = ''
    for (const [index, { methods, glob }] of this.#rules.entries()) {
      if (methods && !methods.has(method) && !(method === 'HEAD' && methods.has('GET'))) continue
      if (glob) {
        readings ??= pathReadings(path)
        // An empty reading says that there is no end of them.
        if (!readings.some((reading) => reading === '' || glob.test(reading))) continue
      }
      key += `${index},`
    }
    return key === '' ? undefined : this.#needs(key)
  }

  #needs(key: string): Needs {
    const kept = this.#kept.get(key)
    if (kept) return kept
    const rules = key
      .split(',')
      .slice(0, -1)
      .map((index) => this.#rules[Number(index)] as Rule)
    const needs = {
      scopes: [...new Set(rules.flatMap(({ scopes }) => scopes))],
      claims: rules.flatMap(({ claims }) => claims),
    }
    if (this.#kept.size < MAX_KEPT) this.#kept.set(key, needs)
    return needs
  }
}
