/** Parsers of the configuration's units; each returns undefined for what it cannot read. */

const DURATION: Record<string, number> = { ms: 1, s: 1e3, m: 6e4, h: 36e5, d: 864e5 }
const SIZE: Record<string, number> = { B: 1, KiB: 2 ** 10, MiB: 2 ** 20, GiB: 2 ** 30 }

/** `"250ms"`, `"30s"`, `"5m"`, `"1h"`, `"1d"` → ms. */
export function parseDuration(text: string): number | undefined {
  const match = /^(\d+(?:\.\d+)?)(ms|s|m|h|d)$/.exec(text)
  if (!match) return undefined
  return Number(match[1]) * (DURATION[match[2] as string] as number)
}

/** `"64KiB"`, `"10MiB"` → bytes. */
export function parseSize(text: string): number | undefined {
  const match = /^(\d+)(B|KiB|MiB|GiB)$/.exec(text)
  if (!match) return undefined
  return Number(match[1]) * (SIZE[match[2] as string] as number)
}

/** At most `count` in any window of `windowMs`. */
export interface Rate {
  readonly count: number
  readonly windowMs: number
}

/** `"10/s"`, `"450/m"`, `"100/10s"`, `"10000/d"` → count and window. */
export function parseRate(text: string): Rate | undefined {
  const match = /^(\d+)\/(\d*)(ms|s|m|h|d)$/.exec(text)
  if (!match) return undefined
  const count = Number(match[1])
  const windowMs = (match[2] ? Number(match[2]) : 1) * (DURATION[match[3] as string] as number)
  return count > 0 && windowMs > 0 ? { count, windowMs } : undefined
}
