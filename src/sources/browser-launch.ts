import { access, constants, mkdtemp, rm, stat } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { delimiter, join } from 'node:path'
import type { Browser, BrowserContext, BrowserType, Page } from 'playwright-core'
import { SourceError } from '../errors.ts'
import type { Clock } from '../lib/clock.ts'
import type { Secret } from '../lib/secret.ts'
import { makeTrustingHome } from './browser-trust.ts'

const PROGRAMS = ['chromium', 'chromium-browser', 'google-chrome', 'google-chrome-stable']

/** What the browser gets of our environment; secrets of the proxy's own stay here. */
const PASSED_ON = [
  'PATH',
  'HOME',
  'LANG',
  'DISPLAY',
  'WAYLAND_DISPLAY',
  'XAUTHORITY',
  'XDG_RUNTIME_DIR',
]

/** How long a browser may take to end by itself. */
const CLOSE_MS = 2000

const ARGUMENTS = [
  // Whatever would not go by the bridge finds no address: it fails instead of leaving by another route.
  '--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1',
  '--disable-quic',
  '--webrtc-ip-handling-policy=disable_non_proxied_udp',
  '--force-webrtc-ip-handling-policy',
  // MB, for each page.
  '--js-flags=--max-old-space-size=256',
  '--renderer-process-limit=2',
  '--disable-gpu',
]

/** Of a profile these belong to one request, and the page knows better what it asks for. */
const OF_ONE_REQUEST =
  /^(?:accept|accept-encoding|authorization|cookie|origin|referer|range|(?:content|if|sec)-.*)$/i

export interface LaunchOptions {
  readonly executable: string
  readonly headless: boolean
  readonly proxy: { readonly url: string; readonly username: string; readonly password: Secret }
  /** `[name, value, …]`, as on the credential's traffic. */
  readonly profile: readonly string[]
  /** PEM files of authorities that it trusts besides its own. */
  readonly ca: readonly string[]
  readonly timeoutMs: number
  readonly signal: AbortSignal
  readonly clock: Clock
}

/** A running browser with one page. */
export interface RunningBrowser {
  readonly page: Page
  /** Ends it, by force if need be; nothing of it is left when this resolves. */
  close(): Promise<void>
}

/** The optional package that drives the browser, loaded by the first login. */
export async function loadPlaywright(): Promise<BrowserType> {
  try {
    return (await import('playwright-core')).chromium
  } catch (cause) {
    const message =
      'a source of type browser needs the package playwright-core: npm install playwright-core'
    throw new SourceError('transient', message, { cause })
  }
}

/** The configured browser, or the first on PATH. */
export async function findChromium(configured: string | undefined): Promise<string> {
  const names = configured === undefined ? PROGRAMS : [configured]
  for (const name of names) {
    const folders = name.includes('/') ? [''] : (process.env.PATH ?? '').split(delimiter)
    for (const folder of folders) {
      const file = folder === '' ? name : join(folder, name)
      if (await isProgram(file)) return file
    }
  }
  throw failed(
    configured === undefined
      ? `a source of type browser needs a Chromium: install the package chromium, or set executable (looked for ${names.join(', ')} on PATH)`
      : `a source of type browser needs a Chromium: ${configured} is no program`,
  )
}

async function isProgram(file: string): Promise<boolean> {
  try {
    await access(file, constants.X_OK)
    return (await stat(file)).isFile()
  } catch {
    return false
  }
}

/** Chromium refuses its sandbox to root. */
export function runsWithoutSandbox(): boolean {
  return process.getuid?.() === 0
}

/** Starts a browser that keeps its cookies in memory and reaches the network by the proxy only. */
export async function launchBrowser(
  chromium: BrowserType,
  options: LaunchOptions,
): Promise<RunningBrowser> {
  const { executable, headless, proxy, ca, timeoutMs, signal, clock } = options
  const profile = readProfile(options.profile)
  const [language] = profile.languages
  const folder = await mkdtemp(join(tmpdir(), 'cupbearer-browser-'))
  const removeFolder = () => rm(folder, { recursive: true, force: true, maxRetries: 5 })
  let browser: Browser
  try {
    const home = ca.length > 0 && { HOME: await makeTrustingHome(folder, ca, signal) }
    browser = await chromium.launch({
      executablePath: executable,
      headless,
      chromiumSandbox: !runsWithoutSandbox(),
      args: [
        ...ARGUMENTS,
        ...(language === undefined
          ? []
          : [`--lang=${language}`, `--accept-lang=${profile.languages}`]),
      ],
      env: { ...environment(folder), ...home },
      // The password is handed over when the proxy asks for it: it stands in no argument.
      proxy: {
        server: proxy.url,
        username: proxy.username,
        password: proxy.password.reveal(),
        bypass: '<-loopback>',
      },
      timeout: timeoutMs,
      handleSIGINT: false,
      handleSIGTERM: false,
      handleSIGHUP: false,
    })
  } catch (error) {
    await removeFolder()
    throw error instanceof SourceError ? error : explain(error, executable)
  }
  let pid: number | undefined
  const close = async () => {
    const cancel = clock.schedule(CLOSE_MS, () => kill(pid))
    await browser.close().catch(() => {})
    cancel()
    await removeFolder()
  }
  try {
    pid = await processOf(browser)
    const context = await browser.newContext({
      extraHTTPHeaders: profile.headers,
      ...(profile.userAgent !== undefined && { userAgent: profile.userAgent }),
      acceptDownloads: false,
      // What they ask for would be hidden from us.
      serviceWorkers: 'block',
    })
    context.setDefaultTimeout(timeoutMs)
    return { page: await onlyPage(context), close }
  } catch {
    await close()
    throw failed(`the browser ${executable} ended while it started`)
  }
}

async function onlyPage(context: BrowserContext): Promise<Page> {
  const page = await context.newPage()
  context.on('page', (other) => void other.close().catch(() => {}))
  return page
}

/** The process group's leader, to end all of it when it doesn't by itself. */
async function processOf(browser: Browser): Promise<number | undefined> {
  const session = await browser.newBrowserCDPSession()
  const { processInfo } = await session.send('SystemInfo.getProcessInfo')
  await session.detach()
  return processInfo.find(({ type }) => type === 'browser')?.id
}

function kill(pid: number | undefined): void {
  if (pid === undefined) return
  for (const target of [-pid, pid]) {
    try {
      process.kill(target, 'SIGKILL')
    } catch {
      // It has gone already, or leads no group.
    }
  }
}

function environment(folder: string): Record<string, string> {
  const env: Record<string, string> = { TMPDIR: folder }
  for (const key of PASSED_ON) {
    const value = process.env[key]
    if (value !== undefined) env[key] = value
  }
  return env
}

interface Profile {
  readonly headers: Record<string, string>
  readonly userAgent: string | undefined
  /** Tags of Accept-Language, best first: what a script reads must agree with what a server is sent. */
  readonly languages: readonly string[]
}

function readProfile(profile: readonly string[]): Profile {
  const headers: Record<string, string> = {}
  let userAgent: string | undefined
  let languages: string[] = []
  for (let i = 0; i < profile.length; i += 2) {
    const [name, value] = [profile[i] as string, profile[i + 1] as string]
    if (/^user-agent$/i.test(name)) userAgent = value
    else if (!OF_ONE_REQUEST.test(name)) headers[name] = value
    if (/^accept-language$/i.test(name)) {
      languages = value.match(/(?<![\w-])[a-z]{2,3}(?:-[a-z0-9]{2,8})*/gi) ?? []
    }
  }
  return { headers, userAgent, languages }
}

/** The library's text holds the whole command line: only what is known is told. */
function explain(error: unknown, executable: string): SourceError {
  const { name, message } = error as Error
  if (name === 'TimeoutError') return failed(`the browser ${executable} did not start in time`)
  if (/usable sandbox|SUID sandbox|setuid sandbox|user namespace/i.test(message)) {
    return failed(
      `the browser ${executable} cannot set up its sandbox: this system must allow user namespaces to its user`,
    )
  }
  if (/\$DISPLAY|XServer|X server|ozone_platform/i.test(message)) {
    return failed(`the browser ${executable} has no display: set headless to true`)
  }
  return failed(`the browser ${executable} could not be started`)
}

function failed(message: string): SourceError {
  return new SourceError('transient', message)
}
