import type { Cupbearer } from '../app.ts'
import type { Config } from '../config/schema.ts'
import { type Command, configFlag, print, reportError, withConfig } from './command.ts'

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
        .epilogue(
          'SIGTERM or Ctrl-C finishes the requests in flight and exits with 0; a second one stops at ' +
            'once and exits with 1. SIGHUP, or saving the configuration, reloads it.',
        )
        .example('$0 start', 'serves until Ctrl-C')
        .example('$0 start --json', 'for a program that waits until it is ready'),
    (options) => runStart(options),
  )

export interface StartOptions {
  /** The configuration file. */
  readonly config: string
  readonly json: boolean
}

/**
 * Reads `start [--json] [-c FILE]` by itself: the parser of the whole command line takes longer to load than
 * the proxy to open. Undefined for any other form, which is the parser's to read.
 */
export function plainStart(args: readonly string[]): StartOptions | undefined {
  const [command, ...rest] = args
  if (command !== 'start') return undefined
  let config: string | undefined
  let json = false
  while (rest.length > 0) {
    const option = rest.shift()
    if (option === '--json') json = true
    else if ((option === '-c' || option === '--config') && config === undefined) {
      config = rest.shift()
      if (!config || config.startsWith('-')) return undefined
    } else return undefined
  }
  return { config: config ?? 'config.json', json }
}

/** Serves until told to stop, then ends the process. */
export async function runStart({ config: file, json }: StartOptions): Promise<void> {
  try {
    // Before the configuration is read, so that no save goes unseen until it is watched.
    const { serve } = await import('./serve.ts')
    await withConfig(file, async (config) => {
      const onReady = (app: Cupbearer) => print(json ? ready(app) : greet(file, config, app))
      process.exitCode = await serve(config, onReady)
    })
  } catch (error) {
    process.exitCode = reportError(error)
  }
  // Nothing is left to wait for; what a library still holds must not keep the process.
  process.exit()
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
