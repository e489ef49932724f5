import { readFileSync, writeFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { z } from 'zod'
import { renderReference } from './reference.ts'
import { configSchema } from './schema.ts'

/** The schema of a configuration file as JSON Schema, for editors. */
export function configJsonSchema(): Record<string, unknown> {
  return z.toJSONSchema(configSchema, {
    io: 'input',
    override: ({ jsonSchema }) => {
      // Zod writes the safe-integer range out; to a reader it is noise.
      if (jsonSchema.maximum === Number.MAX_SAFE_INTEGER) delete jsonSchema.maximum
      if (jsonSchema.minimum === Number.MIN_SAFE_INTEGER) delete jsonSchema.minimum
    },
  })
}

export const BEGIN = '<!-- generated from the schema: begin -->'
export const END = '<!-- generated from the schema: end -->'

/** Puts the tables of the schema between the marks of a Markdown page. */
export function insertReference(page: string): string {
  const begin = page.indexOf(BEGIN)
  const end = page.indexOf(END)
  if (begin === -1 || end < begin) throw new Error('the page has no marks for the reference')
  const tables = renderReference(configJsonSchema())
  return `${page.slice(0, begin)}${BEGIN}\n\n${tables}\n${page.slice(end)}`
}

/** `node dist/config/json-schema.js` writes the two files that are made from the schema. */
if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const root = new URL('../../', import.meta.url)
  const page = new URL('docs/configuration.md', root)
  writeFileSync(
    new URL('config.schema.json', root),
    `${JSON.stringify(configJsonSchema(), null, 2)}\n`,
  )
  writeFileSync(page, insertReference(readFileSync(page, 'utf8')))
}
