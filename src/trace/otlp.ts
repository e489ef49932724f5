import { setTimeout } from 'node:timers/promises'
import {
  type Attributes,
  type Context,
  ROOT_CONTEXT,
  type Span,
  SpanKind,
  SpanStatusCode,
  TraceFlags,
  type Tracer,
  trace as tracing,
} from '@opentelemetry/api'
import { OTLPTraceExporter } from '@opentelemetry/exporter-trace-otlp-http'
import { resourceFromAttributes } from '@opentelemetry/resources'
import {
  BasicTracerProvider,
  BatchSpanProcessor,
  ParentBasedSampler,
  RandomIdGenerator,
  type SpanExporter,
  TraceIdRatioBasedSampler,
} from '@opentelemetry/sdk-trace-base'
import type { Logger } from '../lib/log.ts'
import type { Secret } from '../lib/secret.ts'
import type { TraceRecorder } from './recorder.ts'
import type { Trace, TraceAttempt } from './trace.ts'

export interface OtlpOptions {
  /** The collector's, `/v1/traces` included. */
  readonly url: string
  readonly headers: Readonly<Record<string, Secret>>
  /** Share of the traces that begin here; those that a client has begun follow its choice. */
  readonly sample: number
  readonly service: string
}

const QUEUE = 4096
const BATCH = 512
const EXPORT_TIMEOUT_MS = 5000
/** How long the end waits for the last export. */
const CLOSE_MS = 2000
/** How often a collector that fails is told of in the log. */
const COMPLAIN_EVERY_MS = 60_000

/**
 * Sends a span for each exchange, and one for each of its attempts and renewals, to a collector, after the
 * exchange is over: nothing waits for it. What the collector does not take is dropped beyond a bounded queue.
 */
export class OtlpExporter {
  readonly #provider: BasicTracerProvider
  readonly #tracer: Tracer
  readonly #ids = new Ids()
  readonly #unsubscribe: () => void

  constructor(recorder: Pick<TraceRecorder, 'subscribe'>, options: OtlpOptions, log: Logger) {
    const headers = Object.fromEntries(
      Object.entries(options.headers).map(([name, value]) => [name, value.reveal()]),
    )
    const exporter = new OTLPTraceExporter({
      url: options.url,
      headers,
      timeoutMillis: EXPORT_TIMEOUT_MS,
      // The whole queue at once, as at the end.
      concurrencyLimit: QUEUE / BATCH + 1,
    })
    this.#provider = new BasicTracerProvider({
      resource: resourceFromAttributes({ 'service.name': options.service }),
      sampler: new ParentBasedSampler({ root: new TraceIdRatioBasedSampler(options.sample) }),
      idGenerator: this.#ids,
      spanProcessors: [
        new BatchSpanProcessor(complaining(exporter, log), {
          maxQueueSize: QUEUE,
          maxExportBatchSize: BATCH,
          scheduledDelayMillis: 1000,
          exportTimeoutMillis: EXPORT_TIMEOUT_MS,
        }),
      ],
    })
    this.#tracer = this.#provider.getTracer('cupbearer')
    this.#unsubscribe = recorder.subscribe((trace) => this.#export(trace))
  }

  /** Sends what waits; a collector that does not answer holds up no stop for longer than a moment. */
  async close(): Promise<void> {
    this.#unsubscribe()
    const abort = new AbortController()
    const shutdown = this.#provider.shutdown().catch(() => {})
    const late = setTimeout(CLOSE_MS, undefined, { signal: abort.signal }).catch(() => {})
    await Promise.race([shutdown, late])
    abort.abort()
  }

  #export(trace: Trace): void {
    const start = Date.parse(trace.time)
    const span = this.#begin(trace, start)
    if (!span.isRecording()) {
      span.end()
      return
    }
    const within = tracing.setSpan(ROOT_CONTEXT, span)
    const end = start + trace.durationMs
    const { kind } = trace
    for (const [index, attempt] of trace.attempts.entries()) {
      this.#attempt(trace, attempt, index, start, end, within)
    }
    if (kind !== 'refresh' && trace.refresh) this.#refresh(trace.refresh, start, end, within)
    if (trace.waitMs > 0) span.addEvent('waited for a token', { 'cupbearer.wait_ms': trace.waitMs })
    span.setAttributes(exchangeAttributes(trace))
    if (trace.error || (trace.status ?? 0) >= 500) {
      span.setStatus({
        code: SpanStatusCode.ERROR,
        ...(trace.error && { message: trace.error.message }),
      })
      span.setAttribute('error.type', trace.error?.code ?? String(trace.status))
    }
    span.end(end)
  }

  #begin(trace: Trace, start: number): Span {
    const parent = parentOf(trace.parent)
    this.#ids.next = trace.span
    try {
      const name =
        trace.kind === 'refresh' ? 'refresh' : trace.method === '-' ? 'HTTP' : trace.method
      const kind = trace.kind === 'refresh' ? SpanKind.INTERNAL : SpanKind.SERVER
      return this.#tracer.startSpan(name, { kind, startTime: start }, parent)
    } finally {
      this.#ids.next = undefined
    }
  }

  #attempt(
    trace: Trace,
    attempt: TraceAttempt,
    index: number,
    start: number,
    end: number,
    within: Context,
  ): void {
    const { call } = attempt
    // A renewal without any request of its own has nothing else to tell.
    if (trace.kind === 'refresh' && !call) return
    const method = call?.method ?? trace.method
    const from = start + (attempt.startMs ?? Math.max(0, end - start - attempt.totalMs))
    const span = this.#tracer.startSpan(method, { kind: SpanKind.CLIENT, startTime: from }, within)
    span.setAttributes({
      ...urlAttributes(call?.url ?? trace.url),
      'http.request.method': method,
      ...known('http.response.status_code', attempt.status),
      ...(index > 0 && trace.kind !== 'refresh' && { 'http.request.resend_count': index }),
      ...peerAttributes(attempt.address),
      ...protocolAttributes(attempt.protocol),
      ...known('cupbearer.credential', attempt.credential),
      ...known('cupbearer.generation', attempt.generation),
      'cupbearer.egress': attempt.egress,
      ...known('cupbearer.egress.address', attempt.egressAddress),
      'cupbearer.verdict': attempt.verdict,
      'cupbearer.connection.reused': attempt.reused,
      ...known('cupbearer.dns_ms', attempt.dnsMs),
      ...known('cupbearer.connect_ms', attempt.connectMs),
      ...known('cupbearer.tls_ms', attempt.tlsMs),
    })
    if (typeof attempt.firstByteMs === 'number') {
      span.addEvent('first byte', {}, from + attempt.firstByteMs)
    }
    if (attempt.status === null || attempt.status >= 400) {
      span.setStatus({ code: SpanStatusCode.ERROR })
      span.setAttribute(
        'error.type',
        attempt.status === null ? attempt.verdict : String(attempt.status),
      )
    }
    span.end(from + attempt.totalMs)
  }

  #refresh(
    refresh: NonNullable<Trace['refresh']>,
    start: number,
    end: number,
    within: Context,
  ): void {
    const from = start + (refresh.startMs ?? Math.max(0, end - start - refresh.ms))
    const span = this.#tracer.startSpan('refresh', { startTime: from }, within)
    span.setAttributes({
      'cupbearer.refresh.role': refresh.role,
      'cupbearer.refresh.result': refresh.result,
      ...known('cupbearer.refresh.trace', refresh.trace),
    })
    if (refresh.result === 'failed') span.setStatus({ code: SpanStatusCode.ERROR })
    span.end(from + refresh.ms)
  }
}

/** Ids at random, but for the span that upstream has been told of. */
class Ids extends RandomIdGenerator {
  next: readonly [string, string] | undefined
  readonly #random = new RandomIdGenerator()

  override generateTraceId = (): string => this.next?.[0] ?? this.#random.generateTraceId()
  override generateSpanId = (): string => this.next?.[1] ?? this.#random.generateSpanId()
}

/** W3C Trace Context: `version-traceid-spanid-flags`. */
function parentOf(traceparent: string | undefined): Context {
  const [, traceId, spanId, flags] = traceparent?.split('-') ?? []
  if (!traceId || !spanId || !flags) return ROOT_CONTEXT
  return tracing.setSpanContext(ROOT_CONTEXT, {
    traceId,
    spanId,
    traceFlags: Number.parseInt(flags, 16) & TraceFlags.SAMPLED,
    isRemote: true,
  })
}

/** By the semantic conventions of OpenTelemetry for HTTP, and by names of our own. */
function exchangeAttributes(trace: Trace): Attributes {
  return {
    'cupbearer.trace': trace.id,
    'cupbearer.kind': trace.kind,
    'cupbearer.verdict': trace.verdict,
    ...known('cupbearer.pool', trace.pool),
    ...known('cupbearer.client', trace.client.name),
    ...(trace.replay && { 'cupbearer.replay': trace.replay.why }),
    ...(trace.skipped.length > 0 && {
      'cupbearer.skipped': trace.skipped.map(({ credential, why }) => `${credential}: ${why}`),
    }),
    ...(trace.kind === 'refresh'
      ? known('cupbearer.credential', trace.attempts[0]?.credential)
      : {
          'http.request.method': trace.method,
          ...urlAttributes(trace.url),
          ...known('http.response.status_code', trace.status),
          'client.address': trace.client.address,
          ...protocolAttributes(trace.protocol),
          'cupbearer.wait_ms': trace.waitMs,
        }),
  }
}

function urlAttributes(url: string): Attributes {
  if (!URL.canParse(url)) return {}
  const { protocol, hostname, port } = new URL(url)
  return {
    'url.full': url,
    'url.scheme': protocol.slice(0, -1),
    'server.address': hostname.replace(/^\[|\]$/g, ''),
    'server.port': Number(port) || (protocol === 'https:' ? 443 : 80),
  }
}

function peerAttributes(address: string | null): Attributes {
  const match = /^(.*):(\d+)$/.exec(address ?? '')
  if (!match) return {}
  const host = (match[1] as string).replace(/^\[|\]$/g, '')
  return { 'network.peer.address': host, 'network.peer.port': Number(match[2]) }
}

function protocolAttributes(protocol: Trace['protocol'] | undefined): Attributes {
  return protocol ? { 'network.protocol.version': protocol === 'h2' ? '2' : '1.1' } : {}
}

function known(name: string, value: string | number | null | undefined): Attributes {
  return value === null || value === undefined ? {} : { [name]: value }
}

/** The same exporter; that it fails is said now and then, without what the collector has said. */
function complaining(exporter: SpanExporter, log: Logger): SpanExporter {
  let complainedAt = Number.NEGATIVE_INFINITY
  return {
    export: (spans, done) =>
      exporter.export(spans, (result) => {
        const now = performance.now()
        if (result.error && now - complainedAt > COMPLAIN_EVERY_MS) {
          complainedAt = now
          log.warn({ spans: spans.length }, 'the collector did not take the spans')
        }
        done(result)
      }),
    forceFlush: async () => exporter.forceFlush?.(),
    shutdown: () => exporter.shutdown(),
  }
}
