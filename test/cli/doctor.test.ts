import { execFile } from 'node:child_process'
import { once } from 'node:events'
import { existsSync } from 'node:fs'
import { chmod, mkdir, symlink, writeFile } from 'node:fs/promises'
import { delimiter, dirname, join } from 'node:path'
import { promisify } from 'node:util'
import { describe, expect, onTestFinished, test } from 'vitest'
import { Folder } from '../config/folder.ts'
import { startAuthServer } from '../support/auth-server.ts'
import { startHttpProxy } from '../support/http-proxy.ts'
import { startOrigin } from '../support/origin.ts'
import { trusting } from '../support/protected-origin.ts'
import { begin, cupbearer, said } from './command-line.ts'

const execute = promisify(execFile)

interface Finding {
  readonly check: string
  readonly status: 'ok' | 'warn' | 'fail'
  readonly message: string
  readonly mend?: string
}

async function configured(config: object): Promise<Folder> {
  const folder = await Folder.create()
  const listeners = { listen: '127.0.0.1:0', admin: { listen: '127.0.0.1:0' } }
  const file = await folder.write('config.json', { ...listeners, ...config })
  await chmod(file, 0o600)
  return folder
}

/** What `doctor --json` says of one check, or of all. */
async function diagnose(folder: Folder, env: NodeJS.ProcessEnv = {}) {
  const { code, out } = await cupbearer(['doctor', '--json'], { cwd: folder.path, env })
  const { ok, findings } = JSON.parse(out) as { ok: boolean; findings: Finding[] }
  return {
    code,
    ok,
    out,
    of: (check: string) => findings.filter((each) => each.check === check),
    failed: findings.filter(({ status }) => status === 'fail'),
  }
}

async function startIn(folder: Folder): Promise<void> {
  const child = begin(['start', '--json'], { cwd: folder.path })
  const closed = once(child, 'close')
  child.stderr.resume()
  await said(child.stdout, /\n/)
  onTestFinished(async () => {
    child.kill('SIGKILL')
    await closed
  })
}

describe('doctor', () => {
  test('finds a running proxy sound, and spends nothing', async () => {
    await using auth = await startAuthServer()
    await using origin = await startOrigin({ tls: true })
    await using proxy = await startHttpProxy()
    await using folder = await configured({
      egress: { frankfurt: proxy.url },
      upstream: trusting(['api.test']),
      clients: { other: { password: 'x', pools: [] }, crawler: { password: 'p4ss' } },
      pools: {
        supplier: {
          targets: [`api.test:${origin.port}`],
          credentials: [
            {
              id: 'acme',
              egress: 'frankfurt',
              source: {
                type: 'oauth2',
                grant: 'refresh_token',
                tokenUrl: auth.tokenUrl,
                clientId: auth.clientId,
                clientSecret: auth.clientSecret,
                refreshToken: await auth.issueRefreshToken(),
              },
            },
          ],
        },
      },
    })
    await startIn(folder)
    await expect.poll(() => auth.calls.length).toBe(1)
    const { code, ok, of, failed, out } = await diagnose(folder)
    expect(failed).toEqual([])
    expect([code, ok]).toEqual([0, true])
    expect(of('proxy').map(({ message }) => message)).toEqual([
      expect.stringContaining('it runs at http://127.0.0.1:'),
      `it intercepts api.test:${origin.port} with its CA`,
    ])
    expect(of('egress').map(({ message }) => message)).toContain(
      `frankfurt reaches api.test:${origin.port}`,
    )
    expect(of('source').map(({ message }) => message)).toEqual([
      'supplier: 1 of 1 could get a token',
    ])
    expect(of('clock')).toMatchObject([{ status: 'ok' }])
    expect(auth.calls).toHaveLength(1)
    expect(origin.requests.map(({ method, url }) => `${method} ${url}`)).toEqual(['HEAD /'])
    for (const secret of ['p4ss', auth.clientSecret]) expect(out).not.toContain(secret)
  })

  test('says of each thing that is wrong how to mend it, and exits with 1', async () => {
    await using origin = await startOrigin({ tls: true })
    const past = Buffer.from('{"exp":1700000000}').toString('base64url')
    const expired = `${Buffer.from('{"alg":"none"}').toString('base64url')}.${past}.c2ln`
    const dead = await startOrigin()
    await dead.close()
    await using folder = await configured({
      listen: `127.0.0.1:${origin.port}`,
      egress: { gone: `http://127.0.0.1:${dead.port}` },
      upstream: trusting(['api.test']),
      pools: {
        supplier: {
          targets: [`api.test:${origin.port}`],
          credentials: [
            { id: 'a', source: { type: 'static', token: expired } },
            { id: 'b', egress: 'gone', source: { type: 'exec', command: ['no-such-program'] } },
            { id: 'c', source: { type: 'file', path: 'absent' } },
          ],
        },
      },
    })
    await chmod(folder.at('config.json'), 0o644)
    await cupbearer(['ca', 'show'], { cwd: folder.path })
    await chmod(folder.at('certs/ca-key.pem'), 0o644)
    const { code, ok, of, out } = await diagnose(folder, { NO_PROXY: '.test' })
    expect([code, ok]).toEqual([1, false])
    const shown = (check: string) => of(check).map(({ status, message }) => [status, message])
    expect(shown('files')).toEqual([
      ['fail', `others can read ${folder.at('certs/ca-key.pem')}`],
      ['warn', `others can read ${folder.at('config.json')}, which holds a secret`],
    ])
    expect(shown('proxy')).toEqual([
      ['fail', `listen 127.0.0.1:${origin.port} cannot be listened on (EADDRINUSE)`],
    ])
    expect(shown('egress')).toEqual([
      ['ok', `direct reaches api.test:${origin.port}`],
      ['fail', expect.stringContaining('gone is down')],
    ])
    expect(shown('source')).toEqual([
      ['fail', expect.stringContaining('supplier/a: its token ended at 2023-11-14')],
      ['fail', 'supplier/b: no-such-program cannot be run'],
      ['fail', expect.stringContaining('supplier/c: ')],
    ])
    expect(shown('no-proxy')).toMatchObject([['warn', expect.stringContaining('".test"')]])
    expect(out).not.toContain(expired)
    const text = await cupbearer(['doctor'], { cwd: folder.path })
    expect(text.out).toContain(`→ chmod 600 ${folder.at('certs/ca-key.pem')}\n`)
  })

  test('makes nothing: neither a CA nor a data folder', async () => {
    await using folder = await configured({})
    const { code, of } = await diagnose(folder)
    expect(code).toBe(0)
    expect(of('ca')).toMatchObject([{ status: 'warn', mend: '`cupbearer start` makes one' }])
    expect(existsSync(folder.at('certs')) || existsSync(folder.at('data'))).toBe(false)
  })

  test('tells every problem of an invalid configuration, and exits with 2', async () => {
    await using folder = await configured({ listen: 'nowhere', pools: { a: { credentials: 1 } } })
    const { code, ok, of } = await diagnose(folder)
    expect([code, ok]).toEqual([2, false])
    expect(of('config').map(({ message }) => message)).toEqual([
      expect.stringContaining('listen: '),
      expect.stringContaining('pools.a.targets: '),
      expect.stringContaining('pools.a.credentials: '),
    ])
  })

  test('compares the clock, and the address that an egress is seen by', async () => {
    await using origin = await startOrigin({
      handler: (_request, response) => {
        response.setHeader('date', new Date(Date.now() - 600_000).toUTCString())
        response.end('203.0.113.7')
      },
    })
    await using folder = await configured({
      egress: { here: { url: 'direct:', probe: origin.url, expect: '198.51.100.0/24' } },
      pools: {
        supplier: {
          targets: [origin.url],
          credentials: [{ id: 'a', egress: 'here', source: { type: 'static', token: 't' } }],
        },
      },
    })
    const { of } = await diagnose(folder)
    expect(of('clock')).toMatchObject([
      { status: 'fail', message: expect.stringMatching(/^this clock is (599|60\d) s ahead of/) },
    ])
    expect(of('egress').map(({ message }) => message)).toContain(
      'here is seen as 203.0.113.7, not 198.51.100.0/24: nothing leaves by it',
    )
  })

  test('warns of a target that the CA may not sign for', async () => {
    const pool = (target: string) => ({
      pools: {
        a: {
          targets: [target],
          credentials: [{ id: 'a', source: { type: 'static', token: 't' } }],
        },
      },
    })
    await using folder = await configured(pool('one.localhost'))
    await cupbearer(['ca', 'show'], { cwd: folder.path })
    await folder.write('config.json', pool('two.localhost'))
    const { of } = await diagnose(folder)
    expect(of('ca').map(({ message }) => message)).toContain(
      'the CA may not sign for two.localhost',
    )
  })

  test('knows which clients on PATH need a hand', async () => {
    await using folder = await configured({})
    await cupbearer(['ca', 'show'], { cwd: folder.path })
    const bin = folder.at('bin')
    await mkdir(bin)
    for (const name of ['curl', 'aria2c', 'chromium']) {
      await writeFile(join(bin, name), '#!/bin/sh\n', { mode: 0o755 })
    }
    const folders = (process.env.PATH ?? '').split(delimiter)
    const certutil = folders.map((each) => join(each, 'certutil')).find(existsSync) as string
    await symlink(certutil, join(bin, 'certutil'))
    const env = { PATH: bin, HOME: folder.path, LD_LIBRARY_PATH: dirname(certutil) }
    const clients = async () => (await diagnose(folder, env)).of('clients')
    expect((await clients()).map(({ status, message }) => [status, message])).toEqual([
      ['ok', 'curl: `cupbearer run` sets proxy and CA'],
      ['warn', 'aria2c reads its CA from no variable'],
      ['warn', expect.stringContaining('lacks the CA, which chromium')],
    ])
    const database = folder.at('.pki/nssdb')
    await mkdir(database, { recursive: true })
    await execute('certutil', ['-d', `sql:${database}`, '-N', '--empty-password'])
    const ca = folder.at('certs/ca.pem')
    const add = ['-A', '-n', 'Our CA', '-t', 'C,,', '-i', ca]
    await execute('certutil', ['-d', `sql:${database}`, ...add])
    expect((await clients()).at(-1)).toMatchObject({ status: 'ok' })
  })
})
