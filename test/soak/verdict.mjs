/** Least-squares slope of `[ms, value]` pairs, per minute. */
export function slopePerMinute(points) {
  const n = points.length
  if (n < 2) return 0
  const meanX = points.reduce((sum, [x]) => sum + x, 0) / n
  const meanY = points.reduce((sum, [, y]) => sum + y, 0) / n
  let above = 0
  let below = 0
  for (const [x, y] of points) {
    above += (x - meanX) * (y - meanY)
    below += (x - meanX) ** 2
  }
  return (above / below) * 60_000
}

/** What the run is held against. */
export function judge({ rssSlope, fdSlope, outcomes, upstream, requests, exitCode, minutes }) {
  const failed = requests - (outcomes['200'] ?? 0)
  // Over a short run a few connections more or less are a steep slope.
  const fdBound = Math.max(1, 10 / minutes)
  const rssBound = Math.max(1, 5 / minutes)
  return [
    row('RSS slope, MB/min', rssSlope.toFixed(2), rssSlope < rssBound, `< ${rssBound.toFixed(1)}`),
    row(
      'descriptors, per min',
      fdSlope.toFixed(2),
      Math.abs(fdSlope) < fdBound,
      `± ${fdBound.toFixed(1)}`,
    ),
    row('401s that clients saw', outcomes['401'] ?? 0, !outcomes['401'], '0'),
    row('limit violations', upstream.violations, upstream.violations === 0, '0'),
    row('refresh tokens used twice', upstream.reused, upstream.reused === 0, '0'),
    row(
      'requests not answered 200, ‰',
      ((failed / requests) * 1000).toFixed(3),
      failed / requests < 0.001,
      '< 1',
    ),
    row('exit code after SIGTERM', exitCode, exitCode === 0, '0'),
  ]
}

const row = (name, value, ok, bound) => ({ name, value, ok, bound })
