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
const MEGABYTES = 10.48576
const row = (label, measure, read, over, digits = 2) => ({ label, measure, read, over, digits })
const levels = [1, 16, 64]

const RATIOS = [
  ...levels.map((n) => row(`CPU per request ÷ base, ${n} conn.`, `c${n}`, perRequest, 'base')),
  ...levels.map((n) => row(`requests/s ÷ direct, ${n} conn.`, `c${n}`, perSecond, 'direct', 3)),
  row('added latency p50 ÷ base, 1 conn.', 'c1', (slice) => slice.p50, 'added'),
  row('added latency p99 ÷ base, 1 conn.', 'c1', (slice) => slice.p99, 'added'),
  row('cold connection, known host: CPU ÷ base', 'cold', perRequest, 'base'),
  row('cold connection, new host: CPU ÷ base', 'newhost', perRequest, 'base'),
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
]

function value({ measure, read, over }, name, targets) {
  const figure = (target) => median((targets[target]?.slices[measure] ?? []).map(read))
  const own = figure(name)
  if (own === undefined || over === undefined) return own
  if (over !== 'added') return own / figure(over)
  // Where a busy machine made direct the slower one, there is nothing to tell.
  const added = own - figure('direct')
  const least = figure('base') - figure('direct')
  return added > 0 && least > 0 ? added / least : undefined
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
export function report(targets) {
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
    ['Notes', notes.join('\n')],
  ]
  return sections
    .filter(([, text]) => text !== '')
    .map(([title, text]) => `## ${title}\n\n${text}\n`)
    .join('\n')
}
