import { access, writeFile } from 'node:fs/promises'
import { dirname, relative, resolve } from 'node:path'
import { createInterface } from 'node:readline/promises'
import { fileURLToPath } from 'node:url'
import { parseTarget } from '../lib/authority.ts'
import { type Command, CommandError, configFlag, EXIT, print } from './command.ts'

const EXAMPLE_TARGET = 'api.example.com'

/** `init`: writes a configuration to start from. */
export const init: Command = (cli) =>
  cli.command(
    'init',
    'write a configuration to start from',
    (command) =>
      command
        .option('target', {
          type: 'string',
          requiresArg: true,
          describe: 'host that gets the token',
        })
        .option('yes', {
          alias: 'y',
          type: 'boolean',
          default: false,
          describe: 'ask nothing, take the defaults',
        })
        .example('$0 init --yes', `writes config.json for ${EXAMPLE_TARGET}`)
        .example('$0 init --target api.supplier.example', 'writes config.json for that host'),
    async ({ config: file, target: wanted, yes }) => {
      await refuseExisting(file)
      const interactive = !yes && process.stdin.isTTY && process.stdout.isTTY
      const target = wanted ?? (interactive ? await ask() : EXAMPLE_TARGET)
      const read = parseTarget(target)
      if (typeof read === 'string') throw new CommandError(EXIT.usage, `target: ${read}`)
      await write(file, `${JSON.stringify(starter(file, target), null, 2)}\n`)

      const flag = configFlag(file)
      const url = `${read.scheme}://${read.wildcard ? `www.${read.host}` : target.replace(/^\w+:\/\/|\/.*$/g, '')}/`
      print(`Wrote ${file}. Next:`)
      print(`  1. put the token for ${target} into ${resolve(dirname(file), 'token.txt')}`)
      print(`  2. cupbearer start${flag}`)
      print(`  3. in another terminal: cupbearer run${flag} -- curl ${url}`)
      print(
        '`cupbearer check` explains what is wrong after an edit; docs/configuration.md has every key.',
      )
    },
  )

function starter(file: string, target: string): object {
  const schema = schemaBeside(file)
  return {
    ...(schema ? { $schema: schema } : {}),
    listen: '127.0.0.1:8080',
    pools: {
      main: {
        targets: [target],
        credentials: [{ id: 'account-1', source: { type: 'file', path: 'token.txt' } }],
      },
    },
  }
}

/** The schema of this installation, where the file can name it by a path that others share. */
function schemaBeside(file: string): string | undefined {
  const schema = fileURLToPath(new URL('../../config.schema.json', import.meta.url))
  const path = relative(dirname(resolve(file)), schema).replaceAll('\\', '/')
  return path.startsWith('..') ? undefined : `./${path}`
}

async function ask(): Promise<string> {
  const terminal = createInterface({ input: process.stdin, output: process.stdout })
  try {
    const answer = await terminal.question(`Host that gets the token [${EXAMPLE_TARGET}]: `)
    return answer.trim() || EXAMPLE_TARGET
  } finally {
    terminal.close()
  }
}

const refusal = (file: string) =>
  new CommandError(EXIT.failed, `${file} is there already`, 'move it away, or name another by -c')

/** Before any question is asked. */
async function refuseExisting(file: string): Promise<void> {
  const exists = await access(file).then(
    () => true,
    () => false,
  )
  if (exists) throw refusal(file)
}

async function write(file: string, text: string): Promise<void> {
  try {
    await writeFile(file, text, { flag: 'wx' })
  } catch (cause) {
    const { code } = cause as NodeJS.ErrnoException
    if (code === 'EEXIST') throw refusal(file)
    throw new CommandError(EXIT.failed, `${file} cannot be written (${code})`, undefined, { cause })
  }
}
