import { z } from 'zod'
import { parseAuthority } from '../lib/authority.ts'
import { Secret } from '../lib/secret.ts'
import { browserSource } from './browser.ts'
import { captureSource } from './capture.ts'
import { execSource } from './exec.ts'
import { loginSource } from './login.ts'
import { matcher } from './matcher.ts'
import { oauth2Source } from './oauth2.ts'
import { requirement } from './requires.ts'
import { trace } from './trace.ts'
import { upstreamHosts } from './upstream-hosts.ts'
import {
  cidr,
  clientName,
  duration,
  egressUrl,
  headerName,
  headers,
  headerText,
  httpUrl,
  listenAddress,
  name,
  object,
  pointer,
  rate,
  sealKey,
  secret,
  size,
  target,
  timeout,
  token,
  tunnelPattern,
} from './values.ts'

/**
 * The configuration's schema: what it accepts, its defaults, and the typed values that the rest of the
 * program gets (durations in ms, sizes in bytes, secrets wrapped). `config.schema.json` and the tables of
 * `docs/configuration.md` are made from it. Rules that look at two places at once stand in `cross-check.ts`.
 */

const egress = z
  .union(
    [
      egressUrl.transform((url) => ({ url, probe: undefined, expect: undefined, every: 0 })),
      object({
        url: egressUrl.describe('direct:, local://ADDRESS, http://…, https://… or socks5://…'),
        probe: httpUrl.optional().describe('URL that answers with the address it sees'),
        expect: cidr
          .optional()
          .describe('IP or CIDR that the probed address must be in, else nothing leaves by it'),
        every: timeout.prefault('5m').describe('from one probe to the next'),
      }),
    ],
    { error: 'expected an egress URL, or { "url", "probe", "expect" }' },
  )
  .describe('a way out: a URL, or an object with one')

const inject = z.union(
  [
    object({
      header: headerName.describe('header that carries the token'),
      value: headerText.default('Bearer {token}').describe('template'),
    }),
    object({
      query: z.string().min(1, 'expected a name').describe('query parameter'),
      value: z.string().default('{token}').describe('template'),
    }),
    object({
      cookie: headerName.describe('cookie'),
      value: headerText.default('{token}').describe('template'),
    }),
  ],
  { error: 'expected one of { "header", "value" }, { "query", "value" }, { "cookie", "value" }' },
)

const limits = object({
  rate: z
    .array(rate)
    .default([])
    .describe('most requests in any window, e.g. "10/s"; strict in each, counted at dispatch'),
  concurrency: z.int().min(1).optional().describe('most requests in flight'),
  uses: z.int().min(1).optional().describe('a token is retired after that many requests'),
})

const staticSource = object({
  type: z.literal('static'),
  token: token.describe('the token itself; better as ${env:NAME} or ${file:PATH}'),
  expiresAt: z.iso
    .datetime({ offset: true, error: 'expected a time such as "2030-01-31T12:00:00Z"' })
    .optional()
    .describe('when it ends, if it is not a JWT that tells'),
})
const fileSource = object({
  type: z.literal('file'),
  path: z.string().min(1, 'expected a path').describe('file that holds the token; watched'),
  pointer: pointer.optional().describe('where the token stands when the file is JSON'),
})
const sources = [
  staticSource,
  fileSource,
  oauth2Source,
  loginSource,
  execSource,
  browserSource,
  captureSource,
] as const
const source = z.discriminatedUnion('type', sources, {
  error: `expected one of ${sources.map(({ shape }) => `"${shape.type.value}"`).join(', ')}`,
})

const credential = object({
  id: name.describe('name, unique within the pool'),
  egress: z.string().optional().describe('the only egress it may use; default: one of the pool’s'),
  headers: headers.optional().describe('headers fixed for it, on data and on refresh'),
  limits: limits.optional().describe('its own limits, instead of the pool’s'),
  labels: z.record(z.string(), z.string()).optional().describe('free text for the operator'),
  vars: z
    .record(
      z.string(),
      z.string().transform((text) => new Secret(text)),
    )
    .optional()
    .describe('values for the templates of its source'),
  source: source.describe('where its token comes from'),
})

const pool = object({
  targets: z
    .array(target)
    .min(1, 'expected at least one target')
    .describe('what it serves: [scheme://]host[:port][/path-glob]; https and 443 unless written'),
  inject: inject
    .default({ header: 'authorization', value: 'Bearer {token}' })
    .describe('where the token goes; replaces what the client sent by that name'),
  scrubBody: z
    .boolean()
    .default(false)
    .describe('whether the token is replaced in response bodies too, for APIs that echo it'),
  limits: limits.prefault({}).describe('limits of each credential'),
  select: z
    .enum(['least-used', 'round-robin', 'fill-first', 'sticky'])
    .default('least-used')
    .describe('how a credential is chosen'),
  queue: object({
    wait: duration.prefault('30s').describe('how long a request may wait for a token'),
    max: z.int().min(0).default(10_000).describe('how many may wait'),
  })
    .prefault({})
    .describe('waiting for a token'),
  refresh: object({
    ahead: z
      .number()
      .gt(0)
      .lt(1)
      .default(0.1)
      .describe('share of the lifetime left at which to renew'),
    floor: duration.prefault('30s').describe('least lead, never more than half the lifetime'),
    timeout: timeout.prefault('30s').describe('for each try'),
    minInterval: duration
      .prefault('5s')
      .describe('least gap between refreshes that responses force on one credential'),
    parallel: z.int().min(1).default(8).describe('renewals at a time, those at once aside'),
  })
    .prefault({})
    .describe('renewal ahead of expiry'),
  expired: z
    .array(matcher)
    .default([{ status: 401 }])
    .describe('responses that mean: this token has expired'),
  limited: z
    .array(matcher)
    .default([{ status: 429 }, { status: 503, header: { 'retry-after': '.' } }])
    .describe('responses that mean: this token has reached a limit'),
  denied: z
    .array(matcher)
    .default([{ status: 403, header: { 'www-authenticate': 'insufficient_scope' } }])
    .describe('responses that mean: this token lacks a scope'),
  requires: z
    .array(requirement)
    .default([])
    .describe('scopes and claims that a token must have, by method and path'),
  issuer: httpUrl
    .optional()
    .describe('issuer whose metadata names its signing keys, to watch them'),
  jwks: httpUrl.optional().describe('where its signing keys are, instead of by the metadata'),
  verify: z
    .union(
      [
        z.boolean(),
        object({
          issuer: z.string().min(1, 'expected an issuer').optional().describe('iss it must have'),
          audience: z
            .union([z.string().min(1), z.array(z.string().min(1)).min(1)], {
              error: 'expected an audience or a list of them',
            })
            .optional()
            .describe('aud, one of which it must have'),
        }),
      ],
      { error: 'expected true, false or { "issuer", "audience" }' },
    )
    .default(false)
    .describe('whether a new token must pass a check of signature, exp, iss and aud'),
  replay: object({
    attempts: z.int().min(0).max(10).default(2).describe('replays of one request'),
    memory: size.prefault('1MiB').describe('body kept in memory'),
    disk: size.prefault('64MiB').describe('then on disk, deleted after'),
  })
    .prefault({})
    .describe('sending a request again with a live token'),
  quarantine: object({
    base: timeout.prefault('30s').describe('first rest'),
    max: timeout.prefault('30m').describe('longest rest'),
  })
    .prefault({})
    .describe('back-off of a failing credential'),
  egress: z
    .array(z.string())
    .min(1, 'expected at least one egress')
    .default(['direct'])
    .describe('egresses to spread unpinned credentials over; the choice is kept'),
  headers: headers.optional().describe('headers fixed for the pool'),
  credentials: z.array(credential).default([]).describe('the accounts'),
  credentialsFrom: object({
    path: z.string().min(1, 'expected a path').describe('CSV with a header, or NDJSON; watched'),
    template: z
      .record(z.string(), z.unknown())
      .describe('an entry of credentials, in which {COLUMN} stands for the column of that name'),
  })
    // Its credentials are among the others by now, and the template may hold secrets.
    .transform(({ path }) => ({ path }))
    .optional()
    .describe('more accounts, one for each row of a file'),
})

export const configSchema = object({
  $schema: z.string().optional().describe('config.schema.json, for the editor'),
  listen: listenAddress.prefault('127.0.0.1:8080').describe('proxy address; port 0 = any free'),
  workers: z
    .int()
    .min(1)
    .max(128)
    .default(1)
    .describe('processes that serve; more than one take load off one core'),
  admin: object({
    listen: listenAddress.prefault('127.0.0.1:8081').describe('admin API and dashboard'),
    hosts: z
      .array(
        z
          .string()
          .refine((text) => parseAuthority(text, 1) !== undefined, 'expected HOST or HOST:PORT'),
      )
      .default([])
      .describe(
        'further names it is reached by, HOST or HOST:PORT: a container name, a mapped port',
      ),
    token: token.optional().describe('admin token; default: one is generated into the data folder'),
  })
    .prefault({})
    .describe('admin API and dashboard'),
  ca: object({
    dir: z.string().min(1, 'expected a folder').default('certs').describe('folder of the CA'),
    nameConstraints: z.boolean().default(true).describe('limit the CA to the mapped names'),
  })
    .prefault({})
    .describe('the private CA that intercepts'),
  store: z
    .string()
    .regex(
      /^(memory:|file:.+|rediss?(\+(sentinel|cluster))?:\/\/.+)$/,
      'expected memory:, file:PATH or redis://…',
    )
    .meta({
      pattern: '^(memory:|file:.+|rediss?(\\+(sentinel|cluster))?://.+|.*\\$\\{(env|file):.*)$',
    })
    .default('file:data/cupbearer.db')
    .describe('where state is kept: memory:, file:PATH, or redis://… shared by several instances'),
  storeKey: sealKey
    .optional()
    .describe('key for sealing at rest, 32 bytes in base64; default: a generated key file'),
  dataDir: z
    .string()
    .min(1, 'expected a folder')
    .optional()
    .describe(
      'folder of the admin token, ports and spooled bodies; default: that of the store file, else data',
    ),
  clients: z
    .record(
      clientName,
      object({
        password: secret.describe('password of Proxy-Authorization: Basic'),
        pools: z.array(z.string()).optional().describe('pools it may use; default: all'),
        lease: z.boolean().default(false).describe('whether it may ask for leases'),
      }),
    )
    .default({})
    .describe('who may use the proxy; once there is one, every request must authenticate'),
  egress: z.record(name, egress).default({}).describe('named ways out; direct always exists'),
  passthrough: object({
    action: z.enum(['tunnel', 'deny']).default('tunnel').describe('what happens to them'),
    egress: z.string().default('direct').describe('egress of the tunnels'),
    allow: z.array(tunnelPattern).default([]).describe('host patterns and CIDRs to let through'),
    deny: z.array(tunnelPattern).default([]).describe('host patterns and CIDRs to refuse'),
  })
    .prefault({})
    .describe('hosts that no pool covers'),
  upstream: object({
    ca: z.array(z.string().min(1, 'expected a path')).default([]).describe('extra CA files (PEM)'),
    resolve: z
      .record(z.string(), z.string())
      .default({})
      .describe('host → IP address, like curl --resolve'),
    hosts: upstreamHosts,
    connectTimeout: timeout.prefault('10s').describe('to connect, TLS included'),
    headersTimeout: timeout.prefault('60s').describe('to the response’s header'),
    bodyTimeout: timeout.prefault('5m').describe('between two pieces of a body'),
    http2: z.boolean().default(true).describe('whether HTTP/2 may be spoken'),
  })
    .prefault({})
    .describe('everything that Cupbearer dials'),
  refresh: object({
    perHost: z
      .int()
      .min(1)
      .default(8)
      .describe('renewals at a time at the host of one token endpoint, over all pools'),
  })
    .prefault({})
    .describe('renewal, as far as pools share it'),
  server: object({
    headersTimeout: timeout.prefault('15s').describe('to a whole request header, handshake too'),
    idleTimeout: timeout.prefault('5m').describe('between requests; tunnels silent both ways'),
    maxHeaderSize: size
      .refine((bytes) => bytes >= 1024 && bytes <= 2 ** 20, 'expected a size from 1KiB to 1MiB')
      .prefault('16KiB')
      .describe('of a request'),
    maxConnections: z.int().min(1).default(10_000).describe('of clients'),
    drainTimeout: duration.prefault('30s').describe('for requests in flight at the end'),
  })
    .prefault({})
    .describe('bounds on the client side'),
  trace,
  log: object({
    level: z
      .enum(['silent', 'error', 'warn', 'info', 'debug', 'trace'])
      .default('info')
      .describe('least weight that is logged'),
    format: z
      .enum(['pretty', 'json'])
      .optional()
      .describe('default: pretty on a terminal, else json'),
  })
    .prefault({})
    .describe('logs, on standard error'),
  pools: z.record(name, pool).default({}).describe('targets and the credentials that serve them'),
})

type Parsed = z.output<typeof configSchema>
/** A configuration as it is written: what stands in `config.json`. */
export type ConfigInput = z.input<typeof configSchema>

/** A whole configuration in force: frozen, paths absolute, `${…}` references resolved. */
export type Config = Parsed & {
  /** The file it came from, absolute. */
  readonly file: string
  /** Absolute; where none is named, the store file's folder, else `data` beside the config. */
  readonly dataDir: string
}
export type PoolConfig = Parsed['pools'][string]
export type CredentialConfig = PoolConfig['credentials'][number]
export type SourceConfig = CredentialConfig['source']
export type StaticSourceConfig = Extract<SourceConfig, { type: 'static' }>
export type FileSourceConfig = Extract<SourceConfig, { type: 'file' }>
export type { BrowserSourceConfig } from './browser.ts'
export type { CaptureSourceConfig } from './capture.ts'
export type { ExecSourceConfig } from './exec.ts'
export type { LoginSourceConfig } from './login.ts'
export type { OAuth2SourceConfig } from './oauth2.ts'
export type LimitsConfig = PoolConfig['limits']
export type MatcherConfig = PoolConfig['expired'][number]
export type RequirementConfig = PoolConfig['requires'][number]
export type InjectConfig = PoolConfig['inject']
export type EgressConfig = Parsed['egress'][string]
export type UpstreamConfig = Parsed['upstream']
export type ServerConfig = Parsed['server']
export type PassthroughConfig = Parsed['passthrough']
