// Pools, credentials and an hour of traffic that never were: what the screenshots show. Always the same.
import { Activity } from '../../dist/admin/activity.js'
import { History } from '../../dist/admin/history.js'
import { Events } from '../../dist/events.js'
import { systemClock } from '../../dist/lib/clock.js'
import { TraceRecorder } from '../../dist/trace/recorder.js'

const HOUR_MS = 3_600_000
const STEP_MS = 10_000
const EGRESSES = ['berlin', 'oslo', 'lisbon', 'warsaw']
const ADDRESSES = { berlin: '192.0.2.14', oslo: '198.51.100.7', lisbon: '203.0.113.90' }

/** Numbers from 0 to 1, the same in each run (mulberry32). */
function random(seed) {
  let state = seed
  return () => {
    state = (state + 0x6d2b79f5) | 0
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state)
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4294967296
  }
}

/** Begins an hour ago and is run through it by hand; then it goes with the machine's. */
class Rewound {
  #behind = HOUR_MS
  #timers = new Set()
  now = () => systemClock.now() - this.#behind
  monotonic = () => systemClock.monotonic() - this.#behind
  schedule = (delay, callback) => {
    if (this.#behind === 0) return systemClock.schedule(delay, callback)
    const timer = { at: this.now() + delay, callback }
    this.#timers.add(timer)
    return () => this.#timers.delete(timer)
  }
  advance(ms) {
    this.#behind = Math.max(0, this.#behind - ms)
    for (const timer of [...this.#timers]) {
      if (timer.at > this.now()) continue
      this.#timers.delete(timer)
      timer.callback()
    }
  }
}

export class Showcase {
  #random = random(7)
  #events = new Events()
  #clock = new Rewound()
  #recorder = new TraceRecorder(this.#events, { capacity: 2000 })
  #activity = new Activity(this.#events)
  #requests = 1200
  #pools = [
    this.#pool('supplier', ['api.supplier.example', '*.supplier.example/v2'], 48, 1800),
    this.#pool('prices', ['prices.example'], 12, 900),
    this.#pool('geocoder', ['geo.example:8443'], 4, 240),
  ]
  #history = new History(this.#events, () => this.#pools, this.#clock)

  constructor() {
    for (let at = 0; at < HOUR_MS; at += STEP_MS) {
      const wave = 1 + Math.sin((at / HOUR_MS) * 9) / 3
      for (const [index, { name }] of this.#pools.entries()) {
        const count = Math.round(wave * [160, 70, 12][index] * (0.85 + this.#random() * 0.3))
        for (let i = 0; i < count; i++) this.#events.emit('exchange', this.#exchange(name))
        if (this.#random() < [0.9, 0.4, 0.1][index]) this.#refresh(name)
      }
      this.#clock.advance(STEP_MS)
    }
    this.#happenings()
  }

  get backend() {
    return {
      pools: () => this.#pools,
      act: async () => 'done',
      traces: this.#recorder,
      ready: () => ({ ready: true, reasons: [] }),
      metrics: async () => ({ text: '', contentType: 'text/plain' }),
      caPem: () => '',
      proxyUrl: () => 'http://127.0.0.1:8080',
      egressAddress: (egress) => ADDRESSES[egress],
      egresses: () => ['direct', ...EGRESSES].map((name) => ({ name, up: name !== 'warsaw' })),
      history: this.#history,
      activity: this.#activity,
    }
  }

  /** Some more requests, as they would come. */
  async traffic(count) {
    const exchange = this.#exchange('supplier')
    this.#events.emit('exchange', healed(exchange, exchange.attempts[0]))
    for (let i = 0; i < count; i++) {
      this.#events.emit('exchange', this.#exchange('supplier'))
      await new Promise((resolve) => setTimeout(resolve, 5))
    }
  }

  close() {
    this.#history.close()
    this.#activity.close()
    this.#recorder.close()
  }

  #pool(name, targets, size, lifetime) {
    const now = systemClock.now()
    const credentials = Array.from({ length: size }, (_, index) => {
      const state = ['cooling', 'active', 'quarantined', 'active'][(index * 7) % 23] ?? 'active'
      const revoked = index === 9
      const age = this.#random() * lifetime * 900
      const expiresAt = now - age + lifetime * 1000
      return {
        id: `acct-${String(index).padStart(4, '0')}`,
        state: revoked ? 'revoked' : state,
        egress: EGRESSES[index % (size > 4 ? 4 : 2)],
        generation: 1 + Math.floor(this.#random() * 40),
        subject: `svc-${index}@${targets[0].replace('api.', '')}`,
        scopes: ['read', 'orders'],
        issuedAt: now - age,
        expiresAt: state === 'quarantined' || revoked ? undefined : expiresAt,
        lifetime: 'jwt',
        refreshAt: revoked ? undefined : expiresAt - lifetime * 100,
        uses: Math.floor(this.#random() * 9000),
        inFlight: Math.floor(this.#random() * 3),
        limits: [
          { limit: '10/s', used: Math.floor(this.#random() * 11), max: 10 },
          { limit: '1000/h', used: Math.floor(this.#random() * 700), max: 1000 },
        ],
        cooldownUntil: state === 'active' || revoked ? undefined : now + 47_000,
        lastError: revoked
          ? 'the token endpoint answered invalid_grant'
          : state === 'quarantined'
            ? 'the token endpoint timed out after 30 s'
            : undefined,
      }
    })
    const tokens = { active: 0, cooling: 0, quarantined: 0, pending: 0, revoked: 0 }
    for (const { state } of credentials) tokens[state] += 1
    return {
      name,
      targets,
      status: tokens.active === size ? 'healthy' : 'degraded',
      tokens,
      avgTtlRemainingSeconds: lifetime * (0.45 + this.#random() * 0.2),
      refreshSuccessRate: name === 'geocoder' ? 0.91 : 0.998,
      requestsPerTokenPerMinute: { supplier: 21.4, prices: 36.2, geocoder: 18.9 }[name],
      authOverhead: { supplier: 0.006, prices: 0.011, geocoder: 0.072 }[name],
      waiting: name === 'geocoder' ? 3 : 0,
      credentials,
    }
  }

  #exchange(pool) {
    const luck = this.#random()
    const known = this.#pools?.find(({ name }) => name === pool)?.credentials ?? []
    const { id: credential = 'acct-0000', egress = 'berlin' } =
      known[Math.floor(this.#random() * known.length)] ?? {}
    const answered = 18 + this.#random() * 60
    const startMs = luck > 0.985 ? 38.4 : 0.2
    this.#requests += 1
    const status = luck > 0.993 ? 502 : luck > 0.98 ? 429 : 200
    const verdict = { 200: 'ok', 429: 'limited', 502: 'UPSTREAM_RESET' }[status]
    const first = {
      credential,
      generation: 12,
      egress,
      address: '198.51.100.200:443',
      status: status === 502 ? undefined : status,
      verdict,
      startMs,
      sentMs: 0.4,
      dnsMs: undefined,
      connectMs: undefined,
      tlsMs: undefined,
      firstByteMs: answered,
      totalMs: answered + 6,
      reused: true,
      fault: undefined,
    }
    const record = {
      id: `k3f9a${this.#requests.toString(36).padStart(6, '0')}`,
      time: this.#clock.now(),
      kind: 'exchange',
      client: { name: ['crawler', 'etl', undefined][this.#requests % 3], address: '127.0.0.1' },
      method: this.#requests % 9 === 0 ? 'POST' : 'GET',
      url: `https://api.${pool}.example/v2/orders/${this.#requests}?expand=lines`,
      pool,
      status,
      durationMs: startMs + answered + 7,
      waitMs: startMs > 1 ? startMs : 0,
      verdict,
      skipped: [],
      attempts: [first],
      refresh: undefined,
      replay: undefined,
      bytes: { in: 0, out: 1200 + Math.floor(this.#random() * 9000) },
      error:
        status === 502
          ? { code: 'UPSTREAM_RESET', message: 'upstream broke the connection off' }
          : undefined,
    }
    return luck < 0.004 ? healed(record, first) : record
  }

  #refresh(pool) {
    const failed = this.#random() < 0.02
    this.#events.emit('refresh', {
      time: this.#clock.now(),
      pool,
      credential: `acct-${String(Math.floor(this.#random() * 4)).padStart(4, '0')}`,
      cause: 'scheduled',
      result: failed ? 'failed' : 'ok',
      generation: 13,
      ms: 60 + this.#random() * 90,
      reason: failed ? 'the token endpoint timed out after 30 s' : undefined,
    })
  }

  #happenings() {
    const time = this.#clock.now()
    const about = { time, pool: 'supplier' }
    this.#events.emit('config', { time, applied: true, problems: [] })
    this.#events.emit('credential', {
      ...about,
      credential: 'acct-0009',
      from: 'active',
      to: 'revoked',
      reason: 'the token endpoint answered invalid_grant',
    })
    this.#events.emit('address', {
      time,
      egress: 'lisbon',
      address: '203.0.113.90',
      previous: '203.0.113.41',
      reason: undefined,
    })
    this.#events.emit('egress', {
      time,
      egress: 'warsaw',
      up: false,
      reason: 'the egress refused the connection (ECONNREFUSED)',
    })
    this.#events.emit('credential', {
      ...about,
      credential: 'acct-0017',
      from: 'active',
      to: 'cooling',
      reason: 'upstream limits it for 47 s',
    })
  }
}

/** A request whose token had been refused: renewed, and sent again. */
function healed(record, first) {
  return {
    ...record,
    status: 200,
    durationMs: 214.6,
    waitMs: 12.3,
    verdict: 'ok',
    skipped: [{ credential: 'acct-0011', why: 'cooling for another 31 s' }],
    attempts: [
      {
        ...first,
        status: 401,
        verdict: 'expired',
        startMs: 12.5,
        sentMs: 49.2,
        dnsMs: 6.1,
        connectMs: 21.7,
        tlsMs: 26.4,
        firstByteMs: 71.9,
        totalMs: 72.6,
        reused: false,
        fault: 'token',
      },
      {
        ...first,
        status: 200,
        verdict: 'ok',
        generation: 13,
        startMs: 152.8,
        sentMs: 0.5,
        firstByteMs: 42.2,
        totalMs: 61.4,
        fault: undefined,
      },
    ],
    refresh: { role: 'led', ms: 66.8, result: 'ok', startMs: 85.6 },
    replay: { done: true, why: 'the token was renewed' },
    error: undefined,
  }
}
