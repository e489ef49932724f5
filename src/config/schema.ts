import { z } from 'zod'
import { parseTarget } from '../lib/authority.ts'
import { Secret } from '../lib/secret.ts'
import { parseDuration, parseRate, parseSize } from '../lib/units.ts'

/**
 * The configuration's schema: what it accepts, its defaults, and the typed values that the rest of the
 * program gets (durations in ms, sizes in bytes, secrets wrapped). `config.schema.json` is made from it.
 */

const parsed = <T>(read: (text: string) => T | undefined, expected: string) =>
  z.string().transform((text, context) => {
    const value = read(text)
    if (value === undefined) {
      context.addIssue({ code: 'custom', message: `expected ${expected}` })
      return z.NEVER
    }
    return value
  })

const duration = parsed(parseDuration, 'a duration such as "250ms", "30s", "5m", "1h" or "1d"')
const size = parsed(parseSize, 'a size such as "64KiB" or "10MiB"')
const rate = parsed(parseRate, 'a rate such as "10/s", "450/m", "100/10s" or "10000/d"')
const secret = z
  .string()
  .min(1, 'expected a non-empty string')
  .transform((text) => new Secret(text))

/** Bearer tokens travel in a header: outer white space goes, control characters are refused. */
const CONTROL = /[\x00-\x1f\x7f]/
const token = z
  .string()
  .transform((text) => text.trim())
  .refine(
    (text) => text !== '' && !CONTROL.test(text),
    'expected a token without control characters',
  )
  .transform((text) => new Secret(text))

const listenAddress = parsed((text) => {
  const match = /^(?:(\[[0-9a-fA-F:.]+\]|[^:[\]]+):)?(\d{1,5})$/.exec(text)
  if (!match || Number(match[2]) > 65535) return undefined
  return { host: (match[1] ?? '127.0.0.1').replace(/^\[|\]$/g, ''), port: Number(match[2]) }
}, 'HOST:PORT')

const target = z.string().superRefine((text, context) => {
  const result = parseTarget(text)
  if (typeof result === 'string') context.addIssue({ code: 'custom', message: result })
})

const headerName = z.string().regex(/^[!#$%&'*+.^_`|~0-9A-Za-z-]+$/, 'expected a header name')
const headerText = z
  .string()
  .regex(/^[^\x00-\x08\x0a-\x1f\x7f]*$/, 'expected no control characters')
const headers = z.record(headerName, headerText)
const name = z
  .string()
  .regex(/^[A-Za-z0-9][A-Za-z0-9._@+-]{0,127}$/, 'expected letters, digits, . _ @ + -')
const regex = z.string().superRefine((text, context) => {
  try {
    new RegExp(text)
  } catch {
    context.addIssue({ code: 'custom', message: 'expected a regular expression' })
  }
})

const EGRESS_URL = /^(direct:|local:\/\/.+|https?:\/\/.+|socks5h?:\/\/.+)$/
const egressUrl = z
  .string()
  .regex(EGRESS_URL, 'expected direct:, local://ADDRESS, http://…, https://… or socks5://…')
  .refine(
    (text) => text === 'direct:' || URL.canParse(text.replace(/^local:/, 'http:')),
    'expected a URL',
  )
  .transform((text) => new Secret(text))
const egress = z.union([
  egressUrl.transform((url) => ({ url, probe: undefined, expect: undefined })),
  z.strictObject({
    url: egressUrl,
    probe: z.url().optional().describe('URL that answers with the address it sees'),
    expect: z.string().optional().describe('IP or CIDR that the probed address must be in'),
  }),
])

const inject = z.union([
  z.strictObject({ header: headerName, value: headerText.default('Bearer {token}') }),
  z.strictObject({ query: z.string().min(1), value: z.string().default('{token}') }),
  z.strictObject({ cookie: headerName, value: headerText.default('{token}') }),
])

const matcher = z.strictObject({
  status: z.union([z.int(), z.array(z.int()).min(1)]).optional(),
  header: z.record(headerName, regex).optional(),
  json: z
    .record(
      z.string().regex(/^(\/.*)?$/, 'expected a JSON pointer'),
      z.union([z.string(), z.number(), z.boolean(), z.null()]),
    )
    .optional(),
})

const limits = z.strictObject({
  rate: z.array(rate).default([]).describe('strict in every sliding window, counted at dispatch'),
  concurrency: z.int().min(1).optional(),
  uses: z.int().min(1).optional().describe('a token is retired after that many'),
})

const staticSource = z.strictObject({
  type: z.literal('static'),
  token,
  expiresAt: z.iso.datetime({ offset: true }).optional(),
})
const fileSource = z.strictObject({
  type: z.literal('file'),
  path: z.string().min(1),
  pointer: z
    .string()
    .regex(/^\/.*$/, 'expected a JSON pointer')
    .optional(),
})
const oauth2Source = z
  .strictObject({
    type: z.literal('oauth2'),
    grant: z.enum(['client_credentials', 'refresh_token']),
    issuer: z.url().optional(),
    tokenUrl: z.url().optional(),
    clientId: z.string().min(1),
    clientSecret: secret.optional(),
    clientAuth: z
      .enum(['basic', 'post', 'none'])
      .optional()
      .describe('default: basic with a secret, else none'),
    scope: z.string().optional(),
    audience: z.string().optional(),
    resource: z.string().optional(),
    refreshToken: secret.optional(),
    extra: z
      .record(z.string(), z.string())
      .optional()
      .describe('further parameters of the token request'),
  })
  .superRefine((source, context) => {
    if ((source.issuer === undefined) === (source.tokenUrl === undefined)) {
      context.addIssue({ code: 'custom', message: 'expected either issuer or tokenUrl' })
    }
    if (source.grant === 'refresh_token' && !source.refreshToken) {
      context.addIssue({
        code: 'custom',
        path: ['refreshToken'],
        message: 'expected a refresh token for this grant',
      })
    }
    if (source.clientAuth && source.clientAuth !== 'none' && !source.clientSecret) {
      context.addIssue({
        code: 'custom',
        path: ['clientSecret'],
        message: `expected a secret for clientAuth ${source.clientAuth}`,
      })
    }
  })
const source = z.discriminatedUnion('type', [staticSource, fileSource, oauth2Source])

const credential = z.strictObject({
  id: name,
  egress: z.string().optional(),
  headers: headers.optional(),
  limits: limits.optional(),
  labels: z.record(z.string(), z.string()).optional(),
  vars: z.record(z.string(), z.string()).optional(),
  source,
})

const pool = z.strictObject({
  targets: z.array(target).min(1, 'expected at least one target'),
  inject: inject.default({ header: 'authorization', value: 'Bearer {token}' }),
  limits: limits.prefault({}),
  select: z.enum(['least-used', 'round-robin', 'fill-first', 'sticky']).default('least-used'),
  queue: z
    .strictObject({ wait: duration.prefault('30s'), max: z.int().min(0).default(10_000) })
    .prefault({}),
  refresh: z
    .strictObject({
      ahead: z
        .number()
        .gt(0)
        .lt(1)
        .default(0.1)
        .describe('share of lifetime left at which to renew'),
      floor: duration.prefault('30s').describe('least lead, never more than half the lifetime'),
      timeout: duration.prefault('30s'),
      minInterval: duration.prefault('5s'),
    })
    .prefault({}),
  expired: z.array(matcher).default([{ status: 401 }]),
  limited: z
    .array(matcher)
    .default([{ status: 429 }, { status: 503, header: { 'retry-after': '.' } }]),
  denied: z
    .array(matcher)
    .default([{ status: 403, header: { 'www-authenticate': 'insufficient_scope' } }]),
  replay: z
    .strictObject({
      attempts: z.int().min(0).max(10).default(2),
      memory: size.prefault('1MiB'),
      disk: size.prefault('64MiB'),
    })
    .prefault({}),
  quarantine: z
    .strictObject({ base: duration.prefault('30s'), max: duration.prefault('30m') })
    .prefault({}),
  egress: z.array(z.string()).min(1).default(['direct']),
  headers: headers.optional(),
  credentials: z.array(credential).min(1, 'expected at least one credential'),
})

export const configSchema = z.strictObject({
  $schema: z.string().optional(),
  listen: listenAddress.prefault('127.0.0.1:8080'),
  admin: z
    .strictObject({ listen: listenAddress.prefault('127.0.0.1:8081'), token: secret.optional() })
    .prefault({}),
  ca: z
    .strictObject({ dir: z.string().default('certs'), nameConstraints: z.boolean().default(true) })
    .prefault({}),
  store: z
    .string()
    .regex(/^(memory:|file:.+)$/, 'expected memory: or file:PATH')
    .default('file:data/cupbearer.db'),
  storeKey: secret.optional(),
  clients: z
    .record(
      name,
      z.strictObject({
        password: secret,
        pools: z.array(z.string()).optional(),
        lease: z.boolean().default(false),
      }),
    )
    .default({}),
  egress: z.record(name, egress).default({}),
  passthrough: z
    .strictObject({
      action: z.enum(['tunnel', 'deny']).default('tunnel'),
      egress: z.string().default('direct'),
      allow: z.array(z.string()).default([]),
      deny: z.array(z.string()).default([]),
    })
    .prefault({}),
  upstream: z
    .strictObject({
      ca: z.array(z.string()).default([]),
      resolve: z.record(z.string(), z.string()).default({}),
      connectTimeout: duration.prefault('10s'),
      headersTimeout: duration.prefault('60s'),
      bodyTimeout: duration.prefault('5m'),
      http2: z.boolean().default(true),
    })
    .prefault({}),
  server: z
    .strictObject({
      headersTimeout: duration.prefault('15s'),
      idleTimeout: duration.prefault('5m'),
      maxHeaderSize: size.prefault('16KiB'),
      maxConnections: z.int().min(1).default(10_000),
      drainTimeout: duration.prefault('30s'),
    })
    .prefault({}),
  trace: z.strictObject({ capacity: z.int().min(1).max(1_000_000).default(2000) }).prefault({}),
  log: z
    .strictObject({
      level: z.enum(['silent', 'error', 'warn', 'info', 'debug', 'trace']).default('info'),
      format: z
        .enum(['pretty', 'json'])
        .optional()
        .describe('default: pretty on a terminal, else json'),
    })
    .prefault({}),
  pools: z.record(name, pool).default({}),
})

type Parsed = z.output<typeof configSchema>

/** A whole configuration in force: frozen, paths absolute, `${…}` references resolved. */
export type Config = Parsed & {
  /** The file it came from, absolute. */
  readonly file: string
  /** Folder of the admin token, ports and spooled bodies: the store file's folder, else `data` beside the config. */
  readonly dataDir: string
}
export type PoolConfig = Parsed['pools'][string]
export type CredentialConfig = PoolConfig['credentials'][number]
export type SourceConfig = CredentialConfig['source']
export type StaticSourceConfig = Extract<SourceConfig, { type: 'static' }>
export type FileSourceConfig = Extract<SourceConfig, { type: 'file' }>
export type OAuth2SourceConfig = Extract<SourceConfig, { type: 'oauth2' }>
export type LimitsConfig = PoolConfig['limits']
export type MatcherConfig = PoolConfig['expired'][number]
export type InjectConfig = PoolConfig['inject']
export type EgressConfig = Parsed['egress'][string]
export type UpstreamConfig = Parsed['upstream']
export type ServerConfig = Parsed['server']
export type PassthroughConfig = Parsed['passthrough']
