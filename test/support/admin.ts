import { request } from 'node:http'
import { Activity } from '../../src/admin/activity.ts'
import type { AdminBackend, IdentifiedClient } from '../../src/admin/backend.ts'
import { History } from '../../src/admin/history.ts'
import { type AdminServer, startAdmin } from '../../src/admin/server.ts'
import { CupbearerError, WireError } from '../../src/errors.ts'
import { Events, type ExchangeRecord } from '../../src/events.ts'
import { createLog } from '../../src/lib/log.ts'
import { Secret } from '../../src/lib/secret.ts'
import { createMetrics, type Metrics } from '../../src/metrics.ts'
import type { Lesson } from '../../src/pool/learning.ts'
import type { CredentialStatus, PoolStatus } from '../../src/pool/lease.ts'
import type { LoginDialogue } from '../../src/sources/source.ts'
import { TraceRecorder } from '../../src/trace/recorder.ts'
import { ManualClock } from './manual-clock.ts'

export const ADMIN_TOKEN = 'the-admin-token-of-this-test'

export interface Answer {
  status: number
  headers: Record<string, string | string[] | undefined>
  text: string
  json: () => Record<string, unknown>
}

/** An admin server on a free port over a backend that the test holds in its hands. */
export class TestAdmin {
  readonly events = new Events()
  readonly clock = new ManualClock()
  readonly actions: string[] = []
  pools: PoolStatus[] = [samplePool()]
  readiness = { ready: true, reasons: [] as string[] }
  failure: Error | undefined
  /** What a login does; by default it succeeds at once. */
  login: (
    tell: LoginDialogue['tell'],
    answer: LoginDialogue['answer'],
    signal: AbortSignal,
  ) => Promise<void> = async () => {}
  /** What a capture learns; by default of alice, at once. */
  capture: (note: (message: string) => void, signal: AbortSignal) => Promise<Lesson> =
    async () => ({
      credential: 'alice',
      subject: undefined,
      scopes: undefined,
      expiresAt: undefined,
      renews: true,
    })
  /** Gives no lease and knows none, unless a test says otherwise. */
  leases: AdminBackend['leases'] = {
    open: async () => undefined,
    report: async () => 'unknown',
  }
  identify: (authorization: string) => IdentifiedClient = () => {
    throw new WireError('CLIENT_UNAUTHENTICATED', 'proxy credentials are missing or wrong')
  }
  readonly #recorder: TraceRecorder
  readonly #metrics: Metrics
  readonly #activity = new Activity(this.events)
  /** By a clock of its own: its timer is nobody's leak. */
  readonly historyClock = new ManualClock()
  readonly #history = new History(this.events, () => this.pools, this.historyClock)
  /** Whether an egress is up. */
  egresses: { name: string; up: boolean }[] = [
    { name: 'direct', up: true },
    { name: 'one', up: true },
  ]
  #server: AdminServer | undefined

  private constructor() {
    this.#recorder = new TraceRecorder(this.events, { capacity: 100 })
    this.#metrics = createMetrics(
      this.events,
      () => this.pools,
      () => [],
    )
  }

  static async start(options: { host?: string; port?: number } = {}): Promise<TestAdmin> {
    const admin = new TestAdmin()
    admin.#server = await startAdmin({
      ...(await admin.options()),
      listen: { host: options.host ?? '127.0.0.1', port: options.port ?? 0 },
    })
    return admin
  }

  async options(): Promise<Omit<Parameters<typeof startAdmin>[0], 'listen'>> {
    return {
      token: new Secret(ADMIN_TOKEN),
      backend: this.#backend(),
      log: await createLog({ level: 'silent', format: 'json' }),
      clock: this.clock,
    }
  }

  #backend(): AdminBackend {
    return {
      pools: () => this.pools,
      act: async (pool, credential, action) => {
        if (this.failure) throw this.failure
        this.actions.push(`${action} ${pool}/${credential}`)
        const known = this.pools.find((candidate) => candidate.name === pool)
        return known?.credentials.some(({ id }) => id === credential) ? 'done' : 'unknown'
      },
      login: async (_pool, _credential, { tell, answer }, signal) =>
        this.login(tell, answer, signal),
      capture: async (_pool, listener, signal) => this.capture(listener.note, signal),
      leafKeyHash: () => 'aGFzaA==',
      leases: {
        open: async (...asked) => this.leases.open(...asked),
        report: async (...asked) => this.leases.report(...asked),
      },
      identify: (authorization) => this.identify(authorization),
      traces: this.#recorder,
      ready: () => this.readiness,
      metrics: (accept) => this.#metrics.scrape(accept),
      caPem: () => '-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n',
      proxyUrl: () => 'http://127.0.0.1:8080',
      egressAddress: (egress) => (egress === 'one' ? '192.0.2.1' : undefined),
      egresses: () => this.egresses,
      history: this.#history,
      activity: this.#activity,
    }
  }

  get server(): AdminServer {
    if (!this.#server) throw new CupbearerError('INTERNAL', 'not started')
    return this.#server
  }

  /** One request on a connection of its own, by the admin token unless told otherwise. */
  ask(
    path: string,
    options: {
      method?: string
      headers?: Record<string, string>
      token?: string | null
      body?: string
    } = {},
  ): Promise<Answer> {
    const { method = 'GET', token = ADMIN_TOKEN, body } = options
    const headers = {
      ...(token !== null && { authorization: `Bearer ${token}` }),
      ...options.headers,
    }
    const { hostname, port } = new URL(this.server.url)
    return new Promise((resolve, reject) => {
      const asked = request({ host: hostname, port, path, method, headers, agent: false })
      asked.on('error', reject)
      asked.on('response', (response) => {
        let text = ''
        response.setEncoding('utf8')
        response.on('data', (chunk: string) => {
          text += chunk
        })
        response.on('end', () =>
          resolve({
            status: response.statusCode ?? 0,
            headers: response.headers,
            text,
            json: () => JSON.parse(text),
          }),
        )
      })
      asked.end(body)
    })
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#server?.close()
    this.#recorder.close()
    this.#metrics.close()
    this.#history.close()
    this.#activity.close()
  }
}

export function sampleCredential(changes: Partial<CredentialStatus> = {}): CredentialStatus {
  return {
    id: 'alice',
    state: 'active',
    egress: 'one',
    generation: 3,
    subject: 'alice@example.com',
    scopes: ['read'],
    issuedAt: Date.parse('2030-01-01T00:00:00Z'),
    expiresAt: Date.parse('2030-01-01T01:00:00Z'),
    lifetime: 'jwt',
    refreshAt: Date.parse('2030-01-01T00:54:00Z'),
    uses: 12,
    inFlight: 1,
    limits: [{ limit: '10/s', used: 2, max: 10 }],
    cooldownUntil: undefined,
    lastError: undefined,
    ...changes,
  }
}

export function samplePool(changes: Partial<PoolStatus> = {}): PoolStatus {
  return {
    name: 'supplier',
    targets: ['api.example.com', '*.example.org'],
    status: 'healthy',
    tokens: { active: 1, cooling: 0, quarantined: 0, pending: 0, revoked: 0 },
    avgTtlRemainingSeconds: 1800,
    refreshSuccessRate: 1,
    requestsPerTokenPerMinute: 4.5,
    authOverhead: 0.01,
    waiting: 0,
    credentials: [sampleCredential()],
    ...changes,
  }
}

export function sampleExchange(changes: Partial<ExchangeRecord> = {}): ExchangeRecord {
  return {
    id: 'trace-1',
    time: Date.parse('2030-01-01T00:00:00Z'),
    kind: 'exchange',
    client: { name: undefined, address: '127.0.0.1' },
    method: 'GET',
    url: 'https://api.example.com/v1/items?page=2',
    pool: 'supplier',
    status: 200,
    durationMs: 42.1234567,
    waitMs: 0,
    verdict: 'ok',
    skipped: [],
    attempts: [
      {
        credential: 'alice',
        generation: 3,
        egress: 'one',
        address: '192.0.2.7:443',
        status: 200,
        verdict: 'ok',
        connectMs: undefined,
        tlsMs: undefined,
        firstByteMs: 40,
        totalMs: 42,
        reused: true,
      },
    ],
    refresh: undefined,
    replay: undefined,
    bytes: { in: 0, out: 1024 },
    error: undefined,
    ...changes,
  }
}
