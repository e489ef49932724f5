import { expect, test } from 'vitest'
import { problemsOf } from './fragment.ts'
import { type Block, blocksOf, PAGES, placeOf } from './pages.ts'
const blocks = PAGES.flatMap(blocksOf).filter(({ language, directive }) => language === 'json' && !directive)
test.each(blocks.map((b) => [placeOf(b), b] as const))('%s', async (_p, b: Block) => { expect(await problemsOf(b.text)).toBeUndefined() })
