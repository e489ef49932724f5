import type { InjectConfig } from '../config/schema.ts'
import { connectionListed, HOP_BY_HOP, type RawHeaders } from '../lib/headers.ts'
import { Secret } from '../lib/secret.ts'

/** What a template may use: `{token}`, `{id}`, `{claim:NAME}`. */
export interface InjectionValues {
  readonly token: Secret
  /** The credential's id. */
  readonly credential: string
  /** Headers fixed for the credential, flat `[name, value, …]`. */
  readonly headers: readonly string[]
  claim(name: string): string
}

/** The token as it stands in a request. */
export interface Injection {
  readonly place: 'header' | 'query' | 'cookie'
  readonly name: string
  readonly value: Secret
}

export interface OutgoingRequest {
  readonly path: string
  readonly headers: RawHeaders
}

/** Fields that the upstream leg sets itself, or that were dealt with here: `Expect` is answered by the proxy. */
const OWN = ['host', 'expect']

/** Never forwarded, whatever the pool. */
const FORWARD_DROPS: ReadonlySet<string> = new Set([...HOP_BY_HOP, ...OWN])

/** Hints to Cupbearer itself (contract "On the wire"). */
const HINT = 'cupbearer-'

/** What takes the place of the client's field of that name, or comes last. */
interface Injected {
  readonly lowerName: string
  readonly name: string
  readonly value: string
}

/** Headers for a request without a token: end-to-end fields in their order and case, `Host` as dialled. */
export function forwardHeaders(headers: readonly string[], host: string): RawHeaders {
  return endToEnd(headers, host, FORWARD_DROPS, undefined)
}

/** The trailers that may follow these headers: none that would speak in place of one of them, and no hint. */
export function forwardTrailers(trailers: RawHeaders, headers: readonly string[]): RawHeaders {
  if (trailers.length === 0) return trailers
  const sent = new Set(headers.filter((_, i) => i % 2 === 0).map((name) => name.toLowerCase()))
  return trailers.filter((_, i) => {
    const name = (trailers[i & ~1] as string).toLowerCase()
    return !sent.has(name) && !name.startsWith(HINT)
  })
}

function endToEnd(
  headers: readonly string[],
  host: string,
  dropped: ReadonlySet<string>,
  injected: Injected | undefined,
): RawHeaders {
  const output: RawHeaders = []
  const listed = connectionListed(headers)
  let placed = false
  let hostPlaced = false
  for (let i = 0; i < headers.length; i += 2) {
    const name = headers[i] as string
    const lower = name.toLowerCase()
    if (dropped.has(lower)) {
      if (lower === 'host' && !hostPlaced) {
        output.push(name, host)
        hostPlaced = true
      }
      // Of what one connection says of itself, this one word is true of the next one, too: trailers are passed on.
      if (lower === 'te' && headers[i + 1] === 'trailers') output.push(name, 'trailers')
      if (placed || lower !== injected?.lowerName) continue
      placed = true
      output.push(injected.name, injected.value)
      continue
    }
    if (lower.startsWith(HINT)) continue
    // `Connection: content-length` must not cost the body its frame.
    if (listed?.has(lower) && lower !== 'content-length') continue
    output.push(name, headers[i + 1] as string)
  }
  if (injected && !placed) output.push(injected.name, injected.value)
  if (!hostPlaced) output.unshift('host', host)
  return output
}

/** A pool's `inject`, compiled. */
export class Injector {
  readonly #config: InjectConfig
  readonly #template: (values: InjectionValues) => string
  /** As the header is written; undefined for a query parameter. */
  readonly #name: string | undefined
  readonly #lowerName: string
  /** What is dropped, by the credential's header profile. */
  readonly #drops = new WeakMap<readonly string[], ReadonlySet<string>>()

  constructor(config: InjectConfig) {
    this.#config = config
    this.#template = compileTemplate(config.value)
    this.#name = 'header' in config ? config.header : 'cookie' in config ? 'Cookie' : undefined
    this.#lowerName = this.#name?.toLowerCase() ?? ''
  }

  /** Puts the token where the pool wants it; whatever the client sent there goes, and its `Authorization` and `DPoP` always. */
  apply(
    request: { readonly path: string; readonly headers: readonly string[] },
    host: string,
    values: InjectionValues,
  ): OutgoingRequest {
    const config = this.#config
    const rendered = this.#template(values)
    const value =
      'cookie' in config ? setCookie(request.headers, config.cookie, rendered) : rendered
    const headers = endToEnd(
      request.headers,
      host,
      this.#dropsFor(values.headers),
      this.#name === undefined
        ? undefined
        : { lowerName: this.#lowerName, name: this.#name, value },
    )
    for (const field of values.headers) headers.push(field)
    const path = 'query' in config ? setQuery(request.path, config.query, rendered) : request.path
    return { path, headers }
  }

  /** What `apply` puts into a request, for whoever sends it. */
  render(values: InjectionValues): Injection {
    const config = this.#config
    const value = new Secret(this.#template(values))
    if ('query' in config) return { place: 'query', name: config.query, value }
    if ('cookie' in config) return { place: 'cookie', name: config.cookie, value }
    return { place: 'header', name: config.header, value }
  }

  #dropsFor(profile: readonly string[]): ReadonlySet<string> {
    let drops = this.#drops.get(profile)
    if (!drops) {
      const names = profile.filter((_, index) => index % 2 === 0).map((name) => name.toLowerCase())
      drops = new Set([...FORWARD_DROPS, 'authorization', 'dpop', ...names])
      if (this.#name !== undefined) drops = new Set([...drops, this.#lowerName])
      this.#drops.set(profile, drops)
    }
    return drops
  }
}

function compileTemplate(template: string): (values: InjectionValues) => string {
  const parts = template.split(/(\{(?:token|id|claim:[^}]+)\})/)
  return (values) => {
    let text = ''
    for (const part of parts) {
      if (part === '{token}') text += values.token.reveal()
      else if (part === '{id}') text += values.credential
      else if (part.startsWith('{claim:') && part.endsWith('}'))
        text += values.claim(part.slice(7, -1))
      else text += part
    }
    return text
  }
}

/** The query with every parameter of that name replaced by one. */
function setQuery(path: string, name: string, value: string): string {
  const mark = path.indexOf('?')
  const kept =
    mark === -1
      ? []
      : path
          .slice(mark + 1)
          .split('&')
          .filter((pair) => pair !== '' && decodeName(pair.split('=', 1)[0] as string) !== name)
  kept.push(`${encodeURIComponent(name)}=${encodeURIComponent(value)}`)
  return `${mark === -1 ? path : path.slice(0, mark)}?${kept.join('&')}`
}

function decodeName(text: string): string {
  try {
    return decodeURIComponent(text.replaceAll('+', ' '))
  } catch {
    return text
  }
}

/** The client's cookies without the one of that name, then ours (RFC 6265 §5.4). */
function setCookie(headers: readonly string[], name: string, value: string): string {
  const kept: string[] = []
  for (let i = 0; i < headers.length; i += 2) {
    if ((headers[i] as string).toLowerCase() !== 'cookie') continue
    for (const pair of (headers[i + 1] as string).split(';')) {
      const trimmed = pair.trim()
      // White space around the name is no part of it, for whoever reads it (RFC 6265 §5.2).
      if (trimmed !== '' && trimmed.split('=', 1)[0]?.trimEnd() !== name) kept.push(trimmed)
    }
  }
  kept.push(`${name}=${value}`)
  return kept.join('; ')
}
