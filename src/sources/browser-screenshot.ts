import { dirname, join } from 'node:path'
import type { Page } from 'playwright-core'
import { privateFolder, replaceFile } from '../lib/files.ts'

/** Whatever a person types into. */
const FIELDS = 'input, textarea, select, [contenteditable]'

const TIMEOUT_MS = 2000

/** A shorter value would hide half the page, and tells little. */
const LEAST_SECRET_LENGTH = 3

/**
 * Keeps a picture of the page for the operator, readable by the owner only, and returns its path; the one of the
 * failure before is replaced. Fields are hidden, as is every text that holds one of the secrets; undefined
 * when that cannot be done.
 */
export async function keepScreenshot(
  page: Page,
  secrets: readonly string[],
  dataDir: string,
  name: string,
): Promise<string | undefined> {
  try {
    const told = secrets.filter((secret) => secret.length >= LEAST_SECRET_LENGTH)
    const picture = await page.screenshot({
      timeout: TIMEOUT_MS,
      // Reaches into shadow roots and frames, where a mask could come too late.
      style: `${FIELDS} { visibility: hidden !important }`,
      mask: page
        .frames()
        .flatMap((frame) => [frame.locator(FIELDS), ...told.map((text) => frame.getByText(text))]),
    })
    const file = join(dataDir, 'screenshots', `${name}.png`)
    await privateFolder(join(dataDir, 'screenshots'))
    await privateFolder(dirname(file))
    await replaceFile(file, picture, 0o600)
    return file
  } catch {
    return undefined
  }
}
