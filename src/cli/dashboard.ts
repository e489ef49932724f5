import { type Command, print, withConfig } from './command.ts'
import { callAdmin } from './running.ts'

/** `dashboard`: a link to it that signs in, once. */
export const dashboard: Command = (cli) =>
  cli.command(
    'dashboard',
    'print a link to the dashboard that signs you in',
    (command) =>
      command.example('$0 dashboard', 'prints http://127.0.0.1:8081/#code=…, good for one use'),
    async ({ config: file }) => {
      await withConfig(file, async (config) => {
        const link = await callAdmin<{ url: string; expiresAt: string }>(
          config,
          'POST',
          '/api/dashboard-links',
        )
        print(link.url)
        const until = new Date(link.expiresAt).toLocaleTimeString(undefined, { hour12: false })
        process.stderr.write(
          `It works once, until ${until}. The tab that opens it stays signed in for 12 hours.\n`,
        )
      })
    },
  )
