import { METHODS } from 'node:http'
import fc from 'fast-check'
import { expect, test } from 'vitest'
import { someRequests, someResponse, someSizes } from './messages.ts'
import { nodeRequests, nodeResponse } from './node.ts'
import { type Found, latin1, readRequests, readResponse } from './support.ts'

/**
 * Whatever our parser takes for a message, Node's own (llhttp) must take for the same message: what two servers
 * in a row read differently is how requests are smuggled.
 */

const RUNS = 10_000

/** Trailers that our parser drops are no difference. */
function comparable({ start, headers, body }: Found) {
  return { start, headers, body }
}

test('requests that we accept mean the same to Node', { timeout: 60_000 }, async () => {
  let accepted = 0
  await fc.assert(
    fc.asyncProperty(someRequests, someSizes, async (text, sizes) => {
      const bytes = latin1(text)
      const { messages, heads } = readRequests(bytes, sizes)
      // Behind a request to upgrade, Node waits for what becomes of it.
      const upgrade = heads.findIndex((head) => head.upgrade !== undefined)
      const known = upgrade === -1 ? messages : messages.slice(0, upgrade)
      // Node knows a list of methods; a name that a mutation made is no matter of framing.
      const strange = known.findIndex(({ start }) => !METHODS.includes(start.split(' ')[0] ?? ''))
      const ours = (strange === -1 ? known : known.slice(0, strange)).map(comparable)
      accepted += ours.length
      if (ours.length === 0) return
      const theirs = (await nodeRequests(bytes, sizes)).map(comparable)
      expect(theirs.slice(0, ours.length)).toEqual(ours)
    }),
    { numRuns: RUNS },
  )
  expect(accepted).toBeGreaterThan(RUNS / 8)
})

test('responses that we accept mean the same to Node', { timeout: 60_000 }, async () => {
  let accepted = 0
  await fc.assert(
    fc.asyncProperty(someResponse, someSizes, async (text, sizes) => {
      const bytes = latin1(text)
      const found = readResponse(bytes, sizes)
      const [ours] = found.messages
      if (!ours || found.heads.some(({ upgrade }) => upgrade !== undefined)) return
      accepted += 1
      const theirs = await nodeResponse(bytes, sizes)
      expect(theirs && comparable(theirs)).toEqual(comparable(ours))
    }),
    { numRuns: RUNS },
  )
  expect(accepted).toBeGreaterThan(RUNS / 8)
})
