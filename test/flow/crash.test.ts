import { once } from 'node:events'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { systemClock } from '../../src/lib/clock.ts'
import { openStore } from '../../src/store/open.ts'
import type { CredentialRecord } from '../../src/store/store.ts'
import { type AuthServer, startAuthServer, type TokenCall } from '../support/auth-server.ts'
import { type ChildApp, ChildFolder } from '../support/child-app.ts'
import { type Origin, startOrigin } from '../support/origin.ts'
import { until } from '../support/until.ts'

/** Two proxies at a time, each with its own account: one for each core. */
const LANES = 2
const KILLS = 50
/** Of the kills, so many hit a process that is still starting. */
const EARLY = 0.4
/** The others come within that time after one of the next token requests. */
const ROTATIONS = 4
const AFTER_MS = 40
/** Between rotations, so that not every kill falls into one. */
const PAUSE_MS = 30

/** One proxy that is killed and started again, with its authorization server and its API. */
class Lane implements AsyncDisposable {
  readonly startMs: number[] = []
  kills = 0
  /** Kills between the endpoint's answer and its being stored. */
  lost = 0
  readonly #auth: AuthServer
  readonly #origin: Origin
  readonly #folder: ChildFolder
  /** Tokens that the API has seen. */
  readonly #seen: Set<string>
  /** The refresh token that the configuration holds. */
  #seed: string
  /** Calls of the token endpoint before the account was logged in last. */
  #past = 0

  private constructor(auth: AuthServer, origin: Origin, seen: Set<string>, seed: string) {
    this.#auth = auth
    this.#origin = origin
    this.#seen = seen
    this.#seed = seed
    this.#folder = new ChildFolder(this.#config())
  }

  static async create(): Promise<Lane> {
    const auth = await startAuthServer({ accessTokenTtlSeconds: 3 })
    const seen = new Set<string>()
    const origin = await startOrigin({
      handler: async (request, response) => {
        const token = request.headers.authorization?.slice(7) ?? ''
        seen.add(token)
        response.writeHead((await auth.isActive(token)) ? 200 : 401).end()
      },
    })
    return new Lane(auth, origin, seen, await auth.issueRefreshToken())
  }

  #config(): object {
    const { tokenUrl, clientId, clientSecret } = this.#auth
    const source = { type: 'oauth2', grant: 'refresh_token', refreshToken: this.#seed }
    return {
      store: 'file:data/store.db',
      pools: {
        api: {
          targets: [`http://127.0.0.1:${this.#origin.port}`],
          queue: { wait: '10s' },
          credentials: [{ id: 'a', source: { ...source, tokenUrl, clientId, clientSecret } }],
        },
      },
    }
  }

  /** Starts the proxy, kills it at a random moment, and holds what it stored against what others saw. */
  async round(): Promise<void> {
    if (Math.random() < EARLY) {
      const child = this.#folder.spawn()
      child.stdout.resume()
      child.stderr.resume()
      const typical = this.startMs.at(-1) ?? 1000
      await new Promise((resolve) => setTimeout(resolve, Math.random() * typical))
      const closed = once(child, 'close')
      child.kill('SIGKILL')
      await closed
    } else {
      await using child = await this.#started()
      const calls = this.#auth.calls.length + 1 + Math.floor(Math.random() * ROTATIONS)
      const busy = Promise.all([this.#rotate(child), this.#ask(child)])
      while (this.#auth.calls.length < calls) await new Promise((turn) => setImmediate(turn))
      await new Promise((resolve) => setTimeout(resolve, Math.random() * AFTER_MS))
      await child.kill()
      await busy
    }
    this.kills += 1
    if (await this.#judge()) await this.#logInAgain()
  }

  /** Kills the proxy when an answer of the endpoint has got lost on its way. */
  async lostAnswer(): Promise<void> {
    await using child = await this.#started()
    // At that very moment: a while later it would have asked again.
    this.#auth.fail({ lost: () => void child.child.kill('SIGKILL') })
    await child.admin('/api/pools/api/credentials/a/refresh', 'POST').catch(() => {})
    await child.kill()
    this.#auth.fail(undefined)
    this.kills += 1
    expect(await this.#judge()).toBe(true)
    await this.#logInAgain()
  }

  /** The pool comes up: the first request is served. */
  async #started(): Promise<ChildApp> {
    const child = await this.#folder.start()
    this.startMs.push(child.startMs)
    expect(await this.#status(child)).toBe(200)
    return child
  }

  async #status(child: ChildApp): Promise<number> {
    return (await child.client().request(`http://127.0.0.1:${this.#origin.port}/`)).status
  }

  async #rotate(child: ChildApp): Promise<void> {
    await untilKilled(child, async () => {
      await child.admin('/api/pools/api/credentials/a/refresh', 'POST')
      await new Promise((resolve) => setTimeout(resolve, Math.random() * PAUSE_MS))
    })
  }

  async #ask(child: ChildApp): Promise<void> {
    await untilKilled(child, async () => expect(await this.#status(child)).toBe(200))
  }

  get #calls(): readonly TokenCall[] {
    return this.#auth.calls.slice(this.#past)
  }

  #triesWith(refreshToken: string): number {
    return this.#calls.filter(({ presented }) => presented === refreshToken).length
  }

  async #stored(): Promise<CredentialRecord | undefined> {
    const url = `file:${join(this.#folder.path, 'data', 'store.db')}`
    const store = await openStore(url, { clock: systemClock, key: undefined })
    try {
      return await store.read('api', 'a')
    } finally {
      await store.close()
    }
  }

  /** Whether the endpoint has given an answer for the refresh token that is stored: nobody has that answer. */
  async #judge(): Promise<boolean> {
    await this.#auth.idle()
    const stored = await this.#stored()
    const issued = this.#calls.flatMap((call) => call.issued ?? [])
    const storedToken = stored?.token?.reveal()
    const at = issued.findIndex(({ accessToken }) => accessToken === storedToken)
    // What the API has seen was stored before it.
    expect(issued.findLastIndex(({ accessToken }) => this.#seen.has(accessToken))).toBeLessThan(
      at + 1,
    )
    const current = at < 0 ? this.#seed : (issued[at]?.refreshToken as string)
    if (at >= 0) expect(stored?.refreshToken?.reveal()).toBe(current)
    expect(stored?.revoked).toBeUndefined()
    // Every refresh token was presented once, and only the last answer can be one that nobody has.
    for (const { presented } of this.#calls) expect(this.#triesWith(presented as string)).toBe(1)
    expect(issued.length - 1 - at).toBeLessThanOrEqual(1)
    expect(this.#auth.reuseDetected).toBe(this.lost)
    const lost = issued.length - 1 - at === 1
    expect(this.#triesWith(current)).toBe(lost ? 1 : 0)
    return lost
  }

  /** After a lost answer: one try, words that say what to do, no further try, and a new login heals it. */
  async #logInAgain(): Promise<void> {
    this.lost += 1
    const { length } = this.#auth.calls
    await using child = await this.#folder.start()
    this.startMs.push(child.startMs)
    const credential = async () => (await child.admin('/api/pools/api')).credentials[0]
    await until(async () => (await credential()).state === 'revoked')
    expect((await credential()).lastError).toMatch(/invalid_grant.*log in again/)
    expect(await this.#status(child)).toBe(503)
    expect(this.#auth.calls).toHaveLength(length + 1)
    expect(this.#auth.reuseDetected).toBe(this.lost)

    this.#past = length + 1
    this.#seed = await this.#auth.issueRefreshToken()
    await this.#folder.save(this.#config())
    await until(async () => (await credential()).state === 'active')
    expect(await this.#status(child)).toBe(200)
    await child.kill()
    this.kills += 1
    expect(await this.#judge()).toBe(false)
  }

  get tokens(): number {
    return this.#auth.calls.length
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#folder[Symbol.dispose]()
    await this.#origin[Symbol.asyncDispose]()
    await this.#auth[Symbol.asyncDispose]()
  }
}

/** Does something again and again; only the kill may make it fail. */
async function untilKilled({ child }: ChildApp, job: () => Promise<void>): Promise<void> {
  while (!child.killed) {
    await job().catch((error) => {
      if (!child.killed) throw error
    })
  }
}

test('100 kills while tokens rotate lose no refresh token and use none twice, but for answers cut off on their way', async ({
  annotate,
}) => {
  const lanes = await Promise.all(Array.from({ length: LANES }, () => Lane.create()))
  try {
    let failed = false
    const results = await Promise.allSettled(
      lanes.map(async (lane) => {
        try {
          await lane.lostAnswer()
          while (lane.kills < KILLS && !failed) await lane.round()
        } catch (error) {
          failed = true
          throw error
        }
      }),
    )
    for (const result of results) if (result.status === 'rejected') throw result.reason
    for (const lane of lanes) expect(lane.tokens).toBeGreaterThan(lane.kills / 2)
    const sum = (of: (lane: Lane) => number) => lanes.reduce((all, lane) => all + of(lane), 0)
    const starts = lanes.flatMap(({ startMs }) => startMs).toSorted((a, b) => a - b)
    await annotate(
      `${sum(({ kills }) => kills)} kills, ${sum(({ lost }) => lost)} of them between an answer and its storing; ` +
        `${sum(({ tokens }) => tokens)} token requests; start to ready ${Math.round(starts[starts.length >> 1] ?? 0)} ms ` +
        `(median), ${Math.round(starts.at(-1) ?? 0)} ms (worst)`,
    )
  } finally {
    for (const lane of lanes) await lane[Symbol.asyncDispose]()
  }
}, 300_000)
