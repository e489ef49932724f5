import { createHash } from 'node:crypto'
import type { SourceConfig } from '../config/schema.ts'
import { Secret } from '../lib/secret.ts'
import type { BrowserSetting } from './browser.ts'
import { BrowserQueue } from './browser-queue.ts'
import { captureSource } from './capture.ts'
import { deferred } from './deferred.ts'
import { execSource } from './exec.ts'
import { type FileSourceOptions, fileSource } from './file.ts'
import { loginSource } from './login.ts'
import type { Source, SourceVars } from './source.ts'
import { staticSource } from './static.ts'

/** What a source is given besides its own part of the configuration. */
export interface SourceOptions extends FileSourceOptions {
  /** Those of its credential. */
  readonly vars?: SourceVars | undefined
  readonly browsers?: BrowserSetting | undefined
}

/** Grants that take a person: the module that knows it is loaded later. */
const PERSONAL_GRANTS: ReadonlySet<string> = new Set(['authorization_code', 'device_code'])

type Kinds = {
  [Type in SourceConfig['type']]: (
    config: Extract<SourceConfig, { type: Type }>,
    options: SourceOptions,
  ) => Source
}

const KINDS: Kinds = {
  static: staticSource,
  file: fileSource,
  oauth2: (config) =>
    deferred(async () => (await import('./oauth2.ts')).oauth2Source(config), {
      login: PERSONAL_GRANTS.has(config.grant),
    }),
  login: loginSource,
  exec: execSource,
  browser: (config, options) =>
    deferred(async () => (await import('./browser.ts')).browserSource(config, options), {
      login: false,
    }),
  capture: captureSource,
}

const TEMPLATED: ReadonlySet<string> = new Set(['login', 'exec', 'browser'])

/** `createSource` for one process: browsers take turns in it, and leave pictures of failures in `dataDir`. */
export function sourceMaker(setting: Omit<BrowserSetting, 'queue'>): typeof createSource {
  const told = new Set<string>()
  const warn = (message: string) => {
    if (!told.has(message)) setting.warn?.(message)
    told.add(message)
  }
  const browsers = { ...setting, warn, queue: new BrowserQueue() }
  return (config, options) => createSource(config, { browsers, ...options })
}

/** Makes the source that a credential's configuration asks for. */
export function createSource(config: SourceConfig, options: SourceOptions = {}): Source {
  const create = KINDS[config.type] as (config: SourceConfig, options: SourceOptions) => Source
  return create(config, options)
}

/**
 * Tells one source's configuration from another, secrets included: SHA-256 in hex over its canonical form.
 * A credential whose fingerprint changed starts afresh. `vars` count for the kinds that use them.
 */
export function sourceFingerprint(config: SourceConfig, vars?: SourceVars): string {
  const used = vars && TEMPLATED.has(config.type) ? { ...config, vars } : config
  return createHash('sha256')
    .update(JSON.stringify(canonical(used)))
    .digest('hex')
}

/** The host that a source asks for tokens; undefined where it asks none, or where only its values tell. */
export function sourceHost(config: SourceConfig): string | undefined {
  const url =
    config.type === 'oauth2'
      ? (config.tokenUrl ?? config.issuer)
      : config.type === 'login'
        ? config.steps[0]?.url.reveal()
        : undefined
  return url !== undefined && URL.canParse(url) ? new URL(url).host : undefined
}

/** Keys in order, undefined left out, secrets revealed: they go into the hash only. */
function canonical(value: unknown): unknown {
  if (value instanceof Secret) return { secret: value.reveal() }
  if (Array.isArray(value)) return value.map(canonical)
  if (typeof value !== 'object' || value === null) return value
  const entries = Object.entries(value).filter(([, part]) => part !== undefined)
  // By code unit, not by locale: the order must be the same on every machine.
  entries.sort(([left], [right]) => (left < right ? -1 : left > right ? 1 : 0))
  return entries.map(([key, part]) => [key, canonical(part)])
}
