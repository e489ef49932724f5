/** Something that may not be known. */
export const UNKNOWN = '–'

/** `95 s`, `12 min`, `3 h`, `2 d`: the two digits that matter. */
export function duration(seconds: number | null | undefined): string {
  if (seconds === null || seconds === undefined) return UNKNOWN
  const size = Math.abs(seconds)
  if (size < 120) return `${Math.round(seconds)} s`
  if (size < 7200) return `${Math.round(seconds / 60)} min`
  if (size < 172_800) return `${Math.round(seconds / 3600)} h`
  return `${Math.round(seconds / 86_400)} d`
}

export function milliseconds(ms: number | null | undefined): string {
  if (ms === null || ms === undefined) return UNKNOWN
  if (ms < 10) return `${ms.toFixed(1)} ms`
  return ms < 10_000 ? `${Math.round(ms)} ms` : duration(ms / 1000)
}

export function percent(share: number | null | undefined, digits = 0): string {
  return share === null || share === undefined ? UNKNOWN : `${(share * 100).toFixed(digits)} %`
}

export function bytes(count: number): string {
  if (count < 1024) return `${count} B`
  if (count < 1024 ** 2) return `${(count / 1024).toFixed(1)} KiB`
  return `${(count / 1024 ** 2).toFixed(1)} MiB`
}

export const whole = (count: number): string => count.toLocaleString('en')

/** Local wall time to the second. */
export function clockTime(iso: string | number): string {
  return new Date(iso).toLocaleTimeString(undefined, { hour12: false })
}

/** `in 12 min`, `3 s ago`. */
export function relative(iso: string, now: number): string {
  const seconds = (Date.parse(iso) - now) / 1000
  if (Math.abs(seconds) < 1) return 'now'
  return seconds > 0 ? `in ${duration(seconds)}` : `${duration(-seconds)} ago`
}

/** `1 credential`, `3 credentials`. */
export const count = (number: number, noun: string): string =>
  `${whole(number)} ${noun}${number === 1 ? '' : 's'}`
