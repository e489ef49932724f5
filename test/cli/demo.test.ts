import { mkdtempSync, readdirSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { CommandError } from '../../src/cli/command.ts'
import { startEgressProxy } from '../../src/cli/demo/egress-proxy.ts'
import { type Facts, judge, summarize } from '../../src/cli/demo/report.ts'
import type { Issue } from '../../src/cli/demo/token-book.ts'
import { Pauses } from '../support/pauses.ts'
import { begin, cupbearer, said } from './command-line.ts'

describe('the demo', () => {
  test('keeps every promise, and leaves nothing behind', { timeout: 300_000 }, async () => {
    const folder = mkdtempSync(join(tmpdir(), 'cupbearer-tmp-'))
    const play = () => cupbearer(['demo', '--json'], { cwd: '/', env: { TMPDIR: folder } })
    try {
      let played: Awaited<ReturnType<typeof play>>
      // Its tokens are renewed two seconds ahead: a machine that stands still for longer shows just that.
      for (let tries = 1; ; tries++) {
        using pauses = new Pauses()
        played = await play()
        if (played.code === 0 || pauses.longest < 500 || tries === 3) break
      }
      const { code, out, err } = played
      expect(err).toBe('')
      const summary = JSON.parse(out) as ReturnType<typeof summarize>
      expect(summary.checks.filter(({ ok }) => !ok)).toEqual([])
      expect({ code, ok: summary.ok }).toEqual({ code: 0, ok: true })
      expect(summary.requests.ok).toBe(summary.requests.sent)
      expect(summary.requests).toMatchObject({ unauthorized: 0, other: 0 })
      expect(summary.tokens).toMatchObject({ reused: 0 })
      expect(summary.tokens.renewedAhead).toBeGreaterThanOrEqual(3)
      expect(summary.revocation).toMatchObject({ renewals: 1, clients: 6, clientsOk: 6 })
      expect(summary.accounts.map(({ id, seenFrom }) => [id, seenFrom])).toEqual([
        ['alice', ['127.0.0.2']],
        ['bob', ['127.0.0.3']],
        ['batch', ['127.0.0.3']],
      ])
      expect(summary.authOverhead).toBeLessThan(0.05)
      expect(readdirSync(folder)).toEqual([])
    } finally {
      rmSync(folder, { recursive: true })
    }
  })

  test('ends at once when it is told to, with nothing left behind', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'cupbearer-tmp-'))
    try {
      const child = begin(['demo'], { cwd: '/', env: { TMPDIR: folder } })
      await said(child.stdout, /first answer/)
      child.kill('SIGINT')
      expect(await said(child.stderr, /\n/)).toBe(
        'cupbearer: the demo was stopped before its end\n',
      )
      await new Promise((resolve) => child.once('close', resolve))
      expect(child.exitCode).toBe(1)
      expect(readdirSync(folder)).toEqual([])
    } finally {
      rmSync(folder, { recursive: true })
    }
  })

  test('names the package that is missing when there is no curl', async () => {
    const { code, out, err } = await cupbearer(['demo'], {
      cwd: '/',
      env: { PATH: '/nonexistent' },
    })
    expect({ code, out }).toEqual({ code: 1, out: '' })
    expect(err).toMatch(/curl is not on PATH\n {2}hint: install the package curl/)
  })

  test('says what to do on a system without the loopback address', async () => {
    const failure = await startEgressProxy('192.0.2.1').catch((error: unknown) => error)
    expect(failure).toBeInstanceOf(CommandError)
    expect(failure).toMatchObject({
      exitCode: 1,
      message: 'the demo cannot listen on 192.0.2.1 (EADDRNOTAVAIL)',
      hint: expect.stringContaining('sudo ifconfig lo0 alias 192.0.2.1 up'),
    })
  })
})

describe('a demo in which something went wrong is not passed off as fine:', () => {
  const issue = (account: string, occasion: Issue['occasion'], leftMs = 2100): Issue => ({
    account,
    occasion,
    leftMs,
    from: '127.0.0.2',
  })
  const good: Facts = {
    seconds: 36,
    clients: { sent: 300, ok: 300, unauthorized: 0, other: 0 },
    api: { requests: 304, ok: 300, refused: { expired: 0, revoked: 4, unknown: 0 }, healed: 4 },
    endpoint: { calls: 4, issued: 4, reused: 0 },
    issues: [issue('alice', 'first', 0), issue('alice', 'ahead'), issue('bob', 'ahead')],
    revocation: { refused: 4, healed: 4, renewals: 1, clients: 6, clientsOk: 6 },
    accounts: [
      { id: 'alice', egress: 'berlin', address: '127.0.0.2', seenFrom: ['127.0.0.2'] },
      { id: 'bob', egress: 'oslo', address: '127.0.0.3', seenFrom: ['127.0.0.3'] },
    ],
    authOverhead: 4 / 304,
  }
  const failed = (facts: Facts) =>
    judge(facts)
      .filter(({ ok }) => !ok)
      .map(({ name }) => name)

  test('nothing is reported of one in which all went well', () => {
    expect(failed(good)).toEqual([])
    expect(summarize(good, judge(good))).toMatchObject({ ok: true, tokens: { renewedAhead: 2 } })
  })

  test.each<[string, Partial<Facts>, string[]]>([
    [
      'a client saw a 401',
      { clients: { ...good.clients, ok: 299, unauthorized: 1 } },
      ['answered', 'no 401 seen'],
    ],
    ['a client got no answer', { clients: { ...good.clients, ok: 299, other: 1 } }, ['answered']],
    ['there was no request', { clients: { ...good.clients, sent: 0, ok: 0 } }, ['answered']],
    [
      'a request came without one of its tokens',
      { api: { ...good.api, refused: { ...good.api.refused, unknown: 1 } } },
      ['injected'],
    ],
    [
      'an expired token was sent',
      { api: { ...good.api, refused: { ...good.api.refused, expired: 1 } } },
      ['renewed ahead'],
    ],
    [
      'one account was never renewed ahead',
      { issues: good.issues.filter(({ account }) => account === 'alice') },
      ['renewed ahead'],
    ],
    [
      'a token was renewed too late',
      { issues: [...good.issues, issue('bob', 'late', -10)] },
      ['renewed ahead'],
    ],
    ['a 401 was not healed', { api: { ...good.api, healed: 3 } }, ['401 replayed']],
    [
      'the revoked token never reached the API',
      { revocation: { ...good.revocation, refused: 0 } },
      ['401 replayed'],
    ],
    [
      'the 401s led to two renewals',
      { revocation: { ...good.revocation, renewals: 2 } },
      ['401 replayed'],
    ],
    [
      'a token was seen from two addresses',
      {
        accounts: [
          { id: 'alice', egress: '', address: '127.0.0.2', seenFrom: ['127.0.0.1', '127.0.0.2'] },
          { id: 'bob', egress: 'oslo', address: '127.0.0.3', seenFrom: ['127.0.0.3'] },
        ],
      },
      ['pins kept'],
    ],
    [
      'a refresh token was used twice',
      { endpoint: { ...good.endpoint, reused: 1 } },
      ['rotation kept'],
    ],
    ['the overhead is too high', { authOverhead: 0.06 }, ['overhead low']],
    ['the proxy’s ratio is not that of the servers', { authOverhead: 1 / 304 }, ['overhead low']],
    ['the proxy gave no ratio', { authOverhead: Number.NaN }, ['overhead low']],
  ])('%s', (_, wrong, names) => {
    expect(failed({ ...good, ...wrong })).toEqual(names)
  })
})
