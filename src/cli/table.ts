/** Text for a terminal. */

/** What comes from a token or from upstream may hold escape sequences; a terminal must not see them. */
export const plain = (text: string): string => text.replace(/[\x00-\x1f\x7f-\x9f]/g, '�')

/**
 * Columns aligned by two spaces; figures are set to the right. `paint` puts colours round a cell that has its width
 * already; the head is row -1.
 */
export function table(
  head: readonly string[],
  rows: readonly (readonly string[])[],
  paint: (cell: string, column: number, row: number) => string = (cell) => cell,
): string {
  const lines = [head, ...rows].map((row) => row.map(plain))
  const widths = head.map((_, column) =>
    Math.max(...lines.map((row) => (row[column] ?? '').length)),
  )
  const figures = head.map((_, column) =>
    rows.every((row) => /^(?:—|[\d.,]+(?: ?%|[a-z]+(?: \d+[a-z]+)?)?)$/.test(row[column] ?? '')),
  )
  return lines
    .map((row, index) =>
      row
        .map((cell, column) => {
          const width = widths[column] as number
          const set = figures[column] && rows.length > 0 ? cell.padStart(width) : cell.padEnd(width)
          return paint(set, column, index - 1)
        })
        .join('  ')
        .trimEnd(),
    )
    .join('\n')
}

/** `1h 5m`, `2m 30s`, `12s`; the two greatest units. */
export function duration(seconds: number): string {
  const units: [number, string][] = [
    [86_400, 'd'],
    [3600, 'h'],
    [60, 'm'],
    [1, 's'],
  ]
  let rest = Math.max(0, Math.round(seconds))
  const parts: string[] = []
  for (const [size, unit] of units) {
    const count = Math.floor(rest / size)
    rest -= count * size
    if (count > 0 && parts.length < 2) parts.push(`${count}${unit}`)
    else if (parts.length > 0) break
  }
  return parts.join(' ') || '0s'
}

export const percent = (share: number): string => `${(share * 100).toFixed(1)} %`

/** Milliseconds, to the tenth below ten. */
export const milliseconds = (ms: number): string => `${ms < 10 ? ms.toFixed(1) : Math.round(ms)} ms`

/** Something that may not be known. */
export function known<T>(value: T | null | undefined, format: (value: T) => string): string {
  return value === null || value === undefined ? '—' : format(value)
}
