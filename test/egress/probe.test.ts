import { once } from 'node:events'
import type { ServerResponse } from 'node:http'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { startHttpProxy } from '../support/http-proxy.ts'
import { ManualClock } from '../support/manual-clock.ts'
import { type Origin, startOrigin } from '../support/origin.ts'
import { Harness } from './harness.ts'

const HERE = '127.0.0.6'
const MINUTES = 60_000

let clock: ManualClock
let harness: Harness | undefined
let origin: Origin
let service: Origin
/** What the probed service answers a visitor of that address. */
let answer: (response: ServerResponse, address: string) => void

beforeEach(async () => {
  clock = new ManualClock()
  answer = (response, address) => response.end(JSON.stringify({ ip: address }))
  origin = await startOrigin()
  service = await startOrigin({
    handler: (request, response) => answer(response, request.socket.remoteAddress ?? ''),
  })
})

afterEach(async () => {
  await harness?.[Symbol.asyncDispose]()
  harness = undefined
  expect(clock.pending).toBe(0)
  await origin[Symbol.asyncDispose]()
  await service[Symbol.asyncDispose]()
})

/** One egress `a` with a probe; `HERE` is its address. */
function start(probed: object = {}): Harness {
  // The clock runs through minutes while a connection takes its real milliseconds.
  const upstream = { connectTimeout: '1d' }
  harness = new Harness({ upstream, clock, egress: { a: egress(probed) } })
  return harness
}

function egress(probed: object): object {
  return { url: `local://${HERE}`, probe: service.url, ...probed }
}

/** The next thing that a probe tells. */
async function told(run: Harness): Promise<Harness['news'][0]> {
  const [news] = await once(run.events, 'address')
  return news as Harness['news'][0]
}

/** Moves the clock until the next probe has come to its end. */
async function probeAgain(run: Harness): Promise<void> {
  const before = service.requests.length
  while (service.requests.length === before) {
    await clock.run(1000)
    // A round trip over the same loopback: what the clock has set off gets as far.
    await (await fetch(origin.url)).text()
  }
  await expect.poll(() => service.openConnections).toBe(0)
  await run.egresses.probed(0)
}

async function saying(text: string): Promise<Harness['news'][0]> {
  answer = (response) => response.end(text)
  return told(start())
}

describe('the visible address', () => {
  test.each([
    ['JSON', '{"ip":"203.0.113.7"}', '203.0.113.7'],
    ['deep JSON', '{"data":[{"client":{"ipAddress":"203.0.113.7"}}]}', '203.0.113.7'],
    ['JSON under another name', '{"you":"203.0.113.7","port":443}', '203.0.113.7'],
    ['JSON with other addresses', '{"ip":"203.0.113.7","dns":"9.9.9.9"}', '203.0.113.7'],
    ['text', '203.0.113.7\n', '203.0.113.7'],
    ['a sentence', '<p>You come from 203.0.113.7.</p>', '203.0.113.7'],
    ['a trace', 'h=1.1.1.1\nip=203.0.113.7\nts=17\n', '203.0.113.7'],
    ['IPv6', '{"ip":"2001:DB8:0:0::7"}', '2001:db8::7'],
    ['IPv4 within IPv6', '::ffff:203.0.113.7', '203.0.113.7'],
  ])('is found in %s', async (_, text, address) => {
    expect(await saying(text)).toMatchObject({ egress: 'a', address, reason: undefined })
    expect(harness?.egresses.address('a')).toBe(address)
  })

  test.each([
    ['none', '<h1>Hello :: world 0.0.0.0</h1>', 'no IP address'],
    ['several', '1.2.3.4, 5.6.7.8', 'several IP addresses'],
    ['several by one name', '{"origin":"1.2.3.4","ip":"5.6.7.8"}', 'several IP addresses'],
  ])('is not guessed where an answer holds %s', async (_, text, reason) => {
    expect(await saying(text)).toMatchObject({ address: undefined })
    expect(harness?.news[0]?.reason).toContain(reason)
    expect(harness?.egresses.address('a')).toBeUndefined()
    expect(harness?.egresses.isUp('a')).toBe(true)
  })

  test('is not taken from an error or a redirect', async () => {
    for (const status of [500, 404, 302]) {
      answer = (response) => response.writeHead(status, { location: '/' }).end('203.0.113.7')
      expect(await told(start())).toMatchObject({
        address: undefined,
        reason: `the probe was answered with ${status}`,
      })
      await harness?.[Symbol.asyncDispose]()
    }
  })

  test('is looked for in 64 KiB and no more', async () => {
    answer = (response) => {
      response.write('203.0.113.7 ')
      const more = () => {
        while (response.write(' '.repeat(16_384)));
      }
      response.on('drain', more)
      more()
    }
    expect(await told(start())).toMatchObject({
      reason: 'the answer to the probe is larger than 64 KiB',
    })
    await expect.poll(() => service.openConnections).toBe(0)
  })

  test('is waited for 15 seconds', async () => {
    const asked = new Promise<void>((resolve) => {
      answer = () => resolve()
    })
    const run = start()
    await asked
    const late = told(run)
    await clock.run(15_000)
    expect(await late).toMatchObject({ reason: 'the probe was not answered in time' })
    await expect.poll(() => service.openConnections).toBe(0)
  })

  test('is asked for by the egress itself, every five minutes or so, each time anew', async () => {
    const run = start()
    expect(await told(run)).toMatchObject({ address: HERE, previous: undefined })
    for (const round of [1, 2]) {
      const started = clock.monotonic()
      await probeAgain(run)
      expect(service.requests).toHaveLength(round + 1)
      expect(clock.monotonic() - started).toBeGreaterThanOrEqual(4.5 * MINUTES)
      expect(clock.monotonic() - started).toBeLessThanOrEqual(5.5 * MINUTES + 5000)
    }
    expect(service.requests.map(({ remoteAddress }) => remoteAddress)).toEqual([HERE, HERE, HERE])
    expect(service.connections).toBe(3)
    expect(run.news).toHaveLength(1)
  })

  test('that changes is told, and changes nothing where none is expected', async () => {
    const run = start()
    await told(run)
    answer = (response) => response.end('198.51.100.9')
    const drift = told(run)
    await probeAgain(run)
    expect(await drift).toMatchObject({ address: '198.51.100.9', previous: HERE })
    expect(run.egresses.address('a')).toBe('198.51.100.9')
    expect(run.egresses.isUp('a')).toBe(true)
    expect(run.changes).toEqual([])
  })
})

describe('an expected address', () => {
  /** What happens to a request with a credential and to one without, and to a tunnel. */
  async function leaves(run: Harness): Promise<boolean[]> {
    const tries = [
      run.request('a', `${origin.url}/`, 'pool/a'),
      run.request('a', `${origin.url}/`),
      run.egresses
        .connect('a', { host: origin.host, port: origin.port })
        .then((socket) => socket.destroy()),
      run.egresses.fetch('a', 'pool/a')(`${origin.url}/`),
    ]
    const outcomes = await Promise.allSettled(tries)
    return outcomes.map(({ status }) => status === 'fulfilled')
  }
  const ALL = [true, true, true, true]
  const NONE = [false, false, false, false]

  test('lets nothing leave before it was seen', async () => {
    let release = () => {}
    const held = new Promise<void>((resolve) => {
      release = resolve
    })
    answer = async (response, address) => {
      await held
      response.end(address)
    }
    const run = start({ expect: HERE })
    expect(run.egresses.isUp('a')).toBe(false)
    expect(await leaves(run)).toEqual(NONE)
    expect(await run.failure('a', origin.url, 'pool/a')).toMatchObject({
      code: 'EGRESS_DOWN',
      sent: false,
      message: 'egress a is down: its visible address is not known yet',
    })
    expect(origin.connections).toBe(0)
    release()
    await run.egresses.probed(1000)
    expect(await leaves(run)).toEqual(ALL)
    expect(run.changes).toEqual(['a up'])
  })

  test.each(['127.0.0.0/29', HERE, '::ffff:127.0.0.6'])('may be given as %s', async (expected) => {
    const run = start({ expect: expected })
    await run.egresses.probed(1000)
    expect(run.egresses.isUp('a')).toBe(true)
  })

  test('that is not the visible one takes the egress out until it is', async () => {
    const run = start({ expect: HERE, every: '20s' })
    await run.egresses.probed(1000)
    const { connection } = await run.request('a', `${origin.url}/`, 'pool/a')
    answer = (response) => response.end('198.51.100.9')
    await probeAgain(run)
    expect(run.egresses.isUp('a')).toBe(false)
    expect(run.egresses.address('a')).toBe('198.51.100.9')
    expect(run.changes).toEqual(['a up', 'a down'])
    expect(run.messages[1]).toBe('its visible address is not the expected one')
    const before = origin.connections
    expect(await leaves(run)).toEqual(NONE)
    expect(origin.connections).toBe(before)

    answer = (response, address) => response.end(address)
    await probeAgain(run)
    expect(run.changes).toEqual(['a up', 'a down', 'a up'])
    // A connection of before may still leave by the wrong address.
    const again = await run.request('a', `${origin.url}/`, 'pool/a')
    expect(again.connection).not.toBe(connection)
    expect(run.news.map(({ address, previous }) => [address, previous])).toEqual([
      [HERE, undefined],
      ['198.51.100.9', HERE],
      [HERE, '198.51.100.9'],
    ])
  })

  test('that is wrong is looked at again within seconds, then within a minute', async () => {
    answer = (response) => response.end('198.51.100.9')
    const run = start({ expect: HERE })
    await run.egresses.probed(1000)
    await clock.run(1200)
    await expect.poll(() => service.requests.length).toBe(2)
    await clock.run(30 * MINUTES)
    const asked = service.requests.length
    expect(asked).toBeLessThan(40)
    await clock.run(66_000)
    await expect.poll(() => service.requests.length).toBeGreaterThan(asked)
  })

  test('that was right stays so while the probed service fails', async () => {
    const run = start({ expect: HERE })
    await run.egresses.probed(1000)
    answer = (response) => response.writeHead(503).end()
    const failed = told(run)
    await probeAgain(run)
    expect(await failed).toMatchObject({ address: undefined, previous: HERE })
    expect(await leaves(run)).toEqual(ALL)
    // Told once, not with each try.
    await probeAgain(run)
    expect(run.news).toHaveLength(2)
  })

  test('must be found right anew after the egress was down', async () => {
    await using proxy = await startHttpProxy({ host: HERE })
    const run = start({ url: proxy.url, expect: HERE })
    await run.egresses.probed(1000)
    expect(await leaves(run)).toEqual(ALL)
    proxy.behaviour = 'close'
    await run.failure('a', `${origin.url}/`, 'pool/new')
    answer = (response) => response.end('198.51.100.9')
    proxy.behaviour = 'normal'
    const carried = () => origin.requests.filter((each) => each.remoteAddress === HERE).length
    const before = carried()
    expect(await leaves(run)).toEqual(NONE)
    await probeAgain(run)
    expect(await leaves(run)).toEqual(NONE)
    expect(carried()).toBe(before)
    answer = (response, address) => response.end(address)
    await probeAgain(run)
    expect(await leaves(run)).toEqual(ALL)
    expect(run.changes).toEqual(['a up', 'a down', 'a up'])
  })

  test('is taken up anew by a reload, and the known one held against it at once', async () => {
    const run = start()
    await told(run)
    run.apply({ egress: { a: egress({ expect: '203.0.113.0/24' }) } })
    expect(run.egresses.isUp('a')).toBe(false)
    run.apply({ egress: { a: egress({ expect: HERE }) } })
    expect(run.egresses.isUp('a')).toBe(true)
    run.apply({ egress: { a: egress({ expect: '203.0.113.1' }) } })
    expect(await leaves(run)).toEqual(NONE)
    run.apply({ egress: { a: `local://${HERE}` } })
    expect(await leaves(run)).toEqual(ALL)
    expect(run.egresses.address('a')).toBeUndefined()
  })
})

test('an egress that comes back is probed at once', async () => {
  await using proxy = await startHttpProxy({ host: HERE })
  const run = start({ url: proxy.url })
  await told(run)
  proxy.behaviour = 'close'
  await run.failure('a', `${origin.url}/`, 'pool/new')
  proxy.behaviour = 'normal'
  answer = (response) => response.end('198.51.100.9')
  const drift = told(run)
  await run.request('a', `${origin.url}/`, 'pool/new')
  expect(await drift).toMatchObject({ address: '198.51.100.9', previous: HERE })
})
