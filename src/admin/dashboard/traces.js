import { bytes, clockTime, element, milliseconds, term } from './element.js'

const KEPT = 200
const DRAW_MS = 200

/** The list of requests and the detail of one. It is drawn five times a second at most, however many arrive. */
export class TraceList {
  #nodes
  #traces = []
  #rows = new Map()
  #selected
  #drawing = false
  #paused = false

  constructor(nodes) {
    this.#nodes = nodes
    // A row may move on between press and release, which is no click then: a mouse selects when it is pressed.
    nodes.rows.addEventListener('pointerdown', (event) => {
      if (event.pointerType === 'mouse' && event.button === 0) this.#select(event)
    })
    nodes.rows.addEventListener('click', (event) => this.#select(event))
    nodes.filter.addEventListener('input', () => this.#draw())
    nodes.pause.addEventListener('click', () => {
      this.#paused = !this.#paused
      nodes.pause.setAttribute('aria-pressed', String(this.#paused))
      nodes.pause.textContent = this.#paused ? 'Resume' : 'Pause'
      this.#draw()
    })
  }

  replace(traces) {
    this.#traces = traces.slice(0, KEPT)
    this.#draw()
  }

  add(trace) {
    // An event may be in the first list already: the stream is opened before that is read.
    if (this.#traces.some((known) => known.id === trace.id)) return
    this.#traces.unshift(trace)
    this.#traces.length = Math.min(this.#traces.length, KEPT)
    this.#drawSoon()
  }

  #drawSoon() {
    if (this.#drawing || this.#paused) return
    this.#drawing = true
    setTimeout(() => {
      this.#drawing = false
      this.#draw()
    }, DRAW_MS)
  }

  #draw() {
    const words = this.#nodes.filter.value.toLowerCase().split(/\s+/).filter(Boolean)
    const shown = this.#traces.filter((trace) => matches(trace, words))
    const rows = new Map()
    let place = this.#nodes.rows.firstChild
    for (const trace of shown) {
      const row = this.#rows.get(trace.id) ?? traceRow(trace)
      rows.set(trace.id, row)
      row.ariaCurrent = trace.id === this.#selected ? 'true' : null
      // Rows that stand right are left alone: they keep the focus.
      if (row === place) place = place.nextSibling
      else this.#nodes.rows.insertBefore(row, place)
    }
    for (const [id, row] of this.#rows) if (!rows.has(id)) row.remove()
    this.#rows = rows
    this.#nodes.empty.hidden = shown.length > 0
    this.#nodes.empty.textContent =
      this.#traces.length > 0 ? 'No request matches.' : 'No requests yet.'
  }

  #select(event) {
    const id = event.target.closest('tr')?.dataset.trace
    const trace = this.#traces.find((known) => known.id === id)
    if (!trace || id === this.#selected) return
    this.#selected = id
    this.#draw()
    const { detail } = this.#nodes
    detail.replaceChildren(...this.#story(trace))
    detail.hidden = false
    // After a press the browser moves the focus itself; that comes first.
    setTimeout(() => detail.focus({ preventScroll: event.type !== 'click' }))
  }

  #close() {
    this.#nodes.detail.hidden = true
    const id = this.#selected
    this.#selected = undefined
    this.#draw()
    this.#rows.get(id)?.querySelector('button').focus()
  }

  #story(trace) {
    const { refresh, replay, error } = trace
    return [
      element(
        'div',
        { class: 'section-head' },
        element('h3', {}, `${trace.method} `, status(trace)),
        element(
          'button',
          { type: 'button', class: 'quiet', onclick: () => this.#close() },
          'Close',
        ),
      ),
      element('p', { class: 'url' }, trace.url),
      element(
        'dl',
        { class: 'facts' },
        term('Trace', trace.id),
        term('Time', new Date(trace.time).toLocaleString()),
        term('Client', [trace.client.name, trace.client.address].filter(Boolean).join(' · ')),
        term('Pool', trace.pool),
        term('Verdict', trace.verdict),
        term('Total', milliseconds(trace.durationMs)),
        term('Waited for a token', milliseconds(trace.waitMs)),
        term('Bytes in / out', `${bytes(trace.bytes.in)} / ${bytes(trace.bytes.out)}`),
        refresh
          ? term('Refresh', `${refresh.role}, ${refresh.result}, ${milliseconds(refresh.ms)}`)
          : null,
        replay ? term('Replay', `${replay.done ? 'done' : 'not done'}: ${replay.why}`) : null,
        trace.skipped.length > 0
          ? term(
              'Passed over',
              trace.skipped.map((skip) => `${skip.credential}: ${skip.why}`).join('; '),
            )
          : null,
      ),
      error ? element('p', { class: 'error' }, `${error.code}: ${error.message}`) : null,
      element('ol', { class: 'attempts' }, trace.attempts.map(attemptItem)),
    ].filter(Boolean)
  }
}

function traceRow(trace) {
  const credential = trace.attempts.at(-1)?.credential
  const tries = trace.attempts.length
  return element(
    'tr',
    { 'data-trace': trace.id },
    element('td', { class: 'time' }, clockTime(trace.time)),
    element('td', {}, status(trace)),
    element(
      'td',
      { class: 'request' },
      element(
        'button',
        { type: 'button', class: 'link', title: trace.url },
        `${trace.method} ${trace.url.replace(/^https:\/\//, '')}`,
      ),
    ),
    element('td', {}, trace.pool ?? '–'),
    element(
      'td',
      {},
      credential ?? '–',
      tries > 1 ? element('span', { class: 'faint' }, ` ×${tries}`) : null,
    ),
    element('td', { class: 'number' }, milliseconds(trace.durationMs)),
  )
}

function attemptItem(attempt) {
  const phases = attempt.reused
    ? ['connection reused']
    : [`connect ${milliseconds(attempt.connectMs)}`, `TLS ${milliseconds(attempt.tlsMs)}`]
  return element(
    'li',
    {},
    element(
      'div',
      {},
      element('strong', {}, attempt.credential ?? 'no credential'),
      attempt.generation === null ? null : ` generation ${attempt.generation} `,
      element(
        'span',
        { class: 'badge', 'data-state': verdictState(attempt.verdict) },
        [attempt.status, attempt.verdict].filter(Boolean).join(' '),
      ),
    ),
    element(
      'div',
      { class: 'faint' },
      `by ${attempt.egress}${attempt.address ? ` to ${attempt.address}` : ''} · ${phases.join(' · ')}`,
      ` · first byte ${milliseconds(attempt.firstByteMs)} · total ${milliseconds(attempt.totalMs)}`,
    ),
  )
}

function verdictState(verdict) {
  if (verdict === 'ok') return 'healthy'
  return verdict === 'expired' || verdict === 'limited' ? 'cooling' : 'revoked'
}

function status(trace) {
  const code = trace.status
  const level =
    trace.kind === 'tunnel'
      ? 'pending'
      : code !== null && code < 400
        ? 'healthy'
        : verdictState(trace.verdict)
  const text = trace.kind === 'tunnel' ? 'tunnel' : String(code ?? trace.verdict)
  return element('span', { class: 'badge', 'data-state': level, title: trace.verdict }, text)
}

function matches(trace, words) {
  if (words.length === 0) return true
  const credentials = trace.attempts.map((attempt) => attempt.credential).join(' ')
  const text =
    `${trace.id} ${trace.method} ${trace.url} ${trace.pool} ${trace.verdict} ${trace.status} ${credentials}`.toLowerCase()
  return words.every((word) => text.includes(word))
}
