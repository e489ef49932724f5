import { once } from 'node:events'
import { chmod, mkdir, writeFile } from 'node:fs/promises'
import { createServer, type Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import { dirname, join } from 'node:path'
import { text } from 'node:stream/consumers'
import { connect } from 'node:tls'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { CaptureScene } from '../support/capture.ts'
import { begin, cupbearer, said } from './command-line.ts'

let scene: CaptureScene
const servers: Server[] = []
beforeEach(async () => {
  scene = await CaptureScene.create()
})
afterEach(async () => {
  for (const server of servers.splice(0)) server.close()
  await scene[Symbol.asyncDispose]()
})

test('waits while somebody logs in, and tells what was learned', async () => {
  const app = await scene.start()
  // Nobody waits for a login: a request with nothing of its own is the pipeline's.
  expect(await scene.ask()).toBe(503)
  const child = begin(['capture', 'shop'], { cwd: app.dir })
  const closed = once(child, 'close')
  const output = await said(child.stdout, /Waiting/)
  expect(output).toContain(`Point a browser at the proxy ${app.app.proxyUrl}`)
  expect(output).toContain(scene.apiUrl)
  expect(output).toContain(app.app.caPath)
  // The page that leads to a login has no credential yet.
  expect(await scene.ask()).toBe(401)
  const { access, refresh } = await scene.logIn()
  const rest = await said(child.stdout, /renews/)
  expect(rest).toMatch(/^shop\/ann has learned a token of alice\n {2}scopes: api:read\n {2}ends: /)
  expect(await closed).toEqual([0, null])
  expect(output + rest).not.toContain(access)
  expect(output + rest).not.toContain(refresh)
  expect(await scene.ask()).toBe(200)
})

test('a lone access token is told as what it is', async () => {
  const app = await scene.start({ targets: [scene.apiUrl] })
  const child = begin(['capture', 'shop'], { cwd: app.dir })
  const closed = once(child, 'close')
  await said(child.stdout, /Waiting/)
  const { access } = await scene.logIn()
  expect(await scene.ask(access)).toBe(200)
  expect(await said(child.stdout, /seen/)).toMatch(/No way to renew it was seen/)
  expect(await closed).toEqual([0, null])
})

test('a login anew replaces a token that still lives', async () => {
  const app = await scene.start()
  await scene.logIn('alice')
  await expect.poll(async () => (await scene.status()).subject).toBe('alice')
  const child = begin(['capture', 'shop'], { cwd: app.dir })
  const closed = once(child, 'close')
  await said(child.stdout, /Waiting/)
  await scene.logIn('bert')
  expect(await closed).toEqual([0, null])
  expect(await scene.status()).toMatchObject({ subject: 'bert', generation: 2 })
})

test('--open starts a Chromium that trusts the key of the proxy, and ends it', async () => {
  const app = await scene.start()
  const told = createServer()
  servers.push(told.listen(0, '127.0.0.1'))
  await once(told, 'listening')
  const bin = join(app.dir, 'bin')
  await mkdir(bin)
  const { port } = told.address() as AddressInfo
  const script = `fetch('http://127.0.0.1:${port}/', { method: 'POST', body: JSON.stringify(process.argv.slice(2)) }); setInterval(() => {}, 1000)`
  await writeFile(join(bin, 'chromium'), `#!${process.execPath}\n${script}\n`)
  await chmod(join(bin, 'chromium'), 0o755)
  const PATH = `${bin}:${dirname(process.execPath)}`
  const child = begin(['capture', 'shop', '--open'], { cwd: app.dir, env: { PATH } })
  const closed = once(child, 'close')
  const [request, response] = await once(told, 'request')
  const args = JSON.parse(await text(request)) as string[]
  response.end()
  const browserEnds = once(request.socket, 'close')
  expect(args).toContain(`--proxy-server=${app.app.proxyUrl}`)
  expect(args.at(-1)).toBe(scene.apiUrl)

  const { socket } = await app.client().tunnel(new URL(scene.apiUrl).host)
  const secure = connect({ socket, servername: 'api.test', ca: app.ca })
  await once(secure, 'secureConnect')
  const { createHash } = await import('node:crypto')
  const spki = secure.getPeerX509Certificate()?.publicKey.export({ type: 'spki', format: 'der' })
  secure.destroy()
  const hash = createHash('sha256')
    .update(spki as Buffer)
    .digest('base64')
  expect(args).toContain(`--ignore-certificate-errors-spki-list=${hash}`)

  await scene.logIn()
  await browserEnds
  expect(await closed).toEqual([0, null])
})

test('what cannot be is told in a sentence', async () => {
  const app = await scene.start({
    credentials: [{ id: 'ann', source: { type: 'static', token: 'static' } }],
  })
  const unknown = await cupbearer(['capture', 'other'], { cwd: app.dir })
  expect(unknown).toMatchObject({ code: 1, err: 'cupbearer: no such pool\n' })
  const deaf = await cupbearer(['capture', 'shop'], { cwd: app.dir })
  expect(deaf.code).toBe(1)
  expect(deaf.err).toContain('no credential with a source of type capture')
  expect(deaf.out).toBe('')
})
