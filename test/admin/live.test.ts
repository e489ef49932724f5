import { connect } from 'node:net'
import { afterEach, beforeEach, expect, test, vi } from 'vitest'
import { ADMIN_TOKEN, sampleExchange, samplePool, TestAdmin } from '../support/admin.ts'

let admin: TestAdmin
beforeEach(async () => {
  admin = await TestAdmin.start()
})
afterEach(() => admin[Symbol.asyncDispose]())

/** Follows the event stream; `next` gives one frame after the other. */
class Follower {
  readonly #abort = new AbortController()
  readonly #frames: AsyncGenerator<string>
  readonly #response: Response

  private constructor(response: Response, abort: AbortController) {
    this.#response = response
    this.#abort = abort
    this.#frames = this.#read()
  }

  static async open(query = ''): Promise<Follower> {
    const abort = new AbortController()
    const response = await fetch(`${admin.server.url}/api/events${query}`, {
      headers: { authorization: `Bearer ${ADMIN_TOKEN}` },
      signal: abort.signal,
    })
    expect(response.status).toBe(200)
    return new Follower(response, abort)
  }

  async *#read(): AsyncGenerator<string> {
    let pending = ''
    for await (const chunk of this.#response.body ?? []) {
      const frames = (pending + Buffer.from(chunk).toString()).split('\n\n')
      pending = frames.pop() ?? ''
      yield* frames
    }
  }

  get headers(): Headers {
    return this.#response.headers
  }

  async next(): Promise<string> {
    const { value, done } = await this.#frames.next()
    return done ? '(end)' : value
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#abort.abort()
    await this.#frames.return(undefined).catch(() => undefined)
  }
}

function read(frame: string): { event: string | undefined; data: unknown } {
  const event = /^event: (.*)$/m.exec(frame)?.[1]
  const data = /^data: (.*)$/m.exec(frame)?.[1]
  return { event, data: data === undefined ? undefined : JSON.parse(data) }
}

test('the stream begins with each pool, then delivers traces, state changes and refreshes', async () => {
  await using follower = await Follower.open()
  expect(follower.headers.get('content-type')).toBe('text/event-stream')
  expect(follower.headers.get('content-security-policy')).toContain("default-src 'none'")
  expect(await follower.next()).toBe('retry: 2000')
  const pool = read(await follower.next())
  expect(pool).toMatchObject({ event: 'pool', data: { name: 'supplier', authOverhead: 0.01 } })
  expect(pool.data).not.toHaveProperty('credentials')

  admin.events.emit('exchange', sampleExchange({ url: 'https://h/?token=abc' }))
  expect(read(await follower.next())).toMatchObject({
    event: 'trace',
    data: { id: 'trace-1', url: 'https://h/?token=[redacted]' },
  })

  const about = { time: 0, pool: 'supplier', credential: 'alice' }
  admin.events.emit('credential', { ...about, from: 'active', to: 'quarantined', reason: 'why' })
  expect(read(await follower.next())).toEqual({
    event: 'credential',
    data: {
      time: '1970-01-01T00:00:00.000Z',
      pool: 'supplier',
      credential: 'alice',
      from: 'active',
      to: 'quarantined',
      reason: 'why',
    },
  })
  admin.events.emit('refresh', {
    ...about,
    cause: 'scheduled',
    result: 'ok',
    generation: 4,
    ms: 12,
    reason: undefined,
  })
  expect(read(await follower.next())).toMatchObject({
    event: 'credential',
    data: { refresh: { cause: 'scheduled', result: 'ok', generation: 4 } },
  })
})

test('a pool is sent again only when its figures have changed, and once more when it is gone', async () => {
  await using follower = await Follower.open()
  await follower.next()
  await follower.next()
  admin.clock.advance(3000)
  admin.pools = [samplePool({ waiting: 5 })]
  admin.clock.advance(1000)
  expect(read(await follower.next())).toMatchObject({ event: 'pool', data: { waiting: 5 } })
  admin.pools = []
  admin.clock.advance(1000)
  expect(read(await follower.next()).data).toEqual({ name: 'supplier', removed: true })
})

test('a client that bounds its traces is told each second how many were left out', async () => {
  await using follower = await Follower.open('?traces=2')
  await follower.next()
  await follower.next()
  for (let i = 1; i <= 5; i++) admin.events.emit('exchange', sampleExchange({ id: `t${i}` }))
  admin.clock.advance(1000)
  admin.events.emit('exchange', sampleExchange({ id: 't6' }))
  const frames = []
  for (let i = 0; i < 4; i++) frames.push(read(await follower.next()))
  expect(frames).toMatchObject([
    { event: 'trace', data: { id: 't1' } },
    { event: 'trace', data: { id: 't2' } },
    { event: 'omitted', data: { traces: 3 } },
    { event: 'trace', data: { id: 't6' } },
  ])
})

test('egresses and the configuration are told of, too', async () => {
  await using follower = await Follower.open()
  await follower.next()
  await follower.next()
  admin.events.emit('egress', { time: 0, egress: 'one', up: false, reason: 'refused' })
  admin.events.emit('address', {
    time: 0,
    egress: 'one',
    address: '192.0.2.2',
    previous: '192.0.2.1',
    reason: undefined,
  })
  admin.events.emit('config', { time: 0, applied: false, problems: ['pools: expected'] })
  const time = '1970-01-01T00:00:00.000Z'
  expect(read(await follower.next())).toEqual({
    event: 'egress',
    data: { time, egress: 'one', up: false, reason: 'refused' },
  })
  expect(read(await follower.next())).toEqual({
    event: 'egress',
    data: { time, egress: 'one', address: '192.0.2.2', previous: '192.0.2.1', reason: null },
  })
  expect(read(await follower.next())).toEqual({
    event: 'config',
    data: { time, applied: false, problems: ['pools: expected'] },
  })
})

test('a heartbeat is sent each 15 seconds', async () => {
  await using follower = await Follower.open()
  await follower.next()
  await follower.next()
  admin.clock.advance(15_000)
  expect(await follower.next()).toBe(': heartbeat')
})

test('nothing is observed once the last client has left', async () => {
  {
    await using follower = await Follower.open()
    await follower.next()
    expect(admin.clock.pending).toBe(1)
  }
  await vi.waitFor(() => expect(admin.clock.pending).toBe(0), 20_000)
})

test('a client that does not read is dropped, others carry on', async () => {
  const slow = connect(admin.server.port, '127.0.0.1')
  const closed = new Promise((resolve) => slow.once('close', resolve))
  slow.on('error', () => undefined)
  slow.pause()
  slow.write(
    `GET /api/events HTTP/1.1\r\nHost: 127.0.0.1:${admin.server.port}\r\n` +
      `Authorization: Bearer ${ADMIN_TOKEN}\r\n\r\n`,
  )
  await vi.waitFor(() => expect(admin.clock.pending).toBe(1), 20_000)
  const large = sampleExchange({ url: `https://h/${'x'.repeat(1024 * 1024)}` })
  for (let i = 0; i < 64 && admin.clock.pending > 0; i++) {
    admin.events.emit('exchange', large)
    await new Promise((resolve) => setImmediate(resolve))
  }
  expect(admin.clock.pending).toBe(0)
  slow.resume()
  await closed
  await using follower = await Follower.open()
  expect(await follower.next()).toBe('retry: 2000')
})

test('closing the server ends the streams and leaves no timer', async () => {
  await using follower = await Follower.open()
  await follower.next()
  await follower.next()
  await admin.server.close()
  expect(await follower.next().catch(() => '(end)')).toBe('(end)')
  expect(admin.clock.pending).toBe(0)
})

test('a 65th stream is refused', async () => {
  const followers = await Promise.all(Array.from({ length: 64 }, () => Follower.open()))
  const refused = await admin.ask('/api/events')
  expect(refused.status).toBe(503)
  expect(refused.json()).toMatchObject({ error: { code: 'TOO_MANY_STREAMS' } })
  await Promise.all(followers.map((follower) => follower[Symbol.asyncDispose]()))
})
