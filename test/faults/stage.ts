import { expect } from 'vitest'
import { startApp, type TestApp } from '../support/app.ts'
import { ManualClock } from '../support/manual-clock.ts'
import { trusting } from '../support/protected-origin.ts'

/** Of every limit of the configuration; the client may be silent as long. */
export const LIMIT_MS = 60_000
/** More than any of them together. */
const LONG_MS = 10 * LIMIT_MS

const TICK_MS = 10
/** Of all limits there are, none is as short. */
const STEP_MS = 4000

/** A proxy whose time a test can have pass. */
export interface Stage extends AsyncDisposable {
  readonly app: TestApp
  readonly authority: string
  readonly clock: ManualClock
}

/** `pools`: beside the one that all paths of all names belong to. */
export async function startStage(
  port: number,
  pools: (authority: string) => object = () => ({}),
  names: readonly string[] = ['api.test'],
): Promise<Stage> {
  const clock = new ManualClock(Date.now())
  // Time passes as everywhere, until a test has more of it pass.
  const ticking = setInterval(() => clock.advance(TICK_MS), TICK_MS)
  const authority = `api.test:${port}`
  const limit = `${LIMIT_MS}ms`
  const app = await startApp(
    {
      server: { idleTimeout: limit },
      upstream: { ...trusting(names), headersTimeout: limit, bodyTimeout: limit },
      pools: {
        api: {
          targets: names.map((name) => `${name}:${port}`),
          credentials: [{ id: 'a', source: { type: 'static', token: 'token-of-a' } }],
        },
        ...pools(authority),
      },
    },
    undefined,
    clock,
  )
  return {
    app,
    authority,
    clock,
    async [Symbol.asyncDispose]() {
      clearInterval(ticking)
      await app[Symbol.asyncDispose]()
    },
  }
}

/** Requests that have a token or wait for one. */
export async function underway({ app }: Stage): Promise<number> {
  let count = 0
  const { pools } = await app.admin('/api/pools')
  for (const { waiting, credentials } of pools) {
    count += waiting
    for (const { inFlight } of credentials) count += inFlight
  }
  return count
}

/** Lets time pass until it is so; returns how much it was, and fails when it never is. */
export async function passUntil(
  { clock }: Stage,
  condition: () => boolean | Promise<boolean>,
): Promise<number> {
  const start = clock.monotonic()
  for (;;) {
    // What has been sent is on its way.
    await new Promise((resolve) => setTimeout(resolve, 2))
    const passed = clock.monotonic() - start
    if (await condition()) return passed
    expect(passed).toBeLessThan(LONG_MS)
    await clock.run(STEP_MS)
  }
}
