import { mkdtemp, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { inspect } from 'node:util'
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest'
import { SourceError } from '../../src/errors.ts'
import { Secret } from '../../src/lib/secret.ts'
import type { SourceContext } from '../../src/sources/source.ts'
import type { TokenSet } from '../../src/token/token.ts'
import { sourceOf } from '../support/login-source.ts'
import { ManualClock } from '../support/manual-clock.ts'
import { clockAt, sourceContext } from '../support/source-context.ts'

const NOW = Date.UTC(2026, 0, 1)

const node = (script: string, more: object = {}, vars: Record<string, string> = {}) =>
  sourceOf({ type: 'exec', command: [process.execPath, '-e', script], ...more }, vars)
const shell = (script: string, more: object = {}) =>
  sourceOf({ type: 'exec', command: ['sh', '-c', script], ...more })
const prints = (output: unknown) => {
  const text = typeof output === 'string' ? output : JSON.stringify(output)
  return node(`process.stdout.write(${JSON.stringify(text)})`)
}

async function failureOf(source: ReturnType<typeof shell>, context: Partial<SourceContext> = {}) {
  const error = await source.obtain(undefined, sourceContext(context)).then(
    () => undefined,
    (reason: unknown) => reason,
  )
  expect(error).toBeInstanceOf(SourceError)
  expect((error as SourceError).kind).toBe('transient')
  expect(inspect(error, { depth: 9, showHidden: true })).not.toMatch(/hidden/)
  return (error as SourceError).message
}

/** Whether a process runs; one that waits to be reaped does not. */
async function lives(pid: number): Promise<boolean> {
  const stat = await readFile(`/proc/${pid}/stat`, 'utf8').catch(() => undefined)
  return stat !== undefined && !/\) Z /.test(stat)
}

let folder: string
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'cupbearer-exec-'))
})
afterAll(() => rm(folder, { recursive: true, force: true }))

const pidIn = async (file: string): Promise<number> =>
  vi.waitFor(async () => {
    const pid = Number(await readFile(join(folder, file), 'utf8'))
    if (!(pid > 0)) throw new Error('not written yet')
    return pid
  }, 20_000)

describe('what a command prints', () => {
  it.each<[string, unknown, Partial<Record<keyof TokenSet, unknown>>]>([
    ['a token', ' opaque-token\n', { token: 'opaque-token', expiresAt: undefined }],
    [
      'an OAuth answer',
      { access_token: 't', refresh_token: 'r', expires_in: 60, token_type: 'Bearer' },
      { token: 't', refreshToken: 'r', expiresAt: NOW + 60_000 },
    ],
    [
      'a token with its end',
      { token: 't', expires_at: '2026-01-01T00:01:00Z' },
      { expiresAt: NOW + 60_000 },
    ],
    [
      'an end in epoch seconds',
      { token: 't', expires_at: NOW / 1000 + 60 },
      { expiresAt: NOW + 60_000 },
    ],
    [
      'an ExecCredential of Kubernetes',
      {
        kind: 'ExecCredential',
        apiVersion: 'client.authentication.k8s.io/v1',
        spec: { interactive: false },
        status: { token: 'k8s-token', expirationTimestamp: '2026-01-01T01:00:00Z' },
      },
      { token: 'k8s-token', expiresAt: NOW + 3_600_000 },
    ],
  ])('is taken: %s', async (_what, output, expected) => {
    const set = await prints(output).obtain(undefined, sourceContext({ clock: clockAt(NOW) }))
    const shown = {
      ...set,
      token: set.token.reveal(),
      refreshToken: set.refreshToken?.reveal(),
    }
    expect(shown).toMatchObject(expected)
  })

  it.each<[string, unknown, RegExp]>([
    ['nothing', '', /printed nothing$/],
    ['broken JSON', '{"token": "hidden', /JSON that cannot be read$/],
    ['JSON without a token', { hidden: 'hidden' }, /JSON without a token$/],
    ['a token that is no string', { token: 7 }, /JSON without a token$/],
    [
      'an ExecCredential with certificates only',
      { kind: 'ExecCredential', status: { clientKeyData: 'hidden' } },
      /JSON without a token$/,
    ],
    ['HTML', '<html>hidden</html>', /printed markup, not a token$/],
    ['two lines', 'hidden\nhidden', /no header field can carry$/],
    ['NUL', 'hidden\0', /no header field can carry$/],
  ])('is refused: %s', async (_what, output, message) => {
    expect(await failureOf(prints(output))).toMatch(message)
  })

  it('is bounded', async () => {
    const script = 'setInterval(() => process.stdout.write("x".repeat(65536)), 0)'
    expect(await failureOf(node(script))).toMatch(/printed more than 1 MiB$/)
  })
})

describe('a command', () => {
  it('gets PATH, HOME, LANG, what is configured, and who it is for; nothing else', async () => {
    vi.stubEnv('CUPBEARER_TEST_SECRET', 'hidden')
    vi.stubEnv('LANG', 'C.UTF-8')
    try {
      const source = node(
        'console.log(JSON.stringify({ token: Buffer.from(JSON.stringify(process.env)).toString("hex") }))',
        { env: { PASSWORD: 'for {user}: {password}', PATH: '/other' } },
        { user: 'alice', password: 'p{user}' },
      )
      const previous = { token: new Secret('t'), refreshToken: new Secret('r1'), issuedAt: 0 }
      const context = sourceContext({ name: 'api/team/alice' })
      const environmentOf = async (before: TokenSet | undefined) => {
        const { token } = await source.obtain(before, context)
        return JSON.parse(Buffer.from(token.reveal(), 'hex').toString())
      }
      const expected = {
        PATH: '/other',
        HOME: process.env.HOME,
        LANG: 'C.UTF-8',
        PASSWORD: 'for alice: p{user}',
        CUPBEARER_POOL: 'api',
        CUPBEARER_CREDENTIAL: 'team/alice',
      }
      expect(await environmentOf(undefined)).toEqual(expected)
      expect(await environmentOf(previous)).toEqual({ ...expected, CUPBEARER_REFRESH_TOKEN: 'r1' })
    } finally {
      vi.unstubAllEnvs()
    }
  })

  it('is run without a shell', async () => {
    const source = sourceOf({ type: 'exec', command: ['echo', '$HOME;`id`'] })
    const { token } = await source.obtain(undefined, sourceContext())
    expect(token.reveal()).toBe('$HOME;`id`')
  })

  it.each<[string, string[], RegExp]>([
    [
      'that does not exist',
      ['/no/such/program'],
      /\/no\/such\/program cannot be started \(ENOENT\)/,
    ],
    ['that is no program', [tmpdir()], /cannot be started \(EACCES\)/],
  ])('%s says so', async (_what, command, message) => {
    expect(await failureOf(sourceOf({ type: 'exec', command }))).toMatch(message)
  })

  it('with a variable that cannot be passed on says so, without its value', async () => {
    const source = node('', { env: { A: '{p}' } }, { p: 'hidden\0' })
    expect(await failureOf(source)).toMatch(/cannot be started with these/)
  })

  it('that fails is told by its code, and its standard error by its size', async () => {
    expect(await failureOf(shell('echo hidden >&2; echo hidden; exit 3'))).toMatch(
      /^command sh ended with code 3, with 7 bytes on standard error$/,
    )
    expect(await failureOf(shell('kill -TERM $$'))).toMatch(/ended by SIGTERM/)
  })

  it('that hangs is killed at its time-out, with all that it started', async () => {
    const hanging = shell(`sleep 1000 & echo $! > ${folder}/a; echo $$ > ${folder}/b; wait`, {
      timeout: '300ms',
    })
    const clock = new ManualClock()
    const failed = failureOf(hanging, { clock })
    const pids = [await pidIn('a'), await pidIn('b')]
    clock.advance(300)
    expect(await failed).toMatch(/did not end in time$/)
    for (const pid of pids) {
      await vi.waitFor(async () => expect(await lives(pid)).toBe(false), 20_000)
    }
  })

  it('is killed when the try is given up', async () => {
    const abort = new AbortController()
    const failed = failureOf(shell(`echo $$ > ${folder}/c; exec sleep 1000`), {
      signal: abort.signal,
    })
    const pid = await pidIn('c')
    expect(await lives(pid)).toBe(true)
    abort.abort()
    expect(await failed).toMatch(/did not end in time$/)
    await vi.waitFor(async () => expect(await lives(pid)).toBe(false), 20_000)
  })

  it('leaves nothing running when it ends, and is not waited for by what it left', async () => {
    const source = shell(`sleep 1000 & echo $! > ${folder}/d; echo token`)
    const { token } = await source.obtain(undefined, sourceContext())
    expect(token.reveal()).toBe('token')
    const pid = await pidIn('d')
    await vi.waitFor(async () => expect(await lives(pid)).toBe(false), 20_000)
  })

  it('that left a process in a group of its own is not waited for either', async () => {
    const source = shell(`setsid sleep 1000 & echo $! > ${folder}/e; echo token`)
    const { token } = await source.obtain(undefined, sourceContext())
    expect(token.reveal()).toBe('token')
    const pid = await pidIn('e')
    try {
      process.kill(pid)
    } catch {
      // Whether it had left the group in time is up to the machine.
    }
  })

  it('is not started for a try that is over', async () => {
    const source = shell(`echo x > ${folder}/f; echo token`)
    expect(await failureOf(source, { signal: AbortSignal.abort() })).toMatch(/not started in time/)
    await expect(readFile(join(folder, 'f'))).rejects.toThrow('ENOENT')
  })

  it('runs beside others without mixing them up', async () => {
    const tokens = await Promise.all(
      Array.from({ length: 8 }, async (_, index) => {
        const { token } = await shell(`echo token-${index}`).obtain(undefined, sourceContext())
        return token.reveal()
      }),
    )
    expect(tokens).toEqual(Array.from({ length: 8 }, (_, index) => `token-${index}`))
  })
})
