// Makes the pictures of the dashboard in docs/images: the built admin server over made-up pools, in a real Chromium.
import { execFileSync } from 'node:child_process'
import { mkdirSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { chromium } from 'playwright-core'
import { startAdmin } from '../../dist/admin/server.js'
import { createLog } from '../../dist/lib/log.js'
import { Secret } from '../../dist/lib/secret.js'
import { Showcase } from './showcase.mjs'

const OUT = process.argv[2] ?? fileURLToPath(new URL('../../docs/images', import.meta.url))
const TOKEN = 'screenshots'

/** File → where, how large, in which colours, and what to do there first. */
const PICTURES = {
  'dashboard-pools.png': { at: '#/pools', colours: 'light' },
  'dashboard-credentials.png': {
    at: '#/credentials/supplier/acct-0004',
    colours: 'light',
  },
  'dashboard-traces.png': {
    at: '#/traces',
    colours: 'dark',
    before: async (page) => {
      await page.getByLabel('Outcome').selectOption('replayed')
      await page.locator('#trace-list .list-row').first().click()
      await page.locator('.story').waitFor()
      await page.getByLabel('Outcome').selectOption('')
    },
  },
  'dashboard-egress.png': { at: '#/egress', colours: 'light', height: 480 },
  'dashboard-events.png': { at: '#/events', colours: 'dark', height: 560 },
  'dashboard-phone.png': { at: '#/pools', colours: 'dark', width: 375, height: 720 },
}

const showcase = new Showcase()
const server = await startAdmin({
  listen: { host: '127.0.0.1', port: 0 },
  token: new Secret(TOKEN),
  backend: showcase.backend,
  log: await createLog({ level: 'warn', format: 'json' }),
})
const executablePath = execFileSync('sh', ['-c', 'command -v chromium']).toString().trim()
const browser = await chromium.launch({
  executablePath,
  args: process.getuid?.() === 0 ? ['--no-sandbox'] : [],
})
try {
  mkdirSync(OUT, { recursive: true })
  for (const [file, picture] of Object.entries(PICTURES)) await take(file, picture)
} finally {
  await browser.close()
  await server.close()
  showcase.close()
}

async function take(file, { at, colours, width = 1280, height = 800, before }) {
  const context = await browser.newContext({
    colorScheme: colours,
    viewport: { width, height },
    deviceScaleFactor: width < 500 ? 2 : 1,
  })
  const page = await context.newPage()
  page.on('pageerror', (error) => console.error(file, error.message))
  page.on('console', (message) => {
    if (message.type() === 'error') console.error(file, message.text())
  })
  await page.goto(`${server.url}/#token=${TOKEN}`)
  await page.locator('.connection[data-state="live"]').waitFor()
  await page.evaluate((hash) => {
    location.hash = hash
  }, at)
  await showcase.traffic(60)
  await before?.(page)
  await page.waitForTimeout(1200)
  await page.screenshot({ path: `${OUT}/${file}` })
  await context.close()
  console.log(`${OUT}/${file}`)
}
