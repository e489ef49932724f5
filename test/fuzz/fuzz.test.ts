import fc from 'fast-check'
import { test } from 'vitest'
import { config, har } from './documents.ts'
import { answers, requestParser, responseParser, wire } from './messages.ts'
import { headers, hosts, paths, verdicts } from './routing.ts'

/**
 * As a part of the tests, a fixed number of runs from a fixed seed. `npm run fuzz` gives it time and another seed each
 * time; `FUZZ_SEED=N npm run fuzz` repeats one, `FUZZ_SECONDS=N` gives another time to all targets together.
 */
const TARGETS = [
  requestParser,
  responseParser,
  wire,
  answers,
  hosts,
  paths,
  headers,
  verdicts,
  config,
  har,
]
const seconds = Number(process.env.FUZZ_SECONDS ?? 0)
const seed = Number(process.env.FUZZ_SEED || (seconds > 0 ? Date.now() % 2 ** 31 : 1))
const share = (seconds * 1000) / TARGETS.length

test.each(TARGETS)('$name', { timeout: share + 60_000 }, async (target) => {
  await target.open?.()
  try {
    const limits =
      seconds > 0
        ? { numRuns: 2 ** 31, interruptAfterTimeLimit: share, markInterruptAsFailure: false }
        : { numRuns: target.runs }
    const result = await fc.check(target.property() as fc.IAsyncProperty<unknown>, {
      seed,
      ...limits,
    })
    if (seconds > 0) process.stdout.write(`${target.name}: ${result.numRuns} runs, seed ${seed}\n`)
    if (result.failed)
      throw new Error(fc.defaultReportMessage(result), { cause: result.errorInstance })
  } finally {
    await target.close?.()
  }
})
