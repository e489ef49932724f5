import type { ConfigIssue } from '../errors.ts'
import { formatPath } from './path.ts'

const MAX_DEPTH = 64

/**
 * Reads JSON (RFC 8259) and says where it is wrong by line and column. `JSON.parse` quotes the text in its
 * errors, and with it secrets; it also lets a repeated key win silently, which hides a whole pool.
 */
export function readJson(text: string): { value: unknown } | { issues: ConfigIssue[] } {
  const source = text.startsWith('\uFEFF') ? text.slice(1) : text
  const scanner = new Scanner(source)
  const issues = scanner.scan()
  return issues.length > 0 ? { issues } : { value: JSON.parse(source) }
}

class SyntaxProblem extends Error {}

/** Walks the text once and keeps what it finds wrong: every repeated key, and the first syntax error. */
class Scanner {
  readonly #text: string
  readonly #issues: ConfigIssue[] = []
  readonly #path: (string | number)[] = []
  #at = 0

  constructor(text: string) {
    this.#text = text
  }

  scan(): ConfigIssue[] {
    try {
      this.#value()
      this.#space()
      if (this.#at < this.#text.length) this.#fail('expected the end of the file')
    } catch (error) {
      if (!(error instanceof SyntaxProblem)) throw error
      this.#issues.push({ path: '', message: error.message })
    }
    return this.#issues
  }

  #value(): void {
    this.#space()
    if (this.#path.length > MAX_DEPTH) this.#fail(`expected at most ${MAX_DEPTH} levels`)
    const char = this.#text[this.#at]
    if (char === '{') this.#object()
    else if (char === '[') this.#array()
    else if (char === '"') this.#string()
    else if (!this.#take(/-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?|true|false|null/y)) {
      this.#fail('expected a value')
    }
  }

  #object(): void {
    const seen = new Set<string>()
    this.#at++
    this.#space()
    if (this.#skip('}')) return
    do {
      this.#space()
      const start = this.#at
      if (this.#text[start] !== '"') this.#fail('expected a key in double quotes')
      const key = this.#string()
      this.#path.push(key)
      if (seen.has(key)) {
        const message = `stands here a second time (${this.#position(start)})`
        this.#issues.push({ path: formatPath(this.#path), message })
      }
      seen.add(key)
      this.#space()
      if (!this.#skip(':')) this.#fail('expected a colon')
      this.#value()
      this.#path.pop()
      this.#space()
    } while (this.#skip(','))
    if (!this.#skip('}')) this.#fail('expected a comma or }')
  }

  #array(): void {
    this.#at++
    this.#space()
    if (this.#skip(']')) return
    for (let index = 0; index === 0 || this.#skip(','); index++) {
      this.#path.push(index)
      this.#value()
      this.#path.pop()
      this.#space()
    }
    if (!this.#skip(']')) this.#fail('expected a comma or ]')
  }

  #string(): string {
    const start = this.#at
    if (!this.#take(/"(?:[^"\\\x00-\x1f]|\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4}))*"/y)) {
      this.#fail('expected a string that ends on its line, with known escapes only')
    }
    return JSON.parse(this.#text.slice(start, this.#at)) as string
  }

  #space(): void {
    this.#take(/[ \t\r\n]*/y)
  }

  #skip(char: string): boolean {
    if (this.#text[this.#at] !== char) return false
    this.#at++
    return true
  }

  #take(pattern: RegExp): boolean {
    pattern.lastIndex = this.#at
    if (!pattern.test(this.#text)) return false
    this.#at = pattern.lastIndex
    return true
  }

  #fail(expected: string): never {
    const comment = /\/[/*]|#/y
    comment.lastIndex = this.#at
    const hint = comment.test(this.#text) ? '; JSON has no comments' : ''
    throw new SyntaxProblem(`not JSON: ${expected} at ${this.#position(this.#at)}${hint}`)
  }

  #position(at: number): string {
    const before = this.#text.slice(0, at).split('\n')
    return `line ${before.length}, column ${(before.at(-1)?.length ?? 0) + 1}`
  }
}
