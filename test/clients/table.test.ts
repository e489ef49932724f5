import { readFile, writeFile } from 'node:fs/promises'
import { fileURLToPath } from 'node:url'
import { expect, test } from 'vitest'
import { MATRIX } from './matrix.ts'
import { recorded, render } from './table.ts'

const PAGE = fileURLToPath(new URL('../../docs/clients.md', import.meta.url))
const TABLE = /(?<=\n)\| client \|[\s\S]*?(?=\n\n)/

test('docs/clients.md lists the clients of the matrix, and what each needs', async () => {
  const page = await readFile(PAGE, 'utf8')
  const table = TABLE.exec(page)?.[0] ?? ''
  const cells = table.split('\n').map((line) => line.split(' | '))
  const versions = new Map(cells.map(([name, version]) => [name, version]))
  const rows = await Promise.all(
    MATRIX.map(async (client) => ({
      client,
      version: (await recorded(client)) ?? versions.get(`| ${client.name}`) ?? '',
    })),
  )
  if (process.env.CLIENT_RESULTS) await writeFile(PAGE, page.replace(TABLE, render(rows)))
  else expect(table).toBe(render(rows))
  expect(rows.filter(({ version }) => !/^\d/.test(version))).toEqual([])
})
