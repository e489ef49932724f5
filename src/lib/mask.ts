import { REDACTED } from './secret.ts'

/** Names that hold a secret whatever stands around them, compared in lower case without separators. */
const SECRET_PART =
  /token|secret|passw|apikey|accesskey|signature|credential|assertion|session|jwt|authorization/

/** Names that hold a secret only when they are the whole name. */
const SECRET_NAME = new Set(['auth', 'code', 'key', 'otp', 'pass', 'pwd', 'sid', 'sig'])

/** A JWS or JWE in compact form (RFC 7519 §3.1), wherever it stands. */
const JWT = /eyJ[\w-]{8,}\.[\w-]*\.[\w.-]*/g

/**
 * A URL as it may be shown: userinfo, the values of query parameters that look secret by name, and JWTs are
 * replaced. `extra` adds parameter names, lower-case. The rest stays as it was sent, malformed or not.
 */
export function maskUrl(url: string, extra?: ReadonlySet<string>): string {
  const start = url.search(/[?#]/)
  const head = maskUserinfo(start === -1 ? url : url.slice(0, start))
  const masked = start === -1 ? head : head + maskParameters(url.slice(start), extra)
  return maskJwts(masked)
}

/** Text with every JWT in it replaced. */
export function maskJwts(text: string): string {
  return text.includes('eyJ') ? text.replace(JWT, REDACTED) : text
}

function maskUserinfo(head: string): string {
  return head.includes('@') ? head.replace(/^([^/]*\/\/)?[^/]*@/, `$1${REDACTED}@`) : head
}

/** Query and fragment alike (the implicit grant puts its token after the `#`), and what a form sends. */
export function maskParameters(text: string, extra?: ReadonlySet<string>): string {
  return text.replace(/(^|[?#&;])([^=&;#?]*)=([^&;#]*)/g, (whole, separator, name, value) =>
    value !== '' && isSecret(name, extra) ? `${separator}${name}=${REDACTED}` : whole,
  )
}

function isSecret(encoded: string, extra: ReadonlySet<string> | undefined): boolean {
  let name = encoded
  try {
    name = decodeURIComponent(encoded)
  } catch {
    // A stray percent sign: the name is judged as it was sent.
  }
  return isSecretName(name, extra)
}

/** Whether what is called so is a secret: a parameter, a header, a member of JSON. `extra` is in lower case. */
export function isSecretName(given: string, extra?: ReadonlySet<string>): boolean {
  const name = given.toLowerCase()
  if (extra?.has(name)) return true
  const bare = name.replace(/[^a-z0-9]/g, '')
  return SECRET_NAME.has(bare) || SECRET_PART.test(bare)
}
