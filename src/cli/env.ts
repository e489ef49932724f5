import { type Command, print, withConfig } from './command.ts'

/** `env`: what `run` sets, for a shell. */
export const env: Command = (cli) =>
  cli.command(
    'env',
    'print the variables that `run` sets, for a shell',
    (command) =>
      command
        .option('client', {
          type: 'string',
          requiresArg: true,
          describe: 'name in clients to authenticate as',
        })
        .option('json', { type: 'boolean', default: false, describe: 'answer in JSON' })
        .example('eval "$($0 env)"', 'sets up this shell'),
    async ({ config: file, client, json }) => {
      await withConfig(file, async (config) => {
        const { prepareEnvironment } = await import('./child-environment.ts')
        const variables = await prepareEnvironment(config, { client })
        if (json) print(JSON.stringify(variables))
        else
          for (const [name, value] of Object.entries(variables))
            print(`export ${name}=${quote(value)}`)
      })
    },
  )

/** POSIX shell quoting: nothing is special between single quotes but the quote itself. */
const quote = (value: string): string => `'${value.replaceAll("'", "'\\''")}'`
