import type { PoolConfig } from '../config/schema.ts'
import { Attempt } from '../egress/attempt.ts'
import type { Egresses } from '../egress/egress.ts'
import { type UpstreamError, WireError } from '../errors.ts'
import type { Events, ExchangeRecord } from '../events.ts'
import { type BodyLimits, RequestBody } from '../lib/body.ts'
import type { Clock } from '../lib/clock.ts'
import type { RawHeaders } from '../lib/headers.ts'
import type { Lease, LeaseRequest } from '../pool/lease.ts'
import type { Pool } from '../pool/pool.ts'
import { forwardHeaders, type Injector } from '../route/inject.ts'
import { redact, scrubHeaders } from '../route/scrub.ts'
import { type Judge, PEEK_BYTES, type Verdict } from '../route/verdict.ts'
import { type Next, NextTry } from './next.ts'
import { newRecord, recordAttempt } from './record.ts'
import type { ProxyReply, ProxyRequest } from './request.ts'

/** A pool with its configuration compiled. */
export interface PoolRuntime {
  readonly pool: Pool
  readonly config: PoolConfig
  readonly injector: Injector
  readonly judge: Judge
}

/** All that a configuration gives an exchange; swapped as a whole, running exchanges keep theirs. */
export interface ExchangeRuntime {
  readonly pools: ReadonlyMap<string, PoolRuntime>
  readonly passthroughEgress: string
  readonly spoolDir: string
}

/** Bodies up to this size are taken whole before the token is chosen: a slow upload holds no token. */
const SMALL_BODY = 64 * 1024

export class Exchange {
  readonly #egresses: Egresses
  readonly #events: Events
  readonly #clock: Clock
  #runtime: ExchangeRuntime
  #running = 0

  constructor(options: {
    egresses: Egresses
    events: Events
    clock: Clock
    runtime: ExchangeRuntime
  }) {
    this.#egresses = options.egresses
    this.#events = options.events
    this.#clock = options.clock
    this.#runtime = options.runtime
  }

  apply(runtime: ExchangeRuntime): void {
    this.#runtime = runtime
  }

  /** Exchanges under way. */
  get running(): number {
    return this.#running
  }

  /** Takes one request to its end; never rejects. */
  async handle(request: ProxyRequest, reply: ProxyReply): Promise<void> {
    const started = performance.now()
    const record = newRecord(this.#clock.now(), request.method, request.origin + request.path)
    record.client = { name: request.client.name, address: request.client.address }
    this.#running += 1
    try {
      await this.#serve(request, reply, record)
    } catch (error) {
      const wire =
        error instanceof WireError
          ? error
          : new WireError('INTERNAL', 'an internal error', { cause: error })
      record.verdict = request.closed ? 'aborted' : wire.code
      record.error = { code: wire.code, message: wire.message }
      record.status = wire.status
      if (!request.closed) reply.fail(wire, record.id)
    } finally {
      this.#running -= 1
      request.onClose = undefined
      record.durationMs = performance.now() - started
      this.#events.emit('exchange', record)
    }
  }

  async #serve(request: ProxyRequest, reply: ProxyReply, record: ExchangeRecord): Promise<void> {
    if (request.method === 'TRACE' || request.method === 'TRACK') {
      throw new WireError('METHOD_REFUSED', `${request.method} is refused: it would echo the token`)
    }
    const runtime = this.#runtime
    const name = request.route?.pick(request.path)
    const target = name === undefined ? undefined : runtime.pools.get(name)
    if (!target) return this.#forward(request, reply, record, runtime)
    record.pool = target.pool.name
    if (request.client.pools && !request.client.pools.has(target.pool.name)) {
      throw new WireError(
        'DESTINATION_DENIED',
        `client ${request.client.name} may not use pool ${target.pool.name}`,
      )
    }
    const body = await takeBody(request, { ...target.config.replay, dir: runtime.spoolDir })
    try {
      await this.#replayLoop(request, reply, record, target, body)
    } finally {
      record.bytes.in = body?.bytesRead ?? 0
      body?.release()
    }
  }

  /** lease → inject → dispatch → judge, again where another try may heal the answer. */
  async #replayLoop(
    request: ProxyRequest,
    reply: ProxyReply,
    record: ExchangeRecord,
    target: PoolRuntime,
    body: RequestBody | undefined,
  ): Promise<void> {
    const { pool } = target
    const nextTry = new NextTry(target, request, body, record, this.#clock)
    let next: Next = { want: request.hints, patient: true }
    /** What the client gets when nothing better can be had. */
    let refused: { attempt: Attempt; lease: Lease } | undefined
    let failure: UpstreamError | undefined
    for (;;) {
      let lease: Lease | undefined
      try {
        lease =
          pool.lease(next.want) ??
          (next.patient ? await this.#wait(pool, next.want, request, record) : undefined)
      } catch (error) {
        if (request.closed || !refused) {
          refused?.attempt.abort()
          throw failure ?? error
        }
      }
      if (!lease) {
        if (!refused)
          throw failure ?? new WireError('POOL_EXHAUSTED', `pool ${pool.name} has no token at hand`)
        record.replay = { done: false, why: 'no other credential could be used' }
        return this.#answer(request, refused.attempt, refused.lease, reply, record)
      }
      refused?.attempt.discard()
      refused = undefined
      const attempt = this.#dispatch(request, target, lease, body, reply)
      try {
        await attempt.head
      } catch (error) {
        failure = error as UpstreamError
        pool.settle(lease, { kind: failure.code === 'EGRESS_DOWN' ? 'egress-down' : 'unknown' })
        recordAttempt(record, attempt, { lease }, failure.code)
        const again = nextTry.afterFailure(failure, lease)
        if (!again) throw failure
        next = again
        continue
      }
      const verdict = await judge(attempt, target.judge)
      recordAttempt(record, attempt, { lease }, verdict)
      if (verdict === 'ok' || verdict === 'upstream') {
        try {
          return await this.#answer(request, attempt, lease, reply, record)
        } finally {
          pool.settle(lease, { kind: 'ok' })
        }
      }
      const again = await nextTry.afterRefusal(verdict, attempt.headers, lease)
      if (request.closed) return attempt.abort()
      if (!again) return this.#answer(request, attempt, lease, reply, record)
      refused = { attempt, lease }
      next = again
    }
  }

  async #wait(
    pool: Pool,
    want: LeaseRequest,
    request: ProxyRequest,
    record: ExchangeRecord,
  ): Promise<Lease> {
    const started = performance.now()
    try {
      const lease = await pool.wait(want, request.signal)
      if (!request.closed) return lease
      pool.settle(lease, { kind: 'unknown' })
      throw new WireError('UPSTREAM_RESET', 'the client has gone')
    } finally {
      record.waitMs += performance.now() - started
    }
  }

  #dispatch(
    request: ProxyRequest,
    target: PoolRuntime,
    lease: Lease,
    body: RequestBody | undefined,
    reply: ProxyReply,
  ): Attempt {
    const { path, headers } = target.injector.apply(request, request.host, lease)
    const token = lease.token.reveal()
    const attempt = new Attempt(
      this.#egresses.dispatcher(lease.egress, `${lease.pool}/${lease.credential}`),
      { origin: request.origin, method: request.method, path, headers, body: body?.open() ?? null },
      {
        sent: () => lease.dispatched(),
        informational: (status, reason, fields) =>
          reply.informational(status, reason, scrubHeaders(fields, token)),
        trailers: (fields) => scrubHeaders(fields, token),
      },
    )
    request.onClose = () => attempt.abort()
    if (request.closed) attempt.abort()
    return attempt
  }

  async #answer(
    request: ProxyRequest,
    attempt: Attempt,
    lease: Lease,
    reply: ProxyReply,
    record: ExchangeRecord,
  ): Promise<void> {
    const token = lease.token.reveal()
    const headers = scrubHeaders(attempt.headers, token)
    attempt.reason = redact(attempt.reason, token)
    await this.#pass(request, attempt, headers, reply, record)
  }

  async #pass(
    request: ProxyRequest,
    attempt: Attempt,
    headers: RawHeaders,
    reply: ProxyReply,
    record: ExchangeRecord,
  ): Promise<void> {
    headers.push('Cupbearer-Trace', record.id)
    record.status = attempt.status
    record.verdict = record.attempts.at(-1)?.verdict ?? 'ok'
    reply.head(attempt.status, attempt.reason, headers)
    await attempt.pipe(reply)
    record.bytes.out = attempt.bytesIn
    const last = record.attempts.at(-1)
    if (last) last.totalMs = performance.now() - attempt.startedAt
    const { failure } = attempt
    if (failure) {
      record.verdict = request.closed ? 'aborted' : failure.code
      record.error = { code: failure.code, message: failure.message }
    }
  }

  /** A path or host that no pool covers: what the client sent, without any token. */
  async #forward(
    request: ProxyRequest,
    reply: ProxyReply,
    record: ExchangeRecord,
    runtime: ExchangeRuntime,
  ) {
    const headers = forwardHeaders(request.headers, request.host)
    const egress = runtime.passthroughEgress
    const attempt = new Attempt(
      this.#egresses.dispatcher(egress, ''),
      {
        origin: request.origin,
        method: request.method,
        path: request.path,
        headers,
        body: request.body?.stream ?? null,
      },
      {
        sent: () => {},
        informational: (status, reason, fields) =>
          reply.informational(status, reason, scrubHeaders(fields, undefined)),
        trailers: (fields) => scrubHeaders(fields, undefined),
      },
    )
    request.onClose = () => attempt.abort()
    if (request.closed) attempt.abort()
    try {
      await attempt.head
    } catch (error) {
      recordAttempt(record, attempt, { egress }, (error as UpstreamError).code)
      throw error
    }
    recordAttempt(record, attempt, { egress }, 'ok')
    await this.#pass(request, attempt, scrubHeaders(attempt.headers, undefined), reply, record)
  }
}

async function takeBody(
  request: ProxyRequest,
  limits: BodyLimits,
): Promise<RequestBody | undefined> {
  if (!request.body) return undefined
  const { stream, length } = request.body
  if (length === undefined || length > Math.min(SMALL_BODY, limits.memory)) {
    return new RequestBody(stream, length, limits)
  }
  const chunks: Buffer[] = []
  for await (const chunk of stream) chunks.push(chunk as Buffer)
  return new RequestBody(
    chunks.length === 1 ? (chunks[0] as Buffer) : Buffer.concat(chunks),
    length,
    limits,
  )
}

async function judge(attempt: Attempt, by: Judge): Promise<Verdict> {
  const verdict = by.judge(attempt.status, attempt.headers)
  if (verdict !== 'peek') return verdict
  return by.judgeBody(attempt.status, attempt.headers, await attempt.peek(PEEK_BYTES))
}
