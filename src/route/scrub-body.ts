import { headerValues, type RawHeaders } from '../lib/headers.ts'
import { REDACTED } from '../lib/secret.ts'

/** Codings (RFC 9110 §8.4.1) that a body can be searched in. */
export type Coding = 'identity' | 'gzip' | 'deflate' | 'br'

const CODINGS: Readonly<Record<string, Coding>> = {
  identity: 'identity',
  gzip: 'gzip',
  'x-gzip': 'gzip',
  deflate: 'deflate',
  br: 'br',
}

/** Digests of a body that may be another one now (RFC 9530, RFC 3230, RFC 1864). */
const DIGESTS = new Set(['content-digest', 'repr-digest', 'digest', 'content-md5'])

/**
 * Asks, in place, only for answers that can be searched: no coding that cannot be read, and nothing cut into
 * ranges, which would part a token (RFC 9110 §14.2 lets a server answer in full).
 */
export function askSearchable(headers: RawHeaders): void {
  for (let i = headers.length - 2; i >= 0; i -= 2) {
    const name = (headers[i] as string).toLowerCase()
    if (name === 'range' || name === 'if-range') headers.splice(i, 2)
    else if (name === 'accept-encoding') headers[i + 1] = searchable(headers[i + 1] as string)
  }
}

function searchable(accepted: string): string {
  const kept = accepted
    .split(',')
    .map((part) => part.trim())
    .filter((part) => Object.hasOwn(CODINGS, (part.split(';')[0] as string).trim().toLowerCase()))
  return kept.length > 0 ? kept.join(', ') : 'identity'
}

/** How a body is coded; undefined for what cannot be searched: an unknown coding, or several. */
export function codingOf(headers: readonly string[]): Coding | undefined {
  const named = headerValues(headers, 'content-encoding')
    .flatMap((value) => value.split(','))
    .map((name) => name.trim().toLowerCase())
    .filter((name) => name !== '' && name !== 'identity')
  if (named.length === 0) return 'identity'
  return named.length === 1 && Object.hasOwn(CODINGS, named[0] as string)
    ? CODINGS[named[0] as string]
    : undefined
}

/** The headers of an answer whose body leaves searched, and decoded where it came coded. */
export function searchedHeaders(headers: RawHeaders, coding: Coding): RawHeaders {
  const kept: RawHeaders = []
  for (let i = 0; i < headers.length; i += 2) {
    const name = (headers[i] as string).toLowerCase()
    if (DIGESTS.has(name) || name === 'content-encoding') continue
    if (coding !== 'identity' && name === 'content-length') continue
    kept.push(headers[i] as string, headers[i + 1] as string)
  }
  return kept
}

/**
 * Replaces a token in a body that comes piece by piece, as it is and as JSON and URLs write it, by as many bytes:
 * lengths that were announced stay true, those inside the body too. It holds back only what may be the
 * beginning of a token, so never more than one token's length.
 */
export class TokenScrubber {
  readonly #spellings: readonly Buffer[]
  readonly #longest: number
  #held: Buffer | undefined

  constructor(token: string) {
    this.#spellings = spellingsOf(token)
    this.#longest = Math.max(...this.#spellings.map(({ length }) => length))
  }

  /** What of the body can go on now, which may be nothing. */
  push(piece: Buffer): Buffer {
    const text = this.#held ? Buffer.concat([this.#held, piece]) : piece
    this.#held = undefined
    const [clean, from] = this.#replace(text)
    for (let at = Math.max(from, clean.length - this.#longest + 1); at < clean.length; at++) {
      if (!this.#mayBegin(clean, at)) continue
      // A copy: what comes from a socket may be a window on something far larger.
      this.#held = Buffer.from(clean.subarray(at))
      return clean.subarray(0, at)
    }
    return clean
  }

  /** What was held back: the body ends, so it was no token. */
  end(): Buffer {
    const rest = this.#held ?? Buffer.alloc(0)
    this.#held = undefined
    return rest
  }

  /** The text without a token in it, and where the last one ended. */
  #replace(text: Buffer): [clean: Buffer, end: number] {
    let clean = text
    let from = 0
    const next = this.#spellings.map((spelling) => text.indexOf(spelling))
    for (;;) {
      let first: number | undefined
      for (const [i, at] of next.entries()) {
        const best = first === undefined ? -1 : (next[first] as number)
        if (at !== -1 && (best === -1 || at < best)) first = i
      }
      if (first === undefined) return [clean, from]
      const at = next[first] as number
      const end = at + (this.#spellings[first] as Buffer).length
      // The piece may be somebody else's to read, too.
      if (clean === text) clean = Buffer.from(text)
      clean.fill('*', at, end)
      // A part of the word could be the beginning of another token.
      if (end - at >= REDACTED.length) clean.write(REDACTED, at, 'latin1')
      from = end
      for (const [i, spelling] of this.#spellings.entries()) {
        const known = next[i] as number
        if (known !== -1 && known < from) next[i] = text.indexOf(spelling, from)
      }
    }
  }

  #mayBegin(text: Buffer, at: number): boolean {
    const length = text.length - at
    return this.#spellings.some(
      (spelling) =>
        spelling[0] === text[at] &&
        spelling.length > length &&
        spelling.compare(text, at, text.length, 0, length) === 0,
    )
  }
}

/** Longest first, so that of two that begin at one place the whole one is found. */
function spellingsOf(token: string): Buffer[] {
  const json = JSON.stringify(token).slice(1, -1)
  const percent = encodeURIComponent(token)
  const lower = percent.replace(/%[\dA-F]{2}/g, (escaped) => escaped.toLowerCase())
  // PHP and others escape slashes in JSON.
  const written = [token, json, json.replaceAll('/', '\\/'), percent, lower]
  return [...new Set(written)].map((text) => Buffer.from(text)).sort((a, b) => b.length - a.length)
}
