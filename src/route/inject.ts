import type { InjectConfig } from '../config/schema.ts'
import { connectionListed, isHopByHop, type RawHeaders } from '../lib/headers.ts'
import type { Secret } from '../lib/secret.ts'

/** What a template may use: `{token}`, `{id}`, `{claim:NAME}`. */
export interface InjectionValues {
  readonly token: Secret
  /** The credential's id. */
  readonly credential: string
  /** Headers fixed for the credential, flat `[name, value, …]`. */
  readonly headers: readonly string[]
  claim(name: string): string
}

export interface OutgoingRequest {
  readonly path: string
  readonly headers: RawHeaders
}

/** Fields that the client leg owns: the upstream leg sets its own `Host`, framing is undici's, `Expect` was answered. */
const OWN = new Set(['host', 'expect', 'trailer'])

/** Hints to Cupbearer itself (contract "On the wire"). */
const HINT = 'cupbearer-'

/**
 * Headers for a request that leaves without a token: end-to-end fields in their order and case, `Host` as dialled.
 */
export function forwardHeaders(headers: readonly string[], host: string): RawHeaders {
  return endToEnd(headers, host, undefined)
}

function endToEnd(
  headers: readonly string[],
  host: string,
  dropped: ((lowerName: string, output: RawHeaders) => boolean) | undefined,
): RawHeaders {
  const output: RawHeaders = ['host', host]
  const listed = connectionListed(headers)
  for (let i = 0; i < headers.length; i += 2) {
    const name = headers[i] as string
    const lower = name.toLowerCase()
    if (isHopByHop(lower) || OWN.has(lower) || lower.startsWith(HINT)) continue
    // `Connection: content-length` must not cost the body its frame.
    if (listed?.has(lower) && lower !== 'content-length') continue
    if (dropped?.(lower, output)) continue
    output.push(name, headers[i + 1] as string)
  }
  return output
}

/** A pool's `inject`, compiled. */
export class Injector {
  readonly #config: InjectConfig
  readonly #template: (values: InjectionValues) => string
  /** Lower-cased name of the injected header, or `cookie`; undefined for a query parameter. */
  readonly #header: string | undefined
  /** As the header is written when the client did not send it. */
  readonly #headerName: string
  readonly #profiles = new WeakMap<readonly string[], ReadonlySet<string>>()

  constructor(config: InjectConfig) {
    this.#config = config
    this.#template = compileTemplate(config.value)
    this.#header =
      'header' in config ? config.header.toLowerCase() : 'cookie' in config ? 'cookie' : undefined
    this.#headerName = 'header' in config ? config.header : 'Cookie'
  }

  /** Puts the token where the pool wants it; whatever the client sent there goes, and its `Authorization` always. */
  apply(
    request: { readonly path: string; readonly headers: readonly string[] },
    host: string,
    values: InjectionValues,
  ): OutgoingRequest {
    const value = this.#template(values)
    const profile = this.#profileNames(values.headers)
    let at = -1
    const headers = endToEnd(request.headers, host, (lower, output) => {
      if (lower === this.#header) {
        // The injected field takes the place of the client's own.
        if (at === -1) at = output.length
        return true
      }
      return lower === 'authorization' || profile.has(lower)
    })
    for (const field of values.headers) headers.push(field)
    if (this.#header === undefined) {
      const name = 'query' in this.#config ? this.#config.query : ''
      return { path: setQuery(request.path, name, value), headers }
    }
    const field =
      'cookie' in this.#config ? setCookie(request.headers, this.#config.cookie, value) : value
    if (at === -1) headers.push(this.#headerName, field)
    else headers.splice(at, 0, this.#headerName, field)
    return { path: request.path, headers }
  }

  #profileNames(headers: readonly string[]): ReadonlySet<string> {
    let names = this.#profiles.get(headers)
    if (!names) {
      names = new Set(
        headers.filter((_, index) => index % 2 === 0).map((name) => name.toLowerCase()),
      )
      this.#profiles.set(headers, names)
    }
    return names
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
      if (trimmed !== '' && trimmed.split('=', 1)[0] !== name) kept.push(trimmed)
    }
  }
  kept.push(`${name}=${value}`)
  return kept.join('; ')
}
