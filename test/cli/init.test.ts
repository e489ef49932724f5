import { execFile } from 'node:child_process'
import { mkdir, readdir, readFile, stat, writeFile } from 'node:fs/promises'
import type { IncomingMessage, ServerResponse } from 'node:http'
import { text } from 'node:stream/consumers'
import { promisify } from 'node:util'
import { describe, expect, test } from 'vitest'
import { SOURCE_KINDS, wordsOf } from '../../src/cli/init-sources.ts'
import { readConfig } from '../../src/config/load.ts'
import { Folder } from '../config/folder.ts'
import { startApp } from '../support/app.ts'
import { type LoginServer, startLoginServer } from '../support/login-server.ts'
import { startOrigin } from '../support/origin.ts'
import { begin, cupbearer, MAIN, said } from './command-line.ts'
import { Terminal } from './terminal.ts'

const CLIENT = ['init', '--yes', '--target', 'api.test', '--source', 'client-credentials']

/** Runs the command line with something on its standard input. */
async function withInput(args: readonly string[], cwd: string, input: string) {
  const running = promisify(execFile)(process.execPath, [MAIN, ...args], { cwd })
  running.child.stdin?.end(input)
  return running
}

const client = (server: LoginServer) => [
  '--token-url',
  server.tokenUrl,
  '--client-id',
  server.clientId,
  '--scope',
  'api:read',
  '--client-secret-file',
]

describe('init asks at a terminal', () => {
  test('until the login works, and shows no secret', async () => {
    await using server = await startLoginServer()
    await using folder = await Folder.create()
    const terminal = new Terminal(['init'], folder.path, 120, 40)
    let seen = ''
    const answer = async (question: RegExp, reply: string) => {
      seen += await terminal.shows(question)
      terminal.press(`${reply}\r`)
    }
    await answer(/Host that gets the token \[api\.example\.com\]: /, 'api.supplier.example')
    await answer(/10 {2}from traffic[^\n]*\r?\n.*Number \[1\]: /s, '')
    await answer(/Name of the pool \[supplier\]: /, '')
    await answer(/Token endpoint[^:]*:[^:]*: /, 'login.supplier.example')
    await answer(/expected an http\(s\) URL.*Token endpoint[^:]*:[^:]*: /s, server.tokenUrl)
    await answer(/Client id: /, server.clientId)
    await answer(/Client secret: /, 'mistyped-s3cret')
    await answer(/Scopes[^:]*:[^:]*: /, 'api:read')
    await answer(/no token: .*Number \[1\]: /s, '1')
    expect(await readdir(folder.path)).not.toContain('config.json')

    await answer(/Host that gets/, 'api.supplier.example')
    await answer(/Number \[1\]: /, '')
    await answer(/Name of the pool/, '')
    await answer(/Token endpoint[^:]*:[^:]*: /, server.tokenUrl)
    await answer(/Client id: /, server.clientId)
    await answer(
      /Client secret \(empty: as in secrets.supplier-account-1-client-secret\): /,
      server.clientSecret,
    )
    await answer(/Scopes[^:]*:[^:]*: /, 'api:read')
    seen += await terminal.shows(/docs\/configuration\.md/)
    expect(await terminal.code()).toBe(0)

    expect(seen).toContain('it works')
    expect(seen).toMatch(/scopes {3}api:read/)
    expect(seen).toMatch(/expires {2}in .*\d{4}-/)
    expect(seen).toContain('cupbearer run -- curl https://api.supplier.example/')
    for (const secret of ['mistyped-s3cret', server.clientSecret])
      expect(seen).not.toContain(secret)
    const written = await readFile(folder.at('config.json'), 'utf8')
    expect(written).not.toContain(server.clientSecret)
    const secretFile = folder.at('secrets/supplier-account-1-client-secret')
    expect((await stat(secretFile)).mode & 0o777).toBe(0o600)
    expect((await stat(folder.at('secrets'))).mode & 0o777).toBe(0o700)
    expect((await cupbearer(['check'], { cwd: folder.path })).code).toBe(0)
  })

  test('before it touches a configuration that is there, and leaves nothing when it is stopped', async () => {
    await using folder = await Folder.create()
    await folder.write('config.json', '{ "pools": {} }')
    const terminal = new Terminal(['init'], folder.path, 120, 40)
    await terminal.shows(/is there already.*Number \[1\]: /s)
    terminal.press('1\r')
    await terminal.shows(/Host that gets/)
    terminal.press('api.supplier.example\r')
    await terminal.shows(/Number \[1\]: /)
    terminal.press('9\r')
    await terminal.shows(/Name of the pool/)
    terminal.press('\r')
    await terminal.shows(/Token: /)
    terminal.press('\x03')
    await terminal.shows(/stopped; no configuration was written/)
    expect(await terminal.code()).toBe(1)
    expect(await readdir(folder.path)).toEqual(['config.json'])
    expect(await readFile(folder.at('config.json'), 'utf8')).toBe('{ "pools": {} }')
  })
})

describe('init --yes, for scripts', () => {
  test('takes a secret from standard input, tries the login, and may be run again', async () => {
    await using server = await startLoginServer()
    await using folder = await Folder.create()
    const args = [...CLIENT, ...client(server), '-']
    const { stdout } = await withInput(args, folder.path, server.clientSecret)
    expect(stdout).toContain('it works')
    const again = await withInput(args, folder.path, server.clientSecret)
    expect(again.stdout).toContain('Nothing changed in config.json')

    const more = ['init', '--yes', '--add', '--pool', 'other', '--target', 'other.test']
    await folder.write('token', 'of-the-test')
    const added = await cupbearer([...more, '--source', 'static', '--token-file', 'token'], {
      cwd: folder.path,
    })
    expect(added).toMatchObject({ code: 0 })
    expect(added.err).toContain('others can read token: chmod 600 token')
    const { pools } = JSON.parse(await readFile(folder.at('config.json'), 'utf8'))
    expect(Object.keys(pools)).toEqual(['main', 'other'])
    expect(pools.other.credentials[0].source.token).toBe('${file:token}')
  })

  test('leaves the try to a proxy that runs with the same store', async () => {
    await using folder = await Folder.create()
    const config = { listen: '127.0.0.1:0', admin: { listen: '127.0.0.1:0' }, pools: {} }
    await folder.write('config.json', config)
    const proxy = begin(['start', '--json'], { cwd: folder.path })
    await said(proxy.stdout, /\n/)
    const args = ['init', '--yes', '--add', '--target', 'api.test', '--source', 'static']
    const { stdout } = await withInput([...args, '--token-file', '-'], folder.path, 'of-the-test')
    expect(stdout).toContain('will get it by itself')
    await said(proxy.stderr, /configuration applied/)
    const { out } = await cupbearer(['token', 'list'], { cwd: folder.path })
    expect(out).toMatch(/main\/account-1 +active/)
  })

  test('tries nothing that takes a person, and says what the person has to do', async () => {
    await using folder = await Folder.create()
    const args = ['init', '--yes', '--target', 'api.test', '--source', 'authorization-code']
    const issuer = ['--issuer', 'https://login.test', '--client-id', 'app']
    const { code, out } = await cupbearer([...args, ...issuer], { cwd: folder.path })
    expect({ code, out }).toMatchObject({
      code: 0,
      out: expect.stringContaining('cupbearer login main/account-1'),
    })
  })

  test('writes nothing where the login does not work, or where an answer is missing', async () => {
    await using server = await startLoginServer()
    await using folder = await Folder.create()
    await mkdir(folder.at('secrets'), { mode: 0o700 })
    await writeFile(folder.at('secrets/main-account-1-client-secret'), 'of before\n')
    const args = [...CLIENT, ...client(server), '-']
    await expect(withInput(args, folder.path, 'wrong')).rejects.toMatchObject({
      code: 1,
      stderr: expect.stringMatching(/no token: .+\n {2}hint: nothing was written/),
    })
    expect(await readdir(folder.path)).not.toContain('config.json')
    const kept = await readFile(folder.at('secrets/main-account-1-client-secret'), 'utf8')
    expect(kept).toBe('of before\n')
    const missing = await cupbearer(CLIENT, { cwd: folder.path })
    expect(missing).toMatchObject({ code: 2 })
    expect(missing.err).toContain('--issuer is needed')
    await withInput([...args, '--no-test'], folder.path, 'wrong')
    expect((await cupbearer(['check'], { cwd: folder.path })).code).toBe(0)
  })

  test('keeps a refresh token that the try has used up', async () => {
    const used: (string | null)[] = []
    await using endpoint = await startOrigin({
      handler: async (request: IncomingMessage, response: ServerResponse) => {
        used.push(new URLSearchParams(await text(request)).get('refresh_token'))
        response.setHeader('content-type', 'application/json')
        response.end(
          JSON.stringify({
            access_token: `access-${used.length}`,
            token_type: 'bearer',
            expires_in: 3600,
            refresh_token: `refresh-${used.length}`,
          }),
        )
      },
    })
    await using folder = await Folder.create()
    const args = ['init', '--yes', '--target', 'api.test', '--source', 'refresh-token']
    const flags = ['--token-url', `${endpoint.url}/token`, '--client-id', 'app']
    await withInput([...args, ...flags, '--refresh-token-file', '-'], folder.path, 'refresh-0')
    expect(used).toEqual(['refresh-0'])

    const config = JSON.parse(await readFile(folder.at('config.json'), 'utf8'))
    await using app = await startApp(
      { ...config, listen: '127.0.0.1:0', store: 'file:data/cupbearer.db' },
      folder.path,
    )
    const { state } = await app.admin('/api/pools/main/credentials/account-1')
    expect(state).toBe('active')
    await app.admin('/api/pools/main/credentials/account-1/refresh', 'POST')
    expect(used).toEqual(['refresh-0', 'refresh-1'])
  })

  test('logs in by a request of its own making', async () => {
    const bodies: unknown[] = []
    await using site = await startOrigin({
      handler: async (request, response) => {
        bodies.push(JSON.parse(await text(request)))
        response.setHeader('content-type', 'application/json')
        response.end(JSON.stringify({ data: { token: 'a-token', ttl: 90 } }))
      },
    })
    await using folder = await Folder.create()
    const args = ['init', '--yes', '--target', 'api.test', '--source', 'login', '--user', 'ann']
    const at = ['--token-pointer', '/data/token', '--expiry-pointer', '/data/ttl']
    const login = ['--login-url', `${site.url}/login`, '--user-field', 'email', ...at]
    const { stdout } = await withInput(
      [...args, ...login, '--password-file', '-'],
      folder.path,
      'pa{ss',
    )
    expect(bodies).toEqual([{ email: 'ann', password: 'pa{ss' }])
    expect(stdout).toMatch(/expires {2}in .*\d{4}-/)
  })
})

test.each(SOURCE_KINDS.map((kind) => [kind.name, kind] as const))(
  'the source %s makes a valid configuration of its answers',
  async (_name, kind) => {
    await using folder = await Folder.create()
    const answers: Record<string, string | undefined> = { 'target-glob': 'https://api.test/*' }
    for (const question of kind.questions) {
      if (question.when && !question.when(answers)) continue
      const made = question.wrong?.('x') ? 'https://login.test/' : 'x'
      answers[question.name] = question.default ?? (question.name.endsWith('pointer') ? '/x' : made)
    }
    const pool = {
      targets: ['api.test', ...(kind.targets?.(answers) ?? [])],
      credentials: [{ id: 'a', ...kind.credential(answers) }],
    }
    const tree = JSON.parse(JSON.stringify({ pools: { p: pool } }))
    const config = await readConfig(tree, folder.at('config.json'))
    expect(config.pools.p?.credentials).toHaveLength(1)
  },
)

test('a command is split at spaces, but not within quotes', () => {
  expect(wordsOf(`op read "op://a b/c"  --x='1 2'`)).toEqual([
    'op',
    'read',
    'op://a b/c',
    '--x=1 2',
  ])
  expect(wordsOf(`op "read`)).toBeUndefined()
  expect(wordsOf('  ')).toBeUndefined()
})
