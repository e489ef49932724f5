import { mkdir, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { readConfig } from '../../src/config/load.ts'
import { Folder } from '../config/folder.ts'

type Tree = Record<string, unknown>

/** Of a pool and its parts, what they need to stand in a configuration by themselves. */
const SOURCE = { type: 'static', token: 'x' }
const VARS = { user: 'ann', password: 'x' }
const CREDENTIAL = { id: 'a', vars: VARS, source: SOURCE }
const POOL = { targets: ['api.pages.example'], credentials: [CREDENTIAL] }

/** The ways in which a piece of configuration may be meant, as whole configurations. */
const READINGS: readonly ((piece: Tree) => Tree)[] = [
  (piece) => piece,
  (piece) => ({ pools: { p: { ...POOL, ...piece } } }),
  (piece) => ({ pools: { p: { ...POOL, credentials: [{ ...CREDENTIAL, ...piece }] } } }),
  (piece) => ({ pools: { p: { ...POOL, credentials: [{ ...CREDENTIAL, source: piece }] } } }),
]

/** Says what is wrong with a piece of configuration however it is meant; undefined where one reading is valid. */
export async function problemsOf(text: string): Promise<string[] | undefined> {
  // Files of a system lie in the folder too.
  const near = text.replaceAll('${file:/', '${file:')
  const piece = parse(near)
  if (piece === undefined) return ['it is not JSON, nor members of an object']
  await using folder = await Folder.create()
  await standIn(folder.path, near)
  const problems: string[] = []
  for (const reading of READINGS) {
    try {
      const known = withNames(reading(piece))
      await readConfig(known, folder.at('config.json'), environment(text))
      return undefined
    } catch (error) {
      problems.push((error as Error).message)
    }
  }
  return problems
}

/** A whole object, or the members of one. */
function parse(text: string): Tree | undefined {
  for (const whole of [text, `{${text}}`]) {
    try {
      return JSON.parse(whole) as Tree
    } catch {
      // The other way then.
    }
  }
  return undefined
}

/** Whatever it refers to by name is there: variables, files, values of a login. */
const environment = (text: string) =>
  Object.fromEntries([...text.matchAll(/\$\{env:(\w+)\}/g)].map((match) => [match[1], '32123']))

/** What stands in for a file: a token, a password, a key of 32 bytes. */
const FILE = Buffer.alloc(32).toString('base64')

async function standIn(folder: string, text: string): Promise<void> {
  for (const [, path] of text.matchAll(/\$\{file:([^}]+)\}/g)) {
    const file = join(folder, path as string)
    await mkdir(dirname(file), { recursive: true })
    await writeFile(file, FILE)
  }
  for (const [, path, extension] of text.matchAll(/"path": "([^"]+\.(csv|ndjson))"/g)) {
    const columns = [...new Set([...text.matchAll(/\{([A-Z_]+)\}/g)].map((match) => match[1]))]
    const row = columns.map(() => 'direct')
    await writeFile(
      join(folder, path as string),
      extension === 'csv'
        ? `${columns.join()}\n${row.join()}\n`
        : `${JSON.stringify(Object.fromEntries(columns.map((name) => [name, 'direct'])))}\n`,
    )
  }
}

/** Egresses, pools of clients and values that the piece names, but another part of the page defines. */
function withNames(config: Tree): Tree {
  const text = JSON.stringify(config)
  const egress = Object.fromEntries(
    [...text.matchAll(/"egress":"([\w-]+)"/g)].map((match) => [match[1], 'local://127.0.0.1']),
  )
  delete egress.direct
  const pools = [...text.matchAll(/"pools":\["([\w-]+)"\]/g)].map((match) => match[1] as string)
  const named = Object.fromEntries(
    pools.map((name, index) => [name, { ...POOL, targets: [`${index}.clients.example`] }]),
  )
  return {
    ...config,
    ...(Object.keys(egress).length > 0 && {
      egress: { ...egress, ...(config.egress as Tree | undefined) },
    }),
    ...(pools.length > 0 && { pools: { ...named, ...(config.pools as Tree | undefined) } }),
  }
}
