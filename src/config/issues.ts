import type { z } from 'zod'
import type { ConfigIssue } from '../errors.ts'
import { formatPath, type Path } from './path.ts'

type Issue = z.core.$ZodIssue

/**
 * Turns a schema's issues into words for an operator. No message quotes a value of the file: what stands
 * there may be a secret in the wrong place.
 */
export function describeIssues(
  issues: readonly Issue[],
  tree: unknown,
  base: Path = [],
): ConfigIssue[] {
  return issues.flatMap((issue) => describe(issue, tree, [...base, ...issue.path]))
}

function describe(issue: Issue, tree: unknown, path: Path): ConfigIssue[] {
  if (issue.code === 'unrecognized_keys') {
    const messages = issue.message.split('\n')
    return issue.keys.map((key, index) => ({
      path: formatPath([...path, key]),
      message: messages[index] ?? 'unknown key',
    }))
  }
  if (issue.code === 'invalid_union') {
    const branch = nearestBranch(issue.errors)
    if (branch) return describeIssues(branch, tree, path)
  }
  return [{ path: formatPath(path), message: message(issue, valueAt(tree, path)) }]
}

/** The branch of a union that was meant: the one of the right type, else the only one nearest to it. */
function nearestBranch(branches: readonly (readonly Issue[])[]): readonly Issue[] | undefined {
  const [first, second] = branches
    .filter((issues) => !issues.some((i) => i.code === 'invalid_type' && i.path.length === 0))
    .sort((a, b) => a.length - b.length)
  return first && (!second || first.length < second.length) ? first : undefined
}

function message(issue: Issue, value: unknown): string {
  const required = value === undefined ? 'required: ' : ''
  switch (issue.code) {
    case 'invalid_type':
      return `${required}expected ${article(issue.expected)}${required ? '' : `, found ${found(value)}`}`
    case 'invalid_value':
      return `${required}expected ${issue.values.length > 1 ? 'one of ' : ''}${issue.values.map((v) => JSON.stringify(v)).join(', ')}`
    case 'invalid_union':
      return `${required}${issue.message}`
    case 'invalid_key':
      return `in this name: ${issue.issues[0] ? message(issue.issues[0], '') : 'unexpected'}`
    case 'too_small':
    case 'too_big':
      return isOwn(issue.message) ? issue.message : range(issue)
    default:
      return issue.message
  }
}

const isOwn = (text: string): boolean => text.startsWith('expected ')

function range(issue: Extract<Issue, { code: 'too_small' | 'too_big' }>): string {
  const unit =
    issue.origin === 'array' ? ' entries' : issue.origin === 'string' ? ' characters' : ''
  return issue.code === 'too_small'
    ? `expected ${issue.inclusive ? 'at least' : 'more than'} ${issue.minimum}${unit}`
    : `expected ${issue.inclusive ? 'at most' : 'less than'} ${issue.maximum}${unit}`
}

function article(type: string): string {
  const words: Record<string, string> = {
    int: 'a whole number',
    boolean: 'true or false',
    array: 'a list',
    object: 'an object',
    record: 'an object',
  }
  return words[type] ?? `a ${type}`
}

function found(value: unknown): string {
  if (value === null) return 'null'
  if (Array.isArray(value)) return 'a list'
  if (typeof value === 'number' && !Number.isInteger(value)) return 'a fraction'
  return article(typeof value)
}

function valueAt(tree: unknown, path: Path): unknown {
  let value = tree
  for (const key of path) {
    if (typeof value !== 'object' || value === null || !Object.hasOwn(value, key)) return undefined
    value = (value as Record<PropertyKey, unknown>)[key]
  }
  return value
}
