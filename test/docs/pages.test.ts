import { readdirSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { describe, expect, test } from 'vitest'
import { problemsOf } from './fragment.ts'
import { type Block, blocksOf, PAGES, placeOf, readPage } from './pages.ts'
import { isStory, Story } from './story.ts'

/** Why the blocks of a page that need another place are left out; those of other pages say so themselves. */
const ELSEWHERE: Readonly<Record<string, string>> = {
  'README.md': 'test/cli/demo.test.ts and docs/quick-start.md run the same commands',
  'CONTRIBUTING.md': 'they are the commands that run these tests',
  'docs/benchmarks.md': 'minutes of load, on a machine that is otherwise idle',
  'docs/deployment.md':
    'Docker, Kubernetes and systemd: test/packaging/deploy.test.ts reads their files',
}
/** What shows output or a line of a protocol, and is nothing to run. */
const SHOWN = new Set(['', 'text', 'console'])
const blocks = PAGES.flatMap(blocksOf)
const configurations = blocks.filter(
  ({ language, directive }) => language === 'json' && !directive?.startsWith('not run'),
)

test('every block is run, checked as a configuration, or says why it is not', () => {
  const isKnown = ({ page, language, directive = '' }: Block) =>
    SHOWN.has(language) ||
    language === 'json' ||
    /^(file: \S+|run(: prints .+)?|start|not run: .{10,})$/.test(directive) ||
    page in ELSEWHERE
  expect(blocks.filter((block) => !isKnown(block)).map(placeOf)).toEqual([])
  const leftOut = blocks.filter(
    ({ page, language, directive }) =>
      directive?.startsWith('not run') ||
      (page in ELSEWHERE && !SHOWN.has(language) && language !== 'json'),
  )
  // Each of them is a loss: look twice before this number grows.
  expect(leftOut.length).toBeLessThanOrEqual(20)
})

test.each(configurations.map((block) => [placeOf(block), block] as const))(
  'the configuration at %s is valid',
  async (_place, { text }) => {
    expect(await problemsOf(text)).toBeUndefined()
  },
)

describe('told from top to bottom, all of it works on', () => {
  test.each(PAGES.filter(isStory))('%s', { timeout: 180_000 }, async (page) => {
    await using story = await Story.begin(page)
    for (const block of blocksOf(page)) await story.tell(block)
  })
})

test('docs/README.md leads to every page', () => {
  const docs = readdirSync(fileURLToPath(new URL('../../docs', import.meta.url)))
  const contents = readPage('docs/README.md')
  const pages = docs.filter((file) => file.endsWith('.md') && file !== 'README.md')
  expect(pages.filter((file) => !contents.includes(`](${file})`))).toEqual([])
})
