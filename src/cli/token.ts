import type { formatCredential } from '../admin/format.ts'
import type { Config } from '../config/schema.ts'
import { type Command, CommandError, EXIT, print, withConfig } from './command.ts'
import { callAdmin } from './running.ts'
import type { PoolView } from './status.ts'
import { duration, known, plain, table } from './table.ts'

type CredentialView = ReturnType<typeof formatCredential>

const ACTIONS = ['list', 'refresh', 'quarantine', 'release', 'forget'] as const

/** `token`: the credentials of the running proxy, and what can be done to one. */
export const token: Command = (cli) =>
  cli.command(
    'token <action> [credential]',
    'list the credentials, or act on one',
    (command) =>
      command
        .positional('action', {
          choices: ACTIONS,
          demandOption: true,
          describe:
            'refresh: get a new token now; quarantine: take it out of the pool; release: put it ' +
            'back, revoked or not; forget: drop its stored token and start afresh',
        })
        .positional('credential', { type: 'string', describe: 'POOL/ID; for list: POOL' })
        .option('json', { type: 'boolean', default: false, describe: 'answer in JSON' })
        .example('$0 token list', 'every credential of every pool')
        .example('$0 token refresh supplier/acme-de', 'renews that token now'),
    async ({ config: file, action, credential, json }) => {
      await withConfig(file, async (config) => {
        if (action === 'list') return list(config, credential, json)
        const [pool, id, ...rest] = (credential ?? '').split('/')
        if (!pool || !id || rest.length > 0) {
          throw new CommandError(
            EXIT.usage,
            'which credential? It is named POOL/ID',
            '`cupbearer token list` shows them',
          )
        }
        const path = `/api/pools/${encodeURIComponent(pool)}/credentials/${encodeURIComponent(id)}/${action}`
        const answer = await callAdmin<CredentialView>(config, 'POST', path)
        const why = answer.lastError ? ` (${plain(answer.lastError)})` : ''
        print(json ? JSON.stringify(answer) : `${pool}/${id} is ${answer.state}${why}`)
      })
    },
  )

async function list(config: Config, only: string | undefined, json: boolean): Promise<void> {
  const answer = await callAdmin<{ pools: PoolView[] }>(config, 'GET', '/api/pools')
  const pools = answer.pools.filter(({ name }) => only === undefined || name === only)
  if (only !== undefined && pools.length === 0) {
    throw new CommandError(EXIT.failed, 'no such pool', '`cupbearer status` shows the pools')
  }
  if (json) {
    print(JSON.stringify({ pools: pools.map(({ name, credentials }) => ({ name, credentials })) }))
    return
  }
  const now = Date.now()
  const until = (time: string) => duration((Date.parse(time) - now) / 1000)
  print(
    table(
      ['credential', 'state', 'egress', 'subject', 'token', 'ends in', 'uses', 'in flight', 'why'],
      pools.flatMap(({ name, credentials }) =>
        credentials.map((each) => [
          `${name}/${each.id}`,
          each.state,
          each.egress,
          known(each.subject, String),
          `#${each.generation}`,
          known(each.expiresAt, until),
          String(each.uses),
          String(each.inFlight),
          known(each.lastError, String),
        ]),
      ),
    ),
  )
}
