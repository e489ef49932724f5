import { mkdtemp, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { inspect } from 'node:util'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { loadConfig } from '../../src/config/load.ts'
import { startApp } from '../support/app.ts'
import { canary, findSecrets } from '../support/canaries.ts'

let dir: string
beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), 'cupbearer-secrets-'))
})
afterAll(() => rm(dir, { recursive: true, force: true }))

test('tokens lie sealed on the disk, in files for their owner alone, whatever the umask', async () => {
  const secrets = { access: canary('access'), refresh: canary('refresh') }
  const printed = JSON.stringify({
    access_token: secrets.access,
    refresh_token: secrets.refresh,
    expires_in: 3600,
  })
  const command = [process.execPath, '-e', 'process.stdout.write(process.env.PRINTED)']
  const source = { type: 'exec', command, env: { PRINTED: `\${env:PRINTED_BY_TEST}` } }
  process.env.PRINTED_BY_TEST = printed
  const before = process.umask(0)
  try {
    await using app = await startApp(
      {
        store: 'file:data/cupbearer.db',
        pools: { supplier: { targets: ['api.test'], credentials: [{ id: 'one', source }] } },
      },
      dir,
    )
    await expect.poll(async () => (await app.admin('/api/pools/supplier')).tokens.active).toBe(1)
    // Kept while it runs, and kept when it has ended.
    await inspectFolder(secrets)
  } finally {
    process.umask(before)
    delete process.env.PRINTED_BY_TEST
  }
  await inspectFolder(secrets)
  const names = await readdir(join(dir, 'data'))
  expect(names).toEqual(expect.arrayContaining(['cupbearer.db', 'cupbearer.db.key']))
})

/** What is meant to be read by others: the configuration is the test's, and certificates are public. */
const PUBLIC = /^config\.json$|^certs\/(?!.*key).*\.pem$/

async function inspectFolder(secrets: Record<string, string>): Promise<void> {
  const all = await readdir(dir, { recursive: true, withFileTypes: true })
  const open: string[] = []
  for (const entry of all) {
    const path = join(entry.parentPath, entry.name)
    const name = path.slice(dir.length + 1)
    // Locks and spools come and go.
    const { mode } = await stat(path).catch(() => ({ mode: 0 }))
    if ((mode & 0o077) !== 0 && !PUBLIC.test(name)) open.push(name)
    if (!entry.isFile()) continue
    const bytes = await readFile(path).catch(() => Buffer.alloc(0))
    expect(findSecrets(secrets, name, bytes)).toEqual([])
  }
  expect(open).toEqual([])
}

describe('a configuration that is refused quotes no secret', () => {
  const secret = 'S3cr3t-of-the-test/+'
  const pool = (source: object) => ({
    pools: { p: { targets: ['api.test'], credentials: [{ id: 'a', source }] } },
  })

  test.each<[string, string | object]>([
    ['an egress URL without an end', { egress: { e: `http://user:${secret}@[::1` } }],
    ['an egress URL with a bad port', { egress: { e: `socks5://user:${secret}@host:99999` } }],
    ['an egress URL of an unknown kind', { egress: { e: `ftp://user:${secret}@host:21` } }],
    ['a Redis URL', { store: `redis:/user:${secret}@host` }],
    ['a token with a line break', pool({ type: 'static', token: `${secret}\r\nX: y` })],
    ['a token with NUL', pool({ type: 'static', token: `${secret}\0` })],
    ['a token that is a list', pool({ type: 'static', token: [secret] })],
    ['an unknown key', pool({ type: 'static', token: secret, secret: { value: secret } })],
    ['an unknown kind of source', pool({ type: secret })],
    ['a store key that is too short', { storeKey: secret }],
    ['a password that is a number', { clients: { ann: { password: [secret] } } }],
    ['a token endpoint with a password', pool({ type: 'oauth2', tokenUrl: `x://u:${secret}@h` })],
    ['a comma too many', `{"admin": {"token": "${secret}",}}`],
    ['a quote too few', `{"admin": {"token": "${secret}}}`],
    ['two values', `{"admin": {"token": "${secret}"}} "${secret}"`],
    ['no comma', `{"admin": {"token": "${secret}" "listen": 1}}`],
  ])('%s', async (_what, config) => {
    const file = join(dir, 'refused.json')
    await writeFile(file, typeof config === 'string' ? config : JSON.stringify(config))
    const error = await loadConfig(file).then(
      () => undefined,
      (thrown: Error) => thrown,
    )
    expect(error).toMatchObject({ code: 'CONFIG_INVALID' })
    const shown = inspect(error, { depth: 10, showHidden: true }) + JSON.stringify(error)
    expect(shown).not.toContain('S3cr3t')
    expect(findSecrets({ secret }, 'error', shown)).toEqual([])
  })
})
