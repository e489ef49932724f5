import { createHash } from 'node:crypto'
import type { SourceConfig } from '../config/schema.ts'
import { Secret } from '../lib/secret.ts'
import { type FileSourceOptions, fileSource } from './file.ts'
import { oauth2Source } from './oauth2.ts'
import type { Source } from './source.ts'
import { staticSource } from './static.ts'

/** Settings of the sources that are not the operator's. */
export interface SourceOptions extends FileSourceOptions {}

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
}

/** Makes the source that a credential's configuration asks for. */
export function createSource(config: SourceConfig, options: SourceOptions = {}): Source {
  const create = KINDS[config.type] as (config: SourceConfig, options: SourceOptions) => Source
  return create(config, options)
}

/**
 * Tells one source's configuration from another, secrets included: SHA-256 in hex over its canonical form.
 * A credential whose fingerprint changed starts afresh.
 */
export function sourceFingerprint(config: SourceConfig): string {
  return createHash('sha256')
    .update(JSON.stringify(canonical(config)))
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
