import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as pass } from 'node:timers/promises'
import { expect, test } from 'vitest'
import { ChildFolder } from '../support/child-app.ts'
import { startOrigin } from '../support/origin.ts'
import { trusting } from '../support/protected-origin.ts'

const COUNT = 10_000
const WINDOW_MS = 2000

/** CPU time of a process, user and system, ms. */
function cpuMs(pid: number): number {
  const fields = readFileSync(`/proc/${pid}/stat`, 'utf8').split(') ')[1]?.split(' ') ?? []
  return (Number(fields[11]) + Number(fields[12])) * 10
}

test('ten thousand accounts start within seconds, serve, and idle below 1 % of a core', async () => {
  await using origin = await startOrigin({ tls: true })
  const template = {
    id: '{ID}',
    source: { type: 'static', token: '{TOKEN}', expiresAt: '{ENDS}' },
  }
  using folder = new ChildFolder({
    store: 'file:cupbearer.db',
    // Nobody reads the log while it starts.
    log: { level: 'warn', format: 'json' },
    upstream: trusting(['api.test']),
    pools: {
      api: {
        targets: [`api.test:${origin.port}`],
        limits: { rate: ['10/s', '10000/d'] },
        credentialsFrom: { path: 'accounts.csv', template },
      },
    },
  })
  const ends = (i: number) => new Date(Date.now() + 3_600_000 + i * 100).toISOString()
  const rows = Array.from({ length: COUNT }, (_, i) => `account-${i},token-${i},${ends(i)}`)
  writeFileSync(join(folder.path, 'accounts.csv'), ['ID,TOKEN,ENDS', ...rows].join('\n'))

  const figures: string[] = []
  // The second start finds all of them in the store.
  for (const start of ['cold', 'warm']) {
    await using child = await folder.start()
    const active = async () => (await child.admin('/api/pools/api')).tokens.active
    await expect.poll(active, { timeout: 40_000, interval: 500 }).toBe(COUNT)
    const answer = await child.client().request(`https://api.test:${origin.port}/`)
    expect(answer.json()).toMatchObject({ authorization: /^Bearer token-\d+$/ })
    // Measured are 1.5 s.
    expect(child.startMs).toBeLessThan(30_000)
    expect(child.residentMiB()).toBeLessThan(500)
    figures.push(
      `${start} in ${Math.round(child.startMs)} ms, ${Math.round(child.residentMiB())} MiB`,
    )
    if (start === 'cold') continue
    const shares: number[] = []
    // What starting leaves behind is collected in one of them at most.
    while (shares.length < 4 && !(Math.min(...shares) < 1)) {
      const before = cpuMs(child.child.pid as number)
      await pass(WINDOW_MS)
      shares.push(((cpuMs(child.child.pid as number) - before) / WINDOW_MS) * 100)
    }
    expect(Math.min(...shares)).toBeLessThan(1)
    figures.push(`idle at ${Math.min(...shares)} %`)
  }
  process.stdout.write(`  10,000 accounts ready: ${figures.join('; ')}\n`)
}, 90_000)
