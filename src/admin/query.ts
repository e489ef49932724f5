import { AdminError } from './problem.ts'

/** Query parameters as the router parsed them: a string each, or a list where one stands several times. */
export type Query = Readonly<Record<string, unknown>>

/** Refuses parameters that nobody knows: a misspelt filter must not show everything. */
export function onlyParameters(query: Query, names: readonly string[]): void {
  for (const name of Object.keys(query)) {
    if (!names.includes(name)) throw invalid(`${names.join(', ')} are the parameters`)
  }
}

/** A parameter's value; undefined where it is missing or empty. */
export function readText(query: Query, name: string): string | undefined {
  const value = query[name]
  if (value === undefined || value === '') return undefined
  if (typeof value !== 'string') throw invalid(`${name} may stand once`)
  return value
}

export function readChoice<T extends string>(
  query: Query,
  name: string,
  values: readonly T[],
): T | undefined {
  const value = readText(query, name)
  const known = values.find((each) => each === value)
  if (value !== undefined && known === undefined) {
    throw invalid(`${name}: expected ${values.join(', ')}`)
  }
  return known
}

export function readInteger(
  query: Query,
  name: string,
  min: number,
  max: number,
): number | undefined {
  const value = readText(query, name)
  if (value === undefined) return undefined
  const number = /^\d{1,7}$/.test(value) ? Number(value) : Number.NaN
  if (!(number >= min && number <= max)) throw invalid(`${name}: expected ${min} to ${max}`)
  return number
}

/** An ISO 8601 time, in ms since the epoch. */
export function readTime(query: Query, name: string): number | undefined {
  const value = readText(query, name)
  if (value === undefined) return undefined
  const ms = /^\d{4}-\d\d-\d\d/.test(value) ? Date.parse(value) : Number.NaN
  if (Number.isNaN(ms)) throw invalid(`${name}: expected an ISO 8601 time`)
  return ms
}

function invalid(message: string): AdminError {
  return new AdminError('BAD_REQUEST', message)
}
