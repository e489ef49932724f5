import { once } from 'node:events'
import { existsSync, readFileSync, statSync, writeFileSync } from 'node:fs'
import { connect, createServer, type Socket } from 'node:net'
import { describe, expect, test } from 'vitest'
import { Folder } from '../config/folder.ts'
import { begin, type CommandLine, cupbearer, said } from './command-line.ts'

const CONFIG = {
  listen: '127.0.0.1:0',
  admin: { listen: '127.0.0.1:0' },
  log: { format: 'json' },
  pools: {
    supplier: {
      targets: ['api.supplier.example'],
      credentials: [{ id: 'a', source: { type: 'static', token: 's3cr3t-token' } }],
    },
  },
}

interface Ready {
  readonly proxy: string
  readonly admin: string
  readonly ca: string
  readonly pid: number
}

/** The proxy as `start` runs it, in a folder of its own. */
class Started {
  readonly folder: Folder
  readonly child: CommandLine
  readonly ready: Ready
  readonly #closed: Promise<unknown>

  private constructor(folder: Folder, child: CommandLine, ready: Ready) {
    this.folder = folder
    this.child = child
    this.ready = ready
    this.#closed = once(child, 'close')
    child.stdout.resume()
  }

  static async json(config: object = CONFIG): Promise<Started> {
    const folder = await Folder.create()
    await folder.write('config.json', config)
    const child = begin(['start', '--json'], { cwd: folder.path })
    const line = await said(child.stdout, /\n/)
    return new Started(folder, child, JSON.parse(line) as Ready)
  }

  /** The exit code, once it has ended. */
  async ended(): Promise<number | null> {
    this.child.stderr.resume()
    await this.#closed
    return this.child.exitCode
  }

  run(...args: string[]) {
    return cupbearer(args, { cwd: this.folder.path })
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.child.kill('SIGKILL')
    await this.ended()
    await this.folder[Symbol.asyncDispose]()
  }
}

/** A blind tunnel through the proxy that stays open: something to drain. */
async function openTunnel(proxyUrl: string): Promise<AsyncDisposable> {
  const sockets: Socket[] = []
  const origin = createServer((socket) => sockets.push(socket.on('error', () => {})))
  origin.listen(0, '127.0.0.1')
  await once(origin, 'listening')
  const { port } = origin.address() as { port: number }
  const socket = connect(Number(new URL(proxyUrl).port), '127.0.0.1').on('error', () => {})
  socket.write(`CONNECT 127.0.0.1:${port} HTTP/1.1\r\nHost: 127.0.0.1:${port}\r\n\r\n`)
  expect(await said(socket, /\r\n\r\n/)).toMatch(/^HTTP\/1\.1 200/)
  return {
    async [Symbol.asyncDispose]() {
      for (const each of [socket, ...sockets]) each.destroy()
      origin.close()
      await once(origin, 'close')
    },
  }
}

describe('start', () => {
  test('prints one line of JSON when it serves, and exits with 0 on SIGTERM', async () => {
    await using started = await Started.json()
    const { proxy, admin, ca, pid } = started.ready
    expect(pid).toBe(started.child.pid)
    expect((await fetch(new URL('/healthz', admin))).status).toBe(200)
    expect(new URL(proxy).port).not.toBe('0')
    expect(readFileSync(ca, 'utf8')).toContain('BEGIN CERTIFICATE')
    started.child.kill('SIGTERM')
    expect(await started.ended()).toBe(0)
    expect(existsSync(started.folder.at('data/running.json'))).toBe(false)
  })

  test('is found by the other commands, whatever its ports', async () => {
    await using started = await Started.json()
    const data = (name: string) => statSync(started.folder.at(`data/${name}`)).mode & 0o777
    expect([data('running.json'), data('admin-token')]).toEqual([0o600, 0o600])
    expect((await started.run('status')).out).toMatch(/supplier {2}healthy +1 +0/)
    expect((await started.run('token', 'quarantine', 'supplier/a')).out).toContain('is quarantined')
    expect((await started.run('token', 'release', 'supplier/a')).out).toContain('is active')
    const { out } = await started.run('env')
    expect(out).toContain(`export HTTPS_PROXY='${started.ready.proxy}'`)
  })

  test('greets people with where it is and what to type next', async () => {
    await using folder = await Folder.create()
    await folder.write('config.json', CONFIG)
    const child = begin(['start'], { cwd: folder.path })
    const greeting = await said(child.stdout, /-- curl/)
    expect(greeting).toMatch(/proxy +http:\/\/127\.0\.0\.1:\d+\n/)
    expect(greeting).toContain('supplier (api.supplier.example)')
    child.kill('SIGINT')
    child.stderr.resume()
    const [code] = await once(child, 'close')
    expect(code).toBe(0)
  })

  test('waits for a tunnel on the first signal, and stops at once with 1 on the second', async () => {
    await using started = await Started.json()
    await using _tunnel = await openTunnel(started.ready.proxy)
    started.child.kill('SIGTERM')
    await said(started.child.stderr, /finishing the requests in flight/)
    expect(started.child.exitCode).toBeNull()
    started.child.kill('SIGTERM')
    expect(await started.ended()).toBe(1)
  })

  test('opens no inspector on SIGUSR1', async () => {
    await using started = await Started.json()
    started.child.kill('SIGUSR1')
    // The answer to a later signal shows that the earlier one has been dealt with.
    started.child.kill('SIGHUP')
    const log = await said(started.child.stderr, /configuration applied/)
    expect(log).not.toContain('Debugger listening')
    expect((await fetch(new URL('/healthz', started.ready.admin))).status).toBe(200)
  })

  test('takes a saved configuration up, and keeps the old one when it is not valid', async () => {
    await using started = await Started.json()
    const file = started.folder.at('config.json')
    writeFileSync(file, '{ "pools": ')
    const refusal = await said(started.child.stderr, /refused.*\n/)
    expect(refusal).toContain('not JSON')
    expect((await started.run('-c', 'config.json', 'check')).code).toBe(2)
    expect((await fetch(new URL('/healthz', started.ready.admin))).status).toBe(200)
    const { supplier } = CONFIG.pools
    const added = { ...supplier, targets: ['other.example'] }
    writeFileSync(file, JSON.stringify({ ...CONFIG, pools: { supplier, added } }))
    await said(started.child.stderr, /configuration applied/)
    expect((await started.run('status')).out).toMatch(/\nadded {5}/)
  })

  test('names the problem and exits: 2 for the configuration, 1 for a port in use', async () => {
    await using started = await Started.json()
    await using folder = await Folder.create()
    await folder.write('config.json', { listen: 'nowhere' })
    const invalid = await cupbearer(['start', '--json'], { cwd: folder.path })
    expect(invalid).toMatchObject({ code: 2, out: '' })
    expect(invalid.err).toContain('listen: expected HOST:PORT')
    await folder.write('config.json', { ...CONFIG, listen: new URL(started.ready.proxy).host })
    const taken = await cupbearer(['start', '--json'], { cwd: folder.path })
    expect(taken).toMatchObject({ code: 1, out: '' })
    expect(taken.err).toMatch(/cupbearer: .+\n {2}hint: choose another address/)
    expect(taken.err).not.toMatch(/\n\s+at /)
  })

  test('shows no token, neither at start nor in the log at level debug', async () => {
    await using started = await Started.json({ ...CONFIG, log: { format: 'json', level: 'debug' } })
    started.child.kill('SIGTERM')
    const log = await said(started.child.stderr, /finishing/)
    expect(await started.ended()).toBe(0)
    expect(log).not.toContain('s3cr3t-token')
  })
})
