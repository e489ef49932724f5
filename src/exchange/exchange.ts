import type { PoolConfig } from '../config/schema.ts'
import { Attempt, type AttemptHooks, type UpstreamRequest } from '../egress/attempt.ts'
import type { Egresses } from '../egress/egress.ts'
import { toWireError, UpstreamError, WireError } from '../errors.ts'
import type { Events, ExchangeRecord } from '../events.ts'
import { type BodyLimits, RequestBody } from '../lib/body.ts'
import type { Clock } from '../lib/clock.ts'
import type { RawHeaders } from '../lib/headers.ts'
import { type Logger, whereFrom } from '../lib/log.ts'
import type { Lease, LeaseRequest, Outcome, TokenPool } from '../pool/lease.ts'
import { forwardHeaders, forwardTrailers, type Injector } from '../route/inject.ts'
import type { Requirements } from '../route/requires.ts'
import { redact, scrubHeaders } from '../route/scrub.ts'
import { askSearchable, searchedHeaders } from '../route/scrub-body.ts'
import { type Judge, PEEK_BYTES, type Verdict } from '../route/verdict.ts'
import { addProof, wantsNonce } from './dpop.ts'
import type { Learner, Passage, PoolLearning } from './learn.ts'
import { type Next, NextTry, wantOf } from './next.ts'
import type { Observer } from './observer.ts'
import { newRecord, recordAttempt, recordEnd, recordSkipped } from './record.ts'
import type { IncomingBody, ProxyReply, ProxyRequest } from './request.ts'
import { pipeScrubbed, searchableCoding } from './scrubbed-body.ts'

/** A pool with its configuration compiled. */
export interface PoolRuntime {
  readonly pool: TokenPool
  readonly config: PoolConfig
  readonly injector: Injector
  readonly judge: Judge
  /** Undefined where any token will do. */
  readonly requires: Requirements | undefined
  /** Undefined where no credential learns from traffic. */
  readonly learning?: PoolLearning | undefined
}

/** All that a configuration gives an exchange; swapped as a whole, running exchanges keep theirs. */
export interface ExchangeRuntime {
  readonly pools: ReadonlyMap<string, PoolRuntime>
  /** Undefined where no pool learns from traffic. */
  readonly learner?: Learner | undefined
  /** Undefined where no trace shows the messages themselves. */
  readonly observer?: Observer | undefined
  readonly passthroughEgress: string
  readonly spoolDir: string
}

const OK: Outcome = { kind: 'ok' }

/** Bodies up to this size are taken whole before the token is chosen: a slow upload holds no token. */
const SMALL_BODY = 64 * 1024

/** For a body that is only looked at. */
const READ_ONLY = { memory: SMALL_BODY, disk: 0 }

export class Exchange {
  readonly #egresses: Egresses
  readonly #events: Events
  readonly #clock: Clock
  readonly #log: Logger
  #runtime: ExchangeRuntime
  #running = 0

  constructor(options: {
    egresses: Egresses
    events: Events
    clock: Clock
    log: Logger
    runtime: ExchangeRuntime
  }) {
    this.#egresses = options.egresses
    this.#events = options.events
    this.#clock = options.clock
    this.#log = options.log
    this.#runtime = options.runtime
  }

  apply(runtime: ExchangeRuntime): void {
    this.#runtime = runtime
  }

  get runtime(): ExchangeRuntime {
    return this.#runtime
  }

  /** Exchanges under way. */
  get running(): number {
    return this.#running
  }

  /** Takes one request to its end; never rejects. */
  async handle(request: ProxyRequest, reply: ProxyReply): Promise<void> {
    const started = performance.now()
    const record = newRecord(this.#clock.now(), request.method, request.origin + request.path)
    record.client = request.client
    record.protocol = request.protocol ?? 'h1'
    this.#running += 1
    let body: RequestBody | undefined
    const runtime = this.#runtime
    const { observer } = runtime
    try {
      observer?.arrived(record, request.headers)
      const target = match(request, runtime)
      const { learner } = runtime
      record.pool = target?.pool.name
      if (request.body && (target || learner?.reads(request))) {
        const replay = target?.config.replay ?? READ_ONLY
        body = await takeBody(request.body, { ...replay, dir: runtime.spoolDir })
      }
      const passage = learner?.passage(request, target, body)
      if (target && !passage) await this.#replayLoop(request, reply, record, target, body)
      else await this.#forward(request, reply, record, runtime, body, passage)
    } catch (error) {
      const wire = toWireError(error)
      if (wire.code === 'INTERNAL' && !request.closed) {
        this.#log.error({ trace: record.id, ...whereFrom(error) }, 'internal error')
      }
      record.verdict = request.closed ? 'aborted' : wire.code
      record.error = { code: wire.code, message: wire.message }
      record.status = wire.status
      recordSkipped(record, wire.passedOver)
      if (!request.closed) reply.fail(wire, record.id)
    } finally {
      observer?.ended(record, request.headers, body)
      if (body) {
        record.bytes.in = body.bytesRead
        body.release()
      }
      this.#running -= 1
      request.underway = undefined
      record.durationMs = performance.now() - started
      this.#events.emit('exchange', record)
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
    const { scrubBody } = target.config
    /** Made when something goes wrong: most requests need no second try. */
    let nextTry: NextTry | undefined
    let next: Next = { want: wantOf(request, target.requires), patient: true }
    /** What the client gets when nothing better can be had. */
    let refused: { attempt: Attempt; lease: Lease } | undefined
    let failure: WireError | undefined
    for (;;) {
      let lease: Lease | undefined
      try {
        lease =
          pool.lease(next.want) ??
          (await this.#wait(pool, next.patient ? next.want : atHand(next.want), request, record))
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
        return this.#answer(request, refused.attempt, refused.lease, reply, record, scrubBody)
      }
      recordSkipped(record, lease.passedOver)
      refused?.attempt.discard()
      refused = undefined
      let attempt: Attempt | undefined
      try {
        attempt = this.#dispatch(request, target, lease, body, reply, record)
        await attempt.answered
      } catch (error) {
        const upstream = error instanceof UpstreamError ? error : undefined
        pool.settle(lease, { kind: upstream?.code === 'EGRESS_DOWN' ? 'egress-down' : 'unknown' })
        if (!upstream) throw error
        if (attempt) recordAttempt(record, attempt, lease, lease.egress, upstream.code)
        failure = upstream
        nextTry ??= new NextTry(target, request, body, record, this.#clock)
        const again = nextTry.afterFailure(upstream, lease)
        if (!again) throw upstream
        next = again
        continue
      }
      const glance = target.judge.judge(attempt.status, attempt.headers)
      const verdict =
        lease.dpopKey && wantsNonce(request, attempt, lease)
          ? 'nonce'
          : glance === 'peek'
            ? await peek(attempt, target.judge)
            : glance
      recordAttempt(record, attempt, lease, lease.egress, verdict)
      if (verdict === 'ok' || verdict === 'upstream') {
        try {
          const passing = this.#answer(request, attempt, lease, reply, record, scrubBody)
          if (passing) await passing
        } finally {
          pool.settle(lease, OK)
        }
        return
      }
      nextTry ??= new NextTry(target, request, body, record, this.#clock)
      const again = await nextTry.afterRefusal(verdict, attempt.headers, lease)
      if (request.closed) return attempt.abort()
      if (!again) return this.#answer(request, attempt, lease, reply, record, scrubBody)
      refused = { attempt, lease }
      next = again
    }
  }

  async #wait(
    pool: TokenPool,
    want: LeaseRequest,
    request: ProxyRequest,
    record: ExchangeRecord,
  ): Promise<Lease> {
    const started = performance.now()
    try {
      const lease = await pool.wait(want, request)
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
    record: ExchangeRecord,
  ): Attempt {
    const { path, headers } = target.injector.apply(request, request.host, lease)
    if (target.config.scrubBody) askSearchable(headers)
    this.#runtime.observer?.leaving(record, headers, lease)
    if (lease.dpopKey) addProof(headers, request, path, lease, this.#clock.now())
    return this.#send(request, path, headers, body?.open() ?? null, reply, lease, lease.egress)
  }

  /** A path or host that no pool covers, or a login to learn from: what the client sent, without any token. */
  async #forward(
    request: ProxyRequest,
    reply: ProxyReply,
    record: ExchangeRecord,
    runtime: ExchangeRuntime,
    recorded: RequestBody | undefined,
    passage: Passage | undefined,
  ): Promise<void> {
    const headers = forwardHeaders(request.headers, request.host)
    runtime.observer?.leaving(record, headers, undefined)
    const body = recorded?.open() ?? request.body?.source ?? null
    const { egress, key } = passage?.way ?? { egress: runtime.passthroughEgress, key: '' }
    const attempt = this.#send(request, request.path, headers, body, reply, undefined, egress, key)
    try {
      await attempt.answered
    } catch (error) {
      recordAttempt(record, attempt, undefined, egress, (error as UpstreamError).code)
      throw error
    }
    recordAttempt(record, attempt, undefined, egress, 'ok')
    const to = passage?.watch(reply) ?? reply
    await this.#answer(request, attempt, undefined, to, record)
  }

  #send(
    request: ProxyRequest,
    path: string,
    headers: RawHeaders,
    body: UpstreamRequest['body'],
    reply: ProxyReply,
    lease: Lease | undefined,
    egress: string,
    key = lease?.key ?? '',
  ): Attempt {
    const { origin, method, upgrade, body: incoming } = request
    const trailers = incoming && (() => forwardTrailers(incoming.trailers(), headers))
    const attempt = new Attempt(
      this.#egresses.dispatcher(egress, key),
      { origin, method, path, headers, body, trailers, upgrade },
      new Hop(reply, lease),
    )
    request.underway = attempt
    if (request.closed) attempt.abort()
    return attempt
  }

  /**
   * Passes the answer on as it is, but for the token wherever upstream echoes it. Undefined when it has gone
   * out already, as most short ones have.
   */
  #answer(
    request: ProxyRequest,
    attempt: Attempt,
    lease: Lease | undefined,
    reply: ProxyReply,
    record: ExchangeRecord,
    scrubBody = false,
  ): Promise<void> | undefined {
    const token = lease?.token.reveal()
    const coding = scrubBody ? searchableCoding(request.method, attempt) : undefined
    let headers = scrubHeaders(attempt.headers, token)
    if (coding) headers = searchedHeaders(headers, coding)
    headers.push('Cupbearer-Trace', record.id)
    record.status = attempt.status
    record.verdict = record.attempts.at(-1)?.verdict ?? 'ok'
    const reason = redact(attempt.reason, token)
    const sink = this.#runtime.observer?.answered(record, reason, headers, reply) ?? reply
    const stream = attempt.takeUpgraded()
    if (stream) {
      record.kind = 'websocket'
      return reply.upgrade(attempt.status, reason, headers, stream).then((bytes) => {
        recordEnd(record, attempt, request)
        record.bytes = bytes
      })
    }
    reply.head(attempt.status, reason, headers)
    const passing = coding
      ? pipeScrubbed(request, attempt, { sink, coding, token: token ?? '' })
      : attempt.pipe(sink)
    if (passing) return passing.then(() => recordEnd(record, attempt, request))
    recordEnd(record, attempt, request)
    return undefined
  }
}

/** The pool that covers a request, as far as the client may use it. */
function match(request: ProxyRequest, runtime: ExchangeRuntime): PoolRuntime | undefined {
  const { method, client, route, path } = request
  if (method === 'TRACE' || method === 'TRACK') {
    throw new WireError('METHOD_REFUSED', `${method} is refused: it would echo the token`)
  }
  const name = route?.pick(path)
  const target = name === undefined ? undefined : runtime.pools.get(name)
  if (target && client.pools && !client.pools.has(target.pool.name)) {
    const message = `client ${client.name} may not use pool ${target.pool.name}`
    throw new WireError('DESTINATION_DENIED', message)
  }
  return target
}

/** The same for a request that takes only what is there. */
function atHand(want: LeaseRequest): LeaseRequest {
  return { ...want, waitMs: 0 }
}

/** What one attempt tells while it runs. */
class Hop implements AttemptHooks {
  readonly #reply: ProxyReply
  readonly #lease: Lease | undefined

  constructor(reply: ProxyReply, lease: Lease | undefined) {
    this.#reply = reply
    this.#lease = lease
  }

  sent(): void {
    this.#lease?.dispatched()
  }

  informational(status: number, reason: string, headers: RawHeaders): void {
    const token = this.#lease?.token.reveal()
    this.#reply.informational(status, redact(reason, token), scrubHeaders(headers, token))
  }

  trailers(trailers: RawHeaders): RawHeaders {
    return scrubHeaders(trailers, this.#lease?.token.reveal())
  }
}

async function takeBody(
  { source, length }: IncomingBody,
  limits: BodyLimits,
): Promise<RequestBody> {
  if (Buffer.isBuffer(source)) return new RequestBody(source, limits)
  if (length === undefined || length > Math.min(SMALL_BODY, limits.memory)) {
    return new RequestBody(source, limits)
  }
  const chunks: Buffer[] = []
  for await (const chunk of source) chunks.push(chunk as Buffer)
  return new RequestBody(
    chunks.length === 1 ? (chunks[0] as Buffer) : Buffer.concat(chunks),
    limits,
  )
}

async function peek(attempt: Attempt, judge: Judge): Promise<Verdict> {
  return judge.judgeBody(attempt.status, attempt.headers, await attempt.peek(PEEK_BYTES))
}
