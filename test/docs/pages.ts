import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'

const ROOT = fileURLToPath(new URL('../..', import.meta.url))

/** A fenced block of a page, and what the comment right above it says is to be done with it. */
export interface Block {
  readonly page: string
  readonly line: number
  readonly language: string
  readonly text: string
  /**
   * - `file: NAME`: saved by that name in the folder of the page
   * - `run`, `run: prints REGEX`: a shell runs it there
   * - `start`: the proxy is started by it, and serves what follows
   * - `not run: REASON`
   */
  readonly directive: string | undefined
}

/** The pages for users, those in folders left out. */
export const PAGES: readonly string[] = [
  'README.md',
  'SECURITY.md',
  'CONTRIBUTING.md',
  ...readdirSync(join(ROOT, 'docs'))
    .filter((file) => file.endsWith('.md'))
    .map((file) => `docs/${file}`)
    .sort(),
]

export const readPage = (page: string): string => readFileSync(join(ROOT, page), 'utf8')

/** The blocks of a page in order. */
export function blocksOf(page: string): Block[] {
  const blocks: Block[] = []
  const lines = readPage(page).split('\n')
  for (let at = 0; at < lines.length; at++) {
    const fence = /^```(\w*)/.exec(lines[at] ?? '')
    if (!fence) continue
    const end = lines.indexOf('```', at + 1)
    if (end < 0) throw new Error(`${page}:${at + 1}: the block has no end`)
    const above = /^<!-- (.+) -->$/.exec(lines[at - 1] ?? '')
    blocks.push({
      page,
      line: at + 1,
      language: fence[1] ?? '',
      text: `${lines.slice(at + 1, end).join('\n')}\n`,
      directive: above?.[1],
    })
    at = end
  }
  return blocks
}

/** Where a block is, for messages. */
export const placeOf = ({ page, line }: Block): string => `${page}:${line}`
