import { expect, test } from 'vitest'
import { Pauses } from '../support/pauses.ts'
import type { Toxic } from '../support/toxic-proxy.ts'
import { observe, PHASES, type Phase, type Seen, SHORT_MS } from './legs.ts'
import { expectOnPage } from './table.ts'

const TOXICS: readonly (Toxic & { readonly name: string })[] = [
  { name: '100 ms late', kind: 'latency', ms: 100 },
  { name: 'slow line', kind: 'bandwidth', bytesPerSecond: 100_000 },
  { name: 'byte by byte', kind: 'slice' },
  { name: 'garbage', kind: 'garbage' },
  { name: 'half-close', kind: 'half-close' },
  { name: 'reset', kind: 'reset' },
  { name: 'black hole', kind: 'black-hole' },
]
/** Again where the machine stood still meanwhile: which limit ends silence first would then be chance. */
async function observed(phase: Phase, toxic: Toxic): Promise<Seen> {
  for (let tries = 1; ; tries++) {
    using pauses = new Pauses()
    const seen = await observe(phase, toxic)
    if (pauses.longest < 300 || tries === 4) return seen
  }
}

/** Most of a case is waiting. */
const PARALLEL = 8

test('under each fault at each phase of each connection the client gets a clear end, nothing leaks, and the next request works', async () => {
  const cases = PHASES.flatMap((phase) => TOXICS.map((toxic) => ({ phase, toxic })))
  const seen = new Map<string, Seen>()
  const key = (phase: Phase, toxic: string) => `${phase.leg}, ${phase.name}, ${toxic}`
  const left = [...cases]
  const lane = async () => {
    for (let next = left.shift(); next; next = left.shift())
      seen.set(key(next.phase, next.toxic.name), await observed(next.phase, next.toxic))
  }
  await Promise.all(Array.from({ length: PARALLEL }, lane))
  const wrong = [...seen].filter(
    ([name, { leaks, recovered, outcome, elapsedMs }]) =>
      leaks.length > 0 ||
      !recovered ||
      elapsedMs > 20_000 ||
      // Silence ends at a limit, not before.
      (name.endsWith('black hole') && outcome !== '200' && elapsedMs < SHORT_MS - 50),
  )
  const rows = PHASES.map((phase) => [
    phase.leg,
    phase.name,
    ...TOXICS.map(({ name }) => seen.get(key(phase, name))?.outcome ?? 'not seen'),
  ])
  expect(wrong).toEqual([])
  const head = ['between Cupbearer and the', 'phase', ...TOXICS.map(({ name }) => name)]
  expectOnPage('network', head, rows)
}, 240_000)
