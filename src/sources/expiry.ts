import { parseDuration } from '../lib/units.ts'

/** An end as `TokenFacts` takes it: seconds from now, or ms since the epoch. */
export interface Expiry {
  readonly expiresIn?: number
  readonly expiresAt?: number
}

/** 31 years: a larger number of seconds is a time, not a lifetime. */
const MAX_LIFETIME_SECONDS = 1e9

/** As seconds since the epoch it would be the year 5138, so it is in milliseconds. */
const FIRST_MILLISECONDS = 1e11

const ISO_TIME =
  /^\d{4}-\d{2}-\d{2}(?:[T ]\d{2}:\d{2}(?::\d{2}(?:[.,]\d+)?)?)?(Z|[+-]\d{2}:?\d{2})?$/i
const HTTP_DATE = /^[A-Za-z]{3}, \d{1,2}[ -][A-Za-z]{3}[ -]\d{2,4} [\d:]{8} GMT$/

/**
 * Reads what servers write about a token's end:
 * - `3600`: seconds; a number from 1e9 on is a time since the epoch in s, from 1e11 on in ms
 * - `900000ms`, `15m`, `1h`, `30d`: a duration
 * - `2030-01-31T12:00:00Z` (UTC where no zone stands) or an HTTP date
 *
 * Anything else, zero too, leaves the end unknown: a token that came is not lost for it.
 */
export function readExpiry(text: string): Expiry {
  const value = text.trim()
  if (/^\d{1,16}(?:\.\d{1,9})?$/.test(value)) {
    const number = Number(value)
    if (number < MAX_LIFETIME_SECONDS) return { expiresIn: number }
    return { expiresAt: Math.round(number < FIRST_MILLISECONDS ? number * 1000 : number) }
  }
  const duration = parseDuration(value.replace(/\s+/g, ''))
  if (duration !== undefined) return { expiresIn: duration / 1000 }
  const time = readTime(value)
  return time === undefined ? {} : { expiresAt: time }
}

function readTime(text: string): number | undefined {
  const iso = ISO_TIME.exec(text)
  if (!iso && !HTTP_DATE.test(text)) return undefined
  const date = iso ? text.replace(' ', 'T').replace(',', '.') : text
  // The language reads a time without zone as local time; servers mean UTC.
  const time = Date.parse(iso && !iso[1] && date.includes('T') ? `${date}Z` : date)
  return Number.isFinite(time) ? time : undefined
}
