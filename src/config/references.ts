import { readFile } from 'node:fs/promises'
import { resolve } from 'node:path'
import type { ConfigIssue } from '../errors.ts'
import { escapeTemplate } from '../lib/template.ts'
import { formatPath, type Path } from './path.ts'

const REFERENCE = /\$\{(env|file):([^{}]*)\}/g

/**
 * Replaces `${env:NAME}` and `${file:PATH}` in every string of a JSON tree. What comes in is not looked at
 * again: a secret that holds `${` stays as it is. Returns a new tree and what could not be found.
 */
export async function resolveReferences(
  tree: unknown,
  folder: string,
  env: NodeJS.ProcessEnv,
): Promise<{ tree: unknown; issues: ConfigIssue[] }> {
  const issues: ConfigIssue[] = []

  const lookUp = async (kind: string, name: string): Promise<string | { problem: string }> => {
    if (kind === 'env') {
      const value = Object.hasOwn(env, name) ? env[name] : undefined
      return value ?? { problem: `the environment variable ${name} is not set` }
    }
    try {
      const text = await readFile(resolve(folder, name), 'utf8')
      return text.replace(/[\r\n]+$/, '')
    } catch (error) {
      return { problem: `the file ${resolve(folder, name)} cannot be read (${reason(error)})` }
    }
  }

  const expand = async (text: string, path: Path, templated: boolean): Promise<string> => {
    const parts: string[] = []
    let end = 0
    for (const match of text.matchAll(REFERENCE)) {
      const found = await lookUp(match[1] as string, match[2] as string)
      if (typeof found !== 'string') {
        issues.push({ path: formatPath(path), message: found.problem })
        continue
      }
      parts.push(text.slice(end, match.index), templated ? escapeTemplate(found) : found)
      end = match.index + match[0].length
    }
    return parts.length === 0 ? text : parts.join('') + text.slice(end)
  }

  const walk = async (value: unknown, path: Path, templated = false): Promise<unknown> => {
    if (typeof value === 'string') return expand(value, path, templated)
    if (Array.isArray(value)) {
      const items: unknown[] = []
      for (const [index, item] of value.entries()) {
        items.push(await walk(item, [...path, index], templated))
      }
      return items
    }
    if (typeof value === 'object' && value !== null) {
      const entries: [string, unknown][] = []
      for (const [key, item] of Object.entries(value)) {
        const within = templated || holdsTemplates(path, value, key)
        entries.push([key, await walk(item, [...path, key], within)])
      }
      // Defines own properties, so that a key `__proto__` stays a key.
      return Object.fromEntries(entries)
    }
    return value
  }

  return { tree: await walk(tree, []), issues }
}

/** A reference is text also where templates stand: a password with braces must not become one. */
export function holdsTemplates(path: Path, owner: object, key: string): boolean {
  const { type } = owner as { type?: unknown }
  if (path.at(-1) === 'credentialsFrom') return key === 'template'
  if (path.at(-1) !== 'source') return false
  return type === 'login' || type === 'browser' || (type === 'exec' && key === 'env')
}

/** Why a file could not be read, in words and without its content. */
export function reason(error: unknown): string {
  const code = (error as NodeJS.ErrnoException).code
  const known: Record<string, string> = {
    ENOENT: 'no such file',
    EACCES: 'permission denied',
    EISDIR: 'it is a folder',
    ENOTDIR: 'a part of the path is no folder',
  }
  return known[code ?? ''] ?? code ?? 'unreadable'
}
