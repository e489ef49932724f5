import { open } from 'node:fs/promises'
import { resolve } from 'node:path'
import type { Har } from '../trace/har.ts'
import { type Command, CommandError, EXIT, print, withConfig } from './command.ts'
import { callAdmin } from './running.ts'
import { queryOf, withFilters } from './trace-filter.ts'

/** `har`: the latest requests as an HTTP archive. */
export const har: Command = (cli) =>
  cli.command(
    'har',
    'write the latest requests as an HTTP archive (HAR 1.2)',
    (command) =>
      withFilters(command)
        .option('output', {
          alias: 'o',
          type: 'string',
          requiresArg: true,
          describe: 'file to write, readable by you only; by default standard output',
        })
        .epilogue(
          'Browsers’ developer tools open it (Network, import). Secrets are replaced. Headers and bodies ' +
            'are in it where trace.headers and trace.bodies have them recorded.',
        )
        .example('$0 har -o failed.har --verdict expired', 'what ended with a refused token')
        .example('$0 har --since 10m --pool supplier', 'to standard output'),
    async ({ output, ...options }) => {
      await withConfig(options.config, async (config) => {
        const archive = await callAdmin<Har>(config, 'GET', `/api/traces.har?${queryOf(options)}`)
        const text = JSON.stringify(archive, null, 1)
        if (output === undefined) return print(text)
        await write(output, text)
        const { length } = archive.log.entries
        print(`${length} ${length === 1 ? 'request' : 'requests'} in ${resolve(output)}`)
      })
    },
  )

async function write(path: string, text: string): Promise<void> {
  try {
    const file = await open(path, 'w', 0o600)
    try {
      await file.chmod(0o600)
      await file.writeFile(`${text}\n`)
    } finally {
      await file.close()
    }
  } catch (cause) {
    const { code } = cause as NodeJS.ErrnoException
    throw new CommandError(EXIT.failed, `${path} cannot be written (${code})`, undefined, { cause })
  }
}
