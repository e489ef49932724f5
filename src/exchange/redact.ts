import { brotliDecompressSync, constants, gunzipSync, inflateSync } from 'node:zlib'
import { headerValue, type RawHeaders } from '../lib/headers.ts'
import { isSecretName, maskJwts, maskParameters, maskUrl } from '../lib/mask.ts'
import { REDACTED } from '../lib/secret.ts'

/** What is secret in the messages that a trace records. */
export interface Secrets {
  /** Header names whose value is replaced beside those known to be secret; lower case. */
  readonly headers: ReadonlySet<string>
  /** Query parameters and members of JSON likewise. */
  readonly names: ReadonlySet<string>
}

/** Fields whose value is a URL, or holds one. */
const URL_FIELDS = new Set(['location', 'content-location', 'referer', 'refresh', 'link', 'origin'])

const SCHEME = /^(basic|bearer|digest|dpop|hawk|negotiate|ntlm|token|aws4-hmac-sha256)\s/i

/** A message's fields as they may be shown: the same names in the same order, every secret replaced. */
export function redactHeaders(
  headers: readonly string[],
  values: readonly string[],
  secrets: Secrets,
): RawHeaders {
  const shown: RawHeaders = []
  for (let i = 0; i < headers.length; i += 2) {
    const name = headers[i] as string
    shown.push(name, redactValue(name.toLowerCase(), headers[i + 1] as string, values, secrets))
  }
  return shown
}

function redactValue(
  name: string,
  value: string,
  values: readonly string[],
  secrets: Secrets,
): string {
  if (name === 'cookie') return value.replace(/([^=;\s]+)=[^;]*/g, `$1=${REDACTED}`)
  if (name === 'set-cookie') return value.replace(/^([^=;]*=)[^;]*/, `$1${REDACTED}`)
  if (isSecretHeader(name, secrets)) {
    return `${SCHEME.exec(value)?.[0] ?? ''}${REDACTED}`
  }
  const shown = URL_FIELDS.has(name) ? maskUrl(value, secrets.names) : maskJwts(value)
  return scrub(shown, values)
}

/** Secret values wherever they stand, as they are and as URLs and JSON write them. */
export function scrub(text: string, values: readonly string[]): string {
  let scrubbed = text
  for (const value of values) {
    const spellings = [value, encodeURIComponent(value), JSON.stringify(value).slice(1, -1)]
    for (const written of new Set(spellings)) scrubbed = scrubbed.replaceAll(written, REDACTED)
  }
  return scrubbed
}

/** A shorter one is no secret, and would be found in words. */
const LEAST_SECRET = 8

/** The secret values that a message brings: an upstream may echo them elsewhere. */
export function secretValues(headers: readonly string[], secrets: Secrets): string[] {
  const values: string[] = []
  for (let i = 0; i < headers.length; i += 2) {
    const name = (headers[i] as string).toLowerCase()
    const value = headers[i + 1] as string
    if (name === 'cookie') {
      for (const [, one] of value.matchAll(/=([^;]*)/g)) values.push((one as string).trim())
    } else if (name === 'set-cookie') values.push(/^[^=;]*=([^;]*)/.exec(value)?.[1] ?? '')
    else if (isSecretHeader(name, secrets)) values.push(value.replace(SCHEME, '').trim())
  }
  return values.filter((value) => value.length >= LEAST_SECRET)
}

/** The values of the secret parameters of a URL, as they are sent and as they are meant. */
export function secretParameters(url: string, { names }: Secrets): string[] {
  const start = url.indexOf('?')
  if (start === -1) return []
  return url
    .slice(start + 1)
    .split(/[&;#]/)
    .flatMap((part) => {
      const [name = '', ...value] = part.split('=')
      return isSecretName(name, names) ? spellingsOf(value.join('=')) : []
    })
    .filter((value) => value.length >= LEAST_SECRET)
}

function spellingsOf(encoded: string): string[] {
  try {
    return [...new Set([encoded, decodeURIComponent(encoded)])]
  } catch {
    return [encoded]
  }
}

function isSecretHeader(name: string, secrets: Secrets): boolean {
  return name.startsWith('proxy-') || isSecretName(name, secrets.headers)
}

const TEXT_TYPE = /^\s*(text\/|application\/([\w.+-]*\+)?(json|xml|x-ndjson|javascript|graphql))/i
const FORM_TYPE = /^\s*application\/x-www-form-urlencoded/i

/** Whether a body of this message may be recorded: text of a coding that can be read. */
export function isReadable(headers: readonly string[]): boolean {
  const type = headerValue(headers, 'content-type') ?? ''
  if (!TEXT_TYPE.test(type) && !FORM_TYPE.test(type)) return false
  const coding = headerValue(headers, 'content-encoding')?.trim().toLowerCase() ?? 'identity'
  return coding === 'identity' || coding in DECODERS
}

const partial = { finishFlush: constants.Z_SYNC_FLUSH }
const DECODERS: Readonly<Record<string, (body: Buffer, maxOutputLength: number) => Buffer>> = {
  gzip: (body, maxOutputLength) => gunzipSync(body, { ...partial, maxOutputLength }),
  'x-gzip': (body, maxOutputLength) => gunzipSync(body, { ...partial, maxOutputLength }),
  deflate: (body, maxOutputLength) => inflateSync(body, { ...partial, maxOutputLength }),
  br: (body, maxOutputLength) =>
    brotliDecompressSync(body, {
      finishFlush: constants.BROTLI_OPERATION_FLUSH,
      maxOutputLength,
    }),
}

/** Decoding stops at so many times the bytes that came: a bomb is not shown. */
const MAX_RATIO = 16

/**
 * The beginning of a body as text, every secret in it replaced; undefined where it cannot be read. A secret that
 * the cut has parted is replaced up to the cut.
 */
export function redactBody(
  headers: readonly string[],
  bytes: Buffer,
  cut: boolean,
  values: readonly string[],
  secrets: Secrets,
): string | undefined {
  const coding = headerValue(headers, 'content-encoding')?.trim().toLowerCase() ?? 'identity'
  const decode = DECODERS[coding]
  let body = bytes
  try {
    if (decode) body = decode(bytes, Math.max(1024, bytes.length * MAX_RATIO))
  } catch {
    return undefined
  }
  const text = body.toString('utf8')
  const type = headerValue(headers, 'content-type') ?? ''
  const masked = FORM_TYPE.test(type)
    ? maskParameters(text, secrets.names)
    : maskMembers(text, secrets.names)
  const scrubbed = scrub(maskJwts(masked), values)
  return cut ? withoutPart(scrubbed, values) : scrubbed
}

/** A name, and a text, a flat list or a word as its value; the last two may be cut off. */
const MEMBER =
  /"((?:[^"\\]|\\.){1,100})"(\s*:\s*)("(?:[^"\\]|\\.)*(?:"|\\?$)|\[[^[\]{}]*(?:\]|$)|[^\s,"[\]{}]+)/g

/** `code` and `key` are more often the name of an error or of an entry, which is short. */
const AMBIGUOUS = /^(code|key)$/i
const SHORT = 24

/** Members of JSON by their names, wherever they stand in a text; whole or cut off, valid or not. */
function maskMembers(text: string, names: ReadonlySet<string>): string {
  return text.replace(MEMBER, (whole, written: string, colon: string, value: string) => {
    const name = unescaped(written)
    if (!isSecretName(name, names)) return whole
    if (AMBIGUOUS.test(name) && value.length < SHORT && !names.has(name.toLowerCase())) return whole
    return `"${written}"${colon}"${REDACTED}"`
  })
}

function unescaped(name: string): string {
  try {
    return JSON.parse(`"${name}"`) as string
  } catch {
    return name
  }
}

/** A secret or JWT that the end has cut: what is left of it goes too. */
function withoutPart(text: string, values: readonly string[]): string {
  const whole = text.replace(/eyJ[\w-]*(\.[\w.-]*)?$/, REDACTED)
  for (const value of values) {
    for (let length = Math.min(value.length - 1, whole.length); length >= 4; length--) {
      if (whole.endsWith(value.slice(0, length))) return whole.slice(0, -length) + REDACTED
    }
  }
  return whole
}
