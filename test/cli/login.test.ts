import { type ChildProcessByStdio, spawn } from 'node:child_process'
import { once } from 'node:events'
import { chmod, mkdir, writeFile } from 'node:fs/promises'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { dirname, join } from 'node:path'
import type { Readable, Writable } from 'node:stream'
import { text } from 'node:stream/consumers'
import { afterEach, describe, expect, onTestFinished, test } from 'vitest'
import { startApp, type TestApp } from '../support/app.ts'
import { type LoginServer, startLoginServer } from '../support/login-server.ts'
import { cupbearer, MAIN, said } from './command-line.ts'

const open: AsyncDisposable[] = []

afterEach(async () => {
  for (const each of open.splice(0).reverse()) await each[Symbol.asyncDispose]()
})

async function setUp(source: object): Promise<{ server: LoginServer; app: TestApp }> {
  const server = await startLoginServer()
  open.push(server)
  const app = await startApp({
    pools: {
      api: {
        targets: ['api.test'],
        credentials: [
          {
            id: 'alice',
            source: {
              type: 'oauth2',
              issuer: server.issuer,
              clientId: server.publicClientId,
              scope: 'openid offline_access api:read',
              extra: { prompt: 'consent' },
              ...source,
            },
          },
        ],
      },
    },
  })
  open.push(app)
  return { server, app }
}

type Child = ChildProcessByStdio<Writable, Readable, Readable>

/** `cupbearer login` with a person at its standard input. */
function login(app: TestApp, args: readonly string[] = [], env: NodeJS.ProcessEnv = {}): Child {
  const child = spawn(process.execPath, [MAIN, 'login', 'api/alice', ...args], {
    cwd: app.dir,
    env: { PATH: process.env.PATH, ...env },
    stdio: 'pipe',
  })
  onTestFinished(() => void child.kill('SIGKILL'))
  return child
}

const state = async (app: TestApp) => (await app.admin('/api/pools/api')).credentials[0].state

const addressIn = (output: string) => /Open (\S+)/.exec(output)?.[1] as string

describe('the authorization code', () => {
  test('comes back to a listener on this machine', async () => {
    const { server, app } = await setUp({ grant: 'authorization_code' })
    const child = login(app)
    const closed = once(child, 'close')
    const address = addressIn(await said(child.stdout, /paste the address/))
    const back = (await server.browse(address)) as string
    expect(back).toMatch(/^http:\/\/127\.0\.0\.1:\d+\/callback\?/)
    const { origin } = new URL(back)
    expect((await fetch(`${origin}/favicon.ico`)).status).toBe(404)
    const page = await fetch(back)
    expect(page.status).toBe(200)
    expect(await page.text()).toContain('This window can be closed')
    expect(await said(child.stdout, /active/)).toBe('api/alice is active\n')
    expect(await closed).toEqual([0, null])
    expect(await state(app)).toBe('active')
    await expect(fetch(back)).rejects.toThrow()
  })

  test.each(['the whole address', 'the code alone'])('can be pasted: %s', async (what) => {
    const { server, app } = await setUp({
      grant: 'authorization_code',
      redirectUri: 'http://127.0.0.1/callback',
    })
    const child = login(app)
    const closed = once(child, 'close')
    const back = (await server.browse(addressIn(await said(child.stdout, /paste/)))) as string
    child.stdin.write('nothing of use\n')
    expect(await said(child.stderr, /\n/)).toContain('neither an address nor a code')
    const code = new URL(back).searchParams.get('code')
    child.stdin.write(`${what === 'the code alone' ? code : back}\n`)
    expect(await closed).toEqual([0, null])
    expect(await state(app)).toBe('active')
  })

  test('that is wrong ends with the reason and exit code 1', async () => {
    const { app } = await setUp({ grant: 'authorization_code' })
    const child = login(app)
    const closed = once(child, 'close')
    const errors = text(child.stderr)
    await said(child.stdout, /paste/)
    child.stdin.write('not-the-code\n')
    expect(await closed).toEqual([1, null])
    expect(await errors).toMatch(/invalid_grant: the code is wrong/)
    expect(await state(app)).toBe('revoked')
  })
})

describe('a browser', () => {
  /** A folder with an opener that tells the address to the test instead. */
  const opener = async (app: TestApp) => {
    let told = (_url: string) => {}
    const opened = new Promise<string>((resolve) => {
      told = resolve
    })
    const hook = createServer(async (incoming, response) => {
      told(await text(incoming))
      response.end()
    })
    hook.listen(0, '127.0.0.1')
    await once(hook, 'listening')
    open.push({
      async [Symbol.asyncDispose]() {
        hook.closeAllConnections()
        hook.close()
        await once(hook, 'close')
      },
    })
    const { port } = hook.address() as AddressInfo
    const bin = join(app.dir, 'bin')
    await mkdir(bin)
    const script = `fetch('http://127.0.0.1:${port}/', { method: 'POST', body: process.argv[2] })`
    for (const name of ['xdg-open', 'open']) {
      await writeFile(join(bin, name), `#!${process.execPath}\n${script}\n`)
      await chmod(join(bin, name), 0o755)
    }
    const PATH = `${bin}:${dirname(process.execPath)}:${process.env.PATH}`
    return { opened, env: { PATH, DISPLAY: ':7' } }
  }

  test('is opened where there is a display', async () => {
    const { server, app } = await setUp({ grant: 'authorization_code' })
    const { opened, env } = await opener(app)
    const child = login(app, [], env)
    const closed = once(child, 'close')
    const address = await opened
    expect(address.startsWith(`${server.issuer}/auth?`)).toBe(true)
    await fetch((await server.browse(address)) as string)
    expect(await closed).toEqual([0, null])
  })

  test.each([
    ['with --no-open', ['--no-open'], {}],
    ['over SSH', [], { SSH_CONNECTION: '192.0.2.1 1 192.0.2.2 22' }],
    ['without a display', [], { DISPLAY: '' }],
  ])('is not opened %s', async (_where, args, more) => {
    const { server, app } = await setUp({ grant: 'authorization_code' })
    const { opened, env } = await opener(app)
    const child = login(app, args, { ...env, ...more })
    const closed = once(child, 'close')
    let seen: string | undefined
    void opened.then((url) => {
      seen = url
    })
    await fetch((await server.browse(addressIn(await said(child.stdout, /paste/)))) as string)
    expect(await closed).toEqual([0, null])
    expect(seen).toBeUndefined()
  })
})

test('a device login shows address and code, and waits', async () => {
  const { server, app } = await setUp({ grant: 'device_code' })
  const child = login(app)
  const closed = once(child, 'close')
  const output = await said(child.stdout, /Waiting/)
  expect(output).toContain(`Open ${server.issuer}/device\n`)
  const code = /enter the code: (\S+)/.exec(output)?.[1]
  expect(output).toContain(`or open ${server.issuer}/device?user_code=${code}`)
  await server.browse(`${server.issuer}/device?user_code=${code}`)
  expect(await said(child.stdout, /active/)).toContain('api/alice is active')
  expect(await closed).toEqual([0, null])
})

test('Ctrl-C gives the login up on the proxy too', async () => {
  const { app } = await setUp({ grant: 'device_code' })
  const first = login(app)
  await said(first.stdout, /Waiting/)
  first.kill('SIGINT')
  await once(first, 'close')
  // One login at a time: there is room as soon as the proxy has seen the first one go.
  for (;;) {
    const next = login(app)
    const errors = text(next.stderr)
    const shown = await said(next.stdout, /Waiting/).catch(() => undefined)
    if (shown) return
    expect(await errors).toContain('under way already')
  }
})

test('a grant that needs nobody just gets its token afresh', async () => {
  const { app, server } = await setUp({ grant: 'device_code' })
  await app.reconfigure({
    pools: {
      api: {
        targets: ['api.test'],
        credentials: [
          {
            id: 'alice',
            source: {
              type: 'oauth2',
              grant: 'client_credentials',
              issuer: server.issuer,
              ...server.keyClient,
            },
          },
        ],
      },
    },
  })
  const { code, out } = await cupbearer(['login', 'api/alice'], { cwd: app.dir })
  expect({ code, out }).toEqual({ code: 0, out: 'api/alice is active\n' })
})

test('what cannot be is told in a sentence', async () => {
  const { app } = await setUp({ grant: 'device_code' })
  const unknown = await cupbearer(['login', 'api/bob'], { cwd: app.dir })
  expect(unknown).toMatchObject({ code: 1, err: 'cupbearer: no such credential\n' })
  const misnamed = await cupbearer(['login', 'alice'], { cwd: app.dir })
  expect(misnamed.code).toBe(2)
  expect(misnamed.err).toContain('named POOL/ID')
  await app.app.stop()
  const stopped = await cupbearer(['login', 'api/alice'], { cwd: app.dir })
  expect(stopped.code).toBe(1)
  expect(stopped.err).toContain('no proxy is running')
})
