import { describe, expect, test } from 'vitest'
import { Folder } from '../config/folder.ts'
import { begin, cupbearer, FakeProxy, said } from './command-line.ts'
import { Terminal } from './terminal.ts'

const POOL = {
  name: 'supplier',
  targets: ['api.supplier.example'],
  status: 'degraded',
  trouble: 'the shared store is away\u001b[2J',
  tokens: { active: 2, cooling: 0, quarantined: 1, pending: 0, revoked: 0 },
  avgTtlRemainingSeconds: 754.6,
  refreshSuccessRate: 0.985,
  requestsPerTokenPerMinute: 12.34,
  authOverhead: 0.0712,
  waiting: 0,
}
const ANSWERS: Record<string, unknown> = {
  'GET /api/pools?credentials=false': { pools: [POOL] },
  'GET /api/activity': {
    activity: [
      {
        seq: 2,
        event: 'egress',
        time: '2030-01-01T00:00:01.000Z',
        egress: 'oslo',
        up: false,
        reason: 'refused\u001b[2J',
      },
      {
        seq: 1,
        event: 'credential',
        time: '2030-01-01T00:00:00.000Z',
        pool: 'supplier',
        credential: 'alice',
        from: 'active',
        to: 'quarantined',
        reason: 'by the operator',
      },
    ],
  },
}

async function configured(): Promise<Folder> {
  const folder = await Folder.create()
  await folder.write('config.json', {})
  return folder
}

/** What a terminal of the test's shows after all that was written, but for colours. */
const lines = (text: string) =>
  text
    .replace(/\x1b\[\??[\d;]*[a-zA-Z]/g, '')
    .split('\r\n')
    .map((line) => line.trimEnd())

describe('status --watch in a terminal', () => {
  test('redraws in place, tells what happened last, and gives the terminal back on q', async () => {
    await using folder = await configured()
    await using proxy = await FakeProxy.start(folder.path, ANSWERS)
    const terminal = new Terminal(['status', '--watch'], folder.path, 150, 20)
    const first = await terminal.shows(/quarantined: by the operator/)
    expect(first).toContain('\x1b[?1049h')
    expect(first).not.toContain('\x1b[2J')
    expect(first).toMatch(/\x1b\[31m *7\.1 %/)
    expect(lines(first).join('\n')).toMatch(/supplier: the shared store is away�\[2J/)
    expect(lines(first).join('\n')).toMatch(/oslo {2}down: refused�\[2J/)
    const asked = proxy.requests.length
    const second = await terminal.shows(/supplier[\s\S]*\x1b\[\?2026l/)
    expect(second).toContain('\x1b[H')
    expect(second).not.toContain('\x1b[?1049')
    expect(proxy.requests.length).toBeGreaterThanOrEqual(asked)
    terminal.press('q')
    expect(await terminal.shows(/\x1b\[\?1049l/)).toContain('\x1b[?25h')
    expect(await terminal.code()).toBe(0)
    expect(proxy.requests).not.toContain('GET /api/pools')
  })

  test('fits what it shows to the size that the terminal has now', async () => {
    await using folder = await configured()
    await using _proxy = await FakeProxy.start(folder.path, ANSWERS)
    const terminal = new Terminal(['status', '--watch'], folder.path, 150, 20)
    await terminal.shows(/by the operator/)
    terminal.resize(30, 4)
    // Drawn at once, then each second: a frame of the old size may still be on its way.
    let frame: string[] = []
    while (frame.length !== 4) {
      const shown = await terminal.shows(/\x1b\[\?2026h[\s\S]*\x1b\[\?2026l/)
      const last = [...shown.matchAll(/\x1b\[\?2026h([\s\S]*?)\x1b\[\?2026l/g)].at(-1)
      frame = lines(last?.[1] ?? '')
    }
    expect(Math.max(...frame.map((line) => line.length))).toBeLessThanOrEqual(30)
    expect(frame[3]).toMatch(/^supplier/)
    terminal.press('\x03')
    expect(await terminal.code()).toBe(0)
  })

  test('says that the proxy does not answer, and goes on when it does again', async () => {
    await using folder = await configured()
    const gone = await FakeProxy.start(folder.path, ANSWERS)
    const terminal = new Terminal(['status', '--watch'], folder.path, 120, 20)
    await terminal.shows(/supplier/)
    await gone[Symbol.asyncDispose]()
    // One that was asked meanwhile may have broken off first.
    await terminal.shows(/no proxy is running[^\n]*this is what was known last/)
    await using _back = await FakeProxy.start(folder.path, {
      ...ANSWERS,
      'GET /api/pools?credentials=false': { pools: [{ ...POOL, name: 'returned' }] },
    })
    await terminal.shows(/returned/)
    terminal.press('q')
    expect(await terminal.code()).toBe(0)
  })
})

describe('status --watch into a pipe', () => {
  test('writes one plain table after the other until SIGINT, and exits with 0', async () => {
    await using folder = await configured()
    await using _proxy = await FakeProxy.start(folder.path, ANSWERS)
    const child = begin(['status', '--watch'], { cwd: folder.path })
    expect(await said(child.stdout, /supplier.*\n/)).not.toContain('\x1b')
    const closed = new Promise((resolve) => child.once('close', resolve))
    child.kill('SIGINT')
    expect(await closed).toBe(0)
  })
})

test('status --json answers what the proxy says, credentials included', async () => {
  await using folder = await configured()
  const whole = { pools: [{ ...POOL, credentials: [] }] }
  await using _proxy = await FakeProxy.start(folder.path, { 'GET /api/pools': whole })
  const { code, out } = await cupbearer(['status', '--json'], { cwd: folder.path })
  expect([code, JSON.parse(out)]).toEqual([0, whole])
})

test('dashboard prints a link that the proxy made, and how long it works; never the admin token', async () => {
  await using folder = await configured()
  const link = { url: 'http://127.0.0.1:8081/#code=abc', expiresAt: '2030-01-01T00:05:00.000Z' }
  await using _proxy = await FakeProxy.start(folder.path, { 'POST /api/dashboard-links': link })
  const { out, err } = await cupbearer(['dashboard'], { cwd: folder.path })
  expect(out).toBe(`${link.url}\n`)
  expect(err).toContain('It works once')
  expect(out + err).not.toContain('admin-t0ken')
})
