/** From slices to ratios: medians first, then each figure over `base` or `direct`, as Markdown. */

export const median = (values) => {
  const sorted = values.filter((value) => Number.isFinite(value)).sort((a, b) => a - b)
  if (sorted.length === 0) return undefined
  const middle = sorted.length >> 1
  return sorted.length % 2 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2
}

/** CPU in µs; of no process (direct) there is none. */
const perRequest = (slice) =>
  slice.cpuSeconds > 0 ? (slice.cpuSeconds / slice.requests) * 1e6 : undefined
const perSecond = (slice) => slice.requests / slice.seconds
/** How many cores were at work, on average. */
const coresOfProxy = (slice) =>
  slice.cpuSeconds > 0 ? slice.cpuSeconds / slice.seconds : undefined
const coresOfOthers = (slice) => slice.generatorBusy + slice.originBusy
const MEGABYTES = 10.48576
const NOISE = 0.15
const row = (label, measure, read, over, digits = 2) => ({ label, measure, read, over, digits })
const levels = [1, 16, 64]

export const RATIOS = [
  ...levels.map((n) => row(`CPU per request ÷ base, ${n} conn.`, `c${n}`, perRequest, 'base')),
  ...levels.map((n) => row(`requests/s ÷ direct, ${n} conn.`, `c${n}`, perSecond, 'direct', 3)),
  row('added latency p50 ÷ base, 1 conn.', 'c1', (slice) => slice.p50, 'added'),
  row('added latency p99 ÷ base, 1 conn.', 'c1', (slice) => slice.p99, 'added'),
  row('cold connection, known host: CPU ÷ base', 'cold', perRequest, 'base'),
  row('cold connection, new host: CPU ÷ base', 'newhost', perRequest, 'base'),
  row('resumed TLS session: CPU ÷ base', 'resumed', perRequest, 'base'),
  row('HTTP/2, 4 × 16 streams: CPU per request ÷ own HTTP/1.1', 'h2', perRequest, 'own c64'),
  row('WebSocket messages/s ÷ direct, 16 conn.', 'websocket', perSecond, 'direct', 3),
  row('two workers, 64 conn.: requests/s ÷ one process', 'c64', perSecond, 'one process'),
  row('two workers, 64 conn.: CPU per request ÷ one process', 'c64', perRequest, 'one process'),
  row('two workers, saturated: requests/s ÷ one process', 'saturated', perSecond, 'one process'),
  row(
    'two workers, saturated: CPU per request ÷ one process',
    'saturated',
    perRequest,
    'one process',
  ),
  row('requests/s ÷ embedded store, 64 conn.', 'c64', perSecond, 'cupbearer-full'),
  row('10 MB down: CPU per MB ÷ base', 'download', perRequest, 'base'),
  row('10 MB up: CPU per MB ÷ base', 'upload', perRequest, 'base'),
  row('idle memory ÷ base', 'memory', (sample) => sample.idle, 'base'),
  row('memory per idle connection ÷ base', 'memory', (sample) => sample.perConnection, 'base'),
  row('start to ready ÷ base', 'start', (sample) => sample.ms, 'base'),
]

const ABSOLUTES = [
  ...levels.map((n) => row(`requests/s, ${n} conn.`, `c${n}`, perSecond, undefined, 0)),
  ...levels.map((n) => row(`CPU µs/request, ${n} conn.`, `c${n}`, perRequest, undefined, 0)),
  row('p50 ms, 1 conn.', 'c1', (slice) => slice.p50),
  row('p99 ms, 1 conn.', 'c1', (slice) => slice.p99),
  row('p99 ms, 64 conn.', 'c64', (slice) => slice.p99),
  row('cold connections/s, known host', 'cold', perSecond, undefined, 0),
  row('cold connections/s, new host', 'newhost', perSecond, undefined, 0),
  row('cold connections/s, resumed', 'resumed', perSecond, undefined, 0),
  row('HTTP/2 requests/s, 4 × 16 streams', 'h2', perSecond, undefined, 0),
  row('saturated: requests/s', 'saturated', perSecond, undefined, 0),
  row('saturated: CPU µs/request', 'saturated', perRequest, undefined, 0),
  ...['c64', 'saturated'].flatMap((measure) => [
    row(`${measure}: cores used by the proxy`, measure, coresOfProxy),
    row(`${measure}: cores used by generator and origin`, measure, coresOfOthers),
  ]),
  row('WebSocket messages/s, 16 conn.', 'websocket', perSecond, undefined, 0),
  row('MB/s down', 'download', (slice) => perSecond(slice) * MEGABYTES, undefined, 0),
  row('MB/s up', 'upload', (slice) => perSecond(slice) * MEGABYTES, undefined, 0),
  row('idle MB', 'memory', (sample) => sample.idle / 1e6, undefined, 0),
  row('KB per idle connection', 'memory', (sample) => sample.perConnection / 1e3, undefined, 0),
  row('start to ready ms', 'start', (sample) => sample.ms, undefined, 0),
]

/** What the product must reach with every feature on. */
const MUST = [
  ['CPU per request ÷ base, 16 conn.', 1.25],
  ['CPU per request ÷ base, 64 conn.', 1.25],
  ['added latency p50 ÷ base, 1 conn.', 1.2],
  ['added latency p99 ÷ base, 1 conn.', 1.5],
  ['cold connection, known host: CPU ÷ base', 1.2],
  ['cold connection, new host: CPU ÷ base', 1.1],
  ['10 MB down: CPU per MB ÷ base', 1.15],
  ['10 MB up: CPU per MB ÷ base', 1.15],
  ['KB per idle connection', 90],
  ['idle MB', 90],
  ['start to ready ms', 1000],
  ['HTTP/2, 4 × 16 streams: CPU per request ÷ own HTTP/1.1', 1],
]

function value({ measure, read, over }, name, targets) {
  const figure = (target, of = measure) => median((targets[target]?.slices[of] ?? []).map(read))
  const own = figure(name)
  // Columns that a comparison is meant for.
  if (over === 'one process') {
    return name.endsWith('-workers') ? own / figure(name.slice(0, -'-workers'.length)) : undefined
  }
  if (over === 'cupbearer-full' && name !== 'cupbearer-redis') return undefined
  if (own === undefined || over === undefined) return own
  if (over.startsWith('own ')) return own / figure(name, over.slice(4))
  if (over !== 'added') return own / figure(over)
  // Where a busy machine made direct the slower one, there is nothing to tell.
  const added = own - figure('direct')
  const least = figure('base') - figure('direct')
  return added > 0 && least > 0 ? added / least : undefined
}

/** Every ratio that was measured: `{ LABEL: { TARGET: number } }`. */
export function ratiosOf(targets) {
  const ratios = {}
  for (const line of RATIOS) {
    for (const name of Object.keys(targets)) {
      const figure = value(line, name, targets)
      if (!Number.isFinite(figure)) continue
      ratios[line.label] ??= {}
      ratios[line.label][name] = Number(figure.toFixed(line.digits))
    }
  }
  return ratios
}

/** The ratios as Markdown. */
export const ratioTable = (targets) => table(RATIOS, Object.keys(targets), targets)

/** What has changed since the last record by more than noise. */
function changes(targets, last) {
  const lines = []
  for (const [label, figures] of Object.entries(ratiosOf(targets))) {
    for (const [name, figure] of Object.entries(figures)) {
      const before = last?.[label]?.[name]
      if (!before || name === 'base' || name === 'direct') continue
      const change = figure / before - 1
      if (Math.abs(change) <= NOISE) continue
      const percent = `${change > 0 ? '+' : '−'}${Math.abs(change * 100).toFixed(0)} %`
      lines.push(`- ${name}: ${label}: ${before} → ${figure} (${percent})`)
    }
  }
  return lines.length > 0 ? lines.join('\n') : 'nothing beyond noise (15 %)'
}

function table(rows, names, targets) {
  const cell = (line, name) => {
    const figure = value(line, name, targets)
    return Number.isFinite(figure) ? figure.toFixed(line.digits) : '–'
  }
  const lines = rows
    .map((line) => [line.label, ...names.map((name) => cell(line, name))])
    .filter((cells) => cells.slice(1).some((text) => text !== '–'))
  const all = [['', ...names], ...lines]
  const widths = all[0].map((_, column) => Math.max(3, ...all.map((cells) => cells[column].length)))
  const print = (cells) =>
    `| ${cells.map((text, column) => (column ? text.padStart(widths[column]) : text.padEnd(widths[column]))).join(' | ')} |`
  const rule = `|${widths.map((width, column) => (column ? `${'-'.repeat(width + 1)}:` : '-'.repeat(width + 2))).join('|')}|`
  return [print(all[0]), rule, ...lines.map(print)].join('\n')
}

function judgements(targets) {
  const name = targets['cupbearer-full'] ? 'cupbearer-full' : 'cupbearer'
  if (!targets[name]) return []
  const rows = [...RATIOS, ...ABSOLUTES]
  const found = MUST.map(([label, most]) => {
    const line = rows.find((candidate) => candidate.label === label)
    return { label, figure: value(line, name, targets), most }
  })
  for (const n of [16, 64]) {
    const line = row('', `c${n}`, perSecond, 'mitm-bare')
    const label = `requests/s ÷ mitm-bare, ${n} conn.`
    found.push({ label, figure: value(line, name, targets), least: 2 })
  }
  return found
    .filter(({ figure }) => Number.isFinite(figure))
    .map(({ label, figure, most, least }) => {
      const good = most === undefined ? figure >= least : figure <= most
      const bound = most === undefined ? `≥ ${least}` : `≤ ${most}`
      return `${good ? 'ok  ' : 'OVER'}  ${label}: ${figure.toFixed(2)} (must be ${bound})`
    })
}

/** The whole report. `targets` is `{ NAME: { slices: { MEASURE: [slice] }, notes: [text] } }`. */
export function report(targets, last) {
  const names = Object.keys(targets).filter((name) => Object.keys(targets[name].slices).length > 0)
  const notes = []
  for (const [name, { notes: own, slices }] of Object.entries(targets)) {
    notes.push(...own.map((note) => `${name}: ${note}`))
    for (const [measure, list] of Object.entries(slices)) {
      const busy = median(list.map((slice) => slice.generatorBusy))
      if (busy > 0.95 && name !== 'direct') {
        notes.push(`${name}, ${measure}: the generator was the limit; requests/s is a lower bound`)
      }
    }
  }
  const sections = [
    ['Ratios (medians of interleaved rounds)', table(RATIOS, names, targets)],
    ['Absolute, this machine only', table(ABSOLUTES, names, targets)],
    ['Against the figures to reach (features on)', judgements(targets).join('\n')],
    ['Since the last recorded run', last ? changes(targets, last) : ''],
    ['Notes', notes.join('\n')],
  ]
  return sections
    .filter(([, text]) => text !== '')
    .map(([title, text]) => `## ${title}\n\n${text}\n`)
    .join('\n')
}
