import { mkdtemp, readdir, readFile, rm, stat } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, onTestFinished, test } from 'vitest'
import { Events, type ExchangeRecord } from '../../src/events.ts'
import { createLog } from '../../src/lib/log.ts'
import { HarFile } from '../../src/trace/har-file.ts'
import { TraceRecorder } from '../../src/trace/recorder.ts'
import { sampleExchange } from '../support/admin.ts'
import { harProblems } from '../support/har-schema.ts'

function setUp() {
  const events = new Events()
  return { events, recorder: new TraceRecorder(events, { capacity: 100 }) }
}

/** A request that waited, was refused, had its token renewed, and went well over a new connection. */
const HEALED: Partial<ExchangeRecord> = {
  id: 'healed',
  protocol: 'h2',
  durationMs: 300,
  waitMs: 20,
  url: 'https://api.example.com/v1/items?page=2&q=a%20b&access_token=abc',
  refresh: { role: 'led', ms: 100, result: 'renewed' },
  replay: { done: true, why: 'the token was renewed' },
  attempts: [
    { ...attempt(), status: 401, verdict: 'expired', startMs: 20, totalMs: 30 },
    {
      ...attempt(),
      startMs: 150,
      sentMs: 45,
      dnsMs: 5,
      connectMs: 15,
      tlsMs: 25,
      firstByteMs: 100,
      totalMs: 140,
      reused: false,
    },
  ],
  messages: {
    request: {
      headers: [
        'accept',
        '*/*',
        'Cookie',
        'a=[redacted]; b=[redacted]',
        'content-type',
        'text/plain',
      ],
      body: { text: 'hello', size: 5, cut: false },
    },
    response: {
      reason: 'Fine',
      headers: ['content-type', 'application/json', 'set-cookie', 's=[redacted]; Path=/'],
      body: { text: '{"a":1}', size: 9, cut: true },
    },
  },
}

function attempt(): ExchangeRecord['attempts'][number] {
  return {
    credential: 'alice',
    generation: 3,
    egress: 'one',
    address: '[2001:db8::1]:443',
    status: 200,
    verdict: 'ok',
    connectMs: undefined,
    tlsMs: undefined,
    firstByteMs: 10,
    totalMs: 12,
    reused: true,
  }
}

test('the archive is valid HAR 1.2, whatever the requests were', () => {
  const { events, recorder } = setUp()
  const kinds: Partial<ExchangeRecord>[] = [
    {},
    HEALED,
    { attempts: [], status: 503, verdict: 'POOL_EXHAUSTED', waitMs: 30, durationMs: 31 },
    { status: undefined, verdict: 'aborted', attempts: [{ ...attempt(), status: undefined }] },
    { kind: 'tunnel', method: 'CONNECT', url: 'https://other.example:443', attempts: [] },
    { kind: 'denied', method: '-', url: '-', attempts: [] },
    { kind: 'websocket', status: 101 },
    { kind: 'lease', method: 'POST', url: '/api/pools/supplier/leases' },
  ]
  for (const changes of kinds) events.emit('exchange', sampleExchange(changes))
  events.emit('refresh', {
    id: 'renewal',
    time: Date.parse('2030-01-01T00:00:01Z'),
    pool: 'supplier',
    credential: 'alice',
    cause: 'scheduled',
    result: 'ok',
    generation: 4,
    ms: 90,
    reason: undefined,
    calls: [
      { method: 'GET', url: 'https://auth.example/a', status: 302, startMs: 0, ms: 30 },
      { method: 'POST', url: 'https://auth.example/token', status: 200, startMs: 40, ms: 50 },
    ],
  })
  const har = recorder.har()
  expect(harProblems(har)).toEqual([])
  // Oldest first; the refusal without a URL and the lease are no entries, a renewal has one for each request.
  expect(har.log.entries.map((entry) => entry.response.status)).toEqual([
    200, 200, 503, 0, 200, 101, 302, 200,
  ])
})

test('the check of the archive finds what is missing, strange or does not add up', () => {
  const { events, recorder } = setUp()
  events.emit('exchange', sampleExchange())
  // biome-ignore lint/suspicious/noExplicitAny: it is spoilt on purpose
  const har = structuredClone(recorder.har()) as any
  har.log.entries[0].response.extra = 1
  delete har.log.entries[0].request.cookies
  expect(harProblems(har)).toEqual([
    'har.log.entries[0].request.cookies: missing',
    'har.log.entries[0].response.extra: no such field in HAR 1.2',
  ])
  const other = structuredClone(recorder.har())
  if (other.log.entries[0]) other.log.entries[0].time += 5
  expect(harProblems(other)).toEqual([expect.stringMatching(/is not 47/)])
})

test('an entry has the phases of the last attempt, and all before it as blocked', () => {
  const { events, recorder } = setUp()
  events.emit('exchange', sampleExchange(HEALED))
  const [entry] = recorder.har().log.entries
  expect(entry?.timings).toEqual({
    blocked: 165,
    dns: 5,
    connect: 35,
    ssl: 25,
    send: 0,
    wait: 55,
    receive: 40,
  })
  expect(entry?.time).toBe(300)
  expect(entry?.serverIPAddress).toBe('2001:db8::1')
  expect(entry?.request.httpVersion).toBe('HTTP/2')
  expect(entry?._cupbearer).toMatchObject({
    id: 'healed',
    pool: 'supplier',
    waitMs: 20,
    refresh: { role: 'led' },
    attempts: [{ verdict: 'expired' }, { verdict: 'ok' }],
  })
})

test('an entry has headers, cookies, query and bodies as far as they were recorded', () => {
  const { events, recorder } = setUp()
  events.emit('exchange', sampleExchange(HEALED))
  const [entry] = recorder.har().log.entries
  expect(entry?.request.queryString).toEqual([
    { name: 'page', value: '2' },
    { name: 'q', value: 'a b' },
    { name: 'access_token', value: '[redacted]' },
  ])
  expect(entry?.request.cookies.map(({ name }) => name)).toEqual(['a', 'b'])
  expect(entry?.request.postData).toMatchObject({ mimeType: 'text/plain', text: 'hello' })
  expect(entry?.response.cookies).toEqual([{ name: 's', value: '[redacted]' }])
  expect(entry?.response.content).toMatchObject({
    mimeType: 'application/json',
    text: '{"a":1}',
    comment: 'only its beginning was recorded',
  })
  expect(entry?.response.statusText).toBe('Fine')
})

async function harFile(max: number) {
  const dir = await mkdtemp(join(tmpdir(), 'cupbearer-har-'))
  onTestFinished(() => rm(dir, { recursive: true, force: true }))
  const path = join(dir, 'logs', 'requests.har')
  const log = await createLog({ level: 'silent', format: 'json' })
  const { events, recorder } = setUp()
  const open = async () => {
    const file = new HarFile(recorder, { path, max }, log)
    await file.begin()
    return file
  }
  const read = async (name = path) => JSON.parse(await readFile(name, 'utf8'))
  const ids = async (name?: string) =>
    (await read(name)).log.entries.map(
      (entry: { _cupbearer: { id: string } }) => entry._cupbearer.id,
    )
  return { events, path, open, read, ids }
}

test('the file is a valid archive from its first moment to its end, and its owner’s alone', async () => {
  const { events, path, open, read, ids } = await harFile(2 ** 20)
  const file = await open()
  expect(harProblems(await read())).toEqual([])
  for (let i = 1; i <= 3; i++) events.emit('exchange', sampleExchange({ id: `t${i}` }))
  await expect.poll(ids).toEqual(['t1', 't2', 't3'])
  events.emit('exchange', sampleExchange({ id: 't4' }))
  await file.close()
  expect(await ids()).toEqual(['t1', 't2', 't3', 't4'])
  expect(harProblems(await read())).toEqual([])
  expect((await stat(path)).mode & 0o777).toBe(0o600)
  events.emit('exchange', sampleExchange({ id: 'late' }))
  expect(await ids()).toEqual(['t1', 't2', 't3', 't4'])
})

test('a file that is full becomes PATH.1, once; nothing is lost in between', async () => {
  const { events, path, open, read, ids } = await harFile(4000)
  const file = await open()
  const all = Array.from({ length: 12 }, (_, i) => `t${i + 1}`)
  for (const id of all) events.emit('exchange', sampleExchange({ id }))
  await file.close()
  const kept = [...(await ids(`${path}.1`)), ...(await ids())]
  expect(kept).toEqual(all.slice(-kept.length))
  expect(kept.length).toBeGreaterThan(2)
  expect(harProblems(await read(`${path}.1`))).toEqual([])
  expect((await stat(path)).size).toBeLessThan(4000 + 2000)
  expect((await readdir(join(path, '..'))).sort()).toEqual(['requests.har', 'requests.har.1'])
})

test('a new start keeps the archive of the one before', async () => {
  const { events, path, open, ids } = await harFile(2 ** 20)
  const first = await open()
  events.emit('exchange', sampleExchange({ id: 'before' }))
  await first.close()
  const second = await open()
  events.emit('exchange', sampleExchange({ id: 'after' }))
  await second.close()
  expect([await ids(`${path}.1`), await ids()]).toEqual([['before'], ['after']])
})
