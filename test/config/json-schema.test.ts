import { readFileSync } from 'node:fs'
import { expect, test } from 'vitest'
import { configJsonSchema, insertReference } from '../../src/config/json-schema.ts'
import { loadConfig } from '../../src/config/load.ts'

const root = new URL('../../', import.meta.url)
const read = (name: string) => readFileSync(new URL(name, root), 'utf8')
const ADVICE = 'run: npm run build && node dist/config/json-schema.js'

test('config.schema.json is in step with the schema', () => {
  expect(JSON.parse(read('config.schema.json')), ADVICE).toEqual(configJsonSchema())
})

test('docs/configuration.md is in step with the schema', () => {
  const page = read('docs/configuration.md')
  expect(insertReference(page), ADVICE).toBe(page)
})

test('every key of the schema says what it means', () => {
  const silent: string[] = []
  const visit = (node: unknown, path: string): void => {
    if (typeof node !== 'object' || node === null) return
    for (const [key, child] of Object.entries(node)) {
      if (key === 'properties') {
        for (const [name, property] of Object.entries(child as Record<string, object>)) {
          if (name !== 'type' && !('description' in property)) silent.push(`${path}.${name}`)
          visit(property, `${path}.${name}`)
        }
      } else visit(child, path)
    }
  }
  visit(configJsonSchema(), '')
  expect(silent).toEqual([])
})

test('the example is a valid configuration that uses every source and every kind of egress', async () => {
  const config = await loadConfig(new URL('config.example.json', root).pathname, {
    ...Object.fromEntries(
      [...read('config.example.json').matchAll(/\$\{env:(\w+)\}/g)].map(([, name]) => [name, 'x']),
    ),
  })
  const credentials = Object.values(config.pools).flatMap((pool) => pool.credentials)
  expect(new Set(credentials.map(({ source }) => source.type))).toEqual(
    new Set(['static', 'file', 'oauth2']),
  )
  const kinds = Object.values(config.egress).map(({ url }) => url.reveal().split(':')[0])
  expect(new Set(kinds)).toEqual(new Set(['local', 'http', 'https', 'socks5']))
})

test('the example and its comments name the same pools', () => {
  const page = read('docs/configuration.md')
  const example = JSON.parse(read('config.example.json')) as { pools: Record<string, unknown> }
  for (const name of Object.keys(example.pools)) expect(page).toContain(`\`${name}\``)
})
