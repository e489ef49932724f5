import { open } from 'node:fs/promises'
import { readCsv } from './csv.ts'
import { readJson } from './json.ts'
import { reason } from './references.ts'

/** A value of one account; CSV has strings only. */
export type Value = string | number | boolean

/** One account: its values by column, and where it stands. */
export interface Row {
  readonly line: number
  readonly values: ReadonlyMap<string, unknown>
}

/** What is wrong with a file of accounts; never quotes it, header included: it may be a secret in the wrong place. */
export interface RowProblem {
  /** Undefined for the file as a whole. */
  readonly line: number | undefined
  readonly message: string
}

export interface Accounts {
  readonly rows: readonly Row[]
  /** Names that at least one row has, or the header. */
  readonly columns: ReadonlySet<string>
  readonly problems: readonly RowProblem[]
}

const MAX_BYTES = 64 * 2 ** 20

/** Reads a file of accounts: CSV with a header, or one JSON object a line (NDJSON). */
export async function readAccounts(path: string): Promise<Accounts> {
  let text: string
  try {
    text = await readText(path)
  } catch (error) {
    const message = error instanceof TooLarge ? error.message : `cannot be read (${reason(error)})`
    return { rows: [], columns: new Set(), problems: [{ line: undefined, message }] }
  }
  if (/\.(ndjson|jsonl)$/i.test(path)) return fromNdjson(text)
  if (/\.csv$/i.test(path)) return fromCsv(text)
  return /^\ufeff?\s*\{/.test(text) ? fromNdjson(text) : fromCsv(text)
}

class TooLarge extends Error {}

async function readText(path: string): Promise<string> {
  const handle = await open(path)
  try {
    const { size } = await handle.stat()
    if (size > MAX_BYTES) throw new TooLarge('larger than 64 MiB')
    return await handle.readFile('utf8')
  } finally {
    await handle.close()
  }
}

function fromCsv(text: string): Accounts {
  const { records, problem } = readCsv(text)
  const problems: RowProblem[] = []
  const [header, ...body] = records
  if (!header && !problem)
    problems.push({ line: 1, message: 'expected a header with the names of the columns' })
  const names = (header?.fields ?? []).map((name) => name.trim())
  for (const [index, name] of names.entries()) {
    const first = names.indexOf(name)
    const line = header?.line
    if (name === '') problems.push({ line, message: `column ${index + 1}: expected a name` })
    else if (first !== index) {
      const message = `column ${index + 1}: has the same name as column ${first + 1}`
      problems.push({ line, message })
    }
  }
  const rows: Row[] = []
  for (const { line, fields } of body) {
    if (fields.length === names.length) {
      rows.push({ line, values: new Map(names.map((name, index) => [name, fields[index]])) })
    } else {
      const message = `expected ${count(names.length, 'field')} as in the header, found ${fields.length}`
      problems.push({ line, message })
    }
  }
  if (problem) problems.push(problem)
  return { rows, columns: new Set(names), problems }
}

function fromNdjson(text: string): Accounts {
  const rows: Row[] = []
  const columns = new Set<string>()
  const problems: RowProblem[] = []
  for (const [index, each] of text
    .replace(/^\ufeff/, '')
    .split('\n')
    .entries()) {
    const line = index + 1
    if (each.trim() === '') continue
    const json = readJson(each)
    if ('issues' in json) {
      for (const { path, message } of json.issues) {
        // Each line is a text of its own to the reader.
        const place = message.replaceAll('line 1, ', '')
        problems.push({ line, message: path === '' ? place : `column ${path}: ${place}` })
      }
    } else if (typeof json.value !== 'object' || json.value === null || Array.isArray(json.value)) {
      problems.push({ line, message: 'expected a JSON object' })
    } else {
      const values = new Map(Object.entries(json.value))
      for (const name of values.keys()) columns.add(name)
      rows.push({ line, values })
    }
  }
  return { rows, columns, problems }
}

const count = (number: number, noun: string): string =>
  `${number} ${noun}${number === 1 ? '' : 's'}`
