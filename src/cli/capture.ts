import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { CaptureLine } from '../admin/capture-routes.ts'
import type { Config } from '../config/schema.ts'
import { findChromium, runsWithoutSandbox } from '../sources/browser-launch.ts'
import { type Command, CommandError, EXIT, print, withConfig } from './command.ts'
import { findRunning, followAdmin } from './running.ts'
import { plain } from './table.ts'

/** `capture`: waits until a pool has learned a token from a login that goes through the proxy. */
export const capture: Command = (cli) =>
  cli.command(
    'capture <pool>',
    'learn a token from a login through the proxy',
    (command) =>
      command
        .positional('pool', { type: 'string', demandOption: true, describe: 'pool that learns' })
        .option('open', {
          type: 'boolean',
          default: false,
          describe: 'open a Chromium that goes through the proxy, with a profile of its own',
        })
        .example('$0 capture supplier --open', 'log in by hand; the token stays')
        .epilog(
          'The proxy must be running, and the pool needs a credential with a source of type capture. ' +
            'Until something has been learned, all that is sent to the pool’s targets passes as it comes. ' +
            'Ctrl-C gives the capture up.',
        ),
    ({ config: file, pool, open }) => withConfig(file, (config) => run(config, pool, open)),
  )

async function run(config: Config, pool: string, open: boolean): Promise<void> {
  const path = `/api/pools/${encodeURIComponent(pool)}/capture`
  const abort = new AbortController()
  // A browser of ours must not be left behind.
  const giveUp = () => abort.abort()
  if (open) process.once('SIGINT', giveUp).once('SIGTERM', giveUp)
  let browser: Browser | undefined
  try {
    for await (const line of followAdmin<CaptureLine>(config, path, {}, abort.signal)) {
      if (line.step === 'failed') throw new CommandError(EXIT.failed, plain(line.error.message))
      if (line.step === 'learned') return tell(pool, line)
      if (line.step === 'note') process.stderr.write(`${plain(line.message)}\n`)
      else {
        const { ca } = await findRunning(config)
        explain(pool, ca, line)
        if (open) browser = await openBrowser(line)
      }
    }
    throw new CommandError(EXIT.failed, 'the proxy ended the capture', '`cupbearer status`')
  } catch (error) {
    if (abort.signal.aborted) throw new CommandError(EXIT.failed, 'the capture was given up')
    throw error
  } finally {
    abort.abort()
    process.off('SIGINT', giveUp).off('SIGTERM', giveUp)
    await browser?.close()
  }
}

type Begun = Extract<CaptureLine, { step: 'begun' }>

function explain(pool: string, ca: string, begun: Begun): void {
  const proxy = plain(begun.proxy)
  print(`Pool ${pool} learns from what goes to ${plain(begun.targets.join(', '))}`)
  print(`Point a browser at the proxy ${proxy}, for HTTP and HTTPS, and log in there.`)
  print(`It must trust ${plain(ca)}; or use a Chromium with a profile of its own:`)
  print(`  chromium ${browserArguments(begun, '/tmp/cupbearer-profile').map(quoted).join(' ')}`)
  print('Waiting for a login …')
}

function tell(pool: string, { renews, credential }: Extract<CaptureLine, { step: 'learned' }>) {
  const { id, subject, expiresAt, scopes } = credential
  print(`${pool}/${plain(id)} has learned a token${subject ? ` of ${plain(subject)}` : ''}`)
  if (scopes && scopes.length > 0) print(`  scopes: ${plain(scopes.join(' '))}`)
  print(`  ends:   ${expiresAt ?? 'not known'}`)
  print(
    renews
      ? '  It renews by itself from now on. Close the browser: what it renews would be lost here.'
      : '  No way to renew it was seen: map the host of the token endpoint too, and log in anew.',
  )
}

const quoted = (text: string) => (/^[\w./:=,+-]+$/.test(text) ? text : `'${text}'`)

/** No certificate but the proxy's own is taken without the usual look at it. */
function browserArguments({ proxy, leafKeyHash }: Begun, profile: string): string[] {
  return [
    `--proxy-server=${proxy}`,
    '--proxy-bypass-list=<-loopback>',
    `--user-data-dir=${profile}`,
    `--ignore-certificate-errors-spki-list=${leafKeyHash}`,
    '--disable-quic',
    '--no-first-run',
  ]
}

interface Browser {
  close(): Promise<void>
}

/** Undefined where none is found: how to start one has been printed. */
async function openBrowser(begun: Begun): Promise<Browser | undefined> {
  const executable = await findChromium(undefined).catch(() => undefined)
  if (executable === undefined) {
    process.stderr.write('no Chromium was found on PATH; start a browser by hand\n')
    return undefined
  }
  const profile = await mkdtemp(join(tmpdir(), 'cupbearer-capture-'))
  const [target = ''] = begun.targets
  const page = target.startsWith('http://')
    ? target
    : `https://${target.replace(/^https:\/\//, '')}`
  const sandbox = runsWithoutSandbox() ? ['--no-sandbox'] : []
  const child = spawn(
    executable,
    [...browserArguments(begun, profile), ...sandbox, page.replace(/\*.*$/, '')],
    { stdio: 'ignore', detached: true },
  )
  // How to start one has been printed.
  child.on('error', () => {})
  return { close: () => close(child, profile) }
}

/** How long a browser may take to end by itself. */
const CLOSE_MS = 2000

async function close(child: ChildProcess, profile: string): Promise<void> {
  const running = child.pid !== undefined && child.exitCode === null && child.signalCode === null
  if (running) {
    const closed = once(child, 'close')
    child.kill()
    const timer = setTimeout(() => child.kill('SIGKILL'), CLOSE_MS)
    await closed
    clearTimeout(timer)
  }
  await rm(profile, { recursive: true, force: true, maxRetries: 5 })
}
