import { afterAll, beforeAll, expect, test } from 'vitest'
import type { Client } from './matrix.ts'
import { openStage, type SeenArrival, type Stage } from './stage.ts'
import { BODIES, STEPS, sha256 } from './steps.ts'
import { record } from './table.ts'

/** A JVM or a browser on a machine that has much else to do. */
const TIMEOUT_MS = 60_000

/** What each step has to have said: the bodies' hashes; git's first is the commit. */
function expected(client: Client, stage: Stage): Record<string, string> {
  const steps = STEPS.filter((step) => !client.without?.includes(step)).flatMap((step) =>
    step === 'keep-alive' ? (client.id === 'git' ? [] : ['keep-1', 'keep-2']) : [step],
  )
  const commit = Buffer.from(`${stage.git?.head}\n`)
  return Object.fromEntries(
    steps.map((step) => {
      const isCommit = client.id === 'git' && (step === 'get' || step === 'healed')
      return [step, sha256(isCommit ? commit : (BODIES[step] as Buffer))]
    }),
  )
}

/** Whether a connection carried more than one request, by the end of the step that is about it. */
function keptAlive(arrivals: readonly SeenArrival[]): boolean {
  const last = arrivals.findLastIndex(
    ({ path }) => path === '/keep/2' || /git-upload-pack/.test(path),
  )
  const { connections } = arrivals[last] ?? { connections: Number.POSITIVE_INFINITY }
  return connections <= last
}

/** Runs every client of a group under `cupbearer run`, one after the other, and judges what came of it. */
export function judge(clients: readonly Client[]): void {
  let stage: Stage
  beforeAll(async () => {
    stage = await openStage(clients)
  })
  afterAll(() => stage[Symbol.asyncDispose]())

  test.each(clients)(
    '$name does all that is in its nature',
    async (client) => {
      const { code, errors, said, arrivals } = await stage.perform(client)
      if (client.fails && arrivals.length === 0) {
        expect(said.filter(({ status }) => status !== 0)).toEqual([])
        return record(client)
      }
      const hashes = said.filter(({ sha256 }) => sha256).map(({ step, sha256 }) => [step, sha256])
      expect(Object.fromEntries(hashes), errors).toMatchObject(expected(client, stage))
      expect(said.filter(({ status }) => status !== undefined && status !== 200)).toEqual([])
      expect(code, errors).toBe(0)
      if (client.speaks) expect(said).toContainEqual({ step: 'version', version: client.speaks })
      // The origin turned one request away, and the client never saw it.
      const healed = arrivals.filter(({ admitted }) => !admitted)
      expect(healed).toHaveLength(1)
      expect(healed[0]?.path).toContain('healed')
      if (!client.without?.includes('keep-alive')) expect(keptAlive(arrivals)).toBe(true)
      return record(client)
    },
    TIMEOUT_MS,
  )
}
