import { isIP } from 'node:net'
import { z } from 'zod'
import { type Authority, parseTarget } from '../lib/authority.ts'
import { MAX_TIMER_MS } from '../lib/clock.ts'
import { Secret } from '../lib/secret.ts'
import { parseDuration, parseRate, parseSize } from '../lib/units.ts'

/**
 * The scalar values of the configuration: each reads a string and gives what the program works with.
 * Patterns serve the editor only, so they let `${…}` references through; the parsers decide.
 */

const REFERENCE = '.*\\$\\{(env|file):.*'
const pattern = (text: string) => ({ pattern: `^(${text}|${REFERENCE})$` })

const parsed = <T>(
  read: (text: string) => T | undefined,
  expected: string,
  meta: { pattern?: string } = {},
) =>
  z
    .string()
    .meta(meta)
    .transform((text, context) => {
      const value = read(text)
      if (value === undefined) {
        context.addIssue({ code: 'custom', message: `expected ${expected}` })
        return z.NEVER
      }
      return value
    })

/** An object that knows no other keys; a stranger is answered with the nearest known name. */
export const object = <Shape extends z.core.$ZodLooseShape>(shape: Shape) =>
  z.strictObject(shape, {
    // One line per unknown key, in the order of `issue.keys`: `issues.ts` takes them apart again.
    error: (issue) =>
      issue.code === 'unrecognized_keys'
        ? (issue.keys as string[]).map((key) => unknownKey(key, Object.keys(shape))).join('\n')
        : undefined,
  })

function unknownKey(key: string, known: readonly string[]): string {
  const nearest = known
    .map((name) => ({ name, distance: editDistance(key.toLowerCase(), name.toLowerCase()) }))
    .sort((a, b) => a.distance - b.distance)[0]
  if (nearest && nearest.distance <= Math.max(2, nearest.name.length / 3)) {
    return `unknown key, did you mean "${nearest.name}"?`
  }
  return `unknown key, expected one of ${known.join(', ')}`
}

/** Levenshtein distance; keys are short. */
function editDistance(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, index) => index)
  for (let i = 1; i <= a.length; i++) {
    const next = [i]
    for (let j = 1; j <= b.length; j++) {
      const replace = (row[j - 1] as number) + (a[i - 1] === b[j - 1] ? 0 : 1)
      next.push(Math.min(replace, (row[j] as number) + 1, (next[j - 1] as number) + 1))
    }
    row = next
  }
  return row[b.length] as number
}

export const duration = parsed(
  parseDuration,
  'a duration such as "250ms", "30s", "5m", "1h" or "1d"',
  pattern('\\d+(\\.\\d+)?(ms|s|m|h|d)'),
)
/** A time-out is a real one: not zero, and no longer than a timer of Node's can be. */
export const timeout = duration.refine(
  (ms) => ms >= 1 && ms <= MAX_TIMER_MS,
  'expected a duration from 1ms to 24d',
)
export const size = parsed(
  parseSize,
  'a size such as "64KiB" or "10MiB"',
  pattern('\\d+(B|KiB|MiB|GiB)'),
)
export const rate = parsed(
  parseRate,
  'a rate such as "10/s", "450/m", "100/10s" or "10000/d"',
  pattern('\\d+/\\d*(ms|s|m|h|d)'),
)

export const secret = z
  .string()
  .min(1, 'expected a non-empty string')
  .transform((text) => new Secret(text))

/** Bearer tokens travel in a header: outer white space goes, control characters are refused. */
const CONTROL = /[\x00-\x1f\x7f]/
export const token = z
  .string()
  .transform((text) => text.trim())
  .refine(
    (text) => text !== '' && !CONTROL.test(text),
    'expected a token without control characters',
  )
  .transform((text) => new Secret(text))

/** `HOST:PORT` or `PORT`, which means loopback; undefined for what is neither. */
export function parseListen(text: string): Authority | undefined {
  const match = /^(?:(\[[0-9a-fA-F:.]+\]|[^:[\]\s/]+):)?(\d{1,5})$/.exec(text)
  if (!match || Number(match[2]) > 65535) return undefined
  return { host: (match[1] ?? '127.0.0.1').replace(/^\[|\]$/g, ''), port: Number(match[2]) }
}
export const listenAddress = parsed(parseListen, 'HOST:PORT', pattern('([^/]+:)?\\d{1,5}'))

export const target = z.string().superRefine((text, context) => {
  const result = parseTarget(text)
  if (typeof result === 'string') context.addIssue({ code: 'custom', message: result })
})

/** `ADDRESS` or `ADDRESS/BITS`. */
export function isCidr(text: string): boolean {
  const [address, bits, ...rest] = text.split('/')
  const family = isIP(address ?? '')
  if (family === 0 || rest.length > 0) return false
  return bits === undefined || (/^\d{1,3}$/.test(bits) && Number(bits) <= (family === 4 ? 32 : 128))
}
export const cidr = z.string().refine(isCidr, 'expected an IP address or a CIDR')

/** Who may be tunnelled to: a host pattern, an address or a CIDR. A blind tunnel shows no path. */
export const tunnelPattern = z.string().superRefine((text, context) => {
  if (isCidr(text)) return
  const result = parseTarget(text)
  if (typeof result === 'string' || result.path !== undefined) {
    context.addIssue({
      code: 'custom',
      message: 'expected [scheme://]host[:port], *.domain, an IP address or a CIDR',
    })
  }
})

/** Fields that frame the message or belong to one connection (RFC 9110 §7.6.1, RFC 9112 §6). */
const FRAMING = new Set(
  'host content-length transfer-encoding connection keep-alive te trailer upgrade expect'.split(
    ' ',
  ),
)
/** A field of a response, to look at. */
export const fieldName = z.string().regex(/^[!#$%&'*+.^_`|~0-9A-Za-z-]+$/, 'expected a header name')
/** A field of a request, to be set. */
export const headerName = fieldName.refine(
  (text) => !FRAMING.has(text.toLowerCase()) && !/^proxy-/i.test(text),
  'expected a header that Cupbearer does not set by itself',
)
export const headerText = z
  .string()
  .regex(/^[^\x00-\x08\x0a-\x1f\x7f]*$/, 'expected no control characters')
export const headers = z.record(headerName, headerText)

const NAME = /^[A-Za-z0-9][A-Za-z0-9._@+-]{0,127}$/
export const name = z.string().regex(NAME, 'expected a name of letters, digits and . _ @ + -')
/** A proxy user name; `+` starts the parameters, as in `name+session=abc`. */
export const clientName = z
  .string()
  .regex(/^[A-Za-z0-9][A-Za-z0-9._@-]{0,127}$/, 'expected a name of letters, digits and . _ @ -')

const isRegex = (text: string): boolean => {
  try {
    new RegExp(text)
    return true
  } catch {
    return false
  }
}
export const regex = z.string().refine(isRegex, 'expected a regular expression')
/** A literal, or `/REGEX/`. */
export const literalOrRegex = z
  .string()
  .refine(
    (text) => !/^\/.*\/$/s.test(text) || isRegex(text.slice(1, -1)),
    'expected a regular expression between the slashes',
  )
export const pointer = z.string().regex(/^\/.*$/, 'expected a JSON pointer such as "/data/token"')

export const httpUrl = z.url({
  protocol: /^https?$/,
  error: 'expected an http:// or https:// URL',
})

const EGRESS_URL = /^(direct:|local:\/\/.+|https?:\/\/.+|socks5h?:\/\/.+)$/
export const egressUrl = z
  .string()
  .regex(EGRESS_URL, 'expected direct:, local://ADDRESS, http://…, https://… or socks5://…')
  .superRefine((text, context) => {
    if (text === 'direct:' || !EGRESS_URL.test(text)) return
    if (text.startsWith('local://')) {
      if (isIP(text.slice('local://'.length).replace(/^\[(.*)\]$/, '$1')) === 0) {
        context.addIssue({ code: 'custom', message: 'expected an IP address after local://' })
      }
    } else if (!URL.canParse(text)) {
      context.addIssue({ code: 'custom', message: 'expected a URL' })
    }
  })
  .transform((text) => new Secret(text))

/** A key for sealing at rest: 32 bytes. */
export const sealKey = z
  .string()
  .refine(
    (text) => /^[A-Za-z0-9+/_-]{43}=?$/.test(text) && Buffer.from(text, 'base64').length === 32,
    'expected 32 bytes in base64',
  )
  .transform((text) => new Secret(text))
