import { describe, expect, test } from 'vitest'
import { SourceError } from '../../src/errors.ts'
import { Secret } from '../../src/lib/secret.ts'
import type { Source } from '../../src/sources/source.ts'
import { DpopKey } from '../../src/token/dpop.ts'
import type { TokenSet } from '../../src/token/token.ts'
import { TestDialogue } from '../support/dialogue.ts'
import { credential, gate, poolConfig, type ScriptedSource, TestPool } from '../support/pool.ts'

const never = new AbortController().signal
const needed = new SourceError('revoked', 'login needed')

/** A pool whose only credential needs a person, who is played by `login`. */
async function interactive(
  login: NonNullable<Source['login']>,
  script: ScriptedSource['script'] = () => Promise.reject(needed),
): Promise<TestPool> {
  return TestPool.open(poolConfig([credential('a')]), {
    prepare: (source) => {
      source.script = script
      Object.assign(source, { login })
    },
  })
}

const token = (clock: TestPool['clock'], more: Partial<TokenSet> = {}): TokenSet => ({
  token: new Secret('by hand'),
  refreshToken: new Secret('refresh by hand'),
  issuedAt: clock.now(),
  expiresAt: clock.now() + 3_600_000,
  ...more,
})

describe('a login', () => {
  test('makes a revoked credential active, with a token that is stored first', async () => {
    await using t = await interactive(async (_dialogue, context) => {
      expect(context).toMatchObject({ name: 'api/a', requestTimeoutMs: 30_000 })
      return token(t.clock)
    })
    expect(t.state()).toBe('revoked')
    expect(t.credential().lastError).toBe('login needed')
    await t.pool.login('a', new TestDialogue(), never)
    expect(t.state()).toBe('active')
    expect(t.credential().lastError).toBeUndefined()
    expect(t.lease().token.reveal()).toBe('by hand')
    const stored = await t.store.read('api', 'a')
    expect(stored?.token?.reveal()).toBe('by hand')
    expect(stored?.revoked).toBeUndefined()
    expect(t.changes.at(-1)).toMatchObject({ from: 'revoked', to: 'active' })
    expect(t.refreshes.at(-1)).toMatchObject({ cause: 'operator', result: 'ok', generation: 1 })
  })

  test('that fails changes nothing', async () => {
    await using t = await interactive(() => Promise.reject(new SourceError('transient', 'denied')))
    const stored = await t.store.read('api', 'a')
    await expect(t.pool.login('a', new TestDialogue(), never)).rejects.toThrow('denied')
    expect(t.state()).toBe('revoked')
    expect(t.credential().lastError).toBe('login needed')
    expect(await t.store.read('api', 'a')).toEqual(stored)
  })

  test('leaves the token of before in service until it has worked', async () => {
    const person = gate<TokenSet>()
    await using t = await interactive(
      () => person.promise,
      async () => undefined,
    )
    const waiting = t.pool.login('a', new TestDialogue(), never)
    expect(t.lease().token.reveal()).toBe('a-1')
    person.open(token(t.clock, { refreshToken: undefined }))
    await waiting
    expect(t.lease()).toMatchObject({ generation: 2 })
    // What the login gave stands for itself: the refresh token of before belongs to another login.
    expect((await t.store.read('api', 'a'))?.refreshToken).toBeUndefined()
  })

  test('supersedes a refresh that runs', async () => {
    const busy = gate()
    const person = gate<TokenSet>()
    await using t = await interactive(
      () => person.promise,
      async () => undefined,
    )
    t.source('a').script = async () => {
      await busy.promise
      return undefined
    }
    const refreshing = t.pool.refresh('a').catch(() => {})
    const waiting = t.pool.login('a', new TestDialogue(), never)
    person.open(token(t.clock))
    await waiting
    busy.open()
    await refreshing
    expect(t.lease().token.reveal()).toBe('by hand')
    expect((await t.store.read('api', 'a'))?.token?.reveal()).toBe('by hand')
  })

  test('can be had only once at a time', async () => {
    const person = gate<TokenSet>()
    await using t = await interactive(() => person.promise)
    const first = t.pool.login('a', new TestDialogue(), never)
    await expect(t.pool.login('a', new TestDialogue(), never)).rejects.toThrow(/under way already/)
    person.open(token(t.clock))
    await first
    expect(t.state()).toBe('active')
  })

  test('ends when it is given up, when the pool closes and when the credential leaves', async () => {
    const signals: AbortSignal[] = []
    await using t = await interactive((_dialogue, { signal }) => {
      signals.push(signal)
      return new Promise(() => {})
    })
    const abort = new AbortController()
    const given = t.pool.login('a', new TestDialogue(), abort.signal)
    abort.abort()
    await expect(given).rejects.toThrow('the login was cancelled')
    const leaving = t.pool.login('a', new TestDialogue(), never)
    await t.pool.apply(poolConfig([credential('b')]))
    await expect(leaving).rejects.toThrow(/configuration of the credential has changed/)
    const closing = t.pool.login('b', new TestDialogue(), never)
    await t.pool.close()
    await expect(closing).rejects.toThrow(/shutting down/)
    expect(signals.map(({ aborted }) => aborted)).toEqual([true, true, true])
  })

  test('of a source that needs nobody gets a token afresh, revoked or not', async () => {
    await using t = await TestPool.open(poolConfig([credential('a')]), {
      prepare: (source) => {
        source.script = () => Promise.reject(needed)
      },
    })
    expect(t.state()).toBe('revoked')
    await expect(t.pool.login('a', new TestDialogue(), never)).rejects.toMatchObject({
      code: 'SOURCE_REVOKED',
    })
    expect(t.state()).toBe('revoked')
    t.source('a').script = async () => undefined
    await t.pool.login('a', new TestDialogue(), never)
    expect(t.state()).toBe('active')
    const { generation } = t.credential()
    await t.pool.login('a', new TestDialogue(), never)
    expect(t.credential().generation).toBe(generation + 1)
  })
})

test('the key that tokens are bound to survives a restart with them', async () => {
  const dpopKey = DpopKey.generate()
  const t = await TestPool.open(poolConfig([credential('a')]), {
    crashes: true,
    prepare: (source) => {
      source.script = async () => ({ dpopKey })
    },
  })
  expect(t.lease().dpopKey).toBe(dpopKey)
  await using again = await TestPool.open(poolConfig([credential('a')]), {
    store: t.store,
    clock: t.clock,
    cold: true,
  })
  expect(again.lease().token.reveal()).toBe('a-1')
  expect(again.lease().dpopKey?.secret.reveal()).toBe(dpopKey.secret.reveal())
})
