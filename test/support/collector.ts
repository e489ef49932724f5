import { once } from 'node:events'
import { createServer, type IncomingHttpHeaders, type Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import { buffer } from 'node:stream/consumers'

export interface CollectedSpan {
  readonly traceId: string
  readonly spanId: string
  readonly parentSpanId: string | undefined
  readonly name: string
  readonly kind: number
  readonly startMs: number
  readonly endMs: number
  readonly attributes: Readonly<Record<string, unknown>>
  readonly events: readonly string[]
  /** 2 is an error. */
  readonly status: number
}

interface OtlpValue {
  stringValue?: string
  intValue?: number | string
  doubleValue?: number
  boolValue?: boolean
  arrayValue?: { values: OtlpValue[] }
}

/** An OpenTelemetry collector that speaks OTLP/HTTP with JSON. */
export class Collector implements AsyncDisposable {
  readonly #server: Server
  readonly url: string
  /** What is answered. */
  status = 200
  /** Never answers while set. */
  hangs = false
  readonly requests: { headers: IncomingHttpHeaders; body: Buffer }[] = []
  readonly spans: CollectedSpan[] = []
  resource: Readonly<Record<string, unknown>> = {}

  private constructor(server: Server) {
    this.#server = server
    this.url = `http://127.0.0.1:${(server.address() as AddressInfo).port}/v1/traces`
    server.on('request', async (request, response) => {
      const body = await buffer(request).catch(() => undefined)
      if (!body) return
      this.requests.push({ headers: request.headers, body })
      if (this.hangs) return
      if (this.status === 200) this.#take(body)
      response.writeHead(this.status, { 'content-type': 'application/json' }).end('{}')
    })
  }

  static async start(): Promise<Collector> {
    const server = createServer().listen(0, '127.0.0.1')
    await once(server, 'listening')
    return new Collector(server)
  }

  /** The span with this name, or with this attribute. */
  find(name: string, attribute?: readonly [string, unknown]): CollectedSpan {
    const span = this.spans.find(
      (each) =>
        each.name === name && (!attribute || each.attributes[attribute[0]] === attribute[1]),
    )
    if (!span) throw new Error(`no span ${name} among ${this.spans.map((each) => each.name)}`)
    return span
  }

  #take(body: Buffer): void {
    for (const { resource, scopeSpans } of JSON.parse(body.toString()).resourceSpans) {
      this.resource = attributesOf(resource.attributes)
      for (const { spans } of scopeSpans) {
        for (const span of spans) {
          this.spans.push({
            traceId: span.traceId,
            spanId: span.spanId,
            parentSpanId: span.parentSpanId,
            name: span.name,
            kind: span.kind,
            startMs: milliseconds(span.startTimeUnixNano),
            endMs: milliseconds(span.endTimeUnixNano),
            attributes: attributesOf(span.attributes),
            events: span.events.map((event: { name: string }) => event.name),
            status: span.status.code ?? 0,
          })
        }
      }
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#server.closeAllConnections()
    this.#server.close()
    await once(this.#server, 'close')
  }
}

/** To the hundredth: a double holds no more of a time of day. */
function milliseconds(nanoseconds: string): number {
  return Math.round(Number(BigInt(nanoseconds)) / 1e4) / 100
}

function attributesOf(list: readonly { key: string; value: OtlpValue }[]): Record<string, unknown> {
  return Object.fromEntries(list.map(({ key, value }) => [key, plainValue(value)]))
}

function plainValue(value: OtlpValue): unknown {
  if (value.arrayValue) return value.arrayValue.values.map(plainValue)
  if (value.intValue !== undefined) return Number(value.intValue)
  return value.stringValue ?? value.doubleValue ?? value.boolValue
}
