import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import type { ExchangeRecord } from '../../src/events.ts'
import { type LeaseAsk, type LeaseReport, RemoteLeases } from '../../src/exchange/remote-leases.ts'
import type { Client } from '../../src/exchange/request.ts'
import { Injector } from '../../src/route/inject.ts'
import { Judge } from '../../src/route/verdict.ts'
import { DpopKey } from '../../src/token/dpop.ts'
import { credential, fixed, poolConfig, TestPool } from '../support/pool.ts'

let t: TestPool
let leases: RemoteLeases
let records: ExchangeRecord[]

async function start(credentials: object[], rest: Record<string, unknown> = {}): Promise<void> {
  const config = poolConfig(credentials, rest)
  t = await TestPool.open(config)
  const { pool, events, clock } = t
  const injector = new Injector(config.inject)
  const target = { pool, config, injector, judge: new Judge(config), requires: undefined }
  const runtime = {
    pools: new Map([['api', target]]),
    passthroughEgress: 'direct',
    spoolDir: '/nowhere',
  }
  leases = new RemoteLeases({ events, clock, runtime: () => runtime, egressUrl: () => undefined })
  events.on('exchange', (record) => records.push(record))
}

beforeEach(() => {
  records = []
})
afterEach(async () => {
  leases.close()
  await t[Symbol.asyncDispose]()
  expect(t.clock.pending).toBe(0)
})

const client = (name: string | undefined): Client => ({ name, address: '', pools: undefined })
const open = (by = client(undefined), more: Partial<LeaseAsk> = {}) => {
  const ask = { hints: {}, request: undefined, waitMs: 0, ttlMs: 60_000, ...more }
  return leases.open('api', by, ask, new AbortController().signal)
}
const say = (facts: Partial<LeaseReport>): LeaseReport => ({
  status: undefined,
  verdict: undefined,
  headers: [],
  body: undefined,
  ...facts,
})
const status = (code: number) => say({ status: code })
const inFlight = () => t.credential().inFlight

describe('open leases', () => {
  test('of one client are a thousand at most, others aside', async () => {
    await start([fixed('a')])
    const [one, two] = [client('one'), client('two')]
    const first = await open(one)
    for (let i = 1; i < 1000; i++) await open(one)
    await expect(open(one)).rejects.toMatchObject({ code: 'QUEUE_FULL', retryAfterMs: 1000 })
    await open(two)
    await leases.report(first?.id ?? '', one, status(200))
    await open(one)
    await expect(open(one)).rejects.toMatchObject({ code: 'QUEUE_FULL' })
    expect(inFlight()).toBe(1001)
  })

  test('of all clients are ten thousand at most', async () => {
    await start([fixed('a')])
    for (let i = 0; i < 10_000; i++) await open(client(`client-${i % 20}`))
    await expect(open(client('late'))).rejects.toMatchObject({ code: 'QUEUE_FULL' })
    leases.close()
    expect(inFlight()).toBe(0)
    expect(records.length).toBe(10_001)
  })

  test('that wait count among them, and leave no trace when they are given up', async () => {
    await start([fixed('a')], { limits: { concurrency: 1 } })
    await open()
    const waits = Array.from({ length: 999 }, () => open(client(undefined), { waitMs: 1000 }))
    for (const wait of waits) wait.catch(() => {})
    await expect(open()).rejects.toMatchObject({ code: 'QUEUE_FULL' })
    t.clock.advance(1000)
    for (const wait of waits) await expect(wait).rejects.toMatchObject({ code: 'POOL_EXHAUSTED' })
    t.clock.advance(60_000)
    for (let i = 0; i < 3; i++) {
      const lease = await open()
      await leases.report(lease?.id ?? '', client(undefined), status(200))
    }
  })
})

test('an expired lease teaches nothing, and a late report neither', async () => {
  await start([credential('a')])
  const lease = await open(client('one'), { ttlMs: 5000 })
  expect(inFlight()).toBe(1)
  t.clock.advance(4999)
  expect(inFlight()).toBe(1)
  t.clock.advance(1)
  expect(inFlight()).toBe(0)
  expect(await leases.report(lease?.id ?? '', client('one'), status(401))).toBe('expired')
  expect(t.state()).toBe('active')
  expect(t.source('a').obtained).toBe(1)
  expect(records.map(({ kind, verdict }) => [kind, verdict])).toEqual([['lease', 'unreported']])
})

test('a lease that is reported twice counts once', async () => {
  await start([credential('a')], { limits: { concurrency: 2 } })
  const [first] = [await open(), await open()]
  const report = () => leases.report(first?.id ?? '', client(undefined), status(401))
  const [one, two] = await Promise.all([report(), report()])
  expect(one).toMatchObject({ verdict: 'expired', recovery: { result: 'renewed' } })
  expect(two).toBe('reported')
  expect(inFlight()).toBe(1)
  expect(t.source('a').obtained).toBe(2)
})

test('the first of a thousand and one ended leases is forgotten', async () => {
  await start([fixed('a')])
  const ids: string[] = []
  for (let i = 0; i < 1001; i++) {
    const id = (await open())?.id ?? ''
    ids.push(id)
    await leases.report(id, client(undefined), status(200))
  }
  expect(new Set(ids).size).toBe(1001)
  const again = (id = '') => leases.report(id, client(undefined), status(200))
  expect([await again(ids[0]), await again(ids[1])]).toEqual(['unknown', 'reported'])
})

test('a token that is bound to a key is not leased, and stays as it was', async () => {
  await start([credential('a')])
  t.source('a').script = async () => ({ dpopKey: DpopKey.generate() })
  await t.pool.refresh('a')
  await expect(open()).rejects.toMatchObject({
    code: 'POOL_EXHAUSTED',
    message: expect.stringContaining('DPoP'),
  })
  expect(t.credential()).toMatchObject({ inFlight: 0, uses: 0, state: 'active' })
})

test('whoever waits at the end is told, and those who come then', async () => {
  await start([fixed('a')], { limits: { concurrency: 1 } })
  const held = await open()
  const waiting = open(client('one'), { waitMs: 1000 })
  leases.drain()
  await expect(waiting).rejects.toMatchObject({ code: 'SHUTTING_DOWN' })
  await expect(open()).rejects.toMatchObject({ code: 'SHUTTING_DOWN' })
  // What is out may still be reported.
  expect(await leases.report(held?.id ?? '', client(undefined), status(200))).toMatchObject({
    verdict: 'ok',
  })
  expect(inFlight()).toBe(0)
})
