import type { Cupbearer } from '../app.ts'
import type { Config } from '../config/schema.ts'
import {
  type Command,
  CommandError,
  configFlag,
  EXIT,
  print,
  reportError,
  withConfig,
} from './command.ts'

/** As the schema has it, which takes longer to load than the proxy to open. */
const MAX_WORKERS = 128

/** `start`: the proxy itself, in the foreground. */
export const start: Command = (cli) =>
  cli.command(
    'start',
    'start the proxy',
    (command) =>
      command
        .option('json', {
          type: 'boolean',
          default: false,
          describe: 'print one line of JSON when ready: proxy, admin, ca, pid',
        })
        .option('workers', {
          type: 'number',
          requiresArg: true,
          describe: 'processes that serve, instead of what the configuration says',
        })
        .epilogue(
          'SIGTERM or Ctrl-C finishes the requests in flight and exits with 0; a second one stops at ' +
            'once and exits with 1. SIGHUP, or saving the configuration, reloads it.',
        )
        .example('$0 start', 'serves until Ctrl-C')
        .example('$0 start --json', 'for a program that waits until it is ready')
        .example('$0 start --workers 4', 'as one proxy, on four cores'),
    (options) => runStart(options),
  )

export interface StartOptions {
  /** The configuration file. */
  readonly config: string
  readonly json: boolean
  /** Stands in place of the configuration's. */
  readonly workers?: number | undefined
}

/**
 * Reads `start [--json] [--workers N] [-c FILE]` by itself: the parser of the whole command line takes longer to load than
 * the proxy to open. Undefined for any other form, which is the parser's to read.
 */
export function plainStart(args: readonly string[]): StartOptions | undefined {
  const [command, ...rest] = args
  if (command !== 'start') return undefined
  let config: string | undefined
  let json = false
  let workers: number | undefined
  while (rest.length > 0) {
    const option = rest.shift()
    if (option === '--json') json = true
    else if ((option === '-c' || option === '--config') && config === undefined) {
      config = rest.shift()
      if (!config || config.startsWith('-')) return undefined
    } else if (option === '--workers' && workers === undefined && /^\d+$/.test(rest[0] ?? '')) {
      workers = Number(rest.shift())
    } else return undefined
  }
  return { config: config ?? 'config.json', json, workers }
}

/** Serves until told to stop, then ends the process. */
export async function runStart({ config: file, json, workers }: StartOptions): Promise<void> {
  try {
    // Before the configuration is read, so that no save goes unseen until it is watched.
    const { serve } = await import('./serve.ts')
    await withConfig(file, async (config) => {
      const asked = withWorkers(workers)
      const onReady = (app: Cupbearer) => print(json ? ready(app) : greet(file, config, app))
      process.exitCode = await serve(asked(config), onReady, asked)
    })
  } catch (error) {
    process.exitCode = reportError(error)
  }
  // Nothing is left to wait for; what a library still holds must not keep the process.
  process.exit()
}

/** Puts the number that was asked for into a configuration, into one that is reloaded too. */
function withWorkers(workers: number | undefined): (config: Config) => Config {
  if (workers === undefined) return (config) => config
  if (!Number.isInteger(workers) || workers < 1 || workers > MAX_WORKERS) {
    const message = `expected a number of workers from 1 to ${MAX_WORKERS}`
    throw new CommandError(EXIT.usage, message)
  }
  return (config) => ({ ...config, workers })
}

const ready = (app: Cupbearer): string =>
  JSON.stringify({ proxy: app.proxyUrl, admin: app.adminUrl, ca: app.caPath, pid: process.pid })

function greet(file: string, config: Config, app: Cupbearer): string {
  const pools = Object.entries(config.pools).map(
    ([name, pool]) => `${name} (${pool.targets.join(', ')})`,
  )
  return [
    'Cupbearer is ready.',
    `  proxy      ${app.proxyUrl}`,
    `  dashboard  ${app.adminUrl}`,
    `  CA         ${app.caPath}`,
    `  pools      ${pools.join(', ') || 'none yet'}`,
    `In another terminal: cupbearer run${configFlag(file)} -- curl URL`,
  ].join('\n')
}
