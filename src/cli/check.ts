import { ConfigError } from '../errors.ts'
import { type Command, EXIT, print } from './command.ts'

/** `check`: reads the configuration and says everything that is wrong with it. */
export const check: Command = (cli) =>
  cli.command(
    'check',
    'check the configuration and report everything that is wrong',
    (command) =>
      command
        .option('json', { type: 'boolean', default: false, describe: 'answer in JSON' })
        .example('$0 check -c staging.json', 'exits with 0 when valid, else with 2'),
    async ({ config: file, json }) => {
      try {
        const { loadConfig } = await import('../config/load.ts')
        const { pools, egress } = await loadConfig(file)
        const credentials = Object.values(pools).flatMap((pool) => pool.credentials)
        const counts = [
          count(Object.keys(pools).length, 'pool'),
          count(credentials.length, 'credential'),
          count(Object.keys({ ...egress, direct: true }).length, 'egress'),
        ]
        print(json ? JSON.stringify({ valid: true }) : `${file} is valid: ${counts.join(', ')}`)
      } catch (error) {
        if (!json || !(error instanceof ConfigError)) throw error
        print(JSON.stringify({ valid: false, issues: error.issues }))
        process.exitCode = EXIT.usage
      }
    },
  )

const count = (number: number, noun: string): string =>
  `${number} ${noun}${number === 1 ? '' : noun.endsWith('s') ? 'es' : 's'}`
