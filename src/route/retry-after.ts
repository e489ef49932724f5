import { headerValue } from '../lib/headers.ts'

/** An epoch in seconds is at least this; anything smaller counts seconds from now. */
const EPOCH_SECONDS = 1e9

/**
 * How long upstream asks to wait, in ms: `Retry-After` (RFC 9110 §10.2.3), else the `RateLimit` field's reset
 * (`t=` of the IETF draft, or `reset=` of its earlier form), else `RateLimit-Reset`, `X-RateLimit-Reset`,
 * `X-Rate-Limit-Reset` (seconds, or an epoch in seconds or ms). Undefined when none can be read.
 */
export function retryAfterMs(headers: readonly string[], now: number): number | undefined {
  const retryAfter = headerValue(headers, 'retry-after')?.trim()
  if (retryAfter) {
    if (/^\d+(\.\d+)?$/.test(retryAfter)) return Number(retryAfter) * 1000
    // Only a date begins with its weekday (RFC 9110 §5.6.7); Date.parse reads one into `later 9` too.
    const date = /^(?:mon|tue|wed|thu|fri|sat|sun)/i.test(retryAfter)
      ? Date.parse(retryAfter)
      : Number.NaN
    if (!Number.isNaN(date)) return Math.max(0, date - now)
  }
  const rateLimit = headerValue(headers, 'ratelimit')
  const reset =
    (rateLimit && /(?:^|[;,\s])(?:t|reset)\s*=\s*(\d+)/i.exec(rateLimit)?.[1]) ||
    headerValue(headers, 'ratelimit-reset') ||
    headerValue(headers, 'x-ratelimit-reset') ||
    headerValue(headers, 'x-rate-limit-reset')
  if (!reset || !/^\s*\d+(\.\d+)?\s*$/.test(reset)) return undefined
  const value = Number(reset)
  if (value >= EPOCH_SECONDS * 1000) return Math.max(0, value - now)
  if (value >= EPOCH_SECONDS) return Math.max(0, value * 1000 - now)
  return value * 1000
}
