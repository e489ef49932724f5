import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { describe, expect, test } from 'vitest'
import { ADMIN_CODES } from '../src/admin/problem.ts'
import { loadConfig } from '../src/config/load.ts'
import { OPERATOR_CODES, WIRE_CODES } from '../src/errors.ts'
import { Events } from '../src/events.ts'
import { createMetrics } from '../src/metrics.ts'
import { Folder } from './config/folder.ts'

const ROOT = fileURLToPath(new URL('..', import.meta.url))
const read = (file: string) => readFileSync(join(ROOT, file), 'utf8')
const PAGES = [
  'README.md',
  'CHANGELOG.md',
  'CONTRIBUTING.md',
  'src/README.md',
  ...readdirSync(join(ROOT, 'docs'), { recursive: true, encoding: 'utf8' })
    .filter((file) => file.endsWith('.md'))
    .map((file) => join('docs', file)),
]

describe('docs/errors.md', () => {
  const [, wire, operator, admin] = read('docs/errors.md').split(/^## /m) as [
    string,
    string,
    string,
    string,
  ]
  /** The sections that are headed by a code: it, then what it means and what to do. */
  const sections = (part: string) =>
    part
      .split(/^### /m)
      .slice(1)
      .map((section) => section.split(/\n\n|\n$/))
      .map(([code = '', meaning = '', advice = '']) => [code.replaceAll('`', ''), meaning, advice])
  /** The cells of a table's rows that begin with a code. */
  const rows = (part: string) =>
    part
      .split('\n')
      .filter((line) => line.startsWith('| `'))
      .map((line) => line.split('|').map((cell) => cell.trim().replaceAll('`', '')))
      .map(([, ...cells]) => cells.slice(0, -1))

  test('has a section for every answer of the proxy with its status, and no other', () => {
    const codes = Object.entries(WIRE_CODES).map(([code, { status }]) => [code, `${status}`])
    const found = sections(wire).map(([code, meaning]) => [
      code,
      /^Status (\d+)\./.exec(`${meaning}`)?.[1],
    ])
    expect(found).toEqual(codes)
  })

  test('has a section for every failure of a command or credential, and no other', () => {
    expect(sections(operator).map(([code]) => code)).toEqual([...OPERATOR_CODES])
  })

  test('has every answer of the admin API with its status, and no other', () => {
    const codes = Object.entries(ADMIN_CODES).map(([code, status]) => [code, `${status}`])
    expect(rows(admin).map((cells) => cells.slice(0, 2))).toEqual(codes)
  })

  test('says of each what it means and what to do', () => {
    for (const [, meaning, advice] of [...sections(wire), ...sections(operator)]) {
      expect(meaning).toMatch(/^.{10,}$/)
      expect(advice).toMatch(/^\*\*What to do:\*\* .{10,}$/)
    }
    for (const cells of rows(admin)) {
      expect(cells).toHaveLength(4)
      for (const cell of cells.slice(2)) expect(cell).toMatch(/^.{10,}$/)
    }
  })
})

test('docs/operations.md names every metric of ours, and no other', async () => {
  const metrics = createMetrics(
    new Events(),
    () => [],
    () => [],
  )
  const { text } = await metrics.scrape()
  metrics.close()
  const exposed = [...text.matchAll(/^# HELP (cupbearer_\S+)/gm)].map((match) => match[1])
  const named = read('docs/operations.md').match(/^\| `cupbearer_[a-z_]+/gm) ?? []
  expect(named.map((cell) => cell.slice(3)).sort()).toEqual(exposed.sort())
})

test('the configuration in README.md is valid', async () => {
  await using folder = await Folder.create()
  const config = /```json\n([\s\S]*?)```/.exec(read('README.md'))?.[1] ?? ''
  await folder.write('config.json', config)
  const named = Object.fromEntries(
    [...config.matchAll(/\$\{env:(\w+)\}/g)].map((match) => [match[1] as string, 'x']),
  )
  const loaded = await loadConfig(folder.at('config.json'), { ...named })
  expect(Object.keys(loaded.pools)).toHaveLength(1)
})

test.each(PAGES)('every link to a file in %s leads somewhere', (page) => {
  const links = [...read(page).matchAll(/\]\((?!https?:|#)([^)#]+)[^)]*\)/g)]
  const dead = links
    .map((match) => match[1] as string)
    .filter((link) => !existsSync(join(ROOT, dirname(page), link)))
  expect(dead).toEqual([])
})
