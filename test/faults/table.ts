import { readFileSync, writeFileSync } from 'node:fs'
import { resolve } from 'node:path'
import { expect } from 'vitest'

const PAGE = resolve(import.meta.dirname, '../../docs/reliability.md')

/** What was seen under one fault, in words of the page. */
export type Row = readonly string[]

/**
 * Compares what a run saw with the table of that name on docs/reliability.md; with `WRITE_TABLES=1` it writes the
 * table instead (`--no-file-parallelism`: the tables share a file). The page thus says what has been seen, nothing else.
 */
export function expectOnPage(name: string, head: Row, rows: readonly Row[]): void {
  const lines = [head, head.map(() => '---'), ...rows].map((row) => `| ${row.join(' | ')} |`)
  const table = lines.join('\n')
  const page = readFileSync(PAGE, 'utf8')
  const [begin, end] = [`<!-- ${name}: written by its test -->\n`, `\n<!-- end of ${name} -->`]
  const from = page.indexOf(begin) + begin.length
  const to = page.indexOf(end)
  if (process.env.WRITE_TABLES === '1')
    writeFileSync(PAGE, page.slice(0, from) + table + page.slice(to))
  else expect(page.slice(from, to)).toBe(table)
}
