import { networkInterfaces } from 'node:os'
import { afterAll, beforeAll, beforeEach, describe, expect, test, vi } from 'vitest'
import { startApp, type TestApp } from '../support/app.ts'
import { type HttpProxy, startHttpProxy } from '../support/http-proxy.ts'
import { Http2Client } from '../support/http2-client.ts'
import { type Origin, startOrigin } from '../support/origin.ts'
import { trusting } from '../support/protected-origin.ts'
import { type SocksProxy, startSocksProxy } from '../support/socks-proxy.ts'

/** What the resolver says of a name: its answers in turn, the last of them for ever. */
const answers = new Map<string, string[][]>()
const asked: string[] = []

vi.mock('node:dns/promises', async (original) => ({
  ...(await original<typeof import('node:dns/promises')>()),
  lookup: async (name: string) => {
    asked.push(name)
    const turns = answers.get(name) ?? []
    const addresses = (turns.length > 1 ? turns.shift() : turns[0]) ?? []
    if (addresses.length === 0) throw Object.assign(new Error('no address'), { code: 'ENOTFOUND' })
    return addresses.map((address) => ({ address, family: address.includes(':') ? 6 : 4 }))
  },
}))

/** What must not be reached listens here, with the port of what may be. */
const FORBIDDEN = '127.0.0.2'
let open: Origin
let shut: Origin
let secure: Origin
let http: HttpProxy
let socks: SocksProxy

beforeAll(async () => {
  open = await startOrigin()
  shut = await startOrigin({ host: FORBIDDEN })
  secure = await startOrigin({ tls: true, host: FORBIDDEN, names: ['api.test', 'scoped.test'] })
  http = await startHttpProxy({ host: '127.0.0.3' })
  socks = await startSocksProxy({ host: '127.0.0.4' })
})
afterAll(async () => {
  for (const each of [open, shut, secure, http, socks]) await each?.[Symbol.asyncDispose]()
})
beforeEach(() => {
  answers.clear()
  asked.length = 0
})

/** The status of a CONNECT, and that of a request in absolute form. */
async function statusesOf(app: TestApp, authority: string, auth?: string): Promise<number[]> {
  const client = app.client(auth === undefined ? {} : { auth })
  const { socket, status } = await client.tunnel(authority)
  socket.destroy()
  return [status, (await client.request(`http://${authority}/`)).status]
}

describe.each(['direct', 'local'])('by the egress %s', (egress) => {
  test('a name that changes its address never leads to a denied one', async () => {
    const connections = shut.connections
    await using app = await startApp({
      egress: { local: 'local://127.0.0.1' },
      passthrough: { egress, deny: [FORBIDDEN] },
    })
    // Whoever judged one answer and dialled the next would be led there by one order or the other.
    answers.set('flips.test', [['127.0.0.1'], [FORBIDDEN], ['127.0.0.1'], [FORBIDDEN]])
    const got: number[] = []
    for (let turn = 0; turn < 4; turn++) {
      const { socket, status } = await app.client().tunnel(`flips.test:${open.port}`)
      socket.destroy()
      got.push(status)
    }
    expect(got).toEqual([200, 403, 200, 403])
    answers.set('flips.test', [['127.0.0.1'], [FORBIDDEN]])
    // Each on a connection of its own: by another name for the same address.
    answers.set('flops.test', [[FORBIDDEN], ['127.0.0.1']])
    const url = (name: string) => `http://${name}:${open.port}/`
    expect((await app.client().request(url('flips.test'))).status).toBe(200)
    expect((await app.client().request(url('flops.test'))).status).toBe(403)
    expect((await app.client().request(url('flops.test'))).status).toBe(200)
    // Of several addresses only the permitted ones are dialled.
    answers.set('both.test', [[FORBIDDEN, '127.0.0.1']])
    expect((await app.client().request(url('both.test'))).status).toBe(200)
    expect(shut.connections).toBe(connections)
    expect(asked).toHaveLength(8)
  })
})

const DENIED = [
  '169.254.169.254',
  '169.254.0.1',
  '100.100.100.200',
  '168.63.129.16',
  'fd00:ec2::254',
  'fe80::1',
  'fe80::1%lo',
  '::ffff:169.254.169.254',
  '::ffff:a9fe:a9fe',
  '::ffff:0:a9fe:a9fe',
  '::169.254.169.254',
  '64:ff9b::169.254.169.254',
  '64:ff9b::a9fe:a9fe',
  '64:ff9b:1::a9fe:a9fe',
  '64:ff9b:1:a9fe:a9:fe00::',
  '64:ff9b:1:a9:fe:a9fe::',
  '64:ff9b:1:0:a9:fea9:fe00:0',
  '2002:a9fe:a9fe::1',
  '2001:0:5ef5:79fb:0:59d2:5601:5601',
  '2001:0:a9fe:a9fe:0:59d2:3efe:fffe',
  'fd00::5efe:a9fe:a9fe',
  'fd00::200:5efe:169.254.169.254',
  '224.0.0.1',
  '239.255.255.250',
  '255.255.255.255',
  'ff02::1',
  '::ffff:255.255.255.255',
]
const PRIVATE = [
  ...['10.0.0.1', '172.31.255.255', '192.168.0.1', '100.64.0.1', '198.18.0.1', '240.0.0.1'],
  ...['127.0.0.1', '127.255.255.254', '0.0.0.0', '0.1.2.3', '::1', '::', 'fc00::1', 'fec0::1'],
  ...['::ffff:10.0.0.1', '64:ff9b::7f00:1', '2002:c0a8:1::', '2001:0:cb00:7107:0:0:f5ff:fffe'],
]

test('link-local, metadata, multicast and broadcast are denied by what a name resolves to', async () => {
  await using app = await startApp({ passthrough: { allow: ['0.0.0.0/0', '::/0', 'led.test'] } })
  for (const address of DENIED) {
    answers.set('led.test', [[address]])
    expect([address, ...(await statusesOf(app, 'led.test:80'))]).toEqual([address, 403, 403])
  }
})

test('private ranges are denied where other machines are served, by name and as literals', async () => {
  await using app = await startApp({
    listen: '0.0.0.0:0',
    clients: { worker: { password: 'secret-of-a-worker' } },
  })
  const auth = 'worker:secret-of-a-worker'
  for (const address of PRIVATE) {
    answers.set('led.test', [[address]])
    expect([address, ...(await statusesOf(app, 'led.test:80', auth))]).toEqual([address, 403, 403])
    const literal = address.includes(':') ? `[${address}]:80` : `${address}:80`
    expect([literal, ...(await statusesOf(app, literal, auth))]).toEqual([literal, 403, 403])
  }
})

const LOOPBACK = [
  ...['127.0.0.1', '127.1', '127.0.1', '2130706433', '0x7f000001', '0x7f.1', '017700000001'],
  ...['0177.0.0.1', '0.0.0.0', '0', '0x0', 'localhost', 'LOCALHOST.', 'a.localhost', 'loop.test'],
  ...['any.test', '[::]', '[::ffff:127.0.0.1]', '[::ffff:7f00:1]', '[0:0:0:0:0:ffff:7f00:0001]'],
  '[::ffff:0.0.0.0]',
]

function resolveToLoopback(): void {
  answers.set('loop.test', [['127.0.0.1']])
  answers.set('any.test', [['0.0.0.0']])
}

test.each([
  ['direct', '127.0.0.1'],
  ['local', '127.0.0.1'],
  ['direct', 'localhost'],
])(
  'by the egress %s the listeners, admin at %s, are out of reach in every spelling',
  async (egress, host) => {
    await using app = await startApp({
      admin: { listen: `${host}:0`, token: 'admin-token-of-the-test' },
      egress: { local: 'local://127.0.0.1' },
      passthrough: { egress, allow: ['0.0.0.0/0', '::/0', '*.test'] },
    })
    resolveToLoopback()
    for (const url of [app.app.proxyUrl, app.app.adminUrl]) {
      const { port } = new URL(url)
      for (const host of LOOPBACK) {
        const statuses = await statusesOf(app, `${host}:${port}`)
        expect([host, ...statuses]).toEqual([host, 403, 403])
      }
    }
  },
)

test('a listener on every address is out of reach by each address of this machine', async () => {
  await using app = await startApp({
    listen: '0.0.0.0:0',
    clients: { worker: { password: 'secret-of-a-worker' } },
    passthrough: { allow: ['0.0.0.0/0', '::/0', '*.test'] },
  })
  const { port } = new URL(app.app.proxyUrl)
  const own = Object.values(networkInterfaces()).flatMap((list) => list ?? [])
  const hosts = own.map(({ address, family }) => (family === 'IPv6' ? `[${address}]` : address))
  answers.set('lan.test', [own.map(({ address }) => address)])
  resolveToLoopback()
  for (const host of ['127.0.0.1', '127.9.9.9', 'lan.test', ...LOOPBACK.slice(0, 17), ...hosts]) {
    const statuses = await statusesOf(app, `${host}:${port}`, 'worker:secret-of-a-worker')
    expect([host, ...statuses]).toEqual([host, 403, 403])
  }
})

test('a listener on ::1 is out of reach by an override that spells it in full', async () => {
  await using app = await startApp({
    listen: '[::1]:0',
    upstream: { resolve: { 'own.test': '0:0:0:0:0:0:0:1' } },
  })
  const { port } = new URL(app.app.proxyUrl)
  const { socket, status } = await app.client().tunnel(`own.test:${port}`)
  socket.destroy()
  expect(status).toBe(403)
})

describe('where a proxy resolves the names', () => {
  const egress = () => ({ http: http.url, socks: socks.url })
  const targets = () => [...http.targets, ...socks.targets]

  test.each(['http', 'socks'])(
    'by %s addresses and overrides are judged, and a name that only an address rule could let in is refused',
    async (by) => {
      const before = targets().length
      await using app = await startApp({
        egress: egress(),
        upstream: { resolve: { 'fixed.test': '169.254.169.254' } },
        passthrough: {
          egress: by,
          action: 'deny',
          allow: ['127.0.0.1', '2000::/3', '*.fixed.test'],
        },
      })
      const { port } = new URL(app.app.proxyUrl)
      const hosts = ['unseen.test', '169.254.169.254', FORBIDDEN, 'fixed.test', '[64:ff9b::a9fe:1]']
      for (const host of hosts) {
        expect([host, ...(await statusesOf(app, `${host}:80`))]).toEqual([host, 403, 403])
      }
      expect(await statusesOf(app, `127.0.0.1:${port}`)).toEqual([403, 403])
      expect(targets()).toHaveLength(before)
      expect(await statusesOf(app, `127.0.0.1:${open.port}`)).toEqual([200, 200])
      expect(asked).toEqual([])
    },
  )
})

describe('a path of a mapped host that no target covers', () => {
  test('goes only where unmapped traffic may, by HTTP/1.1 and HTTP/2', async () => {
    const connections = secure.connections
    await using app = await startApp({
      upstream: { ...trusting(), resolve: { 'scoped.test': FORBIDDEN } },
      passthrough: { deny: [FORBIDDEN] },
      pools: {
        scoped: {
          targets: [`scoped.test:${secure.port}/covered/*`],
          credentials: [{ id: 'a', source: { type: 'static', token: 'token-of-a' } }],
        },
      },
    })
    const authority = `scoped.test:${secure.port}`
    const client = app.client()
    expect((await client.request(`https://${authority}/else`)).status).toBe(403)
    await using h2 = await Http2Client.connect(app, authority)
    expect((await h2.get('/else')).status).toBe(403)
    expect(secure.connections).toBe(connections)
    // Whoever maps a host vouches for it.
    expect((await client.request(`https://${authority}/covered/x`)).status).toBe(200)
  })
})
