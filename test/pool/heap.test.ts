import fc from 'fast-check'
import { expect, test } from 'vitest'
import { Heap } from '../../src/pool/heap.ts'

test('the best match is the first in order that matches, whatever came, moved and left', () => {
  const change = fc.record({ item: fc.nat(30), rank: fc.nat(100), leaves: fc.boolean() })
  fc.assert(
    fc.property(fc.array(change, { size: 'max', maxLength: 120 }), fc.nat(4), (changes, wanted) => {
      const items = Array.from({ length: 31 }, (_, id) => ({ id, rank: id, slots: [-1] }))
      const heap = new Heap<(typeof items)[0]>(0, (a, b) => a.rank < b.rank)
      for (const { item, rank, leaves } of changes) {
        const one = items[item] as (typeof items)[0]
        one.rank = rank
        if (leaves) heap.delete(one)
        else heap.put(one)
        const present = items.filter((each) => heap.has(each))
        const lowest = (of: typeof items) => Math.min(...of.map((each) => each.rank))
        expect(heap.size).toBe(present.length)
        expect(heap.top?.rank ?? Number.POSITIVE_INFINITY).toBe(lowest(present))
        const matches = present.filter(({ id }) => id % 5 === wanted)
        const best = heap.best(({ id }) => id % 5 === wanted)
        expect(best?.rank ?? Number.POSITIVE_INFINITY).toBe(lowest(matches))
        // A rank that changes is put again before anything else happens.
        if (leaves) one.rank = Number.POSITIVE_INFINITY
      }
    }),
    { numRuns: 60 },
  )
})
