import { readFileSync } from 'node:fs'
import yargs, { type Argv } from 'yargs'
import { hideBin } from 'yargs/helpers'
import { ca } from './ca.ts'
import { capture } from './capture.ts'
import { check } from './check.ts'
import { type Command, CommandError, type CommonOptions, EXIT, reportError } from './command.ts'
import { dashboard } from './dashboard.ts'
import { demo } from './demo.ts'
import { doctor } from './doctor.ts'
import { env } from './env.ts'
import { har } from './har.ts'
import { init } from './init.ts'
import { login } from './login.ts'
import { run } from './run.ts'
import { start } from './start.ts'
import { status } from './status.ts'
import { token } from './token.ts'
import { trace } from './trace.ts'

const COMMANDS: readonly Command[] = [
  init,
  start,
  run,
  env,
  check,
  doctor,
  status,
  trace,
  har,
  token,
  login,
  capture,
  ca,
  dashboard,
  demo,
]

function parser(): Argv<CommonOptions> {
  const { version } = JSON.parse(
    readFileSync(new URL('../../package.json', import.meta.url), 'utf8'),
  ) as { version: string }
  const cli = yargs(hideBin(process.argv))
    .scriptName('cupbearer')
    .usage('$0 <command>\n\nA forward proxy that injects, renews and replays bearer tokens.')
    .option('config', {
      alias: 'c',
      type: 'string',
      default: 'config.json',
      requiresArg: true,
      describe: 'configuration file',
    })
    .parserConfiguration({ 'populate--': true, 'duplicate-arguments-array': false })
    .version(version)
    .help()
    .alias('help', 'h')
    .locale('en')
    .wrap(Math.min(100, process.stdout.columns ?? 100))
    .strict()
    .demandCommand(1, 'which command?')
    .recommendCommands()
    .exitProcess(false)
    .fail((message: string | null, error: Error | undefined) => {
      throw error ?? new CommandError(EXIT.usage, message ?? 'unreadable command line', HELP)
    })
  return COMMANDS.reduce<Argv<CommonOptions>>((all, command) => command(all), cli)
}

const HELP = '`cupbearer --help` lists the commands, and each has its own --help'

/** Runs what the command line asks for, and sets the exit code. */
export async function runCommandLine(): Promise<void> {
  try {
    const cli = parser()
    if (process.argv.length > 2) await cli.parseAsync()
    else {
      process.exitCode = EXIT.usage
      process.stderr.write(`${await cli.getHelp()}\n`)
    }
  } catch (error) {
    // Errors of the parser's own are the user's to mend.
    const usage = error instanceof Error && error.name === 'YError'
    process.exitCode = reportError(
      usage ? new CommandError(EXIT.usage, error.message, HELP) : error,
    )
  }
}
