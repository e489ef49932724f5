import { createHash } from 'node:crypto'
import type { SourceConfig } from '../config/schema.ts'
import { Secret } from '../lib/secret.ts'
import { execSource } from './exec.ts'
import { type FileSourceOptions, fileSource } from './file.ts'
import { loginSource } from './login.ts'
import { oauth2Source } from './oauth2.ts'
import type { Source, SourceVars } from './source.ts'
import { staticSource } from './static.ts'

/** What a source is given besides its own part of the configuration. */
export interface SourceOptions extends FileSourceOptions {
  /** Those of its credential. */
  readonly vars?: SourceVars | undefined
}

type Kinds = {
  [Type in SourceConfig['type']]: (
    config: Extract<SourceConfig, { type: Type }>,
    options: SourceOptions,
  ) => Source
}

const KINDS: Kinds = {
  static: staticSource,
  file: fileSource,
  oauth2: oauth2Source,
  login: loginSource,
  exec: execSource,
}

const TEMPLATED: ReadonlySet<string> = new Set(['login', 'exec'])

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
