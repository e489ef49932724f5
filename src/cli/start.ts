import type { Cupbearer } from '../app.ts'
import type { Config } from '../config/schema.ts'
import { watchConfig } from '../config/watch.ts'
import type { Logger } from '../lib/log.ts'
import { type Command, configFlag, EXIT, print, reportError, withConfig } from './command.ts'

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
    async ({ config: file, json }) => {
      try {
        await withConfig(file, async (config) => {
          const onReady = (app: Cupbearer) => print(json ? ready(app) : greet(file, config, app))
          process.exitCode = await serve(config, onReady)
        })
      } catch (error) {
        process.exitCode = reportError(error)
      }
      // Nothing is left to wait for; what a library still holds must not keep the process.
      process.exit()
    },
  )

/** Runs the proxy until it is told to stop; gives the exit code. */
async function serve(config: Config, onReady: (app: Cupbearer) => void): Promise<number> {
  const { createLog } = await import('../lib/log.ts')
  const format = config.log.format ?? (process.stderr.isTTY ? 'pretty' : 'json')
  const log = createLog({ level: config.log.level, format })

  let app: Cupbearer | undefined
  let reload: (() => void) | undefined
  const stops = stopSignals()
  process.on('SIGHUP', () => reload?.())

  const atOnce = stops.second.then(async () => {
    log.warn('stopped at once')
    await app?.stop({ force: true })
    return EXIT.failed
  })
  const served = async () => {
    const { createCupbearer } = await import('../app.ts')
    const { loadConfig } = await import('../config/load.ts')
    const reloadFrom = () => loadConfig(config.file)
    app = await createCupbearer({ config, log, reloadFrom })
    if (stops.asked() === 0) onReady(app)
    // The app takes one at a time, keeps the old one where the new one is not valid, and logs either.
    reload = () => void app?.reload()
    const endWatch = watchFile(config.file, reload, log)
    await stops.first
    endWatch()
    reload = undefined
    log.info('finishing the requests in flight')
    await app.stop()
    // A forced stop ends this wait too.
    return stops.asked() > 1 ? EXIT.failed : EXIT.fine
  }
  return Promise.race([served(), atOnce])
}

/** The first and the second request to stop; listened to from the start, so that none is lost meanwhile. */
function stopSignals() {
  let asked = 0
  const resolvers: (() => void)[] = []
  const next = () => new Promise<void>((resolve) => resolvers.push(resolve))
  const stops = { first: next(), second: next(), asked: () => asked }
  const onSignal = () => resolvers[asked++]?.()
  process.on('SIGTERM', onSignal).on('SIGINT', onSignal)
  return stops
}

function watchFile(file: string, reload: () => void, log: Logger): () => void {
  const onError = (error: Error) =>
    log.warn(
      { code: (error as NodeJS.ErrnoException).code },
      'the configuration is not watched; SIGHUP reloads it',
    )
  try {
    return watchConfig(file, reload, { onError })
  } catch (error) {
    onError(error as Error)
    return () => {}
  }
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
