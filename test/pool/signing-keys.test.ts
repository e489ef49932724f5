import { beforeAll, describe, expect, test } from 'vitest'
import { SourceError } from '../../src/errors.ts'
import { Secret } from '../../src/lib/secret.ts'
import { MemoryStore } from '../../src/store/memory.ts'
import { readToken } from '../../src/token/jwt.ts'
import { makeKey, type SigningKey } from '../support/key-issuer.ts'
import { ManualClock } from '../support/manual-clock.ts'
import {
  credential,
  fixed,
  gate,
  poolConfig,
  type ScriptedSource,
  TestPool,
} from '../support/pool.ts'

let one: SigningKey
let two: SigningKey
beforeAll(async () => {
  one = await makeKey('one')
  two = await makeKey('two')
})

/** A pool whose issuer publishes and signs by what the test sets. */
async function setUp(
  credentials: object[],
  config: Record<string, unknown> = {},
  options: { store?: MemoryStore; clock?: ManualClock; signWith?: SigningKey } = {},
) {
  const clock = options.clock ?? new ManualClock()
  const issuer = {
    published: [options.signWith ?? one],
    signWith: options.signWith ?? one,
    claims: {} as Record<string, unknown>,
    down: false,
    asked: 0,
  }
  const sign = async (source: ScriptedSource) => {
    const now = clock.now()
    const seconds = Math.floor(now / 1000)
    const claims = { jti: `${source.name}-${source.obtained}`, iat: seconds, exp: seconds + 3600 }
    const text = await issuer.signWith.sign({ ...claims, ...issuer.claims })
    return readToken(text, {
      receivedAt: now,
      refreshToken: source.renewable
        ? new Secret(`refresh-${source.name}-${source.obtained}`)
        : undefined,
    })
  }
  const t = await TestPool.open(
    poolConfig(credentials, { jwks: 'https://issuer.test/keys', ...config }),
    {
      ...options,
      clock,
      prepare: (source) => {
        source.script = () => sign(source)
      },
      fetch: async () => {
        issuer.asked += 1
        if (issuer.down) throw new Error('no route')
        const keys = issuer.published.map(({ jwk }) => jwk)
        return new Response(JSON.stringify({ keys }), {
          headers: { 'cache-control': 'max-age=60' },
        })
      },
    },
  )
  // Signing takes real time.
  const settled = async (done: () => boolean) => {
    while (!done()) await clock.run(0)
  }
  return { t, issuer, clock, settled }
}

const ids = (count: number) => Array.from({ length: count }, (_, i) => `c${i}`)
const generations = (t: TestPool) => t.pool.status().credentials.map(({ generation }) => generation)

describe('when the key of held tokens goes', () => {
  test('they are renewed before anybody has used them, once', async () => {
    const { t, issuer, clock, settled } = await setUp([credential('a'), credential('b')])
    await using _ = t
    await settled(() => generations(t).every((each) => each === 1))
    issuer.signWith = two
    issuer.published = [two]
    await clock.run(60_000)
    await settled(() => generations(t).every((each) => each === 2))
    await clock.run(600_000)
    expect(generations(t)).toEqual([2, 2])
    expect(t.changes.map(({ to }) => to)).toEqual(['active', 'active'])
  })

  test('many are renewed in a spread of time, and a few at once', async () => {
    const { t, issuer, clock, settled } = await setUp(ids(40).map((id) => credential(id)))
    await using _ = t
    let draw = 0
    t.random = () => (draw++ % 40) / 40
    await settled(() => generations(t).every((each) => each === 1))
    issuer.signWith = two
    issuer.published = [two]
    await clock.run(60_000)
    const renewed = () => generations(t).filter((each) => each === 2).length
    await clock.run(1000)
    await settled(() => t.refreshes.length > 40)
    expect(renewed()).toBeGreaterThan(0)
    expect(renewed()).toBeLessThan(40)
    await clock.run(10_000)
    await settled(() => renewed() === 40)
  })

  test('a new token of the same key is not renewed again', async () => {
    const { t, issuer, clock, settled } = await setUp([credential('a')])
    await using _ = t
    await settled(() => generations(t)[0] === 1)
    issuer.published = [two]
    await clock.run(60_000)
    await settled(() => generations(t)[0] === 2)
    await clock.run(600_000)
    expect(t.source('a').obtained).toBe(2)
    expect(t.logged.filter((message) => message.includes('have gone'))).toHaveLength(1)
  })

  test('a static token stays as it is', async () => {
    const { t, issuer, clock, settled } = await setUp([fixed('a')])
    await using _ = t
    await settled(() => generations(t)[0] === 1)
    issuer.published = [two]
    await clock.run(600_000)
    expect(t.state()).toBe('active')
    expect(t.source('a').obtained).toBe(1)
  })

  test('during a rest it is noticed at the start', async () => {
    const store = new MemoryStore()
    const clock = new ManualClock()
    const first = await setUp([credential('a')], {}, { store, clock })
    await first.settled(() => generations(first.t)[0] === 1)
    await first.t[Symbol.asyncDispose]()
    const second = await setUp([credential('a')], {}, { store, clock, signWith: two })
    await using _ = second.t
    await second.settled(() => generations(second.t)[0] === 2)
  })

  test('a token that names an unknown key makes it known at once', async () => {
    const { t, issuer, settled } = await setUp([credential('a'), credential('b')])
    await using _ = t
    await settled(() => generations(t).every((each) => each === 1))
    issuer.signWith = two
    issuer.published = [two]
    await t.pool.refresh('b')
    await settled(() => generations(t).every((each) => each === 2))
    expect(t.clock.monotonic()).toBe(0)
  })
})

test('a key server that fails costs nothing, and leaves no timer behind', async () => {
  const { t, issuer, clock, settled } = await setUp([credential('a')])
  await settled(() => generations(t)[0] === 1)
  issuer.down = true
  await clock.run(600_000)
  expect(t.source('a').obtained).toBe(1)
  expect(t.logged).toEqual(['signing keys could not be had'])
  await t[Symbol.asyncDispose]()
  expect(clock.pending).toBe(0)
})

describe('a pool that verifies', () => {
  const verify = { verify: true }

  test('takes a good token', async () => {
    const { t, settled } = await setUp([credential('a')], verify)
    await using _ = t
    await settled(() => t.state() === 'active')
  })

  test('refuses a bad one with a reason, and the old one goes on while it lives', async () => {
    const { t, issuer, clock, settled } = await setUp([credential('a')], verify)
    await using _ = t
    await settled(() => t.state() === 'active')
    const old = t.lease().token.reveal()
    issuer.signWith = two
    await expect(t.pool.refresh('a')).rejects.toThrow('the new token was refused: no key')
    expect(t.lease().token.reveal()).toBe(old)
    expect(t.credential()).toMatchObject({ state: 'active', generation: 1 })
    expect(t.credential().lastError).toBe('the new token was refused: no key of the issuer fits it')
    await clock.run(3_600_000)
    await settled(() => t.state() === 'quarantined')
  })

  test('keeps the refresh token that came with a refused one', async () => {
    const store = new MemoryStore()
    const { t, issuer, settled } = await setUp([credential('a')], verify, { store })
    await using _ = t
    await settled(() => t.state() === 'active')
    issuer.signWith = two
    await t.pool.refresh('a').catch(() => {})
    expect((await store.read('api', 'a'))?.refreshToken?.reveal()).toBe('refresh-a-2')
    const used: (string | undefined)[] = []
    t.source('a').script = async (_context, previous) => {
      used.push(previous?.refreshToken?.reveal())
      throw new SourceError('transient', 'HTTP 503')
    }
    await t.pool.refresh('a').catch(() => {})
    expect(used).toEqual(['refresh-a-2'])
  })

  test('keeps it across a restart where there was no token before, and uses nothing else of it', async () => {
    const store = new MemoryStore()
    const clock = new ManualClock()
    const audience = { verify: { audience: 'x' } }
    const first = await setUp([credential('a')], audience, { store, clock })
    await first.settled(() => first.t.credential().lastError !== undefined)
    expect(first.t.pool.lease({})).toBeUndefined()
    await first.t[Symbol.asyncDispose]()
    let used: string | undefined
    const second = await TestPool.open(poolConfig([credential('a')]), {
      store,
      clock,
      prepare: (source) => {
        source.script = async (_context, previous) => {
          used = previous?.refreshToken?.reveal()
          return undefined
        }
      },
    })
    await using _ = second
    expect(used).toBe('refresh-a-1')
    expect(second.lease().token.reveal()).toBe('a-1')
  })

  test('asks for no token before it has the keys', async () => {
    const keys = gate<Response>()
    await using t = await TestPool.open(
      poolConfig([credential('a')], { jwks: 'https://issuer.test/keys', ...verify }),
      { fetch: () => keys.promise },
    )
    await t.clock.run(1000)
    expect(t.source('a').obtained).toBe(0)
    keys.open(new Response('{}', { status: 503 }))
    await t.clock.run(0)
    expect(t.source('a').obtained).toBe(0)
    expect(t.credential().lastError).toBe(
      'no signing keys to verify by: key set of issuer.test answered 503',
    )
  })

  test('wants the audience that is configured', async () => {
    const { t, issuer, settled } = await setUp([credential('a')], {
      verify: { audience: 'https://api.test' },
    })
    await using _ = t
    await settled(() => t.credential().lastError !== undefined)
    expect(t.credential().lastError).toContain('it is meant for another audience')
    issuer.claims = { aud: ['x', 'https://api.test'] }
    await t.pool.refresh('a')
    expect(t.state()).toBe('active')
  })
})
