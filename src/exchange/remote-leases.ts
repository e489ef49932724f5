import { randomBytes } from 'node:crypto'
import { toWireError, WireError } from '../errors.ts'
import type { Events, ExchangeRecord } from '../events.ts'
import type { Clock } from '../lib/clock.ts'
import { type RawHeaders, withoutHeader } from '../lib/headers.ts'
import type { Secret } from '../lib/secret.ts'
import type { Lease, LeaseRequest, Outcome, Recovery, TokenPool } from '../pool/lease.ts'
import type { Injection } from '../route/inject.ts'
import { retryAfterMs } from '../route/retry-after.ts'
import type { Verdict } from '../route/verdict.ts'
import type { ExchangeRuntime, PoolRuntime } from './exchange.ts'
import { wantOf } from './next.ts'
import { newRecord, recordSkipped } from './record.ts'
import type { Client } from './request.ts'

/** What a worker asks for. */
export interface LeaseAsk {
  readonly hints: Pick<LeaseRequest, 'session' | 'credential' | 'scopes'>
  /** What it is about to send: a pool may require more of a token for some requests. */
  readonly request: { readonly method: string; readonly path: string } | undefined
  /** How long it would wait; never longer than the pool's `queue.wait`. */
  readonly waitMs: number | undefined
  readonly ttlMs: number
}

/** A token in the hands of a worker. */
export interface OpenLease {
  readonly id: string
  readonly credential: string
  readonly token: Secret
  readonly injection: Injection
  /** Headers fixed for the credential, flat `[name, value, …]`. */
  readonly headers: readonly string[]
  readonly egress: { readonly name: string; readonly url: Secret | undefined }
  /** The end of the lease, or of its token if that comes first; ms since the epoch. */
  readonly expiresAt: number
}

/** What a worker may say of an answer by itself; `unknown` where there was none. */
export const REPORTABLE = ['ok', 'expired', 'limited', 'denied', 'upstream', 'unknown'] as const

export type Reportable = (typeof REPORTABLE)[number]

/** What became of a worker's request: upstream's answer, as far as the worker tells it, or a verdict. */
export interface LeaseReport {
  readonly status: number | undefined
  readonly headers: RawHeaders
  readonly body: Buffer | undefined
  /** Stands in place of the pool's matchers. */
  readonly verdict: Reportable | undefined
}

/** What a report led to. */
export interface LeaseEnd {
  readonly verdict: Reportable
  /** Of an `expired` token: what came of renewing it. */
  readonly recovery: Pick<Recovery, 'result' | 'reason'> | undefined
  /** Id of the trace. */
  readonly trace: string
}

interface Held {
  readonly id: string
  readonly target: PoolRuntime
  readonly client: Client
  readonly lease: Lease
  readonly record: ExchangeRecord
  readonly started: number
  readonly cancel: () => void
}

/** Leases that are open or waited for. */
const MAX_LEASES = 10_000
const MAX_LEASES_PER_CLIENT = 1000
/** How many ended leases are told from those that never were. */
const MAX_REMEMBERED = 1000
/** When to try again after too many leases: any report makes room. */
const SOON_MS = 1000

/**
 * Leases for workers that send their requests themselves. One lease is one request: its use counts from the
 * start, it holds its place in `limits.concurrency` until it is reported or expires, and what is reported is
 * learned from as if the request had come through the proxy.
 */
export class RemoteLeases {
  readonly #events: Events
  readonly #clock: Clock
  readonly #runtime: () => ExchangeRuntime
  readonly #egressUrl: (egress: string) => Secret | undefined
  readonly #held = new Map<string, Held>()
  readonly #ended = new Map<string, 'reported' | 'expired'>()
  readonly #waits = new Set<AbortController>()
  /** Leases by client; those of the admin token stand under undefined. */
  readonly #counts = new Map<string | undefined, number>()
  #total = 0
  #draining = false

  constructor(options: {
    events: Events
    clock: Clock
    runtime: () => ExchangeRuntime
    egressUrl: (egress: string) => Secret | undefined
  }) {
    this.#events = options.events
    this.#clock = options.clock
    this.#runtime = options.runtime
    this.#egressUrl = options.egressUrl
  }

  /** A lease as soon as there is one; undefined when there is no such pool. Rejects with `WireError`. */
  async open(
    name: string,
    client: Client,
    ask: LeaseAsk,
    gone: AbortSignal,
  ): Promise<OpenLease | undefined> {
    if (client.pools && !client.pools.has(name)) {
      const message = `client ${client.name} may not use this pool`
      throw new WireError('DESTINATION_DENIED', message)
    }
    const target = this.#runtime().pools.get(name)
    if (!target) return undefined
    const started = performance.now()
    const record = newRecord(this.#clock.now(), 'POST', `/api/pools/${name}/leases`)
    record.kind = 'lease'
    record.client = client
    record.pool = name
    try {
      this.#enter(client)
      const lease = await this.#take(target, ask, gone, record)
      return this.#hold({ target, client, lease, record, started }, ask.ttlMs)
    } catch (error) {
      this.#leave(client)
      const { code, message, status } = toWireError(error)
      record.error = { code, message }
      record.status = status
      this.#emit(record, gone.aborted ? 'aborted' : code, started)
      throw error
    }
  }

  /** Ends a lease of the client's own, or any one for the admin token, with what came of it. */
  async report(
    id: string,
    client: Client,
    report: LeaseReport,
  ): Promise<LeaseEnd | 'unknown' | 'reported' | 'expired'> {
    const held = this.#held.get(id)
    if (!held) return this.#ended.get(id) ?? 'unknown'
    if (client.name !== undefined && client.name !== held.client.name) return 'unknown'
    this.#release(held, 'reported')
    const { target, lease, record } = held
    const verdict = report.verdict ?? judge(target, report)
    target.pool.settle(lease, this.#outcome(verdict, report))
    // As for a request: the renewal goes on without whoever reported it.
    const recovery = verdict === 'expired' ? await target.pool.recover(lease) : undefined
    if (recovery?.refresh) record.refresh = { ...recovery.refresh, result: recovery.result }
    record.status = report.status
    this.#finish(held, verdict)
    return { verdict, recovery, trace: record.id }
  }

  /** Gives no more leases; those that are out can still be reported. */
  drain(): void {
    this.#draining = true
    for (const wait of this.#waits) wait.abort(shuttingDown())
  }

  /** Ends what is left. */
  close(): void {
    this.drain()
    for (const held of this.#held.values()) this.#expire(held)
  }

  async #take(
    target: PoolRuntime,
    ask: LeaseAsk,
    gone: AbortSignal,
    record: ExchangeRecord,
  ): Promise<Lease> {
    const { pool, requires } = target
    const { hints, request, waitMs } = ask
    const needs = request ? wantOf({ ...request, hints }, requires) : hints
    const want: LeaseRequest = { ...needs, waitMs, remote: true }
    const lease = pool.lease(want) ?? (await this.#wait(pool, want, gone, record))
    recordSkipped(record, lease.passedOver)
    const refusal = this.#refusal(lease, gone)
    if (refusal) {
      pool.settle(lease, { kind: 'unknown' })
      throw refusal
    }
    // From here on the token may be seen by upstream at any time.
    lease.dispatched()
    return lease
  }

  async #wait(
    pool: TokenPool,
    want: LeaseRequest,
    gone: AbortSignal,
    record: ExchangeRecord,
  ): Promise<Lease> {
    const started = performance.now()
    const wait = new AbortController()
    const leave = () => wait.abort(clientGone())
    gone.addEventListener('abort', leave, { once: true })
    if (gone.aborted) leave()
    this.#waits.add(wait)
    try {
      return await pool.wait(want, wait)
    } finally {
      this.#waits.delete(wait)
      gone.removeEventListener('abort', leave)
      record.waitMs = performance.now() - started
    }
  }

  #refusal(lease: Lease, gone: AbortSignal): WireError | undefined {
    if (gone.aborted) return clientGone()
    if (this.#draining) return shuttingDown()
    if (!lease.dpopKey) return undefined
    // RFC 9449: without the key the token is of no use, and the key stays here.
    const message = `pool ${lease.pool} has tokens bound to a key (DPoP): they serve proxied requests only`
    return new WireError('POOL_EXHAUSTED', message)
  }

  #hold(parts: Omit<Held, 'id' | 'cancel'>, ttlMs: number): OpenLease {
    const { target, lease } = parts
    const id = randomBytes(18).toString('base64url')
    const now = this.#clock.now()
    const expiresAt = Math.min(now + ttlMs, lease.expiresAt ?? Number.POSITIVE_INFINITY)
    const cancel = this.#clock.schedule(expiresAt - now, () => this.#expire(held))
    const held = { ...parts, id, cancel }
    this.#held.set(id, held)
    return {
      id,
      credential: lease.credential,
      token: lease.token,
      injection: target.injector.render(lease),
      headers: lease.headers,
      egress: { name: lease.egress, url: this.#egressUrl(lease.egress) },
      expiresAt,
    }
  }

  #expire(held: Held): void {
    this.#release(held, 'expired')
    held.target.pool.settle(held.lease, { kind: 'unknown' })
    this.#finish(held, 'unreported')
  }

  /** Whoever takes a lease out settles it: that happens once. */
  #release({ id, client, cancel }: Held, how: 'reported' | 'expired'): void {
    cancel()
    this.#held.delete(id)
    this.#leave(client)
    this.#ended.set(id, how)
    if (this.#ended.size > MAX_REMEMBERED) {
      this.#ended.delete(this.#ended.keys().next().value as string)
    }
  }

  #enter({ name }: Client): void {
    const count = (this.#counts.get(name) ?? 0) + 1
    this.#counts.set(name, count)
    this.#total += 1
    if (this.#draining) throw shuttingDown()
    if (count > MAX_LEASES_PER_CLIENT || this.#total > MAX_LEASES) {
      throw new WireError('QUEUE_FULL', 'too many leases are open: report those that are done', {
        retryAfterMs: SOON_MS,
      })
    }
  }

  #leave({ name }: Client): void {
    const count = (this.#counts.get(name) ?? 1) - 1
    if (count > 0) this.#counts.set(name, count)
    else this.#counts.delete(name)
    this.#total -= 1
  }

  #outcome(verdict: Reportable, { headers }: LeaseReport): Outcome {
    if (verdict === 'upstream') return { kind: 'ok' }
    if (verdict !== 'limited') return { kind: verdict }
    return { kind: verdict, retryAfterMs: retryAfterMs(headers, this.#clock.now()) }
  }

  #finish({ lease, record, started }: Held, verdict: string): void {
    record.attempts.push({
      credential: lease.credential,
      generation: lease.generation,
      egress: lease.egress,
      address: undefined,
      status: record.status,
      verdict,
      startMs: record.waitMs,
      connectMs: undefined,
      tlsMs: undefined,
      firstByteMs: undefined,
      totalMs: performance.now() - started - record.waitMs,
      reused: false,
    })
    this.#emit(record, verdict, started)
  }

  #emit(record: ExchangeRecord, verdict: string, started: number): void {
    record.verdict = verdict
    record.durationMs = performance.now() - started
    this.#events.emit('exchange', record)
  }
}

/** By the pool's matchers, over what the worker has told; a body that it kept back matches nothing. */
function judge(target: PoolRuntime, { status = 0, headers, body }: LeaseReport): Verdict {
  // Clients hand over the body decoded and leave this field in place.
  const seen = withoutHeader(headers, 'content-encoding')
  const glance = target.judge.judge(status, seen)
  return glance === 'peek' ? target.judge.judgeBody(status, seen, body) : glance
}

function clientGone(): WireError {
  return new WireError('UPSTREAM_RESET', 'the client has gone')
}

function shuttingDown(): WireError {
  return new WireError('SHUTTING_DOWN', 'the proxy is shutting down')
}
