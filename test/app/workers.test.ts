import { Duplex, PassThrough } from 'node:stream'
import fc from 'fast-check'
import { afterEach, describe, expect, test } from 'vitest'
import { Channel } from '../../src/app/workers/channel.ts'
import { freeLeases } from '../../src/app/workers/free.ts'
import { WorkerLeases } from '../../src/app/workers/leases.ts'
import type { FromWorker, ToWorker } from '../../src/app/workers/messages.ts'
import { RecordDecoder, RecordEncoder } from '../../src/app/workers/record-code.ts'
import { RecordFeed } from '../../src/app/workers/record-feed.ts'
import { RemoteLearning } from '../../src/app/workers/remote-learning.ts'
import { type RemotePool, RemotePools } from '../../src/app/workers/remote-pools.ts'
import { packSetup, unpackSetup } from '../../src/app/workers/setup.ts'
import { type Config, configSchema } from '../../src/config/schema.ts'
import { Events, type ExchangeRecord } from '../../src/events.ts'
import { newRecord } from '../../src/exchange/record.ts'
import { Secret } from '../../src/lib/secret.ts'
import type { Lease } from '../../src/pool/lease.ts'
import { credential, fixed, gate, poolConfig, TestPool } from '../support/pool.ts'
import { until } from '../support/until.ts'

const open: AsyncDisposable[] = []

afterEach(async () => {
  for (const each of open.splice(0).reverse()) await each[Symbol.asyncDispose]()
})

/** Both ends of a pipe. */
function pipe(): [Duplex, Duplex] {
  const there = new PassThrough()
  const back = new PassThrough()
  return [
    Duplex.from({ readable: back, writable: there }),
    Duplex.from({ readable: there, writable: back }),
  ]
}

const anyone = () => new AbortController().signal

/** A worker's view of a pool, with everything between it and the pool but the processes. */
class Bench {
  readonly pool: RemotePool
  readonly told: ToWorker[] = []
  readonly spoilt: string[] = []
  readonly #leases: WorkerLeases
  readonly #remote: RemotePools
  readonly #channels: { close(): void; flushed(): Promise<void> }[]

  constructor(test: TestPool, claims: readonly string[] = []) {
    const [left, right] = pipe()
    const primary: Channel<ToWorker, FromWorker> = new Channel(
      left,
      (message) => this.#leases.receive(message),
      () => {},
    )
    const worker: Channel<FromWorker, ToWorker> = new Channel(
      right,
      (message) => {
        this.told.push(message)
        this.#remote.receive(message)
      },
      () => {},
    )
    this.#channels = [primary, worker]
    this.#leases = new WorkerLeases(
      (name) => (name === 'api' ? { pool: test.pool, claims, calm: false } : undefined),
      (message) => primary.send(message),
      (name) => this.spoilt.push(name),
    )
    this.#remote = new RemotePools(worker)
    const learning = new RemoteLearning('api', poolConfig([fixed('a')]), () => {})
    this.pool = this.#remote.pool('api', learning, { select: 'least-used' })
  }

  wait(want = {}, signal = anyone()): Promise<Lease> {
    return this.pool.wait(want, { signal })
  }

  setFree(test: TestPool, config: ReturnType<typeof poolConfig>): void {
    this.#leases.setFree({ pool: test.pool, claims: [], calm: true }, freeLeases(test.pool, config))
  }

  /** The worker's process ends. */
  die(): void {
    this.#leases.close()
    for (const channel of this.#channels) channel.close()
  }
}

async function benchFor(
  credentials: object[],
  rest: Record<string, unknown> = {},
  claims: readonly string[] = [],
): Promise<{ test: TestPool; bench: Bench; config: ReturnType<typeof poolConfig> }> {
  const config = poolConfig(credentials, rest)
  const test = await TestPool.open(config)
  open.push(test)
  return { test, bench: new Bench(test, claims), config }
}

describe('a lease over the pipe', () => {
  test('carries what the pool’s own carries, and its token is told once', async () => {
    const { test, bench } = await benchFor([fixed('a')], { headers: { 'User-Agent': 'one' } })
    const leases = await Promise.all(Array.from({ length: 10 }, () => bench.wait()))
    const own = test.lease()
    for (const lease of leases) {
      const { pool, credential, key, generation, egress, headers, expiresAt } = lease
      expect({ pool, credential, key, generation, egress, headers, expiresAt }).toEqual({
        pool: own.pool,
        credential: own.credential,
        key: own.key,
        generation: own.generation,
        egress: own.egress,
        headers: own.headers,
        expiresAt: own.expiresAt,
      })
      expect(lease.token.equals(own.token)).toBe(true)
    }
    expect(bench.told.filter(([kind]) => kind === 'card')).toHaveLength(1)
    expect(test.credential().inFlight).toBe(11)
  })

  test('is counted when it is sent, and ended when it is settled', async () => {
    const { test, bench } = await benchFor([fixed('a')], { limits: { concurrency: 2 } })
    const lease = await bench.wait()
    expect(test.credential()).toMatchObject({ uses: 0, inFlight: 1 })
    lease.dispatched()
    lease.dispatched()
    bench.pool.settle(lease, { kind: 'ok' })
    bench.pool.settle(lease, { kind: 'expired' })
    await until(() => test.credential().inFlight === 0)
    expect(test.credential()).toMatchObject({ uses: 1, state: 'active' })
    expect(() => lease.dispatched()).toThrow(/settled/)
  })

  test('is refused in the pool’s own words', async () => {
    const { bench } = await benchFor([fixed('a')], { limits: { concurrency: 1 } })
    await bench.wait()
    const code = (want: object) => bench.wait(want).catch((error) => error.code)
    expect(await code({ credential: 'nobody' })).toBe('POOL_EXHAUSTED')
    expect(await code({ waitMs: 0 })).toBe('POOL_EXHAUSTED')
  })

  test('waits in order, and is given up when the client leaves', async () => {
    const { test, bench } = await benchFor([fixed('a')], { limits: { concurrency: 1 } })
    const first = await bench.wait()
    const leaving = new AbortController()
    const left = bench.wait({}, leaving.signal).catch((error: Error) => error.message)
    const second = bench.wait()
    await until(() => test.pool.status().waiting === 2)
    leaving.abort(new Error('gone'))
    expect(await left).toBe('gone')
    await until(() => test.pool.status().waiting === 1)
    bench.pool.settle(first, { kind: 'ok' })
    expect((await second).credential).toBe('a')
  })

  test('is given up by a client that left before it was known to wait', async () => {
    const { test, bench } = await benchFor([fixed('a')], { limits: { concurrency: 1 } })
    const first = await bench.wait()
    const left = bench.wait({}, AbortSignal.abort(new Error('gone')))
    await expect(left).rejects.toThrow('gone')
    await until(() => test.pool.status().waiting === 0)
    bench.pool.settle(first, { kind: 'ok' })
    await until(() => test.credential().inFlight === 0)
  })

  test('that comes while it is being given up goes back', async () => {
    const { test, bench } = await benchFor([fixed('a')], { limits: { concurrency: 1 } })
    const first = test.pool.lease({}) as Lease
    const leaving = new AbortController()
    const left = bench.wait({}, leaving.signal)
    await until(() => bench.told.some(([kind]) => kind === 'queued'))
    // In one turn: grant and give-up pass each other on the way.
    test.pool.settle(first, { kind: 'ok' })
    leaving.abort(new Error('gone'))
    await expect(left).rejects.toThrow('gone')
    await until(() => bench.told.some(([kind]) => kind === 'grant'))
    await until(() => test.credential().inFlight === 0)
  })

  test('asks who waits for a signal only where it comes to waiting', async () => {
    const { bench } = await benchFor([fixed('a')], { limits: { concurrency: 1 } })
    let asked = 0
    const waiter = {
      get signal() {
        asked += 1
        return anyone()
      },
    }
    const first = await bench.pool.wait({}, waiter)
    expect(asked).toBe(0)
    const second = bench.pool.wait({}, waiter)
    await until(() => asked === 1)
    bench.pool.settle(first, { kind: 'ok' })
    bench.pool.settle(await second, { kind: 'ok' })
  })

  test('of a worker that has gone counts as sent, and its place is free', async () => {
    const { test, bench } = await benchFor([fixed('a')], {
      limits: { concurrency: 2, rate: ['9/m'] },
    })
    await bench.wait()
    const sent = await bench.wait()
    sent.dispatched()
    bench.wait().catch(() => {})
    await until(() => test.pool.status().waiting === 1)
    bench.die()
    expect(test.pool.status().waiting).toBe(0)
    expect(test.credential()).toMatchObject({ inFlight: 0, uses: 2 })
  })

  test('is healed once for all that were refused, and at once with an older token', async () => {
    const { test, bench } = await benchFor([credential('a')], { limits: { concurrency: 9 } })
    const leases = await Promise.all(Array.from({ length: 5 }, () => bench.wait()))
    const late = leases.pop() as Lease
    const { promise, open: release } = gate()
    test.source('a').script = async () => {
      await promise
      return undefined
    }
    const recoveries = leases.map((lease) => {
      lease.dispatched()
      bench.pool.settle(lease, { kind: 'expired' })
      return bench.pool.recover(lease)
    })
    await until(() => test.source('a').obtained === 2)
    release()
    for (const { result, refresh } of await Promise.all(recoveries)) {
      expect(result).toBe('renewed')
      expect(refresh?.role).toMatch(/led|joined/)
    }
    bench.pool.settle(late, { kind: 'expired' })
    expect(await bench.pool.recover(late)).toMatchObject({ result: 'stale' })
    expect(test.source('a').obtained).toBe(2)
    expect((await bench.wait()).generation).toBe(2)
  })

  test('rests with the others when their egress is limited', async () => {
    const { test, bench } = await benchFor([fixed('a'), fixed('b')])
    bench.pool.coolEgress('direct', 5000, 'limited')
    await until(() => test.state('a') === 'cooling' && test.state('b') === 'cooling')
  })
})

describe('a token without limits', () => {
  test('is used without asking, and its uses are counted soon', async () => {
    const { test, bench, config } = await benchFor([fixed('a'), fixed('b')])
    bench.setFree(test, config)
    await until(() => bench.told.some(([kind]) => kind === 'free'))
    const leases = Array.from({ length: 6 }, () => bench.pool.lease({}) as Lease)
    expect(leases.filter((lease) => lease.credential === 'a')).toHaveLength(3)
    for (const lease of leases) lease.dispatched()
    await until(() => test.credential('a').inFlight === 3 && test.credential('b').inFlight === 3)
    for (const lease of leases) bench.pool.settle(lease, { kind: 'ok' })
    await until(() => test.credential('a').inFlight + test.credential('b').inFlight === 0)
    expect(test.credential('a').uses + test.credential('b').uses).toBe(6)
    // What wants something in particular is the pool's to judge.
    expect(bench.pool.lease({ session: 'one' })).toBeUndefined()
    expect(bench.pool.lease({ exclude: new Set(['a']) })).toBeUndefined()
  })

  test('that is refused is not used on, and is renewed once', async () => {
    const { test, bench, config } = await benchFor([credential('a')])
    bench.setFree(test, config)
    await until(() => bench.told.some(([kind]) => kind === 'free'))
    const leases = Array.from({ length: 3 }, () => bench.pool.lease({}) as Lease)
    for (const lease of leases) lease.dispatched()
    const recoveries = leases.map((lease) => {
      bench.pool.settle(lease, { kind: 'expired' })
      expect(bench.pool.lease({})).toBeUndefined()
      return bench.pool.recover(lease)
    })
    for (const { result } of await Promise.all(recoveries)) expect(result).toBe('renewed')
    expect(test.source('a').obtained).toBe(2)
    expect(bench.spoilt).toEqual(['api', 'api', 'api'])
    expect(test.credential()).toMatchObject({ inFlight: 0, uses: 0, generation: 2 })
    // An old one that was still out is no reason to renew again.
    const [old] = leases as [Lease]
    expect(old.generation).toBe(1)
  })

  test('that is refused after all others have learned of its renewal leads to no other', async () => {
    const { test, bench, config } = await benchFor([credential('a')])
    bench.setFree(test, config)
    await until(() => bench.told.some(([kind]) => kind === 'free'))
    const lease = bench.pool.lease({}) as Lease
    lease.dispatched()
    await test.pool.refresh('a')
    // The primary has another token by now, and has not heard of this use yet.
    bench.setFree(test, config)
    bench.pool.settle(lease, { kind: 'expired' })
    expect(await bench.pool.recover(lease)).toMatchObject({ result: 'stale' })
    expect(test.source('a').obtained).toBe(2)
    await until(() => bench.told.filter(([kind]) => kind === 'free').length === 2)
    expect(bench.pool.lease({})?.generation).toBe(2)
    expect(test.state()).toBe('active')
  })

  test('that its worker held when it died is free again', async () => {
    const { test, bench, config } = await benchFor([fixed('a')])
    bench.setFree(test, config)
    await until(() => bench.told.some(([kind]) => kind === 'free'))
    bench.pool.lease({})?.dispatched()
    await until(() => test.credential().inFlight === 1)
    bench.die()
    expect(test.credential()).toMatchObject({ inFlight: 0, uses: 1 })
  })

  test('is told to be none where a limit is to be kept, or where one is away and must be tried', async () => {
    for (const [credentials, rest] of [
      [[fixed('a')], { limits: { rate: ['10/s'] } }],
      [[fixed('a'), fixed('b', { limits: { concurrency: 1 } })], {}],
      [[fixed('a')], { limits: { uses: 5 } }],
    ] as const) {
      const { test, config } = await benchFor([...credentials], rest)
      expect(freeLeases(test.pool, config)).toEqual([])
    }
    const { test, config } = await benchFor([fixed('a'), fixed('b')])
    expect(freeLeases(test.pool, config)).toHaveLength(2)
    test.pool.quarantine('b')
    expect(freeLeases(test.pool, config)).toEqual([])
    expect(test.credential('a').inFlight).toBe(0)
  })
})

describe('the pipe', () => {
  test('brings every message whole and in order, wherever it is cut', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(
          fc.array(fc.oneof(fc.string(), fc.integer(), fc.constant('ü\n☃')), { minLength: 1 }),
          {
            minLength: 1,
            maxLength: 20,
          },
        ),
        fc.infiniteStream(fc.integer({ min: 1, max: 7 })),
        async (messages, sizes) => {
          const written: Buffer[] = []
          const sink = new PassThrough().on('data', (chunk: Buffer) => written.push(chunk))
          const out = new Channel<unknown[], unknown[]>(
            Duplex.from({ writable: sink, readable: new PassThrough() }),
            () => {},
            () => {},
          )
          for (const [index, message] of messages.entries()) {
            if (index % 2 === 0) out.send(message)
            else out.post(message)
          }
          await out.flushed()
          const source = new PassThrough()
          const heard: unknown[] = []
          new Channel<unknown[], unknown[]>(
            source,
            (message) => heard.push(message),
            () => {},
          )
          const whole = Buffer.concat(written)
          for (let at = 0; at < whole.length; ) {
            const { value } = sizes.next() as { value: number }
            // As a socket hands over what has come; a stream in between would put pieces together again.
            source.emit('data', whole.subarray(at, at + value))
            at += value
          }
          expect(heard).toEqual(messages)
        },
      ),
      { numRuns: 20 },
    )
  })
})

describe('records', () => {
  const record = (more: Partial<ExchangeRecord> = {}): ExchangeRecord => ({
    ...newRecord(1_700_000_000_000, 'GET', 'https://api.test/x'),
    client: { name: 'crawler', address: '127.0.0.1' },
    durationMs: 12.3456789,
    ...more,
  })

  test('come through a short form as they were', () => {
    const told: unknown[][] = []
    const decoder = new RecordDecoder()
    const encoder = new RecordEncoder((...shape) => {
      told.push(shape)
      decoder.learn(...shape)
    })
    const attempt = {
      credential: 'a',
      generation: 1,
      egress: 'direct',
      address: undefined,
      status: 200,
      verdict: 'ok',
      connectMs: undefined,
      tlsMs: 1.5,
      firstByteMs: 2,
      totalMs: 3,
      reused: true,
    }
    const records = [
      record(),
      record({ pool: 'api', attempts: [attempt, { ...attempt, status: 401 }] }),
      record({
        error: { code: 'POOL_EXHAUSTED', message: 'none' },
        skipped: [{ credential: 'a', why: 'quarantined' }],
        replay: { done: true, why: 'the token was renewed' },
      }),
    ]
    for (const each of records) {
      const through = JSON.parse(JSON.stringify(encoder.encode(each)))
      expect(decoder.decode(through)).toEqual({
        ...each,
        durationMs: 12.346,
        arrivedAt: expect.anything(),
      })
    }
    // One shape of records, one of attempts.
    expect(told).toHaveLength(2)
  })

  test('are given up, the oldest first, while the primary does not keep up', async () => {
    const sent: FromWorker[] = []
    const channel = { crowded: true, post: (message: FromWorker) => sent.push(message) }
    const events = new Events()
    const feed = new RecordFeed(events, channel)
    for (let i = 0; i < 5000; i++) events.emit('exchange', record({ status: i }))
    expect(sent).toEqual([])
    channel.crowded = false
    await until(() => sent.length > 0)
    const records = sent.filter(([kind]) => kind === 'record')
    expect(records.length).toBeLessThanOrEqual(2000)
    expect(sent.at(-1)).toEqual(['dropped', 5000 - records.length])
    expect(JSON.stringify(records.at(-1))).toContain('4999')
    feed.close()
  })
})

test('a worker is told a configuration without the secrets that are none of its business', () => {
  const parsed = configSchema.parse({
    admin: { token: 'the-admin-token' },
    clients: { crawler: { password: 'the-password' } },
    egress: { out: { url: 'http://user:proxy-password@127.0.0.1:1', probe: 'http://probe.test/' } },
    pools: {
      api: {
        targets: ['api.test'],
        credentials: [
          { id: 'a', vars: { pin: 'the-pin' }, source: { type: 'static', token: 'the-token' } },
          { id: 'b', source: { type: 'capture' } },
        ],
      },
    },
  })
  const storeKey = new Secret('the-store-key') as unknown as NonNullable<Config['storeKey']>
  const config = { ...parsed, storeKey, file: '/f', dataDir: '/d' } as Config
  const packed = packSetup({
    generation: 1,
    config,
    ca: {
      certificatePem: 'pem',
      certificatePath: '/ca.pem',
      keyPath: '/ca-key.pem',
      key: new Secret('the-ca-key'),
    },
    leafKey: new Secret('the-leaf-key'),
    own: [],
    held: {},
    learning: {},
  })
  for (const secret of ['the-admin-token', 'the-pin', 'the-token', 'the-store-key']) {
    expect(packed).not.toContain(secret)
  }
  const setup = unpackSetup(packed)
  expect(setup.config.clients.crawler?.password.reveal()).toBe('the-password')
  expect(setup.config.egress.out?.url.reveal()).toContain('proxy-password')
  expect(setup.config.egress.out?.probe).toBeUndefined()
  expect(setup.config.pools.api?.credentials.map(({ id }) => id)).toEqual(['b'])
  expect(setup.config.pools.constructor).toBeUndefined()
  expect(setup.ca.key.reveal()).toBe('the-ca-key')
})
