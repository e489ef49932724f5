import { execFile } from 'node:child_process'
import { readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { promisify } from 'node:util'
import type { Client } from './matrix.ts'
import { STEPS } from './steps.ts'

const execute = promisify(execFile)
const HEAD = ['client', 'tried with', 'GET', 'POST', '5 MB', 'keep-alive', '401 healed']
const NEEDS = ['needs under `run`', 'needs without `run`']

/** Where `npm run clients` collects the versions of what has passed. */
const results = process.env.CLIENT_RESULTS

/** Notes that a client has passed, for the table. */
export async function record({ id, version: [file = '', ...args] }: Client): Promise<void> {
  if (!results) return
  const { stdout } = await execute(file, args)
  const [version = ''] = /\d+(\.\d+)+/.exec(stdout) ?? []
  await writeFile(join(results, id), version)
}

/** The version that was noted; undefined outside of `npm run clients`. */
export const recorded = (client: Client): Promise<string | undefined> =>
  results === undefined
    ? Promise.resolve(undefined)
    : readFile(join(results, client.id), 'utf8').catch(() => 'failed')

/** The table of docs/clients.md, a row for each client. */
export function render(rows: readonly { client: Client; version: string }[]): string {
  const lines = rows.map(({ client, version }) => [
    client.name,
    version,
    ...STEPS.map((step) => (client.fails || client.without?.includes(step) ? '–' : '✓')),
    client.fails ?? client.inside ?? '',
    client.outside,
  ])
  const head = [...HEAD, ...NEEDS]
  return [head, head.map(() => '---'), ...lines]
    .map((cells) => `| ${cells.map((cell) => cell.replaceAll('|', '\\|')).join(' | ')} |`)
    .join('\n')
}
