import { join } from 'node:path'
import { type Command, print, withConfig } from './command.ts'
import { findRunning } from './running.ts'

/** `dashboard`: where to look. */
export const dashboard: Command = (cli) =>
  cli.command(
    'dashboard',
    'print the URL of the dashboard',
    (command) => command.example('$0 dashboard', 'prints http://127.0.0.1:8081/'),
    async ({ config: file }) => {
      await withConfig(file, async (config) => {
        print(new URL('/', (await findRunning(config)).admin).href)
        const where = config.admin.token
          ? 'admin.token in the configuration'
          : join(config.dataDir, 'admin-token')
        process.stderr.write(`It asks for the admin token: ${where}\n`)
      })
    },
  )
