import { execFileSync } from 'node:child_process'
import { type Browser, type BrowserContextOptions, chromium, type Page } from 'playwright-core'
import { expect } from 'vitest'
import type { TestAdmin } from './admin.ts'

/** The system's Chromium; a sandbox is not to be had as root. */
export function launchChromium(more: readonly string[] = []): Promise<Browser> {
  const executablePath = execFileSync('sh', ['-c', 'command -v chromium']).toString().trim()
  return chromium.launch({
    executablePath,
    args: [...(process.getuid?.() === 0 ? ['--no-sandbox'] : []), ...more],
  })
}

const NOTE_VIOLATIONS = `addEventListener('securitypolicyviolation', (event) =>
  noteViolation(event.violatedDirective + ' ' + event.blockedURI))`

/** The dashboard in a browser of its own; what it must never do is noted, and told at the end. */
export class Dashboard implements AsyncDisposable {
  readonly page: Page
  readonly #problems: string[]

  private constructor(page: Page, problems: string[]) {
    this.page = page
    this.#problems = problems
  }

  /** Opens it by a fresh link, at this place, and waits until it is live. */
  static async open(
    browser: Browser,
    admin: TestAdmin,
    at = '#/pools',
    options: BrowserContextOptions = {},
  ): Promise<Dashboard> {
    const dashboard = await Dashboard.blank(browser, admin, options)
    const { page } = dashboard
    await page.goto(await linkOf(admin))
    await page.locator('.connection[data-state="live"]').waitFor()
    await dashboard.go(at)
    return dashboard
  }

  /** A page that has been nowhere yet. */
  static async blank(
    browser: Browser,
    admin: TestAdmin,
    options: BrowserContextOptions = {},
  ): Promise<Dashboard> {
    const context = await browser.newContext({ viewport: { width: 1280, height: 800 }, ...options })
    const page = await context.newPage()
    page.setDefaultTimeout(40_000)
    const problems: string[] = []
    await page.exposeFunction('noteViolation', (what: string) => problems.push(`CSP: ${what}`))
    await page.addInitScript({ content: NOTE_VIOLATIONS })
    page.on('pageerror', (error) => problems.push(`error: ${error.message}`))
    page.on('request', (request) => {
      const url = request.url()
      if (!url.startsWith(`${admin.server.url}/`) && !url.startsWith('data:')) {
        problems.push(`request: ${url}`)
      }
    })
    return new Dashboard(page, problems)
  }

  async go(at: string): Promise<void> {
    await this.page.evaluate(`location.hash = ${JSON.stringify(at)}`)
  }

  /** Cells of the rows that are drawn, top to bottom. */
  async rows(): Promise<string[][]> {
    return this.page.locator('.list-row').evaluateAll((rows) =>
      rows
        .map((row) => ({
          top: row.getBoundingClientRect().top,
          cells: [...row.children].map((cell) => cell.textContent ?? ''),
        }))
        .sort((a, b) => a.top - b.top)
        .map(({ cells }) => cells),
    )
  }

  /** The page broke no policy, met no error of its own, and asked nobody but its proxy. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.page.context().close()
    expect(this.#problems).toEqual([])
  }
}

/** A link as `cupbearer dashboard` prints it. */
export async function linkOf(admin: TestAdmin): Promise<string> {
  const answer = await admin.ask('/api/dashboard-links', { method: 'POST' })
  return answer.json().url as string
}
