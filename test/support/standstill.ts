import { beforeEach } from 'vitest'
import { Pauses } from './pauses.ts'

/** Longer than what tests allow for where they measure time. */
const STANDSTILL_MS = 300

/**
 * A test that fails while its process could not run tells of the machine, not of the product: it runs once more, and
 * says so. Every other failure is one at once.
 */
beforeEach(({ task }) => {
  const pauses = new Pauses()
  const condition = () => {
    const ms = Math.round(pauses.longest)
    if (ms < STANDSTILL_MS) return false
    process.stderr.write(`  once more, as its process stood still for ${ms} ms: ${task.name}\n`)
    return true
  }
  // Vitest drops a function that is given for all in its configuration.
  Object.assign(task, { retry: { count: 1, condition } })
  return () => pauses[Symbol.dispose]()
})
