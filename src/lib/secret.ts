import { inspect } from 'node:util'

export const REDACTED = '[redacted]'

/**
 * A string that must not be shown: it prints, serialises and inspects as `[redacted]`.
 * Only injection, sources and the store call `reveal()`.
 */
export class Secret {
  readonly #value: string

  constructor(value: string) {
    this.#value = value
  }

  reveal(): string {
    return this.#value
  }

  equals(other: Secret): boolean {
    return this.#value === other.#value
  }

  toString(): string {
    return REDACTED
  }

  toJSON(): string {
    return REDACTED
  }

  [inspect.custom](): string {
    return REDACTED
  }
}
