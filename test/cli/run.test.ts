import { readFileSync, statSync } from 'node:fs'
import { expect, test } from 'vitest'
import { Folder } from '../config/folder.ts'
import { startApp } from '../support/app.ts'
import { startOrigin } from '../support/origin.ts'
import { trusting } from '../support/protected-origin.ts'
import { cupbearer, FakeProxy } from './command-line.ts'

const POOLS = {
  pools: {
    supplier: {
      targets: ['api.supplier.example', '*.wild.example'],
      credentials: [{ id: 'a', source: { type: 'static', token: 't' } }],
    },
  },
}

async function environment(folder: Folder, env: NodeJS.ProcessEnv = {}) {
  const { out, err } = await cupbearer(['env', '--json'], { cwd: folder.path, env })
  return { set: JSON.parse(out) as Record<string, string>, err }
}

async function configured(config: object = {}): Promise<Folder> {
  const folder = await Folder.create()
  await folder.write('config.json', config)
  return folder
}

test('NO_PROXY is kept as it is, and an entry that covers a target is warned of', async () => {
  await using folder = await configured(POOLS)
  await using _proxy = await FakeProxy.start(folder.path, {})
  const without = await environment(folder)
  expect([without.set.NO_PROXY, without.err]).toEqual(['', ''])
  const kept = await environment(folder, { NO_PROXY: 'localhost,api.supplier.example:8443' })
  expect([kept.set.no_proxy, kept.err]).toEqual(['localhost,api.supplier.example:8443', ''])
  const bypassed = await environment(folder, { no_proxy: '.supplier.example,a.wild.example' })
  expect(bypassed.set.NO_PROXY).toBe('.supplier.example,a.wild.example')
  expect(bypassed.err.match(/NO_PROXY holds "[^"]+", so requests to \S+/g)).toEqual([
    'NO_PROXY holds ".supplier.example", so requests to api.supplier.example',
    'NO_PROXY holds "a.wild.example", so requests to *.wild.example',
  ])
})

test('a proxy that was killed, and left its files, is said not to run', async () => {
  await using folder = await configured()
  {
    await using _gone = await FakeProxy.start(folder.path, {})
  }
  const { code, err } = await cupbearer(['run', '--', 'true'], { cwd: folder.path })
  expect([code, err]).toEqual([1, expect.stringContaining('no proxy is running')])
})

test('wget and PHP get files with the bundle, beside the settings of the system', async () => {
  await using folder = await configured()
  await using _proxy = await FakeProxy.start(folder.path, {})
  const system = await folder.write('system-wgetrc', 'tries = 3')
  const { set } = await environment(folder, { SYSTEM_WGETRC: system })
  const bundle = folder.at('data/ca-bundle.pem')
  const wgetrc = `tries = 3\nca_certificate = ${bundle}\n`
  expect(readFileSync(set.SYSTEM_WGETRC as string, 'utf8')).toBe(wgetrc)
  expect(statSync(set.SYSTEM_WGETRC as string).mode & 0o777).toBe(0o600)
  const php = readFileSync(`${set.PHP_INI_SCAN_DIR?.replace(/^:/, '')}/cupbearer.ini`, 'utf8')
  expect(php).toContain(`curl.cainfo="${bundle}"`)
  // Within `run` once more, its own file is not taken for the system's.
  const again = await environment(folder, { SYSTEM_WGETRC: set.SYSTEM_WGETRC })
  expect(readFileSync(again.set.SYSTEM_WGETRC as string, 'utf8')).not.toContain(wgetrc)
})

test('Node of any version goes by the proxy, with the client’s password, but for NO_PROXY', async () => {
  await using plain = await startOrigin()
  await using secure = await startOrigin({ tls: true })
  await using app = await startApp({
    clients: { crawler: { password: 'p@ss:w/rd' } },
    upstream: trusting(['api.test']),
    pools: {
      supplier: {
        targets: [plain.url, `api.test:${secure.port}`],
        credentials: [{ id: 'a', source: { type: 'static', token: 'injected' } }],
      },
    },
  })
  const program = await folderWith(`
    import { get as getPlain } from 'node:http'
    import { get as getSecure } from 'node:https'
    import { json } from 'node:stream/consumers'
    const [plain, secure] = process.argv.slice(2)
    const ask = (get, url) =>
      new Promise((resolve, reject) => get(url, resolve).on('error', reject)).then(json)
    const told = [
      await ask(getPlain, plain),
      await (await fetch(plain)).json(),
      await ask(getSecure, secure),
      await (await fetch(secure)).json(),
      await ask(getPlain, plain.replace('127.0.0.1', 'localhost')),
    ]
    console.log(told.map(({ authorization }) => authorization ?? 'none').join())`)
  await using _folder = program
  const urls = [`${plain.url}/`, `https://api.test:${secure.port}/`]
  const args = ['run', '--', process.execPath, program.at('ask.mjs'), ...urls]
  const { out, err } = await cupbearer(args, { cwd: app.dir, env: { NO_PROXY: 'localhost' } })
  const token = 'Bearer injected'
  expect(out, err).toBe(`${[token, token, token, token, 'none'].join()}\n`)
})

async function folderWith(program: string): Promise<Folder> {
  const folder = await Folder.create()
  await folder.write('ask.mjs', program)
  return folder
}
