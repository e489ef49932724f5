import { type Config, configSchema } from '../../src/config/schema.ts'
import { Egresses } from '../../src/egress/egress.ts'
import type { UpstreamRequest } from '../../src/egress/upstream.ts'
import { UpstreamError } from '../../src/errors.ts'
import { type EventMap, Events } from '../../src/events.ts'
import { type Clock, systemClock } from '../../src/lib/clock.ts'
import { testAuthority } from '../support/certificates.ts'
import { Response } from './response.ts'

export interface HarnessOptions {
  readonly egress?: Record<string, string | object>
  readonly upstream?: Record<string, unknown>
  readonly forbidden?: (address: string, port: number) => boolean
  readonly clock?: Clock
}

/** Egresses as an app makes them, with the test CA trusted and what they report recorded. */
export class Harness implements AsyncDisposable {
  readonly egresses: Egresses
  /** `name up` or `name down`, in order. */
  readonly changes: string[] = []
  readonly messages: string[] = []
  /** What probes have told. */
  readonly news: EventMap['address'][0][] = []
  readonly events = new Events()

  constructor(options: HarnessOptions = {}) {
    this.events.on('address', (news) => this.news.push(news))
    this.events.on('egress', ({ egress, up, reason }) => {
      this.changes.push(`${egress} ${up ? 'up' : 'down'}`)
      this.messages.push(reason)
    })
    this.egresses = new Egresses({
      ...settings(options),
      forbidden: options.forbidden ?? (() => false),
      events: this.events,
      clock: options.clock ?? systemClock,
    })
  }

  apply(options: HarnessOptions): void {
    const { egress, upstream } = settings(options)
    this.egresses.apply(egress, upstream)
  }

  /** A request by one egress; rejects with `UpstreamError`. */
  async request(egress: string, url: string, key = ''): Promise<Answer> {
    const response = await this.send(egress, url, key).whole
    return { ...(JSON.parse(response.text) as Answer), status: response.status }
  }

  /** A request whose response is looked at while it comes. */
  send(egress: string, url: string, key = '', request: Partial<UpstreamRequest> = {}): Response {
    const { origin, pathname, search } = new URL(url)
    const path = pathname + search
    return new Response(this.egresses.dispatcher(egress, key), { origin, path, ...request })
  }

  /** The code of the failure that a request ends with. */
  async failure(egress: string, url: string, key = ''): Promise<UpstreamError> {
    return failureOf(this.request(egress, url, key))
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.egresses.close()
  }
}

export interface Answer {
  readonly status: number
  readonly remoteAddress: string
  readonly connection: number
}

export async function failureOf(promise: Promise<unknown>): Promise<UpstreamError> {
  try {
    await promise
  } catch (error) {
    if (error instanceof UpstreamError) return error
    throw error
  }
  throw new Error('expected a failure')
}

export function settings(options: HarnessOptions): Pick<Config, 'egress' | 'upstream'> {
  const { egress, upstream } = configSchema.parse({
    egress: options.egress ?? {},
    upstream: { ca: [testAuthority().caFile], ...options.upstream },
  })
  return { egress, upstream }
}
