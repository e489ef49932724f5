import { readFile } from 'node:fs/promises'
import { dirname, resolve } from 'node:path'
import { ConfigError } from '../errors.ts'
import { normalizeHost } from '../lib/authority.ts'
import { Secret } from '../lib/secret.ts'
import { expandCredentials } from './credentials-from.ts'
import { crossCheck } from './cross-check.ts'
import { describeIssues } from './issues.ts'
import { readJson } from './json.ts'
import { reason, resolveReferences } from './references.ts'
import { type Config, configSchema } from './schema.ts'

/**
 * Reads a configuration, resolves its references, checks it and freezes it.
 * Throws `ConfigError` with every issue at once. `files` hears, also then, of the files beside the configuration
 * whose saving changes it.
 */
export async function loadConfig(
  file: string,
  env: NodeJS.ProcessEnv = process.env,
  files: (paths: readonly string[]) => void = () => {},
): Promise<Config> {
  const json = readJson(await readText(resolve(file)))
  if ('issues' in json) throw new ConfigError(json.issues, file)
  return readConfig(json.value, file, env, files)
}

/** The same of a configuration that is an object already; `file` is where it would stand, which need not be there. */
export async function readConfig(
  value: unknown,
  file: string,
  env: NodeJS.ProcessEnv = process.env,
  files: (paths: readonly string[]) => void = () => {},
): Promise<Config> {
  const absolute = resolve(file)
  const folder = dirname(absolute)
  const resolved = await resolveReferences(value, folder, env)
  const expanded = await expandCredentials(resolved.tree, folder, files)
  const { tree, relocate } = expanded
  const issues = [...resolved.issues, ...expanded.issues]
  const parsed = configSchema.safeParse(tree)
  if (!parsed.success) {
    // A reference that is missing is told once, not again as a value of the wrong form.
    const told = new Set(issues.map((issue) => issue.path))
    issues.push(...describeIssues(parsed.error.issues, tree).filter(({ path }) => !told.has(path)))
  }
  const told = new Set(issues.map((issue) => issue.path))
  issues.push(...(await crossCheck(tree, folder)).filter(({ path }) => !told.has(path)))
  if (!parsed.success || issues.length > 0) throw new ConfigError(relocate(issues), file)
  return finish(parsed.data, absolute)
}

async function readText(file: string): Promise<string> {
  try {
    return await readFile(file, 'utf8')
  } catch (error) {
    throw new ConfigError([{ path: '', message: `cannot be read (${reason(error)})` }], file)
  }
}

function finish(parsed: ReturnType<typeof configSchema.parse>, file: string): Config {
  const folder = dirname(file)
  const storeFile = parsed.store.startsWith('file:')
    ? resolve(folder, parsed.store.slice('file:'.length))
    : undefined
  const resolved = Object.entries(parsed.upstream.resolve).map(
    ([host, address]) => [normalizeHost(host) ?? host, address] as const,
  )
  const config: Config = {
    ...parsed,
    ca: { ...parsed.ca, dir: resolve(folder, parsed.ca.dir) },
    store: storeFile === undefined ? parsed.store : `file:${storeFile}`,
    upstream: {
      ...parsed.upstream,
      ca: parsed.upstream.ca.map((path) => resolve(folder, path)),
      resolve: byName(Object.fromEntries(resolved)),
    },
    trace: {
      ...parsed.trace,
      har: parsed.trace.har && {
        ...parsed.trace.har,
        path: resolve(folder, parsed.trace.har.path),
      },
    },
    clients: byName(parsed.clients),
    egress: byName(parsed.egress),
    pools: byName(parsed.pools),
    file,
    dataDir: resolve(folder, parsed.dataDir ?? (storeFile ? dirname(storeFile) : 'data')),
  }
  for (const pool of Object.values(config.pools)) {
    const { credentialsFrom } = pool
    if (credentialsFrom) credentialsFrom.path = resolve(folder, credentialsFrom.path)
    for (const { source } of pool.credentials) {
      if (source.type === 'file') source.path = resolve(folder, source.path)
      if (source.type === 'exec') source.cwd = resolve(folder, source.cwd ?? '.')
      if (source.type === 'browser') {
        const { executable, steps } = source
        // A bare name is looked for on PATH.
        if (executable?.includes('/')) source.executable = resolve(folder, executable)
        for (const step of steps) if (step.otp) step.cwd = resolve(folder, step.cwd ?? '.')
      }
      if (source.type === 'oauth2') {
        for (const token of [source.assertion, source.subjectToken, source.actorToken]) {
          if (token && 'file' in token) token.file = resolve(folder, token.file)
        }
      }
    }
  }
  return deepFreeze(config)
}

/** A record that is asked by names from outside: `constructor` must not be found in it. */
function byName<T>(record: Record<string, T>): Record<string, T> {
  return Object.assign(Object.create(null) as Record<string, T>, record)
}

function deepFreeze<T>(value: T): T {
  if (typeof value !== 'object' || value === null || value instanceof Secret) return value
  for (const item of Object.values(value)) deepFreeze(item)
  return Object.freeze(value)
}
