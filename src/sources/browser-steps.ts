import type { Page } from 'playwright-core'
import type { BrowserStepConfig } from '../config/browser.ts'
import { SourceError } from '../errors.ts'
import type { Secret } from '../lib/secret.ts'
import { renderTemplate } from '../lib/template.ts'
import { parseUrlGlob } from './browser-url.ts'
import { environment, run as runCommand } from './exec.ts'
import type { SourceContext, SourceVars } from './source.ts'

/** A page, and what its steps need besides. */
export interface Stage {
  readonly page: Page
  readonly vars: SourceVars
  readonly context: SourceContext
  /** Rejects when the time is up. */
  readonly sleep: (ms: number) => Promise<void>
  /** How long a step may still take, ms. */
  readonly remaining: () => number
  /** What has been typed so far: it must not be seen in a picture. */
  readonly typed: string[]
  /** Why the bridge could not reach something, the latest time. */
  readonly problem: () => string | undefined
}

/** The operator's own command has failed: that says nothing against the account. */
export class CommandError extends SourceError {}

/** No one-time password has another form. */
const ONE_TIME_PASSWORD = /^[\x21-\x7e]{1,64}$/

/** Opens an address of the configuration, values escaped. */
export async function open(stage: Stage, url: Secret, label: string): Promise<void> {
  const address = renderTemplate(url.reveal(), lookUp(stage.vars), encodeURIComponent)
  await attempt(stage, label, () =>
    stage.page.goto(address, { waitUntil: 'domcontentloaded', timeout: stage.remaining() }),
  )
}

/** Does one step. Throws `SourceError`, which names the step and holds nothing of the page's. */
export async function perform(stage: Stage, step: BrowserStepConfig, label: string): Promise<void> {
  const { page, vars } = stage
  const timeout = stage.remaining()
  const does = (what: string, action: () => Promise<unknown>) =>
    attempt(stage, `${label} (${what})`, action)
  const type = (selector: string, text: string) => {
    stage.typed.push(text)
    return page.locator(selector).fill(text, { timeout })
  }
  const value = () => renderTemplate(step.value?.reveal() ?? '', lookUp(vars))
  const { goto, fill, select, click, press, wait, otp } = step
  if (goto) await open(stage, goto, `${label} (goto)`)
  else if (fill) await does('fill', () => type(fill, value()))
  else if (select) {
    await does('select', () => page.locator(select).selectOption(value(), { timeout }))
  } else if (click) await does('click', () => page.locator(click).click({ timeout }))
  else if (press) {
    const { on } = step
    await does('press', () =>
      on ? page.locator(on).press(press, { timeout }) : page.keyboard.press(press),
    )
  } else if (wait) await does('wait', () => waitFor(stage, wait))
  else if (otp) {
    const code = await oneTimePassword(step, stage, `${label} (otp)`)
    await does('otp', () => type(otp, code))
  }
}

async function waitFor(stage: Stage, wait: NonNullable<BrowserStepConfig['wait']>): Promise<void> {
  const { page } = stage
  const timeout = stage.remaining()
  if (wait.selector) await page.locator(wait.selector).first().waitFor({ timeout })
  if (wait.url) {
    const covers = parseUrlGlob(wait.url)
    await page.waitForURL((url) => covers(url.href), { timeout, waitUntil: 'commit' })
  }
  if (wait.time !== undefined) await stage.sleep(wait.time)
}

async function oneTimePassword(
  { command = [], env = {}, cwd }: BrowserStepConfig,
  { vars, context }: Stage,
  label: string,
): Promise<string> {
  const where = `${label}: command ${command[0]}`
  try {
    const output = await runCommand(
      { command, cwd, timeout: undefined },
      environment({ env }, vars, undefined, context),
      where,
      context,
    )
    const code = output.trim()
    if (ONE_TIME_PASSWORD.test(code)) return code
  } catch (error) {
    throw new CommandError('transient', (error as Error).message)
  }
  throw new CommandError('transient', `${where} printed no one-time password`)
}

/** The library's text quotes what was typed and what the page says, so it goes nowhere. */
async function attempt(stage: Stage, label: string, action: () => Promise<unknown>): Promise<void> {
  try {
    await action()
  } catch (error) {
    if (error instanceof SourceError) throw error
    throw new SourceError('transient', `${label} ${reason(error, stage)}`)
  }
}

function reason(error: unknown, stage: Stage): string {
  const { name, message } = error as Error
  const code = /\bnet::(ERR_[A-Z0-9_]+)/.exec(message)?.[1]
  if (code !== undefined) {
    const problem = stage.problem()
    return `could not load the page (${code})${problem === undefined ? '' : `: ${problem}`}`
  }
  if (name === 'TimeoutError') return 'did not come to its end in time'
  if (/strict mode violation/.test(message)) return 'found several elements for its selector'
  if (/Unknown key/.test(message)) return 'names no key'
  if (/crashed/.test(message)) return 'ended with the page, which has crashed'
  if (/has been closed/.test(message)) return 'ended with the browser'
  return 'could not be done'
}

function lookUp(vars: SourceVars): (name: string) => string {
  return (name) => {
    const value = vars[name]
    if (!value) throw new SourceError('transient', 'a template asks for a value that is not there')
    return value.reveal()
  }
}
