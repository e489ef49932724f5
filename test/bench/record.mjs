import { readFileSync, writeFileSync } from 'node:fs'
import { ratiosOf, ratioTable } from './report.mjs'

/** The last recorded run stands in the page between these lines: a table for readers, JSON for the next run. */
const PLACE = /<!-- record -->\n[\s\S]*?<!-- \/record -->/
const DATA = /<!-- ratios (\{.*\}) -->/

/** The ratios of the last recorded run, or undefined. */
export function recorded(page) {
  const data = DATA.exec(readFileSync(page, 'utf8'))?.[1]
  return data && JSON.parse(data)
}

/** Puts this run in its place. */
export function record(page, targets) {
  const text = readFileSync(page, 'utf8')
  if (!PLACE.test(text)) throw new Error(`${page} has no place for a record`)
  const data = `<!-- ratios ${JSON.stringify(ratiosOf(targets))} -->`
  const block = `<!-- record -->\n${ratioTable(targets)}\n\n${data}\n<!-- /record -->`
  writeFileSync(
    page,
    text.replace(PLACE, () => block),
  )
}
