import { type Cupbearer, createCupbearer } from '../app.ts'
import { loadConfig } from '../config/load.ts'
import type { Config } from '../config/schema.ts'
import { FileWatch } from '../config/watch.ts'
import { createLog } from '../lib/log.ts'
import { EXIT } from './command.ts'
import { checkRuntime, checkUser } from './doctor/runtime.ts'

/** Runs the proxy until it is told to stop; gives the exit code. `amend` has the last word on a reloaded file. */
export async function serve(
  config: Config,
  onReady: (app: Cupbearer) => void,
  amend: (config: Config) => Config = (loaded) => loaded,
): Promise<number> {
  const format = config.log.format ?? (process.stderr.isTTY ? 'pretty' : 'json')
  const log = await createLog({ level: config.log.level, format })
  const ground = [checkRuntime(process.version, Date.now()), checkUser(process.geteuid?.())]
  for (const { status, message, mend } of ground) {
    if (status !== 'ok') log.warn({ mend }, message)
  }

  // Signals and saves are listened to from the start: what comes while starting is done when ready.
  let app: Cupbearer | undefined
  let ready = false
  let changed = false
  const reload = () => {
    // The app takes one at a time, keeps the old one where the new one is not valid, and logs either.
    if (app && ready) void app.reload()
    else changed = true
  }
  const stops = stopSignals()
  process.on('SIGHUP', reload)
  const watch = new FileWatch(reload, {
    onError: (error) =>
      log.warn(
        { code: (error as NodeJS.ErrnoException).code },
        'a file of the configuration is not watched; SIGHUP reloads it',
      ),
  })
  const follow = (files: readonly string[]) => watch.follow([config.file, ...files])
  follow(Object.values(config.pools).flatMap((pool) => pool.credentialsFrom?.path ?? []))

  const atOnce = stops.second.then(async () => {
    log.warn('stopped at once')
    await app?.stop({ force: true })
    return EXIT.failed
  })
  const served = async () => {
    const reloadFrom = async () => amend(await loadConfig(config.file, process.env, follow))
    app = await createCupbearer({ config, log, reloadFrom })
    if (stops.asked() === 0) {
      ready = true
      onReady(app)
      if (changed) reload()
    }
    await stops.first
    ready = false
    watch.close()
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
