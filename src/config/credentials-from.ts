import { resolve } from 'node:path'
import type { ConfigIssue } from '../errors.ts'
import { parseTemplate } from '../lib/template.ts'
import { type Accounts, readAccounts, type Value } from './account-file.ts'
import { formatPath, type Path } from './path.ts'
import { holdsTemplates } from './references.ts'

type Tree = Readonly<Record<string, unknown>>

/** A configuration in which `credentialsFrom` has become credentials like any other. */
export interface Expansion {
  readonly tree: unknown
  readonly issues: ConfigIssue[]
  /** Issues of those credentials, told by line and column of the file that they come from, or by the template. */
  relocate(issues: readonly ConfigIssue[]): ConfigIssue[]
}

/** Where a pool's credentials come from, besides those written there. */
interface Origin {
  /** As the configuration has it. */
  readonly file: string
  readonly template: Path
  /** How many are written there. */
  readonly before: number
  readonly lines: readonly number[]
  /** Place within the template → columns that it is filled from. */
  readonly fields: ReadonlyMap<string, readonly string[]>
}

/** Most problems that are told one by one for a file. */
const MAX_TOLD = 100

/**
 * Makes a credential of each row of a pool's file of accounts, by its template. It works on the tree before the
 * schema, so that all rules hold as for credentials that are written out, secrets are wrapped, and what comes
 * out of a file is never looked at as a template or a reference. `files` hears of the files, absolute.
 */
export async function expandCredentials(
  tree: unknown,
  folder: string,
  files: (paths: readonly string[]) => void,
): Promise<Expansion> {
  const issues: ConfigIssue[] = []
  const origins = new Map<string, Origin>()
  const config = asObject(tree)
  const pools: Record<string, unknown> = { ...asObject(config.pools) }
  const fed = Object.entries(pools).flatMap(([name, value]) => {
    const pool = asObject(value)
    const { path: file, template } = asObject(pool.credentialsFrom)
    if (typeof file !== 'string' || file === '') return []
    return [{ name, pool, file, path: resolve(folder, file), template }]
  })
  // Before they are read, so that no save goes unseen.
  files(fed.map(({ path }) => path))
  for (const { name, pool, file, path, template } of fed) {
    if (!isObject(template)) continue
    const place = ['pools', name, 'credentialsFrom', 'template']
    const written = Array.isArray(pool.credentials) ? pool.credentials : []
    const accounts = await readAccounts(path)
    const { credentials, lines, fields, problems } = fill(template, accounts, place)
    issues.push(...inFile(file, [...accounts.problems, ...problems.rows]), ...problems.template)
    pools[name] = { ...pool, credentials: [...written, ...credentials] }
    const origin = { file, template: place, before: written.length, lines, fields }
    origins.set(formatPath(['pools', name, 'credentials']), origin)
  }
  const expanded = origins.size === 0 ? tree : { ...config, pools }
  return { tree: expanded, issues, relocate: (each) => relocate(each, origins) }
}

interface Filled {
  readonly credentials: unknown[]
  readonly lines: number[]
  readonly fields: ReadonlyMap<string, readonly string[]>
  readonly problems: {
    readonly rows: { line: number; message: string }[]
    readonly template: ConfigIssue[]
  }
}

function fill(template: Tree, { rows, columns, problems }: Accounts, place: Path): Filled {
  const fields = new Map<string, string[]>()
  const unknown: ConfigIssue[] = []
  // Nothing is known of the columns of a file that could not be read.
  const isKnown = rows.length > 0 || problems.length === 0
  const make = compile(template, [], (path, name) => {
    const key = formatPath(path)
    fields.set(key, [...(fields.get(key) ?? []), name])
    if (columns.has(name) || !isKnown || (rows.length === 0 && columns.size === 0)) return
    const message = `expected in braces a name of the header; there is no column ${name}`
    unknown.push({ path: formatPath([...place, ...path]), message })
  })
  const shared = sharedColumns(template, columns)
  for (const name of shared) fields.set(formatPath(['vars', name]), [name])
  const filled: Filled = {
    credentials: [],
    lines: [],
    fields,
    problems: { rows: [], template: unknown },
  }
  if (unknown.length > 0) return filled
  for (const row of rows) {
    const missing = new Set<string>()
    const lookUp = (name: string): Value => {
      const value = row.values.get(name)
      if (isValue(value)) return value
      const what =
        value === undefined || value === null ? 'missing' : 'expected a string or a number'
      missing.add(`column ${name}: ${what}`)
      return ''
    }
    const credential = make(lookUp) as Record<string, unknown>
    if (shared.length > 0) {
      const vars = Object.fromEntries(shared.map((name) => [name, String(lookUp(name))]))
      credential.vars = { ...vars, ...asObject(credential.vars) }
    }
    for (const message of missing) filled.problems.rows.push({ line: row.line, message })
    if (missing.size > 0) continue
    filled.credentials.push(credential)
    filled.lines.push(row.line)
  }
  return filled
}

type Make = (lookUp: (name: string) => Value) => unknown

/** Takes a template apart once for all rows; `asks` hears of each column and where it goes. */
function compile(value: unknown, path: Path, asks: (path: Path, name: string) => void): Make {
  if (typeof value === 'string') {
    const parts = parseTemplate(value)
    for (const part of parts) if (typeof part !== 'string') asks(path, part.name)
    const text: Make = (lookUp) =>
      parts.map((part) => (typeof part === 'string' ? part : lookUp(part.name))).join('')
    if (path[0] !== 'limits') return text
    // CSV has no numbers, and these are some.
    return (lookUp) => {
      const filled = text(lookUp) as string
      return /^\d{1,15}$/.test(filled) ? Number(filled) : filled
    }
  }
  if (Array.isArray(value)) {
    const items = value.map((item, index) => compile(item, [...path, index], asks))
    return (lookUp) => items.map((make) => make(lookUp))
  }
  if (!isObject(value)) return () => value
  const entries = Object.entries(value).map(([key, item]): [string, Make] => {
    // What the source fills in itself is left to it: its values come by `vars`.
    const own = holdsTemplates(path, value, key)
    return [key, own ? () => item : compile(item, [...path, key], asks)]
  })
  return (lookUp) => Object.fromEntries(entries.map(([key, make]) => [key, make(lookUp)]))
}

/** Columns that the source's own templates ask for: only these count as a change of the source. */
function sharedColumns(template: Tree, columns: ReadonlySet<string>): string[] {
  const names = new Set<string>()
  const visit = (value: unknown): void => {
    if (typeof value === 'string') {
      for (const part of parseTemplate(value)) if (typeof part === 'object') names.add(part.name)
    } else if (typeof value === 'object' && value !== null) Object.values(value).forEach(visit)
  }
  const source = asObject(template.source)
  for (const [key, value] of Object.entries(source)) {
    if (holdsTemplates(['source'], source, key)) visit(value)
  }
  const vars = asObject(template.vars)
  return [...names].filter((name) => columns.has(name) && !Object.hasOwn(vars, name))
}

function relocate(
  issues: readonly ConfigIssue[],
  origins: ReadonlyMap<string, Origin>,
): ConfigIssue[] {
  const kept: ConfigIssue[] = []
  const rows = new Map<string, { line: number; message: string }[]>()
  const templates = new Map<string, ConfigIssue>()
  for (const issue of issues) {
    const [, list = '', index, rest = ''] = /^(.+?)\[(\d+)\]\.?(.*)$/.exec(issue.path) ?? []
    const origin = origins.get(list)
    const line = origin?.lines[Number(index) - origin.before]
    if (!origin || line === undefined) {
      kept.push(issue)
      continue
    }
    const columns = origin.fields.get(rest)
    if (columns) {
      const message = `column ${columns.join(', ')}: ${issue.message}`
      const told = rows.get(origin.file) ?? []
      told.push({ line, message })
      rows.set(origin.file, told)
    } else {
      const path = [formatPath(origin.template), rest].join(
        rest === '' || rest[0] === '[' ? '' : '.',
      )
      templates.set(JSON.stringify([path, issue.message]), { path, message: issue.message })
    }
  }
  for (const [file, problems] of rows) kept.push(...inFile(file, problems))
  return [...kept, ...templates.values()]
}

function inFile(
  file: string,
  problems: readonly { line: number | undefined; message: string }[],
): ConfigIssue[] {
  const told = problems.slice(0, MAX_TOLD).map(({ line, message }) => ({
    path: line === undefined ? file : `${file}:${line}`,
    message,
  }))
  const more = problems.length - told.length
  return more > 0 ? [...told, { path: file, message: `${more} more problems like these` }] : told
}

const isObject = (value: unknown): value is Tree =>
  typeof value === 'object' && value !== null && !Array.isArray(value)
const asObject = (value: unknown): Tree => (isObject(value) ? value : {})
const isValue = (value: unknown): value is Value =>
  typeof value === 'string' || typeof value === 'number' || typeof value === 'boolean'
