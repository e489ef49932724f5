import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createCupbearer } from '../app.ts'
import type { Config } from '../config/schema.ts'
import { CupbearerError } from '../errors.ts'
import { Events } from '../events.ts'
import { privateFolder } from '../lib/files.ts'
import { createLog } from '../lib/log.ts'
import { callAdmin } from './running.ts'

/** What is known of a token that was got. */
export interface Tried {
  readonly state: string
  readonly subject: string | null
  readonly scopes: readonly string[] | null
  readonly expiresAt: string | null
  readonly refreshAt: string | null
  readonly lastError: string | null
}

/** How much longer than its own time-out a try may take before it is given up. */
const GRACE_MS = 10_000
const LOOPBACK = { host: '127.0.0.1', port: 0 }

/**
 * Gets a token once, as the proxy would: a proxy with this pool alone runs for that, with the real store, since what
 * an endpoint gives only once must be kept. Its CA and its own files lie elsewhere, so that nothing else changes.
 * Returns why it failed as a string, and undefined where a proxy runs that has the store: it will try by itself.
 */
export async function tryCredential(
  config: Config,
  pool: string,
  id: string,
): Promise<Tried | string | undefined> {
  const folder = await mkdtemp(join(tmpdir(), 'cupbearer-init-'))
  try {
    await privateFolder(config.dataDir)
    return await tryIn(folder, config, pool, id)
  } catch (error) {
    if (!(error instanceof CupbearerError)) throw error
    return error.code === 'STORE_IN_USE' ? undefined : error.message
  } finally {
    await rm(folder, { recursive: true, force: true })
  }
}

async function tryIn(folder: string, config: Config, pool: string, id: string) {
  const tried = config.pools[pool] as Config['pools'][string]
  const alone: Config = {
    ...config,
    listen: LOOPBACK,
    admin: { ...config.admin, listen: LOOPBACK },
    workers: 1,
    ca: { ...config.ca, dir: join(folder, 'ca') },
    trace: { ...config.trace, har: undefined, otlp: undefined },
    dataDir: folder,
    pools: { [pool]: tried },
  }
  const events = new Events()
  let heard = false
  const waited = new Promise<string | undefined>((resolve) => {
    events.on('refresh', (outcome) => {
      if (outcome.credential !== id) return
      heard = true
      resolve(outcome.result === 'ok' ? undefined : (outcome.reason ?? outcome.result))
    })
  })
  const log = await createLog({ level: 'silent', format: 'json' })
  const app = await createCupbearer({ config: alone, log, events })
  let timer: NodeJS.Timeout | undefined
  const late = new Promise<string>((resolve) => {
    const ms = tried.refresh.timeout + GRACE_MS
    timer = setTimeout(() => resolve(`no token came within ${ms / 1000} s`), ms)
  })
  const path = `/api/pools/${encodeURIComponent(pool)}/credentials/${encodeURIComponent(id)}`
  const status = () => callAdmin<Tried>(alone, 'GET', path)
  try {
    // It may have a token of an earlier run, or have been given up then.
    const before = await status()
    if (before.state === 'active') return before
    if (!heard && before.state !== 'pending') await callAdmin(alone, 'POST', `${path}/release`)
    const failed = await Promise.race([waited, late])
    if (failed !== undefined) return failed
    const after = await status()
    return after.state === 'active' ? after : (after.lastError ?? `it is ${after.state}`)
  } finally {
    clearTimeout(timer)
    await app.stop({ force: true })
  }
}
