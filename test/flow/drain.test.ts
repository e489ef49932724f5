import { once } from 'node:events'
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { connect, createServer, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, describe, expect, test } from 'vitest'
import { begin, said } from '../cli/command-line.ts'
import { startApp, type TestApp } from '../support/app.ts'
import { ProxyClient } from '../support/client.ts'
import { Listener } from '../support/listener.ts'
import { startOrigin } from '../support/origin.ts'
import { PatientClock } from '../support/patient-clock.ts'
import { trusting } from '../support/protected-origin.ts'
import { json, startScriptedEndpoint } from '../support/scripted-endpoint.ts'

const open: AsyncDisposable[] = []

afterEach(async () => {
  for (const each of open.splice(0).reverse()) await each[Symbol.asyncDispose]()
})

/** An origin that says its first words, and ends its answers only when it is told to. */
async function startSlowOrigin() {
  let release = () => {}
  const released = new Promise<void>((resolve) => {
    release = resolve
  })
  const waiting: { count: number; resolve: () => void }[] = []
  let arrived = 0
  const origin = await startOrigin({
    tls: true,
    handler: (request, response) => {
      arrived += 1
      for (const each of waiting) if (arrived >= each.count) each.resolve()
      if (request.url === '/begun') response.write('begun ')
      if (request.url === '/quick') response.end('quick')
      else void released.then(() => response.end(request.url))
    },
  })
  open.push(origin)
  return {
    url: `https://api.test:${origin.port}`,
    port: origin.port,
    release: () => release(),
    arrivals: (count: number) =>
      new Promise<void>((resolve) => {
        if (arrived >= count) resolve()
        else waiting.push({ count, resolve })
      }),
  }
}

function configFor(port: number, more: object = {}) {
  return {
    upstream: trusting(['api.test']),
    pools: {
      api: {
        targets: [`api.test:${port}`],
        credentials: [{ id: 'a', source: { type: 'static', token: 'static-token' } }],
      },
    },
    ...more,
  }
}

async function start(config: object): Promise<TestApp> {
  const app = await startApp(config, undefined, new PatientClock())
  open.push(app)
  return app
}

async function startEcho() {
  const listener = new Listener(createServer((socket) => socket.pipe(socket)))
  open.push(listener)
  return { port: await listener.listen('127.0.0.1'), listener }
}

const gone = (socket: Socket) => (socket.closed ? undefined : once(socket.resume(), 'close'))
const refused = { code: 'ECONNREFUSED' }

async function expectRefused(url: string): Promise<void> {
  const { hostname, port } = new URL(url)
  await expect(once(connect(Number(port), hostname), 'connect')).rejects.toMatchObject(refused)
}

describe('stop', () => {
  test('answers all 200 requests in flight, tells their connections to end, and takes no more', async () => {
    const origin = await startSlowOrigin()
    const app = await start(configFor(origin.port))
    const client = app.client({ maxSockets: 200 })
    const answers = Array.from({ length: 200 }, (_, i) => client.request(`${origin.url}/${i}`))
    await origin.arrivals(200)
    const stopped = app.app.stop()
    await expectRefused(app.app.proxyUrl)
    origin.release()
    const got = await Promise.all(answers)
    expect(got.map(({ status }) => status)).toEqual(Array(200).fill(200))
    expect(got.map(({ body }) => body.toString())).toEqual(got.map((_, i) => `/${i}`))
    expect(new Set(got.map(({ headers }) => headers.connection))).toEqual(new Set(['close']))
    await stopped
    await expectRefused(app.app.adminUrl)
  })

  test('ends idle connections at once', async () => {
    const origin = await startSlowOrigin()
    const app = await start(configFor(origin.port))
    const tunnel = await app.client().tunnel(`api.test:${origin.port}`)
    tunnel.socket.destroy()
    const silent = connect(Number(new URL(app.app.proxyUrl).port), '127.0.0.1')
    await once(silent, 'connect')
    const client = app.client()
    const secure = (await client.connect(`api.test:${origin.port}`)) as Socket
    secure.write(`GET /quick HTTP/1.1\r\nHost: api.test:${origin.port}\r\n\r\n`)
    let answer = ''
    while (!answer.includes('quick')) answer += String(await once(secure, 'data'))
    expect(answer).not.toMatch(/connection: close/i)
    await Promise.all([app.app.stop(), gone(silent), gone(secure)])
  })

  test('lets an answer that has begun come to its end, and then ends its connection', async () => {
    const origin = await startSlowOrigin()
    const app = await start(configFor(origin.port))
    const message = await app.client().open(`${origin.url}/begun`)
    message.setEncoding('utf8')
    let text = ''
    message.on('data', (chunk) => {
      text += chunk
    })
    await once(message, 'data')
    const stopped = app.app.stop()
    origin.release()
    await once(message, 'end')
    expect(text).toBe('begun /begun')
    await stopped
  })

  test('lets a request that waits for its first token have it', async () => {
    let give = () => {}
    const endpoint = await startScriptedEndpoint((response) => {
      give = () => json(response, 200, { access_token: 'first', token_type: 'Bearer' })
    })
    open.push(endpoint)
    const origin = await startSlowOrigin()
    const source = {
      type: 'oauth2',
      grant: 'client_credentials',
      tokenUrl: `${endpoint.url}/token`,
      clientId: 'client',
      clientSecret: 'secret',
    }
    const pools = {
      api: { targets: [`api.test:${origin.port}`], credentials: [{ id: 'a', source }] },
    }
    const app = await start(configFor(origin.port, { pools }))
    const answer = app.client().request(`${origin.url}/quick`)
    await expect.poll(async () => (await app.admin('/api/pools/api')).waiting).toBe(1)
    await expect.poll(() => endpoint.requests.length).toBe(1)
    const stopped = app.app.stop()
    give()
    expect((await answer).status).toBe(200)
    await stopped
  })

  test('cuts tunnels and requests that have not ended within drainTimeout', async () => {
    const origin = await startSlowOrigin()
    const echo = await startEcho()
    const app = await start(configFor(origin.port, { server: { drainTimeout: '300ms' } }))
    const client = app.client()
    const { socket } = await client.tunnel(`127.0.0.1:${echo.port}`)
    socket.on('error', () => {})
    const stuck = client.request(`${origin.url}/stuck`)
    stuck.catch(() => {})
    await origin.arrivals(1)
    const began = performance.now()
    const stopped = app.app.stop()
    socket.write('still here')
    socket.resume()
    expect(String(await once(socket, 'data'))).toBe('still here')
    await expect(stuck).rejects.toThrow()
    await Promise.all([stopped, gone(socket)])
    expect(performance.now() - began).toBeGreaterThanOrEqual(299)
    while (echo.listener.openSockets > 0) await new Promise((resolve) => setImmediate(resolve))
  })

  test('with force cuts everything at once, and after a drain has begun, too', async () => {
    for (const draining of [false, true]) {
      const origin = await startSlowOrigin()
      const app = await start(configFor(origin.port))
      const stuck = app.client().request(`${origin.url}/stuck`)
      stuck.catch(() => {})
      await origin.arrivals(1)
      const stopped = draining ? app.app.stop() : undefined
      await app.app.stop({ force: true })
      await stopped
      await expect(stuck).rejects.toThrow()
      await expectRefused(app.app.proxyUrl)
      await expectRefused(app.app.adminUrl)
    }
  })
})

describe('the command', () => {
  async function startChild(port: number, more: object = {}) {
    const folder = await mkdtemp(join(tmpdir(), 'cupbearer-drain-'))
    const config = {
      listen: '127.0.0.1:0',
      admin: { listen: '127.0.0.1:0' },
      ...configFor(port, more),
    }
    await writeFile(join(folder, 'config.json'), JSON.stringify(config))
    const child = begin(['start', '--json'], { cwd: folder })
    const ended = once(child, 'close')
    open.push({
      async [Symbol.asyncDispose]() {
        child.kill('SIGKILL')
        child.stdout.resume()
        child.stderr.resume()
        await ended
        await rm(folder, { recursive: true, force: true })
      },
    })
    const ready = JSON.parse(await said(child.stdout, /\n/)) as { proxy: string; ca: string }
    child.stdout.resume()
    const client = new ProxyClient({
      proxyUrl: ready.proxy,
      ca: await readFile(ready.ca, 'utf8'),
      maxSockets: 200,
    })
    open.push(client)
    return { child, ended, client }
  }

  test('on SIGTERM answers 200 requests in flight and exits with 0', async () => {
    const origin = await startSlowOrigin()
    const { child, ended, client } = await startChild(origin.port)
    const answers = Array.from({ length: 200 }, (_, i) => client.request(`${origin.url}/${i}`))
    await origin.arrivals(200)
    child.kill('SIGTERM')
    await said(child.stderr, /finishing the requests in flight/)
    origin.release()
    const statuses = (await Promise.all(answers)).map(({ status }) => status)
    expect(statuses).toEqual(Array(200).fill(200))
    child.stderr.resume()
    expect((await ended)[0]).toBe(0)
  })

  test('on a second SIGTERM ends at once, whatever is in flight', async () => {
    const origin = await startSlowOrigin()
    const { child, ended, client } = await startChild(origin.port)
    const stuck = client.request(`${origin.url}/stuck`)
    stuck.catch(() => {})
    await origin.arrivals(1)
    child.kill('SIGTERM')
    await said(child.stderr, /finishing the requests in flight/)
    child.kill('SIGTERM')
    child.stderr.resume()
    expect((await ended)[0]).toBe(1)
    await expect(stuck).rejects.toThrow()
  })
})
