import { vi } from 'vitest'

/** Looks now and then until it is so; a failure to look is one at once. */
export async function until(condition: () => boolean | Promise<boolean>): Promise<void> {
  await vi.waitUntil(condition, { interval: 5, timeout: 60_000 })
}

/** A figure, once it has stayed the same from one look to the next, a tenth of a second later. */
export async function settled(figure: () => number): Promise<number> {
  let before = -1
  const isStill = () => {
    const now = figure()
    const same = now === before
    before = now
    return same
  }
  await vi.waitUntil(isStill, { interval: 100, timeout: 60_000 })
  return figure()
}
