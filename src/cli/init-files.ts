import { mkdir, readFile, rm, rmdir, stat } from 'node:fs/promises'
import { dirname, join, relative, resolve } from 'node:path'
import { text } from 'node:stream/consumers'
import { fileURLToPath } from 'node:url'
import { isDeepStrictEqual } from 'node:util'
import { readJson } from '../config/json.ts'
import { createFile, replaceFile } from '../lib/files.ts'
import { CommandError, EXIT, warn } from './command.ts'

/** A JSON document as it stands in the file. */
export type Tree = Record<string, unknown>

/** The configuration that is there already, if there is one. */
export async function readExisting(file: string): Promise<Tree | undefined> {
  let found: string
  try {
    found = await readFile(file, 'utf8')
  } catch (cause) {
    const { code } = cause as NodeJS.ErrnoException
    if (code === 'ENOENT') return undefined
    throw new CommandError(EXIT.failed, `${file} cannot be read (${code})`, undefined, { cause })
  }
  const json = readJson(found)
  if ('issues' in json || typeof json.value !== 'object' || json.value === null) return {}
  return json.value as Tree
}

/** Why the file is left as it is. */
export const refusal = (file: string) =>
  new CommandError(
    EXIT.failed,
    `${file} is there already`,
    '--add puts a pool into it; -c names another',
  )

/** The file's tree with one more pool in it. */
export function withPool(existing: Tree, file: string, name: string, pool: Tree): Tree {
  const pools = (existing.pools ?? {}) as Tree
  if (Object.hasOwn(pools, name) && !isDeepStrictEqual(pools[name], pool)) {
    throw new CommandError(EXIT.failed, `${file} has a pool ${name} already`, '--pool names it')
  }
  return { ...existing, pools: { ...pools, [name]: pool } }
}

/** Writes the configuration at once: a new file only where there is none, or the one that was read. */
export async function writeConfig(
  file: string,
  tree: Tree,
  existing: Tree | undefined,
): Promise<void> {
  const content = `${JSON.stringify(tree, null, 2)}\n`
  try {
    if (existing) await replaceFile(file, content, (await stat(file)).mode & 0o777)
    else if (!(await createFile(file, content, 0o644))) throw refusal(file)
  } catch (cause) {
    if (cause instanceof CommandError) throw cause
    const { code } = cause as NodeJS.ErrnoException
    throw new CommandError(EXIT.failed, `${file} cannot be written (${code})`, undefined, { cause })
  }
}

/** The schema of this installation, where the file can name it by a path that others share. */
export function schemaBeside(file: string): string | undefined {
  const schema = fileURLToPath(new URL('../../config.schema.json', import.meta.url))
  const path = relative(dirname(resolve(file)), schema).replaceAll('\\', '/')
  return path.startsWith('..') ? undefined : `./${path}`
}

/** The files, beside the configuration, that its secrets are kept in. */
export class SecretFiles {
  readonly #folder: string
  readonly #prefix: string
  /** What was there before, by name. */
  readonly #before = new Map<string, string | undefined>()

  constructor(file: string, prefix: string) {
    this.#folder = dirname(resolve(file))
    this.#prefix = prefix
  }

  pathOf(name: string): string {
    return join('secrets', `${this.#prefix}-${name}`)
  }

  /** Whether an earlier run has left it. */
  async has(name: string): Promise<boolean> {
    const found = await stat(join(this.#folder, this.pathOf(name))).catch(() => undefined)
    return found?.isFile() ?? false
  }

  /** Keeps a secret (0600, in a folder that is 0700), and gives what refers to it. */
  async keep(name: string, secret: string): Promise<string> {
    const file = join(this.#folder, this.pathOf(name))
    if (!this.#before.has(name)) {
      this.#before.set(name, await readFile(file, 'utf8').catch(() => undefined))
    }
    await mkdir(dirname(file), { recursive: true, mode: 0o700 })
    await replaceFile(file, `${secret}\n`, 0o600)
    return this.reference(name)
  }

  reference(name: string): string {
    return `\${file:${this.pathOf(name)}}`
  }

  /** Leaves it all as it was found. */
  async undo(): Promise<void> {
    for (const [name, before] of this.#before) {
      const file = join(this.#folder, this.pathOf(name))
      if (before === undefined) await rm(file, { force: true })
      else await replaceFile(file, before, 0o600)
    }
    this.#before.clear()
    // Only where nothing else is in it.
    await rmdir(join(this.#folder, 'secrets')).catch(() => {})
  }

  /** What refers to a file that somebody else keeps; `-` reads standard input and keeps that. */
  async adopt(name: string, path: string): Promise<string> {
    if (path === '-') {
      const secret = (await text(process.stdin)).trim()
      if (secret === '') throw new CommandError(EXIT.usage, `--${name}-file: nothing came`)
      return this.keep(name, secret)
    }
    const found = await stat(path).catch(() => undefined)
    if (!found?.isFile()) throw new CommandError(EXIT.usage, `--${name}-file: no file ${path}`)
    if (process.platform !== 'win32' && (found.mode & 0o077) !== 0) {
      warn(`others can read ${path}: chmod 600 ${path}`)
    }
    const near = relative(this.#folder, resolve(path))
    return `\${file:${near.startsWith('..') ? resolve(path) : near}}`
  }
}
