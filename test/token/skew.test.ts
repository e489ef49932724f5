import { expect, test } from 'vitest'
import { ClockSkew } from '../../src/token/skew.ts'
import { ManualClock } from '../support/manual-clock.ts'

/** Answers of a server whose clock is ahead of the test's by what `ahead` says. */
function setUp() {
  const clock = new ManualClock()
  const skew = new ClockSkew(clock)
  const server = { ahead: 0, headers: {} as Record<string, string>, takesMs: 0 }
  const ask = skew.metered(async () => {
    clock.advance(server.takesMs)
    const date = new Date(Math.floor((clock.now() + server.ahead) / 1000) * 1000).toUTCString()
    return new Response(null, { headers: { date, ...server.headers } })
  })
  return { clock, skew, server, ask: () => ask('https://issuer.test/token') }
}

const near = (ms: number, expected: number) => expect(Math.abs(ms - expected)).toBeLessThan(1000)

test('a clock that is minutes off is measured to the second', async () => {
  const { skew, server, ask } = setUp()
  expect(skew.ms).toBe(0)
  for (const ahead of [300_400, -7_200_000]) {
    server.ahead = ahead
    for (let i = 0; i < 5; i++) await ask()
    near(skew.ms, ahead)
  }
})

test('up to two seconds count as none: Date has whole seconds', async () => {
  const { skew, server, ask } = setUp()
  for (server.ahead = -1400; server.ahead <= 1400; server.ahead += 100) {
    await ask()
    expect(skew.ms).toBe(0)
  }
})

test('one odd answer among several changes nothing', async () => {
  const { skew, server, ask } = setUp()
  for (let i = 0; i < 4; i++) await ask()
  server.ahead = 3_600_000
  await ask()
  expect(skew.ms).toBe(0)
})

test.each([
  ['of no calendar', { headers: { date: 'yesterday' } }],
  ['more than a day off', { ahead: 90_000_000 }],
  ['out of a cache', { ahead: 600_000, headers: { age: '30' } }],
  ['that took long', { ahead: 600_000, takesMs: 6000 }],
])('an answer %s tells nothing', async (_which, change) => {
  const { skew, server, ask } = setUp()
  Object.assign(server, change)
  await ask()
  expect(skew.ms).toBe(0)
})

test('when our own clock is set right the skew goes with it', async () => {
  const { clock, skew, server, ask } = setUp()
  server.ahead = 3_600_000
  await ask()
  near(skew.ms, 3_600_000)
  clock.jump(3_600_000)
  expect(skew.ms).toBe(0)
})
