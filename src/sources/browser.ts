import type { Page } from 'playwright-core'
import type { BrowserSourceConfig } from '../config/browser.ts'
import { SourceError } from '../errors.ts'
import { Secret } from '../lib/secret.ts'
import { readToken } from '../token/jwt.ts'
import type { TokenSet } from '../token/token.ts'
import { Bridge } from './browser-bridge.ts'
import type { Captured } from './browser-capture.ts'
import {
  findChromium,
  launchBrowser,
  loadPlaywright,
  type RunningBrowser,
  runsWithoutSandbox,
} from './browser-launch.ts'
import { BrowserLogin } from './browser-login.ts'
import { BrowserQueue } from './browser-queue.ts'
import { keepScreenshot } from './browser-screenshot.ts'
import { CommandError } from './browser-steps.ts'
import { readExpiry } from './expiry.ts'
import { Restraint } from './restraint.ts'
import type { Source, SourceContext, SourceVars } from './source.ts'

/** What all browser logins of one process share. */
export interface BrowserSetting {
  readonly queue: BrowserQueue
  /** Where pictures of failures are kept; without it none is taken. */
  readonly dataDir?: string | undefined
  /** PEM files of authorities that are trusted besides Chromium's own. */
  readonly ca?: (() => readonly string[]) | undefined
  /** May be told the same thing more than once. */
  readonly warn?: ((message: string) => void) | undefined
}

export interface BrowserSourceOptions {
  readonly vars?: SourceVars | undefined
  readonly browsers?: BrowserSetting | undefined
}

const NO_SANDBOX =
  'Chromium runs without its sandbox, since this process is root: better run it as another user'

/** Tokens by a browser in which the operator's steps are done as a person would do them. */
class BrowserSource implements Source {
  readonly renewable = true
  readonly #config: BrowserSourceConfig
  readonly #vars: SourceVars
  readonly #browsers: BrowserSetting
  readonly #restraint = new Restraint()

  constructor(config: BrowserSourceConfig, options: BrowserSourceOptions) {
    this.#config = config
    this.#vars = options.vars ?? {}
    this.#browsers = options.browsers ?? { queue: new BrowserQueue() }
  }

  async obtain(_previous: TokenSet | undefined, context: SourceContext): Promise<TokenSet> {
    const chromium = await loadPlaywright()
    const executable = await findChromium(this.#config.executable)
    const { connect, egress = '', signal } = context
    if (!connect) throw new SourceError('transient', 'the browser has no way to the network here')
    if (runsWithoutSandbox()) this.#browsers.warn?.(NO_SANDBOX)
    return this.#browsers.queue.run(egress, signal, async () => {
      const login = new BrowserLogin(this.#config, this.#vars, context)
      const bridge = await Bridge.open(connect, (error) => login.end(error))
      let browser: RunningBrowser | undefined
      try {
        browser = await launchBrowser(chromium, {
          executable,
          headless: this.#config.headless,
          proxy: bridge,
          profile: context.headers ?? [],
          ca: this.#browsers.ca?.() ?? [],
          timeoutMs: login.remaining(),
          signal: login.signal,
          clock: context.clock,
        })
        const token = readCaptured(await login.run(browser.page, () => bridge.problem), context)
        this.#restraint.succeeded()
        return token
      } catch (error) {
        const picture = browser && (await this.#picture(browser.page, login, context))
        throw this.#consequence(error, login, picture)
      } finally {
        login.close()
        await browser?.close()
        await bridge.close()
      }
    })
  }

  /** Where a picture of the failure is; there is no time for one when the try itself has been ended. */
  async #picture(page: Page, login: BrowserLogin, context: SourceContext) {
    const { dataDir } = this.#browsers
    if (dataDir === undefined || context.signal.aborted || login.failure?.kind === 'egress') return
    const secrets = [...Object.values(this.#vars).map((value) => value.reveal()), ...login.typed]
    return keepScreenshot(page, secrets, dataDir, context.name ?? 'browser')
  }

  #consequence(error: unknown, login: BrowserLogin, picture: string | undefined): SourceError {
    // What broke because the login had been ended says less than why it was.
    const known = login.failure ?? (error instanceof SourceError ? error : undefined)
    if (known?.kind === 'egress') return known
    const answered = login.badStatus === undefined ? '' : ` (it was answered ${login.badStatus})`
    const seen = picture === undefined ? '' : `; a picture of the page is in ${picture}`
    const what = known?.message ?? 'the browser failed unexpectedly'
    const message = `browser login at ${login.host}: ${what}${answered}${seen}`
    if (login.denied) return this.#restraint.refused(message)
    if (login.mayBeRefused && !(known instanceof CommandError)) {
      return this.#restraint.unclear(message)
    }
    return new SourceError('transient', message)
  }
}

/** Makes a source of tokens by a browser. */
export function browserSource(config: BrowserSourceConfig, options: BrowserSourceOptions): Source {
  return new BrowserSource(config, options)
}

function readCaptured(
  { token, refreshToken, expiresIn }: Captured,
  context: SourceContext,
): TokenSet {
  return readToken(token, {
    receivedAt: context.clock.now(),
    ...readExpiry(expiresIn ?? ''),
    refreshToken: refreshToken === undefined ? undefined : new Secret(refreshToken),
  })
}
